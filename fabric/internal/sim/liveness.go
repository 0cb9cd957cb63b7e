package sim

import "time"

// settle ends the safety phase: what was to pass has passed, but some faults
// stay for ever.
func (w *world) settle() {
	if w.failure != nil {
		return
	}
	w.settling = true
	w.log(nil, "no more faults, but for those that stay")
	w.dir.silent = false
	for _, from := range w.hosts {
		for _, to := range w.hosts {
			if !w.net.passes(from.index, to.index) {
				w.net.fill(from.index, to.index)
			}
		}
	}
	for _, n := range w.nodes {
		switch {
		case n.gone:
		case n.host.node != n:
			w.log(n, "is killed, as another has its name")
			n.die(w.dice.percent(50))
		default:
			w.resume(n)
			for _, c := range n.consumers {
				if c.stalled {
					c.goOn()
				}
			}
		}
	}
	w.stay()
	for _, h := range w.hosts {
		if h.node == nil && !h.dead {
			w.restart(h, w.dice.span(0, time.Second))
		}
	}
}

// stay draws the faults that stay for ever.
func (w *world) stay() {
	if w.dice.percent(25) {
		h := w.hosts[w.dice.IntN(len(w.hosts))]
		h.dead = true
		w.log(nil, "%s is dead", h.name)
		if h.node != nil {
			h.node.die(w.dice.percent(50))
		}
		w.counts.add(stayedDead, 1)
	}
	if w.dice.percent(25) {
		from := w.dice.IntN(len(w.hosts))
		to := (from + 1 + w.dice.IntN(len(w.hosts)-1)) % len(w.hosts)
		w.broken[[2]int{min(from, to), max(from, to)}] = true
		w.hole(from, to, w.dice.percent(60))
		w.counts.add(stayedCut, 1)
	}
	if w.dice.percent(40) {
		for range w.dice.from(1, 3) {
			n := w.someNode()
			if n == nil || len(n.consumers) == 0 {
				continue
			}
			c := n.consumers[w.dice.IntN(len(n.consumers))]
			c.stalled, c.forEver = true, true
			w.log(n, "consumer %d of %s stalls for ever", c.index, c.ch.plan.name)
			w.counts.add(stayedStalled, 1)
		}
	}
}

// goOn ends a stall that is to end.
func (c *consumer) goOn() {
	if c.stalled && !c.forEver {
		c.stalled = false
		c.wake()
	}
}

// joined reports whether two lives can reach each other to the end.
func (w *world) joined(a, b *node) bool {
	return a != nil && b != nil && !a.gone && !b.gone && a.host.node == a && b.host.node == b &&
		!w.broken[[2]int{min(a.host.index, b.host.index), max(a.host.index, b.host.index)}]
}

// patience is how long the liveness phase may take: the longest chain of
// timeouts, and then some for the traffic.
func (w *world) patience() time.Duration {
	return 3*w.plan.window + 20*w.silence() + 2*lease + 10*patience + 2*time.Minute
}

// done reports whether everything healthy has finished.
func (w *world) done() bool { return w.unfinished() == "" }

func (w *world) checkDone() {
	if what := w.unfinished(); w.failure == nil && what != "" {
		w.fail("no end after %v: %s", w.patience(), what)
	}
}

// unfinished is something that is not yet as it must be at the end.
func (w *world) unfinished() string {
	for _, h := range w.hosts {
		if h.dead {
			continue
		}
		if h.node == nil || h.node.leaving {
			return h.name + " is not there yet"
		}
		if h.node.word > w.now || h.node.coming > 0 {
			return h.node.String() + " has not heard of all, or does not have all that it will have"
		}
		for _, c := range h.node.consumers {
			if c.draining && !c.stalled && c.meets() {
				return h.node.String() + " has a consumer that drains"
			}
		}
		for _, p := range h.node.producers {
			if !p.left {
				return h.node.String() + " has a producer that has not finished"
			}
		}
		for _, p := range h.node.peers {
			if p == nil || !w.joined(h.node, p.host.node) {
				continue
			}
			if p.end == nil && p.needs() {
				return h.node.String() + " has no link with " + p.host.name
			}
			if p.end != nil && (p.end.other.peer == nil || p.end.other.closed) {
				return h.node.String() + " has a link that " + p.host.name + " does not have"
			}
		}
	}
	for _, g := range w.ledgers {
		if what := g.unfinished(); what != "" {
			return g.String() + " " + what
		}
	}
	for _, k := range w.intakes {
		if what := k.unfinished(); what != "" {
			return k.String() + " " + what
		}
	}
	return ""
}

// unfinished says what a producer's end still waits for.
func (g *ledger) unfinished() string {
	w, n := g.peer.node.w, g.peer.node
	switch {
	case n.gone || n.leaving || g.ended:
		return ""
	case !g.bound && len(g.entries) > 0 && w.consumes(g):
		return "was not opened by its consumer"
	case !g.bound:
		return "" // nobody's
	}
	k := g.pair.intake
	if !w.joined(n, k.consumer.node) {
		return "is not lost, although there is no way to its consumer"
	}
	if k.consumer.stalled {
		return ""
	}
	v := g.s.View()
	switch {
	case k.given || k.over:
		return "is not lost, although its consumer is gone"
	case len(g.flushes) > 0:
		return "has a Flush that does not end"
	case v.Consumed.Messages != uint64(len(g.entries)) || v.Consumed.Bytes != g.bytes:
		return "does not know that all is handled"
	case v.Held != 0 || v.Waiters != 0:
		return "holds messages"
	}
	return ""
}

// consumes reports whether the consumer of g is there, can be reached, and asks
// for what g has: the directory names producers of g, or has named some, so that
// there is a stream from the node, whose open may be on its way. What producers
// have left behind that have finished waits for a consumer that asks for it.
func (w *world) consumes(g *ledger) bool {
	from, to := g.peer.node, g.peer.host.node
	if !w.joined(from, to) {
		return false
	}
	for _, c := range to.consumers {
		if c.ch.plan.name == g.s.Channel() && c.index == g.s.Index() && !c.closed && !c.draining {
			k := c.streams[from.host.index]
			open := k != nil && !k.over && !c.stalled // which would not see its end
			return open || w.dir.produces(from, g.s.Channel())
		}
	}
	return false
}

// unfinished says what a consumer's end still waits for.
func (k *intake) unfinished() string {
	w, n := k.peer.node.w, k.peer.node
	if n.gone || n.leaving || k.told || k.given || k.consumer.stalled || len(k.pair.ledgers) == 0 {
		return ""
	}
	if k.over {
		return "has an end that its consumer does not know of"
	}
	for _, g := range k.pair.ledgers {
		if !g.ended && w.joined(n, g.peer.node) && k.got == len(g.entries) {
			return ""
		}
	}
	return "has neither all messages nor a loss"
}

// tearDown closes all consumers: everything that was lent or held comes back.
func (w *world) tearDown() {
	if w.failure != nil {
		return
	}
	w.log(nil, "all consumers close")
	for _, n := range w.nodes {
		if !n.gone {
			for len(n.consumers) > 0 {
				n.consumers[0].close()
			}
			w.check(n)
		}
	}
	back := func() bool { return w.held() == "" }
	w.until(w.now+w.patience(), back)
	if what := w.held(); w.failure == nil && what != "" {
		w.fail("after all consumers have closed, %s", what)
	}
}

// check has all links of a node checked.
func (w *world) check(n *node) {
	for _, p := range n.peers {
		if p != nil {
			p.touched()
		}
	}
}

// held is something that was not given back.
func (w *world) held() string {
	for _, n := range w.nodes {
		if !n.gone && n.cfg.Budget.Lent() != 0 {
			return n.String() + " has lent memory"
		}
	}
	for _, g := range w.ledgers {
		n := g.peer.node
		if n.gone || !g.bound || n.leaving {
			continue
		}
		if !g.ended {
			return g.String() + " is not lost"
		}
	}
	return ""
}

// tally adds up what the links have counted.
func (w *world) tally() {
	w.counts.add(lives, len(w.nodes))
	w.counts.add(streams, len(w.intakes))
	for _, n := range w.nodes {
		for _, p := range n.peers {
			if p != nil {
				_, c := p.link.Stats(nil)
				w.counts.add(resent, int(c.Resent))
				w.counts.add(repeated, int(c.Duplicates))
				w.counts.add(lateRecords, int(c.Late))
			}
		}
	}
}
