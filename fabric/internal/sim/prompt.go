package sim

// A stream must go on as soon as it can: ticks are there to mend what was lost,
// not to make progress. So when both ends of a link have nothing to say, nothing
// is under way between them and a consumer has handled all that it has, then
// nothing may wait for it at the producer's end.

// still reports whether nothing will happen on p's link before a tick, a message
// or a consumer sets it going.
func (p *peer) still() bool {
	e := p.end
	if e == nil || e.peer == nil || !e.reading || e.pumping || e.writing != nil || len(e.out.queue) > 0 || e.out.broken || p.drv.Busy() {
		return false
	}
	o := e.other
	return !o.closed && o.peer != nil && o.reading && !o.pumping && o.writing == nil && len(o.out.queue) == 0 && !o.out.broken &&
		!o.peer.drv.Busy() && !o.node.gone
}

// checkPrompt looks for streams of a still link that wait for a tick.
func (p *peer) checkPrompt() {
	if !p.still() {
		return
	}
	for _, g := range p.sends {
		if g.pair == nil {
			continue
		}
		k := g.pair.intake
		c := k.consumer
		if k.given || k.over || c.closed || c.stalled || c.scheduled || c.node.gone || c.inbox.Pending() || k.peer.end == nil || k.peer.end.other != p.end {
			continue
		}
		v, r := g.s.View(), k.r.View()
		if !v.Bound || v.Failed || r.Consumed.Messages != uint64(k.got) {
			continue
		}
		w := p.node.w
		switch {
		case v.Backlog():
			w.fail("%s holds back messages from %d on until a tick comes: limit %v, and %s has handled all that it has, limit %v",
				g, v.Sent.Messages, v.Limit, k, r.Limit)
		case v.Waiters > 0 && !g.letsGo():
			w.fail("%s has %d Sends that wait until a tick comes: %s has handled all that it has", g, v.Waiters, k)
		case len(g.flushes) > 0:
			w.fail("%s has a Flush that waits until a tick comes: %s has handled all that it has", g, k)
		}
	}
}
