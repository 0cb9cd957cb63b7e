package link

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A message larger than the peer takes is refused, also by a Send that waited.
func TestMessageOverThePeersMaximum(t *testing.T) {
	const most = 10_000
	ctx := testContext(t)
	mark := flow.Mark{Messages: 1, Bytes: 1 << 20}
	p, c := pair(t, "tcp://127.0.0.1:0", mark)
	p.mu.Lock()
	p.core.maxBody = most
	p.mu.Unlock()
	in := NewInbox(&Flow{Channel: "x", Mark: mark}, 0, nil)
	c.Receive(in)
	s := p.Stream("x", 0, mark)
	refused := func(what string, err error) {
		t.Helper()
		var large *TooLargeError
		if !errors.As(err, &large) || large.Size != most+1 || large.Max != most {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("with room", s.Send(ctx, testSenders[0], make([]byte, most+1)))
	if err := s.Send(ctx, testSenders[0], make([]byte, most)); err != nil {
		t.Fatal(err)
	}
	refused("at the mark, at once", s.TrySend(testSenders[0], make([]byte, most+1)))
	refused("at the mark", s.Send(ctx, testSenders[0], make([]byte, most+1)))
	if body, _, err := in.Next(ctx); err != nil || len(body) != most {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
}

// A Send waits, and meanwhile the peer comes and says how much it takes.
func TestSendThatWaitsWhenThePeersMaximumIsHeard(t *testing.T) {
	const most = 10_000
	ctx := testContext(t)
	mark := flow.Mark{Messages: 1, Bytes: 1 << 20}
	p, c := pair(t, "tcp://127.0.0.1:0", mark)
	s := p.Stream("x", 0, mark)
	if err := s.Send(ctx, testSenders[0], []byte("first")); err != nil {
		t.Fatal(err)
	}
	said := make(chan error, 1)
	go func() { said <- s.Send(ctx, testSenders[0], make([]byte, most+1)) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for waits := false; !waits; <-tick.C {
		p.mu.Lock()
		if waits = s.waiters != nil; waits {
			p.core.maxBody = most // as Attach does
		}
		p.mu.Unlock()
	}
	in := NewInbox(&Flow{Channel: "x", Mark: mark}, 0, nil)
	c.Receive(in)
	if body, _, err := in.Next(ctx); err != nil || string(body) != "first" {
		t.Fatalf("%q, %v", body, err)
	}
	next, cancel := context.WithCancel(ctx)
	received := make(chan int, 1)
	go func() {
		body, _, _ := in.Next(next) // handles the first one, which makes room
		received <- len(body)
	}()
	if err := <-said; !errors.As(err, new(*TooLargeError)) {
		t.Errorf("it said %v", err)
	}
	cancel()
	if n := <-received; n > 0 {
		t.Errorf("a message of %d bytes came", n)
	}
}

// What was accepted before the peer said how much it takes may be too large:
// the stream ends with an error that says so, and the link stays up.
func TestMessageOverTheMaximumOfAPeerThatWasNotThere(t *testing.T) {
	mark := flow.Mark{Messages: 10, Bytes: 1 << 20}
	w := newWorld(t, 1, mark)
	small := *w.side[1].cfg
	small.MaxMessage = 100
	w.side[1].cfg, w.side[1].core.cfg = &small, &small
	large, fine := w.addStream(0, "c", 0, mark), w.addStream(0, "c", 1, mark)
	if err := large.out.TrySend(testSenders[0], make([]byte, 70_000)); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 100)
	if err := fine.out.TrySend(testSenders[0], body); err != nil {
		t.Fatal(err)
	}
	fine.sent = append(fine.sent, body)
	large.stalled = true
	for _, l := range w.side { // what both nodes take
		l.core.attach(small.MaxMessage)
	}
	w.up = true
	w.finish()
	var lost *LostError
	if err := large.out.TrySend(testSenders[0], nil); !errors.As(err, &lost) || lost.Accepted != 1 || lost.Acknowledged != 0 {
		t.Errorf("the stream with the large message: %v", err)
	}
	if err := fine.out.TrySend(testSenders[0], make([]byte, 101)); !errors.As(err, new(*TooLargeError)) {
		t.Errorf("the other one: %v", err)
	}
}

// Nothing is accepted on a link that is closed, by streams old or new.
func TestStreamsOfAClosedLink(t *testing.T) {
	mark := flow.Mark{Messages: 10, Bytes: 1000}
	l := New(testConfig(mark), "x")
	before := l.Stream("c", 0, mark)
	l.Close(time.Second, true)
	for i, s := range []*SendStream{before, l.Stream("c", 0, mark), l.Stream("d", 3, mark)} {
		if err := s.TrySend(testSenders[0], []byte("x")); err != ErrClosed {
			t.Errorf("stream %d, TrySend: %v", i, err)
		}
		if err := s.Send(testContext(t), testSenders[0], []byte("x")); err != ErrClosed {
			t.Errorf("stream %d, Send: %v", i, err)
		}
	}
}
