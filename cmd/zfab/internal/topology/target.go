package topology

import (
	"strconv"
	"strings"
)

// What a fault's target may be, besides a name.
const (
	anyTarget  = "random" // each occurrence picks one
	allTargets = "all"    // links only
)

// stallTarget is a consumer, and one that no other stall holds at that time.
func (b *builder) stallTarget(s scalar, f *Fault) {
	c, ok := b.consumer(s)
	if !ok {
		return
	}
	f.Consumer = c
	for _, o := range b.t.Faults {
		if o.Kind == Stall && o.Consumer == c && f.At < o.At+o.For && o.At < f.At+f.For {
			b.add(s.at, "%s is stalled already from %s to %s: let one end before the next begins", c, o.At, o.At+o.For)
		}
	}
}

// linkTarget is a pair of nodes, n1-n2, or where that makes sense one of its
// directions, n1->n2.
func (b *builder) linkTarget(s scalar, f *Fault) {
	if s.told || b.t.Nodes == 0 {
		return
	}
	if b.t.Nodes == 1 {
		b.add(s.at, "a %s needs a link, and one node has none", f.Kind)
		return
	}
	if s.text == anyTarget || s.text == allTargets {
		if b.t.Nodes > MaxProxied {
			b.add(s.at, "%s: %s is for at most %d nodes; name a link", f.Kind, s.text, MaxProxied)
		}
		f.Link = Link{Any: s.text == anyTarget, All: s.text == allTargets}
		return
	}
	from, to, oneWay := strings.Cut(s.text, "->")
	if !oneWay {
		from, to, _ = strings.Cut(s.text, "-")
	}
	if to == "" {
		b.add(s.at, "%q names no link: write n1-n2, %s or %s", s.text, anyTarget, allTargets)
		return
	}
	f.Link = Link{From: b.node(s, from), To: b.node(s, to), OneWay: oneWay}
	switch {
	case f.Link.From == 0 || f.Link.To == 0:
	case f.Link.From == f.Link.To:
		b.add(s.at, "%q: a link is between two nodes", s.text)
	case oneWay && f.Kind == Cut:
		b.add(s.at, "a cut ends both directions: write %s-%s", from, to)
	}
}

// nodeTarget is a node.
func (b *builder) nodeTarget(s scalar, f *Fault) {
	if s.told || b.t.Nodes == 0 || s.text == anyTarget {
		return
	}
	f.Node = b.node(s, s.text)
}

// killTarget is a node, in a run that goes on without it.
func (b *builder) killTarget(s scalar, f *Fault) {
	b.nodeTarget(s, f)
	for _, c := range b.t.Channels {
		switch c.Pattern {
		case OpenExchange:
		case Exchange:
			b.add(s.at, "channel %s is an exchange, whose nodes are fixed: a node that was killed does not come back to it; give it the pattern %s", c.Name, OpenExchange)
			return
		default:
			b.add(s.at, "channel %s has the pattern %s, and its run ends when all producers have finished, which one that was killed does not; give it the pattern %s", c.Name, c.Pattern, OpenExchange)
			return
		}
		if _, loaded := b.t.Load(c.Name); !loaded {
			b.add(s.at, "channel %s has no load: with a kill each has one, which shows that its streams are there again", c.Name)
			return
		}
	}
	for _, l := range b.t.Loads {
		if l.Duration == 0 {
			b.add(s.at, "the load of %s is a number of messages: with a kill give it a duration, since nobody knows what a killed producer had sent", l.Channel)
			return
		}
	}
}

// node is the number of the node called name; 0, and a problem, if there is none.
func (b *builder) node(s scalar, name string) int {
	digits, named := strings.CutPrefix(name, "n")
	number, err := strconv.Atoi(digits)
	if !named || err != nil || NodeName(number) != name || number < 1 || number > b.t.Nodes {
		b.add(s.at, "no node %q: the nodes are %s to %s", name, NodeName(1), NodeName(b.t.Nodes))
		return 0
	}
	return number
}

// consumer reads channel/node/index.
func (b *builder) consumer(s scalar) (Consumer, bool) {
	if s.told {
		return Consumer{}, false
	}
	parts := strings.Split(s.text, "/")
	if len(parts) != 3 {
		b.add(s.at, "%q names no consumer: write channel/node/index, like scores/n3/1", s.text)
		return Consumer{}, false
	}
	if !b.knownChannel(parts[0], s.at) {
		return Consumer{}, false
	}
	channel, _ := b.t.Channel(parts[0])
	if b.t.Nodes == 0 || channel.Consumers == 0 {
		return Consumer{}, false // told where they are counted
	}
	node := b.node(s, parts[1])
	if node == 0 {
		return Consumer{}, false
	}
	if channel.ConsumersAt(node) == 0 {
		b.add(s.at, "%s has no consumer on %s: the one that there is is on %s", parts[0], parts[1], NodeName(1))
		return Consumer{}, false
	}
	index, err := strconv.Atoi(parts[2])
	if err != nil || strconv.Itoa(index) != parts[2] || index < 0 || index >= channel.Consumers {
		b.add(s.at, "no consumer %q of %s on %s: they are counted from 0 to %d", parts[2], parts[0], parts[1], channel.Consumers-1)
		return Consumer{}, false
	}
	return Consumer{Channel: parts[0], Node: node, Index: index}, true
}
