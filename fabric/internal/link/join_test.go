package link

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// lone is a link without a connection whose one stream is in the ring as soon as
// it has a message: what Sends find while the writer is at work.
func lone(mark flow.Mark, maxBody int) *SendStream {
	l := &Link{cfg: testConfig(mark)}
	l.core = core{cfg: l.cfg, link: l, flows: map[string]*outFlow{}, maxBody: maxBody}
	s := l.Stream("x", 0, mark)
	s.flags |= sendBound | sendUsed
	return s
}

// heldChunks is all that a stream holds, chunk by chunk, each with its runs.
func (s *SendStream) heldChunks() (all []chunk) {
	if s.q == nil {
		return nil
	}
	for _, c := range s.q.chunks[s.q.head:] {
		all = append(all, *c)
	}
	return all
}

// Whatever happens around it, a stream whose Sends may join is in the same state
// as one whose Sends never do.
func TestJoinIsOffer(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		mark := flow.Mark{Messages: 1 + rng.Uint64N(300), Bytes: 1 + rng.Uint64N(40_000)}
		most := 1 + rng.IntN(2*singleMin)
		streams := [2]*SendStream{lone(mark, most), lone(mark, most)}
		senders := [2][2]*Sender{{{Index: 1}, {Index: 2}}, {{Index: 1}, {Index: 2}}}
		size, joined := 64, 0
		for step := range 500 {
			switch rng.IntN(40) {
			case 0:
				size = rng.IntN(most + 2)
			case 1: // all that was sent is acknowledged and handled
				for _, s := range streams {
					s.leaveRing()
					s.flow.Sent, s.flow.Consumed = s.flow.Accepted, s.flow.Accepted
					s.acknowledgeAll()
				}
			case 2: // some of it is handled
				for _, s := range streams {
					s.flow.Consumed.Messages = (s.flow.Consumed.Messages + s.flow.Accepted.Messages) / 2
					s.flow.Consumed.Bytes = (s.flow.Consumed.Bytes + s.flow.Accepted.Bytes) / 2
				}
			case 3:
				if rng.IntN(10) == 0 {
					i := rng.IntN(2)
					for side := range senders {
						senders[side][i].Close()
					}
				}
			case 4:
				if rng.IntN(10) == 0 {
					for _, s := range streams {
						s.flags |= sendLeaving
					}
				}
			case 5: // a Send waits, or waits no more
				for _, s := range streams {
					if s.waiters == nil {
						s.queueWaiter(&waiter{size: 1, from: senders[0][0]}, false)
					} else {
						s.waiters = nil
					}
				}
			}
			who := rng.IntN(2)
			body := bytes.Repeat([]byte{byte(step)}, size)
			var err error
			if streams[0].join(senders[0][who], body) {
				joined++
			} else {
				err = streams[0].offer(senders[0][who], body, nil)
			}
			plain := streams[1].offer(senders[1][who], body, nil)
			if (err == nil) != (plain == nil) || errors.Is(err, ErrClosed) != errors.Is(plain, ErrClosed) {
				t.Fatalf("seed %d, step %d: %v, without join %v", seed, step, err, plain)
			}
			a, b := streams[0], streams[1]
			if a.flow != b.flow || a.largest != b.largest || a.flags != b.flags || a.quiet != b.quiet {
				t.Fatalf("seed %d, step %d: %+v, without join %+v", seed, step, a.flow, b.flow)
			}
			compareChunks(t, seed, step, a.heldChunks(), b.heldChunks())
		}
		if seed == 0 && joined == 0 {
			t.Error("nothing ever joined")
		}
	}
}

// leaveRing is what the writer does when it has sent all.
func (s *SendStream) leaveRing() {
	if s.flags&sendActive != 0 {
		s.link.core.leaveRing(s)
	}
}

func (s *SendStream) acknowledgeAll() {
	s.acked = s.flow.Accepted.Messages
	if s.q != nil {
		s.q.free()
		s.q = nil
	}
}

func compareChunks(t *testing.T, seed uint64, step int, a, b []chunk) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("seed %d, step %d: %d chunks, without join %d", seed, step, len(a), len(b))
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if !bytes.Equal(x.buf, y.buf) || x.count != y.count || x.bytes != y.bytes || x.first != y.first || x.kind != y.kind {
			t.Fatalf("seed %d, step %d: chunk %d has %d messages of %d bytes, without join %d of %d", seed, step, i, x.count, x.bytes, y.count, y.bytes)
		}
		for j := range x.runs {
			if x.runs[j] != y.runs[j] {
				t.Fatalf("seed %d, step %d: run %d is %+v, without join %+v", seed, step, j, x.runs[j], y.runs[j])
			}
		}
	}
}
