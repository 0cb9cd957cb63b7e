package sim

import (
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric/internal/peering"
)

// directory tells every node who is there: late, but in order.
type directory struct {
	w       *world
	last    []uint64 // incarnation given away, by host
	members []member
	silent  bool // nobody gets an answer
}

// member is a producer or consumer that is registered.
type member struct {
	node     *node
	channel  int
	index    int
	consumer bool
}

// lease is after how long a node that is no more is forgotten, at most.
const lease = 10 * time.Second

// join gives a life its incarnation; what a former one of the host had
// registered is no more.
func (d *directory) join(n *node) {
	h := n.host
	if former := h.node; former != nil {
		former.outdated = d.w.now
	}
	d.last[h.index]++
	n.incarnation = d.last[h.index]
	n.endpoint = h.name
	if d.w.plan.freshPorts {
		n.endpoint = fmt.Sprintf("%s#%d", h.name, n.incarnation)
	}
	for _, other := range d.w.nodes {
		if other.host == h && other != n && !other.gone && other.endpoint == n.endpoint {
			// A life that goes on somewhere else is not at that address any more.
			other.endpoint = fmt.Sprintf("%s#%d", h.name, other.incarnation)
		}
	}
	h.node = n
	d.drop(func(m member) bool { return m.node.host == h })
	for _, m := range d.members {
		d.tell(n, func() { n.added(m) }, m)
	}
}

// died has what the node had registered forgotten, after its lease.
func (d *directory) died(n *node) {
	d.w.at(d.w.now+d.w.dice.span(lease/10, lease), nil, func() {
		d.drop(func(m member) bool { return m.node == n })
	})
}

// leave forgets a node at once.
func (d *directory) leave(n *node) { d.drop(func(m member) bool { return m.node == n }) }

func (d *directory) add(m member) {
	if d.last[m.node.host.index] != m.node.incarnation {
		return // its lease is another's
	}
	d.members = append(d.members, m)
	for _, n := range d.w.nodes {
		d.tell(n, func() { n.added(m) }, m)
	}
}

// remove takes one member out.
func (d *directory) remove(m member) { d.drop(func(o member) bool { return o == m }) }

func (d *directory) drop(which func(member) bool) {
	kept := make([]member, 0, len(d.members))
	var dropped []member
	for _, m := range d.members {
		if which(m) {
			dropped = append(dropped, m)
		} else {
			kept = append(kept, m)
		}
	}
	d.members = kept
	for _, m := range dropped {
		for _, n := range d.w.nodes {
			d.tell(n, func() { n.removed(m) }, m)
		}
	}
}

// tell sends an event to a node, behind those before.
func (d *directory) tell(n *node, event func(), m member) {
	if n.gone || n.host == m.node.host {
		return
	}
	n.word = max(n.word, d.w.now+d.w.dice.span(0, d.w.plan.wordTime))
	d.w.at(n.word, n, event)
}

// ask answers who lives on the host of a peer.
func (d *directory) ask(p *peer, answer func(peering.Word)) {
	d.w.counts.add(confirmations, 1)
	p.node.after(d.w.dice.span(0, min(d.w.plan.wordTime, time.Second)), func() {
		word := peering.Known
		switch {
		case d.silent:
			word = peering.Silent
		case p.host.node == nil:
			word = peering.Unknown
		default:
			p.listed(p.host.node.incarnation, "")
		}
		answer(word)
	})
}

// produces reports whether a life has producers on a channel.
func (d *directory) produces(n *node, channel string) bool {
	for _, m := range d.members {
		if !m.consumer && m.node == n && d.w.plan.channels[m.channel].name == channel {
			return true
		}
	}
	return false
}
