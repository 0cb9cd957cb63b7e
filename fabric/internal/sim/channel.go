package sim

import (
	"github.com/zfab/zfab/fabric/internal/link"
)

// channel is a named flow as one node sees it, as fabric's channel does: who
// takes part, and the streams that follow.
type channel struct {
	node    *node
	plan    *channelPlan
	targets []*target // consumers that producers here send to, by host and index
	sources []int     // producers registered, by host
}

// target is a consumer that producers here send to.
type target struct {
	host   *host
	index  int
	stream *ledger // nil while there is none
	listed bool    // in the directory; else it only opened a stream
}

func newChannel(n *node, plan *channelPlan) *channel {
	return &channel{node: n, plan: plan, sources: make([]int, len(n.w.hosts))}
}

func (ch *channel) target(h *host, index int) (int, *target) {
	for i, t := range ch.targets {
		if t.host == h && t.index == index {
			return i, t
		}
	}
	return -1, nil
}

func (ch *channel) addTarget(h *host, index int) *target {
	t := &target{host: h, index: index}
	ch.targets = append(ch.targets, t)
	return t
}

func (ch *channel) dropTarget(i int) {
	ch.targets = append(ch.targets[:i:i], ch.targets[i+1:]...)
}

// reach gives t its stream if there is a producer here.
func (ch *channel) reach(t *target) {
	if t.stream != nil || !ch.producing() || ch.node.leaving {
		return
	}
	p := ch.node.peers[t.host.index]
	s := p.link.Stream(ch.plan.name, t.index, ch.plan.mark)
	t.stream = ch.node.ledgerOf(p, s)
	s.Relist()
	p.touched()
}

// producing reports whether there are producers here, or will be: a node that
// begins to produce on a channel makes its streams then.
func (ch *channel) producing() bool {
	for _, p := range ch.node.producers {
		if p.ch == ch && !p.left {
			return true
		}
	}
	return false
}

// added is the directory's word of a new member.
func (n *node) added(m member) {
	if n.leaving {
		return
	}
	ch, p := n.channels[m.channel], n.peers[m.node.host.index]
	if m.consumer {
		p.peering.Expect()
	}
	p.listed(m.node.incarnation, m.node.endpoint)
	p.want()
	if m.consumer {
		_, t := ch.target(m.node.host, m.index)
		if t == nil {
			t = ch.addTarget(m.node.host, m.index)
		}
		t.listed = true
		ch.reach(t)
		return
	}
	ch.sources[m.node.host.index]++
	for _, c := range n.consumers {
		if c.ch == ch {
			c.subscribe(m.node.host)
		}
	}
}

// removed is the directory's word of a member that is no more.
func (n *node) removed(m member) {
	if n.leaving {
		return
	}
	ch, p := n.channels[m.channel], n.peers[m.node.host.index]
	if !m.consumer {
		if ch.sources[m.node.host.index]--; ch.sources[m.node.host.index] == 0 {
			delete(p.wanted, m.channel)
			for _, c := range n.consumers {
				if c.ch == ch {
					c.dropUnknown(m.node.host)
				}
			}
		}
		return
	}
	i, t := ch.target(m.node.host, m.index)
	if t == nil {
		return
	}
	ch.dropTarget(i)
	if t.stream != nil {
		t.stream.delisted = true
		if p.peering.Gone() {
			t.stream.s.GiveUp()
		} else {
			t.stream.s.Delist()
		}
		p.touched()
	}
}

// opened: the peer's consumer has opened the stream.
func (n *node) opened(l *link.Link, s *link.SendStream) {
	h := n.w.hostOf(l.Peer())
	p := n.peers[h.index]
	g := n.ledgerOf(p, s)
	g.meet()
	if !s.Open() || n.leaving {
		return // it has ended, or is leaving, since
	}
	ch := n.channelOf(s.Channel())
	_, t := ch.target(h, s.Index())
	if t == nil {
		t = ch.addTarget(h, s.Index())
	}
	if t.stream != g && ch.producing() {
		s.SetMark(ch.plan.mark)
		t.stream = g
	}
}

// failed: the stream's consumer is gone, or takes no more than was accepted.
func (n *node) failed(l *link.Link, s *link.SendStream) {
	h := n.w.hostOf(l.Peer())
	p := n.peers[h.index]
	g := n.ledgerOf(p, s)
	leaving := s.Leaving()
	if n.leaving {
		return
	}
	g.failed(leaving)
	ch := n.channelOf(s.Channel())
	i, t := ch.target(h, s.Index())
	if t == nil || t.stream != g {
		return
	}
	t.stream = nil
	if t.listed && !s.Left() {
		ch.reach(t) // it may come again, and begins anew
	} else {
		ch.dropTarget(i) // who takes its place opens a stream by itself
	}
}

// ended: the producers' end has ended the stream. If there are producers at
// that node all the same, another stream begins.
func (n *node) ended(l *link.Link, r *link.RecvStream) {
	k := n.intakes[r]
	h := n.w.hostOf(l.Peer())
	k.over = true
	c := k.consumer
	c.over(h, k)
	if c.ch.sources[h.index] > 0 && !n.leaving {
		c.renewed[h.index] = true
		c.subscribe(h)
	}
}

func (n *node) channelOf(name string) *channel {
	for _, ch := range n.channels {
		if ch.plan.name == name {
			return ch
		}
	}
	panic("sim: no channel " + name)
}
