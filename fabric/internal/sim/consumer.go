package sim

import (
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/link"
)

// consumer handles what arrives for it.
type consumer struct {
	node    *node
	ch      *channel
	index   int
	plan    consumerPlan
	mark    flow.Mark
	inbox   *link.Inbox
	streams []*intake // by host of the producers
	renewed []bool    // streams that began after another had ended
	member  member
	all     []*intake // streams that there ever were
	handled *intake   // of the delivery that is being handled

	stalled   bool
	forEver   bool // stalled
	draining  bool
	closed    bool
	scheduled bool
}

// consume makes a consumer.
func (n *node) consume(ch *channel, index int, plan consumerPlan) *consumer {
	if n.leaving {
		return nil
	}
	c := &consumer{
		node: n, ch: ch, index: index, plan: plan, mark: plan.mark,
		streams: make([]*intake, len(n.w.hosts)), renewed: make([]bool, len(n.w.hosts)),
	}
	c.inbox = link.NewInbox(&link.Flow{Channel: ch.plan.name, Mark: plan.mark}, index, c)
	n.consumers = append(n.consumers, c)
	n.w.log(n, "makes consumer %d of %s, mark %v", index, ch.plan.name, plan.mark)
	for h, sources := range ch.sources {
		if sources > 0 {
			c.subscribe(n.w.hosts[h])
		}
	}
	c.member = member{n, ch.plan.index, index, true}
	n.w.dir.add(c.member)
	return c
}

// subscribe opens the stream from the producers at a host, once; unless its node
// has closed.
func (c *consumer) subscribe(h *host) {
	p := c.node.peers[h.index]
	if p.peering.Closed() {
		return
	}
	p.wanted[c.ch.plan.index] = true
	if c.streams[h.index] == nil && !c.closed && !c.draining {
		r := p.link.Receive(c.inbox)
		c.streams[h.index] = c.node.intakeOf(p, c, r)
		p.touched()
	}
	p.want()
}

// dropUnknown gives the stream from a host up if it began after another had ended,
// and the node, which is gone, has not heard of it.
func (c *consumer) dropUnknown(h *host) {
	if !c.node.peers[h.index].peering.Gone() || !c.renewed[h.index] {
		return
	}
	c.renewed[h.index] = false
	if k := c.streams[h.index]; k != nil && k.r.CancelUnknown() {
		k.over, k.given = true, true
		c.streams[h.index] = nil
		if c.draining {
			c.drained()
		}
	}
}

// wake has the consumer look into its inbox.
func (c *consumer) wake() {
	if c.scheduled || c.stalled || c.closed {
		return
	}
	c.scheduled = true
	c.node.after(c.node.w.think(c.plan), c.step)
}

func (n *node) wakeConsumers() {
	for _, c := range n.consumers {
		c.wake()
	}
}

// step handles some messages.
func (c *consumer) step() {
	c.scheduled = false
	if c.stalled || c.closed {
		return
	}
	w := c.node.w
	for range 1 + w.dice.IntN(c.plan.burst) {
		if !c.receive() || c.closed || w.failure != nil {
			return
		}
	}
	c.wake()
}

// receive handles one delivery, and reports whether there was one.
func (c *consumer) receive() bool {
	w := c.node.w
	body, kind, ok, err := c.inbox.TryNext()
	if c.handled != nil {
		c.handled.peer.touched() // it was told what is handled
		c.handled = nil
	}
	if !ok {
		return false
	}
	r, from := c.inbox.Source()
	k := c.node.intakes[r]
	c.handled = k
	switch {
	case kind == link.Lost && k == nil: // a nudge
	case kind == link.Lost:
		k.lost(err)
		c.over(k.peer.host, k)
		if c.draining {
			c.drained()
		}
	case err != nil:
		w.fail("%s consumer %d of %s: %v", c.node, c.index, c.ch.plan.name, err)
	case kind == link.Finished:
		k.take(entry{size: finished, producer: from}, nil)
	default:
		k.take(entry{size: int32(len(body)), producer: from}, body)
		scribble(body)
	}
	return true
}

// close gives all streams up.
func (c *consumer) close() {
	if c.closed {
		return
	}
	n := c.node
	n.w.log(n, "closes consumer %d of %s", c.index, c.ch.plan.name)
	c.closed = true
	n.w.dir.remove(c.member)
	c.inbox.Close()
	ended := n.w.dice.percent(50)
	if ended {
		c.inbox.TryNext() // as a Receive that waits would
	}
	for _, k := range c.all {
		k.given = true
	}
	for h, k := range c.streams {
		if k != nil {
			k.over = true
			k.r.Cancel()
			n.peers[h].touched()
		}
	}
	clear(c.streams)
	if !ended {
		c.inbox.TryNext()
	}
	for i, o := range n.consumers {
		if o == c {
			n.consumers = append(n.consumers[:i:i], n.consumers[i+1:]...)
			break
		}
	}
}

// drain gives all streams up in order: what was accepted still comes.
func (c *consumer) drain() {
	if c.closed || c.draining {
		return
	}
	n := c.node
	n.w.log(n, "drains consumer %d of %s", c.index, c.ch.plan.name)
	n.w.dir.remove(c.member)
	for _, m := range n.w.dir.members { // whose producers may have seen it there
		if !m.consumer && m.channel == c.ch.plan.index && m.node.host != n.host {
			n.peers[m.node.host.index].listed(m.node.incarnation, m.node.endpoint)
			c.subscribe(m.node.host)
		}
	}
	c.draining = true
	for h, k := range c.streams {
		if k != nil {
			k.draining = true
			k.r.Drain()
			n.peers[h].touched()
		}
	}
	c.inbox.Nudge()
	c.wake()
	c.drained()
	// Its context may end first.
	n.after(n.w.dice.span(time.Second, 3*n.w.plan.window), func() {
		if !n.w.settling || c.stalled || !c.meets() {
			c.close()
		}
	})
}

// over takes a stream that has ended out of the consumer's. One that drains asks
// the node once more, until nothing comes: another stream may have taken the
// place of one that was leaving.
func (c *consumer) over(h *host, k *intake) {
	if c.streams[h.index] != k {
		return
	}
	c.streams[h.index] = nil
	if !c.draining || c.closed || k.peer.peering.Gone() || k.asked && k.r.Received() == 0 {
		return
	}
	next := c.node.intakeOf(k.peer, c, k.r.Again())
	next.draining, next.asked = true, true
	next.r.Drain()
	c.streams[h.index] = next
	k.peer.touched()
}

// meets reports whether every node whose streams have not ended yet can be
// reached: then the draining will end.
func (c *consumer) meets() bool {
	for h, k := range c.streams {
		if k != nil && !c.node.w.joined(c.node, c.node.w.hosts[h].node) {
			return false
		}
	}
	return true
}

// drained closes the consumer when all its streams have ended.
func (c *consumer) drained() {
	for _, k := range c.streams {
		if k != nil {
			return
		}
	}
	for _, k := range c.all {
		if !k.told && !k.given {
			return
		}
	}
	c.close()
}
