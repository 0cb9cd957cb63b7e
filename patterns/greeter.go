package patterns

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// greeter is the other side of a roster: it says hello to all who have a consumer
// beside the pattern's channel, and knows the way to each.
type greeter struct {
	producer *fabric.Producer // beside the pattern's channel
	session  uint64
	hello    []byte

	known atomic.Pointer[ends] // replaced as a whole
}

// ends are those that were greeted, by their consumers.
type ends map[fabric.Address]*end

type end struct {
	addr   fabric.Address
	target *fabric.Target
}

// newGreeter returns a greeter for the consumer of that index on the pattern's
// channel, which has room for so much work.
func newGreeter(producer *fabric.Producer, kind uint64, index, room int) *greeter {
	g := &greeter{producer: producer, session: rand.Uint64()}
	g.hello = appendRecord(nil, kind, g.session, uint64(index), uint64(room))
	g.known.Store(&ends{})
	return g
}

// greet says hello until ctx ends, again whenever something has changed: who
// knows it already takes no notice. An end is known for as long as its stream
// takes a hello, also if the directory has forgotten it.
func (g *greeter) greet(ctx context.Context) {
	for {
		changed := g.producer.Changed()
		known := maps.Clone(*g.known.Load())
		for _, addr := range g.producer.Consumers() {
			if t, err := g.producer.To(addr); err == nil {
				known[addr] = &end{addr, t}
			}
		}
		g.known.Store(&known) // before anything can come that hello asks for
		left := maps.Clone(known)
		for addr, e := range known {
			if err := e.target.TrySend(g.hello); err != nil && err != fabric.ErrHighWater {
				delete(left, addr)
			}
		}
		if len(left) < len(known) {
			g.known.Store(&left)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// find returns the way to a consumer that was greeted, nil if there is none.
func (g *greeter) find(addr fabric.Address) *end { return (*g.known.Load())[addr] }

// bye says goodbye to all.
func (g *greeter) bye(kind uint64) {
	b := appendRecord(nil, kind, g.session)
	for _, e := range *g.known.Load() {
		_ = e.target.TrySend(b) // one that is gone need not know
	}
}
