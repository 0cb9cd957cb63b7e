package sim

import "time"

// strike lets a fault happen to a node or a connection.
func (w *world) strike(f fault, n *node, c *conn) {
	hit := false
	switch f {
	case faultCut, faultHalfOpen, faultSlow:
		if c != nil && !c.ends[0].closed && !c.ends[1].closed {
			hit = w.strikeConn(c, f)
		}
	case faultHole, faultBlackHole:
		hit = w.strikePath(n, f)
	case faultPause:
		if n.paused {
			return
		}
		n.pause()
		w.log(n, "is paused")
		w.at(w.now+w.dice.span(0, 3*w.silence()), nil, func() { w.resume(n) })
		hit = n.traffic()
	case faultKill, faultCrash, faultZombie, faultLeave:
		hit = w.strikeLife(n, f)
	case faultDial:
		hit = n.dialAgain()
	case faultBurst:
		ticks := w.dice.from(2, w.plan.deadTicks+2)
		w.log(n, "has its clock tick %d times at once", ticks)
		n.shake(n.w.plan.wakeTime)
		for range ticks {
			n.after(n.soon(), n.beat)
		}
		hit = n.traffic()
	case faultSkip:
		n.skip = w.dice.span(0, 3*w.silence())
		n.shake(n.skip + w.plan.interval)
		w.log(n, "has its clock stand still for %v", n.skip)
		hit = n.traffic()
	case faultStall, faultClose, faultDrain:
		hit = n.strikeConsumer(f)
	case faultFinish:
		hit = n.strikeProducer()
	case faultSilence:
		w.dir.silent = true
		w.log(nil, "the directory is silent")
		w.at(w.now+w.dice.span(0, 5*time.Second), nil, func() { w.dir.silent = false })
		hit = true
	}
	w.counts.struck(f, hit)
	w.compound(n, f)
}

// compound has a connection of a node break soon after something has begun that
// both ends must agree on: that is where words cross.
func (w *world) compound(n *node, f fault) {
	switch f {
	case faultClose, faultDrain, faultFinish, faultStall, faultLeave, faultCut:
	default:
		return
	}
	if w.plan.faults[faultCut] == 0 || w.dice.percent(40) {
		return
	}
	w.at(w.now+w.dice.span(0, one[time.Duration](w.dice, 1, 3, 30)*w.net.lag[1]+w.plan.wakeTime), nil, func() {
		if c := w.someConn(n); c != nil && !w.settling {
			f := one(w.dice, faultCut, faultHalfOpen)
			w.counts.struck(f, w.strikeConn(c, f))
		}
	})
}

// silence is after how long a silent peer is given up.
func (w *world) silence() time.Duration { return w.plan.interval * time.Duration(w.plan.deadTicks) }

// someNode is a node that lives, perhaps outdated.
func (w *world) someNode() *node {
	var list []*node
	for _, n := range w.nodes {
		if !n.gone && !n.leaving {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[w.dice.IntN(len(list))]
}

func (w *world) resume(n *node) {
	if n.gone || !n.paused {
		return
	}
	w.log(n, "goes on")
	n.resume()
}

// traffic reports whether something is under way to or from the node.
func (n *node) traffic() bool {
	for _, e := range n.ends {
		if !e.closed && (e.out.bytes > 0 || e.in() > 0) {
			return true
		}
	}
	return n.pending()
}

// pending reports whether the node holds messages that are not acknowledged.
func (n *node) pending() bool {
	for _, p := range n.peers {
		if p != nil && p.link.Pending() {
			return true
		}
	}
	return false
}

// someConn is a connection of a node, or of any if that is nil.
func (w *world) someConn(n *node) *conn {
	var open []*conn
	for _, c := range w.net.conns {
		a, b := c.ends[0], c.ends[1]
		if !a.closed && !b.closed && (n == nil || a.node == n || b.node == n) {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return open[w.dice.IntN(len(open))]
}

func (w *world) strikeConn(c *conn, f fault) (hit bool) {
	w.log(nil, "%s of %s between %s and %s, with %d and %d bytes under way", f, c, c.ends[0].node, c.ends[1].node,
		c.ends[0].out.bytes, c.ends[1].out.bytes)
	for _, e := range c.ends {
		hit = hit || e.out.bytes > 0 || e.writing != nil || e.peer != nil && e.peer.link.Pending()
	}
	side := w.dice.IntN(2)
	a, b := c.ends[side], c.ends[1-side]
	switch f {
	case faultCut:
		a.out.lose(true)
		b.out.lose(true)
	case faultHalfOpen:
		a.out.lose(true)
		b.out.lose(false)
	case faultSlow:
		// One end takes its connection for broken, while the other still reads.
		late := w.now + w.dice.span(0, 2*w.silence())
		for i := range b.other.out.queue {
			b.other.out.queue[i].due = max(b.other.out.queue[i].due, late)
			a.shaken, b.shaken = true, true
		}
		if w.dice.percent(70) && !a.closed && a.peer != nil {
			a.node.after(a.node.soon(), func() {
				if a.peer != nil {
					a.close("it seems broken")
				}
			})
		}
	}
	return hit
}

func (w *world) strikePath(n *node, f fault) (hit bool) {
	from := n.host.index
	to := (from + 1 + w.dice.IntN(len(w.hosts)-1)) % len(w.hosts)
	w.hole(from, to, f == faultBlackHole)
	w.at(w.now+w.dice.span(0, 4*w.silence()), nil, func() {
		if !w.broken[[2]int{min(from, to), max(from, to)}] {
			w.log(nil, "%s: packets pass again to %s", w.hosts[from].name, w.hosts[to].name)
			w.net.fill(from, to)
			w.net.fill(to, from)
		}
	})
	for _, c := range w.net.conns {
		for _, e := range c.ends {
			hit = hit || e.node.host.index == from && e.other.node.host.index == to
		}
	}
	return hit
}

func (w *world) hole(from, to int, both bool) {
	w.log(nil, "%s: no packet passes to %s, both ways %v", w.hosts[from].name, w.hosts[to].name, both)
	w.net.dig(from, to)
	if both {
		w.net.dig(to, from)
	}
}

func (w *world) strikeLife(n *node, f fault) (hit bool) {
	hit = n.traffic()
	h := n.host
	if h.node != n { // outdated
		if f == faultKill || f == faultCrash {
			w.log(n, "is killed")
			n.die(f == faultCrash)
		}
		return hit
	}
	switch f {
	case faultLeave:
		if w.dice.percent(50) {
			n.leave()
		} else {
			n.close()
		}
		return hit
	case faultZombie:
		if !n.paused {
			n.pause()
			w.at(w.now+w.dice.span(0, 2*w.plan.window), nil, func() { w.resume(n) })
		}
		w.log(n, "is paused, and loses its name to another life")
	default:
		w.log(n, "is killed")
		n.die(f == faultCrash)
	}
	w.restart(h, w.dice.span(0, one(w.dice, 10*time.Millisecond, time.Second, 2*w.plan.window)))
	return hit
}

// restart begins another life on a host, if there is none by then.
func (w *world) restart(h *host, wait time.Duration) {
	w.at(w.now+wait, nil, func() {
		if h.dead || h.node != nil && !h.node.paused {
			return
		}
		if !w.settling && h.lives > maxLives {
			return
		}
		w.start(h)
	})
}

// maxLives bounds how often a host's node is started anew.
const maxLives = 6

// dialAgain cuts a link and has both its nodes dial at once, although only one
// of them may want it.
func (n *node) dialAgain() (hit bool) {
	w := n.w
	p := n.peers[(n.host.index+1+w.dice.IntN(len(w.hosts)-1))%len(w.hosts)]
	if p.host.node == nil {
		return false
	}
	o := p.host.node.peers[n.host.index]
	w.log(n, "and %s dial each other at once", o.node)
	for _, q := range []*peer{p, o} {
		q.eager = true
		if q.end != nil {
			q.node.after(q.node.soon(), func() {
				if q.end != nil {
					q.end.close("it is to be dialled anew")
				}
			})
		}
		q.node.after(3*q.node.w.plan.wakeTime, q.want)
	}
	return true
}

func (n *node) strikeConsumer(f fault) (hit bool) {
	w := n.w
	if len(n.consumers) == 0 || n.paused {
		return false
	}
	c := n.consumers[w.dice.IntN(len(n.consumers))]
	for try := 0; try < 5 && !c.expects(); try++ { // rather one for which something is under way
		c = n.consumers[w.dice.IntN(len(n.consumers))]
	}
	hit = c.expects()
	switch f {
	case faultStall:
		if c.stalled {
			return false
		}
		c.stalled = true
		w.log(n, "consumer %d of %s stalls", c.index, c.ch.plan.name)
		n.after(w.dice.span(0, 5*time.Second), func() { c.goOn() })
		return hit
	case faultClose:
		c.close()
	case faultDrain:
		c.drain()
	}
	n.later(w.dice.span(0, 3*time.Second), func() { n.consumeAgain(c) })
	return hit
}

// expects reports whether there are messages that c has not handled yet.
func (c *consumer) expects() bool {
	for _, k := range c.streams {
		if k != nil && len(k.pair.ledgers) > 0 && k.got < len(k.pair.ledgers[0].entries) {
			return true
		}
	}
	return false
}

// consumeAgain makes a consumer like c that takes its place.
func (n *node) consumeAgain(c *consumer) {
	if !c.closed {
		n.later(time.Second, func() { n.consumeAgain(c) })
		return
	}
	for _, o := range n.consumers {
		if o.ch == c.ch && o.index == c.index {
			return
		}
	}
	n.consume(c.ch, c.index, c.plan)
}

func (n *node) strikeProducer() (hit bool) {
	w := n.w
	if len(n.producers) == 0 || n.paused {
		return false
	}
	p := n.producers[w.dice.IntN(len(n.producers))]
	hit = p.quota > 0
	rest := p.quota
	p.quota = 0
	p.finish()
	n.later(w.dice.span(0, time.Second), func() {
		again := p.plan
		again.messages = rest
		n.produce(p.ch, int(p.sender.Index), again)
	})
	return hit
}
