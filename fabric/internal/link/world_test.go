package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// world is two cores with a simulated connection between them, driven by one
// goroutine and one seed.
type world struct {
	t    *testing.T
	rng  *rand.Rand
	side [2]*Link
	way  [2][][]byte // packets under way from side i
	up   bool
	lost bool // a packet was lost in the middle: the connection must end now

	placed int // packets read in two steps

	sends []*testSend
}

// testSend is one stream with what was sent on it and what arrived.
type testSend struct {
	from     int
	out      *SendStream
	in       *Inbox
	sent     [][]byte
	received int
	stalled  bool
}

func testConfig(mark flow.Mark) *Config {
	return &Config{
		MaxMessage: 1 << 20, MaxStreams: 1 << 16, Mark: mark, Budget: flow.NewBudget(64 << 20),
		CheckChannel: func(string) error { return nil }, PingTicks: 2, DeadTicks: 8, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Hooks: Hooks{
			Opened: func(*Link, *SendStream) {}, Failed: func(*Link, *SendStream) {}, Ended: func(*Link, *RecvStream) {}, Down: func(*Link, error) {},
		},
	}
}

func newWorld(t *testing.T, seed uint64, mark flow.Mark) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1))}
	for i := range w.side {
		w.side[i] = New(testConfig(mark), fmt.Sprintf("side%d", 1-i))
	}
	return w
}

func (w *world) addStream(from int, channel string, index int, mark flow.Mark) *testSend {
	s := &testSend{from: from, in: NewInbox(&Flow{Channel: channel, Mark: mark}, index, nil)}
	s.out = w.side[from].Stream(channel, index, mark)
	w.side[1-from].Receive(s.in)
	w.sends = append(w.sends, s)
	return s
}

func (w *world) connect() {
	for i, l := range w.side {
		l.core.attach(l.cfg.MaxMessage)
		l.core.fast = i == 0 // as far as its peer goes
	}
	w.up = true
}

// cut ends the connection; any suffix of what is under way is lost.
func (w *world) cut() {
	for i := range w.way {
		for n := w.rng.IntN(len(w.way[i]) + 1); n > 0 && !w.lost; n-- {
			w.transfer(i)
		}
		w.way[i] = nil
	}
	for _, l := range w.side {
		l.core.detach()
	}
	w.up, w.lost = false, false
}

// emit lets side i write one batch.
func (w *world) emit(i int) bool {
	l := w.side[i]
	b := batchPool.Get().(*batch)
	defer func() { b.reset(); batchPool.Put(b) }()
	if !l.core.gather(b) {
		return false
	}
	var all []byte
	for _, v := range b.seal() {
		all = append(all, v...)
	}
	for len(all) > 0 {
		n := int(binary.BigEndian.Uint64(all[1:9]))
		if all[0] != 2 || n == 0 || n > len(all)-9 {
			w.t.Fatalf("bad frame header % x", all[:9])
		}
		w.way[i] = append(w.way[i], all[9:9+n])
		all = all[9+n:]
	}
	return true
}

// transfer hands the first packet under way from side i to the other.
func (w *world) transfer(i int) bool {
	if len(w.way[i]) == 0 {
		return false
	}
	p := w.way[i][0]
	w.way[i] = w.way[i][1:]
	l := w.side[1-i]
	// A large packet may be read in two steps, as transport does with one that
	// has a place; between them anything may happen.
	if head := p[:min(len(p), 64)]; len(p) > 1000 && w.rng.IntN(2) == 0 {
		if dst := l.core.place(head, len(p)); dst != nil {
			if w.rng.IntN(8) == 0 {
				l.core.placed(false) // the connection ended in the middle
				copy(dst, make([]byte, len(dst)))
				w.lost = true
				return true
			}
			w.placed++
			copy(dst, p[len(p)-len(dst):])
			l.core.placed(true)
			p = nil
		}
	}
	if err := l.core.handle(p, &heldBytes{p}); err != nil {
		w.t.Fatalf("side %d: %v", 1-i, err)
	}
	for _, d := range l.core.deliveries {
		d.stream.inbox.put(d.stream, d.item)
	}
	l.core.deliveries = l.core.deliveries[:0]
	return true
}

type heldBytes struct{ p []byte }

func (h *heldBytes) Retain()  {}
func (h *heldBytes) Release() {}
func (h *heldBytes) Cap() int { return len(h.p) }

// consume lets a stream's consumer handle one message.
func (w *world) consume(s *testSend) bool {
	s.in.mu.Lock()
	nothing := len(s.in.items) == 0
	s.in.mu.Unlock()
	if nothing && s.in.pos == len(s.in.taken) && s.in.cur.count <= 0 {
		s.in.settleIdle()
		return false
	}
	body, kind, err := s.in.Next(context.Background())
	if err != nil {
		w.t.Fatalf("stream %s/%d: %v", s.in.flow.Channel, s.in.index, err)
	}
	if s.received >= len(s.sent) {
		w.t.Fatalf("stream %s/%d: message %d was never sent", s.in.flow.Channel, s.in.index, s.received)
	}
	if want := s.sent[s.received]; !bytes.Equal(want, body) || (kind == Finished) != (want == nil) {
		w.t.Fatalf("stream %s/%d: message %d: got %d bytes %.16x, want %d bytes %.16x",
			s.in.flow.Channel, s.in.index, s.received, len(body), body, len(want), want)
	}
	s.received++
	return true
}

// settleIdle counts the last message as handled, as a consumer does that asks
// for the next one and has to wait.
func (in *Inbox) settleIdle() {
	if in.size >= 0 {
		in.messages++
		in.bytes += in.size
		in.size = -1
	}
	in.finishItem()
}

// testSenders are producers of the tests.
var testSenders = func() (list [8]*Sender) {
	for i := range list {
		list[i] = &Sender{Index: uint32(i)}
	}
	return list
}()

// noise is what messages are cut from.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

// send tries to send one message of a random size.
func (w *world) send(s *testSend, most int) bool {
	n := w.rng.IntN(most + 1)
	if w.rng.IntN(3) > 0 {
		n = w.rng.IntN(min(most, 100) + 1)
	}
	at := w.rng.IntN(len(noise) - n)
	body := noise[at : at+n : at+n]
	switch err := s.out.TrySend(testSenders[w.rng.IntN(3)], body); err {
	case nil:
		s.sent = append(s.sent, body)
		return true
	case ErrHighWater:
		return false
	default:
		w.t.Fatalf("send: %v", err)
		return false
	}
}

// check holds the invariants that must be true at every step.
func (w *world) check() {
	for _, s := range w.sends {
		f := &s.out.flow
		if f.Sent.Messages > f.Accepted.Messages || f.Consumed.Messages > f.Sent.Messages && s.out.flags&sendRewind == 0 && w.up {
			w.t.Fatalf("stream %s/%d: accepted %v sent %v consumed %v", s.in.flow.Channel, s.in.index, f.Accepted, f.Sent, f.Consumed)
		}
		if s.out.acked > f.Accepted.Messages {
			w.t.Fatalf("acknowledged %d of %d", s.out.acked, f.Accepted.Messages)
		}
	}
	for _, l := range w.side {
		if lent := l.cfg.Budget.Lent(); lent < 0 {
			w.t.Fatalf("budget lent %d", lent)
		}
	}
}

// finish lets everything go its way, and checks that all of it arrives.
func (w *world) finish() {
	if !w.up {
		w.connect()
	}
	for idle, steps := 0, 0; idle < 40; steps++ {
		if steps > 100_000 {
			w.t.Fatal("no end: the two sides go on telling each other things")
		}
		progress := false
		for i := range w.side {
			progress = w.emit(i) || progress
			for w.transfer(i) {
				progress = true
				if w.lost {
					w.cut()
					w.connect()
				}
			}
		}
		for _, s := range w.sends {
			if s.stalled {
				continue
			}
			for w.consume(s) {
				progress = true
			}
		}
		w.check()
		if progress {
			idle = 0
		} else {
			idle++
			for _, l := range w.side {
				l.core.tick()
			}
		}
	}
	for _, s := range w.sends {
		if s.received != len(s.sent) && !s.stalled {
			f := s.out.flow
			w.t.Fatalf("stream %s/%d: %d of %d messages arrived; sender %+v flags %b", s.in.flow.Channel, s.in.index, s.received, len(s.sent), f, s.out.flags)
		}
		if !s.stalled && (s.out.q != nil || s.out.acked != uint64(len(s.sent))) {
			w.t.Fatalf("stream %s/%d: memory not given back: acked %d of %d", s.in.flow.Channel, s.in.index, s.out.acked, len(s.sent))
		}
	}
}
