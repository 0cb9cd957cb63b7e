package check

import "slices"

// A Sharer judges what one of several consumers gets that share what producers send:
// each message goes to one of them, it is not said to which. So what is lost, and what
// two of them got, is known only when all have told what they have: see Share. It is
// used by one goroutine at a time.
//
// A producer's messages are one flow or, where they have keys, a flow for each, whose
// number the stamp has in the consumer's place. Within a flow of a key order counts.
type Sharer struct {
	producers, keys int // keys: 0 where messages have none
	flows           map[flowID]*flow
	counts          Counts
}

type flowID struct{ producer, key int }

// A flow is what came of it to one consumer.
type flow struct {
	firsts, repeats Numbers // that came as new, and marked as delivered before
	next            uint64  // one past the one that came last
	corrupted       uint64
}

// NewSharer returns a checker for a consumer of a channel with so many producers, each
// with so many keys; 0 if messages have none and no order.
func NewSharer(producers, keys int) *Sharer {
	return &Sharer{producers: producers, keys: keys, flows: make(map[flowID]*flow)}
}

// An Arrival is a message of shared ones as it came. Source is the producer of which
// the fabric says that it is, or Unnamed where the pattern does not tell; key is its
// key's number, if there are some. Again says that it was marked as delivered before.
type Arrival struct {
	Source, Key int
	Again       bool
	Body        []byte
}

// Unnamed is the source of a message whose consumer is not told who sent it.
const Unnamed = -2

// Message takes the next message. It returns its stamp; false if it is corrupted: if
// it is damaged, or if its stamp names another producer or key.
//
// One that comes again and is not marked so is duplicated. One that is marked counts as
// redelivered, and the flow goes on behind it.
func (c *Sharer) Message(a Arrival) (Stamp, bool) {
	c.counts.Received++
	c.counts.Bytes += uint64(len(a.Body))
	stamp, sound := Open(a.Body)
	producer, key := int(stamp.Producer), 0
	if c.keys > 0 {
		key = int(stamp.Consumer)
		sound = sound && key == a.Key && key < c.keys
	}
	if !sound || producer >= c.producers || a.Source != Unnamed && producer != a.Source {
		c.counts.Corrupted++
		c.damaged(a)
		return stamp, false
	}
	f := c.flow(producer, key)
	switch {
	case a.Again:
		c.counts.Redelivered++
		f.repeats.Add(stamp.Sequence)
	case !f.firsts.Add(stamp.Sequence):
		c.counts.Duplicated++
		return stamp, true
	case c.keys > 0 && stamp.Sequence < f.next:
		c.counts.Reordered++
	}
	f.next = max(f.next, stamp.Sequence+1)
	if a.Again {
		f.next = stamp.Sequence + 1
	}
	return stamp, true
}

// damaged counts a message that cannot be read, where it is known whose it is.
func (c *Sharer) damaged(a Arrival) {
	if a.Source >= 0 && a.Source < c.producers && (c.keys == 0 || a.Key >= 0 && a.Key < c.keys) {
		c.flow(a.Source, a.Key).corrupted++
	}
}

func (c *Sharer) flow(producer, key int) *flow {
	id := flowID{producer, key}
	f := c.flows[id]
	if f == nil {
		f = new(flow)
		c.flows[id] = f
	}
	return f
}

// Counts is what was found so far.
func (c *Sharer) Counts() Counts { return c.counts }

// A Share is what one consumer has of a flow: enough, with those of all others, to say
// what is lost.
type Share struct {
	Producer  int     `json:"producer"`
	Key       int     `json:"key"`
	Firsts    Numbers `json:"firsts"`
	Repeats   Numbers `json:"repeats"`
	Corrupted uint64  `json:"corrupted,omitempty"`
}

// Shares are those of all flows of which something came.
func (c *Sharer) Shares() []Share {
	all := make([]Share, 0, len(c.flows))
	for id, f := range c.flows {
		all = append(all, Share{id.producer, id.key, f.firsts, f.repeats, f.corrupted})
	}
	slices.SortFunc(all, func(a, b Share) int {
		if a.Producer != b.Producer {
			return a.Producer - b.Producer
		}
		return a.Key - b.Key
	})
	return all
}

// Settle says of a flow of which so many messages were sent how many came to no
// consumer, and how many came as new to more than one. shares are all consumers' of it.
// A damaged message stands for one that is missing.
func Settle(sent uint64, shares []Share) (lost, duplicated uint64) {
	var firsts, all Numbers
	corrupted := uint64(0)
	for i := range shares {
		duplicated += firsts.Merge(&shares[i].Firsts)
		all.Merge(&shares[i].Repeats)
		corrupted += shares[i].Corrupted
	}
	all.Merge(&firsts)
	missing := sent - min(sent, all.Len())
	return missing - min(missing, corrupted), duplicated
}
