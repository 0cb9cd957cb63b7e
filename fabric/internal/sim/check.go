package sim

// check holds what must be true of a link after every step.
func (p *peer) check() {
	kept := p.sends[:0]
	for _, g := range p.sends {
		p.checkSend(g)
		if !g.ended && !p.node.leaving {
			kept = append(kept, g)
		}
	}
	clear(p.sends[len(kept):])
	p.sends = kept

	left := p.recvs[:0]
	p.windows, p.floors = 0, 0
	for _, k := range p.recvs {
		p.checkRecv(k)
		if c := k.consumer; !c.scheduled && !c.stalled && !c.closed && c.inbox.Pending() {
			c.wake()
		}
		if !k.told && !k.given {
			left = append(left, k)
		}
	}
	clear(p.recvs[len(left):])
	p.recvs = left
}

func (p *peer) checkSend(g *ledger) {
	w, v := p.node.w, g.s.View()
	if v.Failed || p.node.leaving {
		return
	}
	g.bound = g.bound || v.Bound
	if v.Instance != g.instance {
		g.meet()
	}
	switch {
	case v.Accepted.Messages != uint64(len(g.entries)) || v.Accepted.Bytes != g.bytes:
		w.fail("%s has accepted %d messages, %d bytes, and counts %v", g, len(g.entries), g.bytes, v.Accepted)
	case v.Sent.Messages > v.Accepted.Messages || v.Sent.Bytes > v.Accepted.Bytes:
		w.fail("%s has sent %v of %v", g, v.Sent, v.Accepted)
	case v.Acknowledged > v.Accepted.Messages || v.Consumed.Messages > v.Acknowledged:
		w.fail("%s: accepted %d, acknowledged %d, consumed %d", g, v.Accepted.Messages, v.Acknowledged, v.Consumed.Messages)
	case v.Bound && (v.Sent.Messages > v.Limit.Messages || v.Sent.Bytes > v.Limit.Bytes):
		w.fail("%s has sent %v beyond its limit %v", g, v.Sent, v.Limit)
	case v.Admits && !g.letsGo():
		w.fail("%s has room, and %d Sends wait that nobody lets go on", g, v.Waiters)
	}
	for i := 0; i < len(g.flushes); i++ {
		select {
		case <-g.flushes[i].done:
			if v.Acknowledged < g.flushes[i].until {
				w.fail("%s: a Flush of %d messages has ended, and %d are acknowledged", g, g.flushes[i].until, v.Acknowledged)
			}
			g.flushes = append(g.flushes[:i], g.flushes[i+1:]...)
			i--
		default:
		}
	}
	if g.pair == nil || g.pair.intake == nil || len(g.pair.ledgers) != 1 || g.pair.ledgers[0] != g {
		return
	}
	// Both ends, as only an onlooker sees them.
	k := g.pair.intake
	r := k.r.View()
	switch {
	case v.Acknowledged > r.Received.Messages:
		w.fail("%s: %d messages are acknowledged, and %s has stored %d", g, v.Acknowledged, k, r.Received.Messages)
	case v.Consumed.Messages > uint64(k.got) || v.Consumed.Bytes > k.gotBytes:
		w.fail("%s: %v are settled, and %s has handled %d messages, %d bytes", g, v.Consumed, k, k.got, k.gotBytes)
	case r.Received.Messages > uint64(len(g.entries)) || r.Received.Bytes > g.bytes:
		w.fail("%s has stored %v, and %s has accepted %d", k, r.Received, g, len(g.entries))
	case v.Bound && (v.Sent.Messages > r.Limit.Messages || v.Sent.Bytes > r.Limit.Bytes):
		w.fail("%s has sent %v, and %s has lent %v", g, v.Sent, k, r.Limit)
	}
}

// letsGo reports whether a Send was let go on: it lets the next one.
func (g *ledger) letsGo() bool {
	for _, p := range g.peer.node.waits {
		if p.to == g && p.wait.Ready() {
			return true
		}
	}
	return false
}

func (p *peer) checkRecv(k *intake) {
	w, r := p.node.w, k.r.View()
	if window := r.Window(); window > 0 {
		p.windows += window
		p.floors += uint64(max(1, k.consumer.ch.plan.largest))
	}
	if r.Gone || k.given {
		return
	}
	switch {
	case r.Consumed.Messages > r.Received.Messages || r.Consumed.Bytes > r.Received.Bytes:
		w.fail("%s has handled %v of %v", k, r.Consumed, r.Received)
	case r.Consumed.Messages > uint64(k.got) || r.Consumed.Bytes > k.gotBytes:
		w.fail("%s has handled %d messages, %d bytes, and counts %v", k, k.got, k.gotBytes, r.Consumed)
	case r.Received.Messages > r.Limit.Messages || r.Received.Bytes > r.Limit.Bytes:
		w.fail("%s has got %v beyond its limit %v", k, r.Received, r.Limit)
	}
	mark := k.consumer.mark
	if held := r.Received.Bytes - r.Consumed.Bytes; held > max(mark.Bytes, uint64(k.consumer.ch.plan.largest)) ||
		r.Received.Messages-r.Consumed.Messages > mark.Messages {
		w.fail("%s holds %v of %v over its mark %v", k, r.Consumed, r.Received, mark)
	}
}

// checkSilence looks whether the peer was given up for a reason.
func (e *end) checkSilence() {
	w, ticks := e.w, e.node.ticks-e.heard
	switch {
	case ticks < w.plan.deadTicks:
		w.fail("%s is given up after %d ticks of silence", e, ticks)
	case e.other.peer == nil || w.now-e.other.peer.since < w.plan.interval:
		// It has only just begun to answer.
	case e.shaken || e.other.closed || w.faulty(e.node) || w.faulty(e.other.node) || w.net.holed(e):
	default:
		w.fail("%s is given up, and nothing kept the peer from being heard", e)
	}
}

// faulty reports whether a node was stopped or its clock went wrong, not long ago.
func (w *world) faulty(n *node) bool {
	return n.gone || n.paused || n.leaving || n.shaken > w.now-2*w.silence() && n.shaken > 0
}

// checkBudget holds what a node has lent against the windows of its streams.
func (n *node) checkBudget() {
	var windows, floors uint64
	for _, p := range n.peers {
		if p != nil {
			windows, floors = windows+p.windows, floors+p.floors
		}
	}
	lent := n.cfg.Budget.Lent()
	if lent != int64(windows) {
		n.w.fail("%s has lent %d bytes, and the windows of its streams are %d", n, lent, windows)
	}
	if lent > n.cfg.Budget.Total()+int64(floors) {
		n.w.fail("%s has lent %d bytes of %d, with %d of floors", n, lent, n.cfg.Budget.Total(), floors)
	}
}
