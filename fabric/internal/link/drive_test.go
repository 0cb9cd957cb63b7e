package link

import (
	"errors"
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// driven pair: two links whose packets are handed over by hand.
type drivenPair struct {
	t    *testing.T
	link [2]*Link
	drv  [2]Driver
}

func newDrivenPair(t *testing.T, resumeTicks int) *drivenPair {
	p := &drivenPair{t: t}
	for i := range p.link {
		cfg := testConfig(flow.Mark{Messages: 1 << 16, Bytes: 1 << 20})
		cfg.ResumeTicks = resumeTicks
		p.link[i] = New(cfg, "peer")
		p.drv[i] = Drive(p.link[i])
	}
	return p
}

func (p *drivenPair) bind() {
	for _, d := range p.drv {
		d.Bind(1 << 20)
	}
}

func (p *drivenPair) unbind() {
	for _, d := range p.drv {
		d.Unbind()
	}
}

// pass hands over what side from has to say now, and reports whether it had.
func (p *drivenPair) pass(from int) bool {
	p.t.Helper()
	o := p.drv[from].Gather()
	if o == nil {
		return false
	}
	packets := o.Packets()
	o.Done()
	for _, b := range packets {
		if err := p.drv[1-from].Packet(b, &heldBytes{b}); err != nil {
			p.t.Fatalf("side %d: %v", 1-from, err)
		}
	}
	return true
}

// settle lets both sides talk until they are silent.
func (p *drivenPair) settle() {
	for p.pass(0) || p.pass(1) {
	}
}

// A link that is closing may be told of a backlog before its bye is written. It
// lends nothing for that: nobody would give it back.
func TestNothingIsLentAfterClose(t *testing.T) {
	p := newDrivenPair(t, 0)
	s := p.link[0].Stream("c", 0, flow.Mark{Messages: 10, Bytes: 1 << 20})
	p.link[1].Receive(NewInbox(&Flow{Channel: "c", Mark: flow.Mark{Messages: 10, Bytes: 1 << 20}}, 0, nil))
	p.bind()
	p.settle()
	if err := s.TrySend(testSenders[0], []byte("waits for credit")); err != nil {
		t.Fatal(err)
	}
	p.drv[1].Shut(true)
	p.pass(0)
	if lent := p.link[1].cfg.Budget.Lent(); lent != 0 {
		t.Errorf("%d bytes are lent by a closed link", lent)
	}
}

// A state record that arrives while the link closes belongs to a stream that has
// failed, and must not make it active again.
func TestCreditAfterClose(t *testing.T) {
	p := newDrivenPair(t, 0)
	mark := flow.Mark{Messages: 10, Bytes: 1 << 20}
	s := p.link[0].Stream("c", 0, mark)
	p.link[1].Receive(NewInbox(&Flow{Channel: "c", Mark: mark}, 0, nil))
	p.bind()
	p.settle()
	if err := s.TrySend(testSenders[0], []byte("waits for credit")); err != nil {
		t.Fatal(err)
	}
	p.pass(0) // which announces it
	p.drv[0].Shut(false)
	p.pass(1) // the credit
	if o := p.drv[0].Gather(); o == nil || !o.Bye {
		t.Error("no bye is said")
	}
}

// The consumer's end was given up alone: its resume window was over, and the
// producer's was not. On the next connection nobody opens the stream again, so
// the producer's end must find out by itself what is in doubt.
func TestStreamThatIsNotOpenedAgain(t *testing.T) {
	const window = 5
	p := newDrivenPair(t, window)
	mark := flow.Mark{Messages: 10, Bytes: 1 << 20}
	s := p.link[0].Stream("c", 0, mark)
	p.link[1].Receive(NewInbox(&Flow{Channel: "c", Mark: mark}, 0, nil))
	other := p.link[0].Stream("c", 1, mark)
	p.bind()
	p.settle()
	for range 2 {
		if err := s.TrySend(testSenders[0], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	s.BeginFlush()
	p.settle()
	p.unbind()
	p.link[1].Lose("no connection", false, false)
	if err := s.TrySend(testSenders[0], []byte("in doubt")); err != nil {
		t.Fatal(err)
	}
	p.bind()
	for range 4 * window { // of an idle link only every second tick hears something
		if err, _ := s.Failure(); err != nil {
			break
		}
		for _, d := range p.drv {
			if d.Tick() {
				t.Fatal("the peer is taken for dead")
			}
		}
		p.settle()
	}
	err, pending := s.Failure()
	var lost *LostError
	if !errors.As(err, &lost) || !pending || lost.Acknowledged != 2 || lost.Accepted != 3 {
		t.Errorf("the stream ends with %v, pending %v", err, pending)
	}
	if err, _ := other.Failure(); err != nil {
		t.Errorf("a stream that nobody has opened yet ends with %v", err)
	}
}

// handle has the consumer handle all that has arrived, and reports how many
// messages that were.
func handle(t *testing.T, in *Inbox) (n int) {
	t.Helper()
	for {
		_, _, ok, err := in.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return n
		}
		n++
	}
}

// A stream that is blocked needs the word that the consumer has handled what was
// sent, also if a Send waits at its high-water mark and says so after it.
func TestBlockedStreamWithAWaitingSend(t *testing.T) {
	mark := flow.Mark{Messages: 3, Bytes: 1 << 20}
	p := newDrivenPair(t, 0)
	p.link[1].cfg.Budget = flow.NewBudget(0) // one message at a time
	s := p.link[0].Stream("c", 0, mark)
	in := NewInbox(&Flow{Channel: "c", Mark: flow.Mark{Messages: 100, Bytes: 1 << 20}}, 0, nil)
	p.link[1].Receive(in)
	p.bind()
	send := func(n int) *Waiting {
		w, err := s.BeginSend(testSenders[0], make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	send(20)
	p.settle()
	handle(t, in)
	p.settle() // the window is 20 bytes now
	send(2)
	send(20)
	p.settle() // 2 bytes are sent, and the next 20 are blocked
	send(1)
	if send(1) == nil {
		t.Fatal("no Send waits")
	}
	p.settle()
	for got := 1; got < 4; {
		n := handle(t, in)
		if got += n; n == 0 {
			t.Fatalf("nothing comes after %d messages before a tick", got)
		}
		p.settle()
	}
}

// Sends that wait at the high-water mark go on one after another as messages are
// handled, also if the link is cut meanwhile. No tick is needed.
func TestWaitingSendsGoOn(t *testing.T) {
	mark := flow.Mark{Messages: 1, Bytes: 1}
	p := newDrivenPair(t, 0)
	s := p.link[0].Stream("c", 0, mark)
	in := NewInbox(&Flow{Channel: "c", Mark: flow.Mark{Messages: 100, Bytes: 1 << 20}}, 0, nil)
	p.link[1].Receive(in)
	p.bind()
	var waiting []*Waiting
	for range 6 {
		w, err := s.BeginSend(testSenders[0], []byte{1})
		if err != nil {
			t.Fatal(err)
		}
		if w != nil {
			waiting = append(waiting, w)
		}
	}
	for got := 0; got < 6; {
		p.settle()
		if got == 3 {
			p.unbind()
			p.bind()
			p.settle()
		}
		n := handle(t, in)
		if got += n; n == 0 {
			t.Fatalf("nothing comes after %d messages before a tick", got)
		}
		p.settle()
		if len(waiting) > 0 {
			if done, err := waiting[0].Poll(); !done || err != nil {
				t.Fatalf("after %d messages the next Send is not let go on: %v", got, err)
			}
			waiting = waiting[1:]
		}
	}
}

// Every stream that a consumer may go on with is held against what its node
// takes, also the second one: here the first belongs to a consumer that has left
// the directory, and is back.
func TestMaximumOfThePeerForEveryStream(t *testing.T) {
	const most = 50
	p := newDrivenPair(t, 0)
	p.link[1].cfg.MaxMessage = most
	mark := flow.Mark{Messages: 10, Bytes: 1 << 20}
	var streams []*SendStream
	for range 2 {
		s := p.link[0].Stream("c", 0, mark)
		if err := s.TrySend(testSenders[0], make([]byte, most+1)); err != nil {
			t.Fatal(err)
		}
		if streams = append(streams, s); len(streams) == 1 {
			s.Delist()
		}
	}
	if streams[0] == streams[1] {
		t.Fatal("a stream that is leaving takes messages")
	}
	in := NewInbox(&Flow{Channel: "c", Mark: mark}, 0, nil)
	p.link[1].Receive(in)
	p.drv[0].Bind(most)
	p.drv[1].Bind(most)
	p.settle()
	for i, s := range streams {
		if err, pending := s.Failure(); err == nil || !pending {
			t.Errorf("stream %d has a message that the peer does not take, and goes on", i)
		}
	}
	s := p.link[0].Stream("c", 0, mark)
	if err := s.TrySend(testSenders[0], make([]byte, most)); err != nil {
		t.Fatal(err)
	}
	p.settle()
	if n := handle(t, in); n != 1 {
		t.Errorf("%d messages have come", n)
	}
}

// The word that unused credit is handed back may be lost with the connection. It
// is said again on the next one, or an idle stream would keep its memory.
func TestReleaseThatIsLost(t *testing.T) {
	p := newDrivenPair(t, 0)
	mark := flow.Mark{Messages: 10, Bytes: 1 << 20}
	s := p.link[0].Stream("c", 0, mark)
	in := NewInbox(&Flow{Channel: "c", Mark: mark}, 0, nil)
	p.link[1].Receive(in)
	p.bind()
	if err := s.TrySend(testSenders[0], []byte("x")); err != nil {
		t.Fatal(err)
	}
	p.settle()
	if handle(t, in) != 1 {
		t.Fatal("the message has not come")
	}
	s.BeginFlush()
	p.settle()
	budget := p.link[1].cfg.Budget
	if budget.Lent() == 0 {
		t.Fatal("nothing is lent to a stream in use")
	}
	for range idleTicks + 2 {
		p.drv[1].Tick()
		p.pass(1)
		if p.drv[0].Tick() {
			t.Fatal("the peer is taken for dead")
		}
		if o := p.drv[0].Gather(); o != nil {
			o.Done() // and lost
		}
	}
	p.unbind()
	p.bind()
	p.settle()
	if lent := budget.Lent(); lent != 0 {
		t.Errorf("%d bytes are lent to an idle stream", lent)
	}
}
