package link

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// liar is one side of a link whose peer sends records that are well formed and
// mean anything: about streams that exist or not, positions near the true ones
// or far away, in any order.
type liar struct {
	t       *testing.T
	rng     *rand.Rand
	l       *Link
	sends   []*SendStream
	inboxes []*Inbox
	ins     []*RecvStream
	breaks  int // connections that ended
	taken   int // records that did not end one
}

func newLiar(t *testing.T, seed uint64) *liar {
	mark := flow.Mark{Messages: 20, Bytes: 100_000}
	r := &liar{t: t, rng: rand.New(rand.NewPCG(seed, 5)), l: New(testConfig(mark), "liar")}
	for i := range 3 {
		r.sends = append(r.sends, r.l.Stream("c", i, mark))
		r.receive(i)
	}
	r.l.core.attach(1 << 20)
	return r
}

func (r *liar) receive(i int) {
	in := NewInbox(&Flow{Channel: "c", Mark: flow.Mark{Messages: 20, Bytes: 100_000}}, i, nil)
	r.inboxes, r.ins = append(r.inboxes, in), append(r.ins, r.l.Receive(in))
}

// near is a number at, just before or just behind one of the true ones, or any.
func (r *liar) near(true ...uint64) uint64 {
	n := true[r.rng.IntN(len(true))]
	switch r.rng.IntN(8) {
	case 0:
		return n + uint64(r.rng.IntN(3))
	case 1:
		return n - min(n, uint64(r.rng.IntN(3)))
	case 2:
		return r.rng.Uint64N(1 << 62)
	case 3:
		return 0
	default:
		return n
	}
}

func (r *liar) label() uint32 { return uint32(r.rng.IntN(5)) }

// lie is one or more records.
func (r *liar) lie() []byte {
	var p []byte
	for range 1 + r.rng.IntN(3) {
		p = r.record(p)
	}
	return p
}

func (r *liar) record(p []byte) []byte {
	s, in := &r.sends[r.rng.IntN(len(r.sends))].flow, &r.ins[r.rng.IntN(len(r.ins))].flow
	switch label := r.label(); r.rng.IntN(12) {
	case 0, 1:
		return wire.AppendOpen(p, label, "c", uint32(r.rng.IntN(4)), uint64(r.rng.IntN(3)))
	case 2, 3, 4:
		consumed := r.near(s.Consumed.Messages, s.Sent.Messages)
		return wire.AppendState(p, &wire.State{
			Stream: label, Epoch: s.Epoch + uint32(r.rng.IntN(2)),
			Next: r.near(s.Sent.Messages, s.Accepted.Messages, consumed), Offset: uint32(r.near(0, s.Accepted.Bytes) % (1 << 32)),
			ConsumedMessages: consumed, ConsumedBytes: r.near(s.Consumed.Bytes, s.Sent.Bytes),
			LimitMessages: r.near(s.Accepted.Messages + 5), LimitBytes: r.near(s.Accepted.Bytes+5000, s.Sent.Bytes+1000),
		})
	case 5:
		count := 1 + r.rng.IntN(3)
		p = wire.AppendDataHeader(p, label, uint32(r.rng.IntN(2)), r.near(in.Received.Messages), count)
		for range count {
			p = wire.AppendMessage(p, make([]byte, r.rng.IntN(2000)))
		}
		return p
	case 6, 7:
		held := uint64(r.ins[0].held())
		body := make([]byte, 1+r.rng.IntN(20_000))
		total := max(uint64(len(body)), []uint64{50_000, 30_000, 1 << 20, uint64(len(body))}[r.rng.IntN(4)])
		offset := min(r.near(held, 0, 20_000), total-uint64(len(body)))
		return append(wire.AppendFragmentHeader(p, label, uint32(r.rng.IntN(2)), r.near(in.Received.Messages), uint32(total), uint32(offset), len(body)), body...)
	case 8:
		return wire.AppendEnd(p, label, uint32(r.rng.IntN(2)), r.near(in.Received.Messages))
	case 9:
		return wire.AppendBacklog(p, &wire.Backlog{
			Stream: label, Epoch: in.Epoch + uint32(r.rng.IntN(2)), EndMessages: r.near(in.Received.Messages + 3),
			EndBytes: r.near(in.Received.Bytes + 1000), NextSize: uint32(r.rng.IntN(1 << 20)), Flags: uint8(r.rng.IntN(16)),
		})
	case 10:
		return wire.AppendCancel(p, label, uint8(r.rng.IntN(10)), "")
	default:
		return wire.AppendReset(p, label, uint8(r.rng.IntN(10)), "")
	}
}

// hear lets the side handle a packet; a fault ends the connection, and another
// one comes.
func (r *liar) hear(p []byte) {
	err := r.l.core.handle(p, &heldBytes{p})
	for _, d := range r.l.core.deliveries {
		d.stream.inbox.put(d.stream, d.item)
	}
	r.l.core.deliveries = r.l.core.deliveries[:0]
	r.l.core.events = nil
	if err != nil {
		r.breaks++
		r.l.core.detach()
		r.l.core.attach(1 << 20)
		return
	}
	r.taken++
}

func (r *liar) write() {
	b := batchPool.Get().(*batch)
	r.l.core.gather(b)
	b.seal()
	b.reset()
	batchPool.Put(b)
}

// consume takes everything that an inbox has.
func (r *liar) consume(in *Inbox) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		if _, kind, err := in.Next(ended); err != nil && kind != Lost {
			return
		}
	}
}

func (r *liar) run(steps int) {
	cfg := r.l.cfg
	for range steps {
		switch r.rng.IntN(10) {
		case 0, 1, 2, 3:
			r.hear(r.lie())
		case 4, 5:
			i := r.rng.IntN(len(r.sends))
			if err := r.sends[i].TrySend(testSenders[r.rng.IntN(2)], make([]byte, r.rng.IntN(1+r.rng.IntN(80_000)))); err != nil && err != ErrHighWater {
				r.sends[i] = r.l.Stream("c", i, cfg.Mark) // the stream that follows
			}
		case 6, 7:
			r.write()
		case 8:
			r.consume(r.inboxes[r.rng.IntN(len(r.inboxes))])
		case 9:
			switch i := r.rng.IntN(len(r.ins)); r.rng.IntN(10) {
			case 0:
				r.ins[i].Cancel()
				r.inboxes[i].Close()
				r.inboxes[i] = NewInbox(&Flow{Channel: "c", Mark: cfg.Mark}, i, nil)
				r.ins[i] = r.l.Receive(r.inboxes[i])
			case 1:
				r.sends[i].Finish(testSenders[r.rng.IntN(2)])
			case 2:
				r.ins[i].Drain()
			default:
				r.l.core.tick()
			}
		}
		if lent := cfg.Budget.Lent(); lent < 0 {
			r.t.Fatalf("%d bytes are lent", lent)
		}
		for _, s := range r.sends {
			if f := &s.flow; f.Sent.Messages > f.Accepted.Messages || f.Sent.Bytes > f.Accepted.Bytes || f.Consumed.Messages > f.Accepted.Messages || s.acked > f.Accepted.Messages {
				r.t.Fatalf("%+v, %d acknowledged", f, s.acked)
			}
		}
	}
	for _, in := range r.inboxes {
		in.Close()
	}
	for _, in := range r.ins {
		in.Cancel()
	}
	r.l.core.detach()
	if lent := cfg.Budget.Lent(); lent != 0 {
		r.t.Fatalf("%d bytes are lent after all", lent)
	}
	if n := len(r.l.core.out) + len(r.l.core.say); n > 0 {
		r.t.Fatalf("%d streams are bound without a connection", n)
	}
}

// A peer that lies costs its connections, and nothing else: no panic, no credit
// that does not come back.
func TestPeerThatLies(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 100
	}
	breaks, taken := 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newLiar(t, seed)
			r.run(200)
			breaks, taken = breaks+r.breaks, taken+r.taken
		})
	}
	t.Logf("%d packets ended a connection, %d did not", breaks, taken)
	if breaks < taken/100 || taken < breaks/100 {
		t.Error("the lies are all of one sort")
	}
}
