package link

import (
	"errors"
	"fmt"
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// leaving is a stream of some messages to a consumer that goes, and of two more
// to the one that takes its place. The connection is cut after some packets.
type leaving struct {
	*world
	goes, next *testSend
	left       int  // packets until the cut
	delistUp   bool // the directory's word comes while the link is up, or else when it is cut
	delisted   bool

	// What the consumer that goes has heard.
	got  int
	ends int
	lost error
}

// leavingMark is as many messages as the consumer that goes is sent.
var leavingMark = flow.Mark{Messages: 4, Bytes: 1 << 20}

func newLeaving(t *testing.T, cutAfter int, delistUp bool) *leaving {
	w := &leaving{world: newWorld(t, 1, flow.Mark{Messages: 1 << 10, Bytes: 1 << 20}), left: cutAfter, delistUp: delistUp}
	for _, l := range w.side {
		l.cfg.ResumeTicks = 1 << 20
	}
	w.goes = w.addStream(0, "c", 0, leavingMark)
	for range leavingMark.Messages {
		if !w.send(w.goes, 10) {
			t.Fatal("not accepted")
		}
	}
	return w
}

// step lets each side write, its packets arrive, and the consumers handle them.
// It reports whether anything happened.
func (w *leaving) step() (progress bool) {
	if !w.up {
		w.connect()
		return true
	}
	for i := range w.side {
		progress = w.emit(i) || progress
		for len(w.way[i]) > 0 {
			if w.left--; w.left == 0 {
				w.way[i] = nil // with all that is under way
				w.side[0].core.detach()
				w.side[1].core.detach()
				w.way[1-i], w.up = nil, false
				w.side[0].takeEvents()
				if !w.delistUp {
					w.delist()
				}
				return true
			}
			w.transfer(i)
			progress = true
		}
	}
	return progress || w.take()
}

// take handles one message of the consumer that goes, or what else it hears.
func (w *leaving) take() bool {
	_, kind, ok, err := w.goes.in.TryNext()
	switch {
	case !ok || err == ErrClosed:
		return false
	case kind == Lost:
		w.ends++
		w.lost = errors.Join(w.lost, err)
	case kind == Body:
		w.got++
	}
	return true
}

func (w *leaving) delist() {
	if !w.delisted {
		w.delisted = true
		w.goes.out.Delist()
	}
}

// run goes on until nothing happens any more, with ticks between.
func (w *leaving) run() {
	for idle := 0; idle < 5; {
		if w.step() {
			idle = 0
			continue
		}
		idle++
		for _, l := range w.side {
			l.core.tick()
		}
	}
}

// others makes the next consumer's stream, once the first one takes no more
// messages, and sends to it.
func (w *leaving) others() {
	w.next = &testSend{from: 0, in: NewInbox(&Flow{Channel: "c", Mark: leavingMark}, 0, nil)}
	w.next.out = w.side[0].Stream("c", 0, leavingMark)
	if w.next.out == w.goes.out {
		w.t.Fatal("the stream of the consumer that has left takes messages")
	}
	w.side[1].Receive(w.next.in)
	for range 2 {
		if !w.send(w.next, 10) {
			w.t.Fatal("not accepted")
		}
	}
}

func (w *leaving) wantNext() {
	w.t.Helper()
	for w.step() || w.consume(w.next) {
	}
	if w.next.received != 2 || w.next.out.failure != nil {
		w.t.Errorf("the next consumer: %d of 2 messages, failure %v", w.next.received, w.next.out.failure)
	}
}

// Wherever the connection is cut while a consumer drains: it gets all that was
// accepted, and one end without an error; its stream ends in order, and that of
// the next consumer is none of its business.
func TestDrainCutAnywhere(t *testing.T) {
	for _, delistUp := range []bool{true, false} {
		cuts := 0
		for cutAfter := 1; ; cutAfter++ {
			w := newLeaving(t, cutAfter, delistUp)
			ok := t.Run(fmt.Sprintf("delisted while up %v, cut after %d packets", delistUp, cutAfter), func(t *testing.T) {
				w.t = t
				w.connect()
				for range 3 {
					w.step() // opened, and some of it sent
				}
				w.side[1].core.in[0].Drain()
				if delistUp {
					w.delist()
				}
				w.run()
				w.delist()
				if w.got != int(leavingMark.Messages) || w.ends != 1 || w.lost != nil {
					t.Errorf("%d of %d messages, %d ends, %v", w.got, leavingMark.Messages, w.ends, w.lost)
				}
				var lost *LostError
				if err, pending := w.goes.out.Failure(); pending || !errors.As(err, &lost) || !lost.Left {
					t.Errorf("the producer's end: %v, with messages in doubt %v", err, pending)
				}
				w.others()
				w.wantNext()
				for i, l := range w.side {
					if len(l.core.leave) > 0 || i == 1 && len(l.core.in)-len(l.core.free) > 1 {
						t.Errorf("side %d keeps streams: %d leaving, %d open", i, len(l.core.leave), len(l.core.in)-len(l.core.free))
					}
				}
			})
			if w.left > 0 || !ok {
				break // there were no more packets to cut after
			}
			cuts++
		}
		if cuts < 5 {
			t.Errorf("only %d cuts", cuts)
		}
	}
}

// Wherever the connection is cut while a consumer closes: its producers learn,
// without waiting for more than the next connection, how far it had come, and
// the next consumer's stream is none of its business.
func TestCloseCutAnywhere(t *testing.T) {
	cuts := 0
	for cutAfter := 1; ; cutAfter++ {
		w := newLeaving(t, cutAfter, false)
		ok := t.Run(fmt.Sprintf("cut after %d packets", cutAfter), func(t *testing.T) {
			w.t = t
			w.connect()
			for range 3 {
				w.step()
			}
			r := w.side[1].core.in[0]
			stored := r.flow.Received.Messages
			up := w.up
			w.goes.in.Close()
			w.side[1].core.cancel(r, up)
			if !up {
				w.delist()
				w.others()
			}
			w.run()
			err, _ := w.goes.out.Failure()
			var lost *LostError
			all := stored == leavingMark.Messages // then it may have left in order as well
			if !errors.As(err, &lost) || lost.Left && !all || lost.Acknowledged != stored || lost.Accepted != leavingMark.Messages {
				t.Errorf("%+v, and %d of %d messages were stored", err, stored, leavingMark.Messages)
			}
			if w.next == nil {
				w.others()
			}
			w.wantNext()
		})
		if w.left > 0 || !ok {
			break
		}
		cuts++
	}
	if cuts < 5 {
		t.Errorf("only %d cuts", cuts)
	}
}

// What was accepted for a consumer that left the directory, and is not heard of
// any more, is given up after ResumeTicks; what was stored is not in doubt.
func TestConsumerThatIsNotHeardOf(t *testing.T) {
	for _, c := range []struct {
		name string
		send int
		left bool
	}{{"with messages in doubt", 2, false}, {"with nothing in doubt", 0, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newLeaving(t, -1, false)
			l := w.side[0]
			l.cfg.ResumeTicks = 3
			w.connect()
			w.run()
			w.cut()
			for range c.send {
				w.send(w.goes, 10)
			}
			w.goes.out.Delist()
			done := w.goes.out.BeginFlush()
			for tick := range 4 {
				if w.goes.out.failure != nil {
					t.Fatalf("given up after %d ticks", tick)
				}
				l.Tick()
			}
			var lost *LostError
			err, pending := w.goes.out.Failure()
			if !errors.As(err, &lost) || lost.Left != c.left || pending == c.left {
				t.Errorf("%v, pending %v", err, pending)
			}
			if done != nil {
				select {
				case <-done:
				default:
					t.Error("a Flush goes on waiting")
				}
			}
			if w.goes.out.q != nil {
				t.Error("its memory is not given back")
			}
			if told := w.goes.out.TakeLoss(); (told != nil) == c.left || w.goes.out.TakeLoss() != nil {
				t.Errorf("told %v, and not once", told)
			}
		})
	}
}
