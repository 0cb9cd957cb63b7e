package circuit

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// side is a Table with what is on its way to the other side.
type side struct {
	Table
	t   testing.TB
	out []byte
}

// sink is that of an End here: it notes what it is told.
type sink struct {
	got    []uint64 // numbers of packets
	open   bool
	closed bool
	code   uint8
}

func newPair(t testing.TB) (a, b *side) {
	a, b = &side{t: t}, &side{t: t}
	a.Begin(false)
	b.Begin(true)
	return a, b
}

// write writes what is due, up to so many turns.
func (s *side) write(turns int) {
	for s.Telling() {
		before := len(s.out)
		if s.out = s.Say(s.out); len(s.out) == before {
			s.t.Fatal("nothing was said")
		}
	}
	for ; turns > 0 && s.Active() > 0; turns-- {
		e := s.Turn(1000)
		for more := true; more; {
			var p Parcel
			var label uint32
			p, label, more = s.Take(e)
			s.out = append(wire.AppendPacketHeader(s.out, label, p.Size), p.Body...)
			if p.From != nil {
				p.From.Release()
			}
		}
	}
	for s.Telling() {
		s.out = s.Say(s.out)
	}
}

// hear takes what the other side has written, and returns who was called.
func (s *side) hear(from *side) (calls []*End, err error) {
	var r wire.Record
	for len(from.out) > 0 {
		rest, err := wire.Next(from.out, 0, &r)
		if err != nil {
			s.t.Fatal(err)
		}
		call, err := s.record(&r)
		if err != nil {
			return calls, err
		}
		if call != nil {
			calls = append(calls, call)
		}
		from.out = rest
	}
	return calls, nil
}

// record takes one record, and tells the End's sink.
func (s *side) record(r *wire.Record) (call *End, err error) {
	if r.Kind == wire.KindCircuit {
		return s.Called(r)
	}
	e, err := s.Heard(r)
	if err != nil {
		return nil, err
	}
	to, _ := e.Sink.(*sink)
	if to == nil {
		to = new(sink)
	}
	switch r.Kind {
	case wire.KindAccept:
		to.open, err = s.Accepted(e, r.Limit)
	case wire.KindPacket:
		var wanted bool
		if wanted, err = s.Packet(e, len(r.Body)); wanted {
			to.got = append(to.got, binary.BigEndian.Uint64(r.Body))
		}
	case wire.KindCredit:
		s.Credit(e, r.Limit)
	case wire.KindClose:
		s.Closed(e)
		to.closed, to.code = true, r.Code
	}
	return nil, err
}

// settle lets both sides write and hear until nothing is left, and takes calls.
func settle(t testing.TB, a, b *side) {
	t.Helper()
	for a.Busy() || b.Busy() || len(a.out)+len(b.out) > 0 {
		a.write(1)
		b.write(1)
		for _, way := range [][2]*side{{a, b}, {b, a}} {
			calls, err := way[1].hear(way[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range calls {
				e.Sink = new(sink)
				way[1].Accept(e)
			}
		}
	}
}

func packet(number uint64, size int) Parcel {
	body := make([]byte, max(size, 8))
	binary.BigEndian.PutUint64(body, number)
	return Parcel{Body: body, Size: len(body)}
}

// opened is a circuit that a has asked for and b has accepted: both ends.
func opened(t testing.TB, a, b *side) (near, far *End) {
	t.Helper()
	near, err := a.Call("x", "y", "n", new(sink))
	if err != nil {
		t.Fatal(err)
	}
	settle(t, a, b)
	far = b.theirs[near.label>>1]
	if near.flags&open == 0 || far.flags&open == 0 || far.From != "x" || far.To != "y" || far.Via != "n" {
		t.Fatalf("not open: %+v, %+v", near, far)
	}
	return near, far
}

func TestLabelsAreFreeWhenBothSidesHaveClosed(t *testing.T) {
	a, b := newPair(t)
	first, far := opened(t, a, b)
	back, _ := b.Call("y", "x", "n", new(sink))
	if first.label != 0 || back.label != 1 {
		t.Errorf("labels %d and %d", first.label, back.label)
	}
	a.Close(first, wire.CodeDone, "")
	settle(t, a, b)
	if !far.Sink.(*sink).closed || a.Len() != 2 {
		t.Fatalf("%+v, %d circuits", far.Sink, a.Len())
	}
	second, _ := a.Call("x", "y", "n", new(sink))
	if second.label == first.label {
		t.Error("the label is used again before the other side has closed")
	}
	b.Close(far, wire.CodeDone, "")
	settle(t, a, b)
	third, _ := a.Call("x", "y", "n", new(sink))
	if third.label != first.label {
		t.Errorf("label %d is not used again, but %d", first.label, third.label)
	}
}

// What a peer may not do.
func TestViolations(t *testing.T) {
	for name, c := range map[string]struct {
		record func(open uint32) []byte
		says   string
	}{
		"our label":              {func(uint32) []byte { return wire.AppendCircuit(nil, 3, "x", "y", "n", 1) }, "this side's to choose"},
		"label out of range":     {func(uint32) []byte { return wire.AppendCircuit(nil, 2*MaxCalls, "x", "y", "n", 1) }, "at most 16384"},
		"label in use":           {func(l uint32) []byte { return wire.AppendCircuit(nil, l, "x", "y", "n", 1) }, "in use"},
		"packet on nothing":      {func(uint32) []byte { return append(wire.AppendPacketHeader(nil, 8, 1), 1) }, "not there"},
		"packet on our nothing":  {func(uint32) []byte { return append(wire.AppendPacketHeader(nil, 1, 1), 1) }, "not there"},
		"close of nothing":       {func(uint32) []byte { return wire.AppendClose(nil, 1<<31, 0, "") }, "not there"},
		"credit on nothing":      {func(uint32) []byte { return wire.AppendCredit(nil, 4, 1) }, "not there"},
		"accept of its own":      {func(l uint32) []byte { return wire.AppendAccept(nil, l, 1) }, "nobody had asked for"},
		"packet beyond the room": {func(l uint32) []byte { return flood(l, Window) }, "beyond the limit"},
		"packet after close": {func(l uint32) []byte {
			return append(wire.AppendPacketHeader(wire.AppendClose(nil, l, 0, ""), l, 8), make([]byte, 8)...)
		}, "was closed"},
		"close twice": {func(l uint32) []byte { return wire.AppendClose(wire.AppendClose(nil, l, 0, ""), l, 0, "") }, "was closed"},
		"packet before accept": {func(uint32) []byte {
			return append(wire.AppendPacketHeader(wire.AppendCircuit(nil, 2, "x", "y", "n", 1), 2, 1), 1)
		}, "not open"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(t)
			near, _ := opened(t, a, b)
			a.out = c.record(near.label)
			if _, err := b.hear(a); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// flood is packets that count n bytes and one more.
func flood(label uint32, n int) (p []byte) {
	for ; n >= 0; n -= 8 + wire.PacketCost {
		p = append(wire.AppendPacketHeader(p, label, 8), make([]byte, 8)...)
	}
	return p
}

// stalled reports whether packets wait for credit.
func stalled(e *End) bool { return e.flags&active == 0 && e.queued > 0 }

// Nobody reads: what is sent stops at a window, and goes on when that is passed.
func TestCircuitHoldsNoMoreThanItsWindow(t *testing.T) {
	a, b := newPair(t)
	near, far := opened(t, a, b)
	const count = 3 * Window / 1000
	for i := range uint64(count) {
		if !a.Send(near, packet(i, 1000)) {
			t.Fatal("not sent")
		}
	}
	settle(t, a, b)
	if far.received > Window || far.received+1100 < Window || !stalled(near) || near.Ready(1) {
		t.Fatalf("%d bytes were sent of a window of %d", far.received, Window)
	}
	got := &far.Sink.(*sink).got
	for passed := 0; len(*got) < count; {
		if passed == len(*got) {
			t.Fatalf("stands still at %d", passed)
		}
		b.Passed(far, cost(1000)*uint64(len(*got)-passed))
		passed = len(*got)
		settle(t, a, b)
	}
	for i, number := range *got {
		if number != uint64(i) {
			t.Fatalf("packet %d comes in place %d", number, i)
		}
	}
}

// Small amounts of room are not told one by one.
func TestCreditIsToldByTheHalf(t *testing.T) {
	a, b := newPair(t)
	_, far := opened(t, a, b)
	for range Window/2/100 - 1 {
		b.Passed(far, 100)
	}
	if b.Busy() {
		t.Error("credit is told for less than half of the window")
	}
	b.Passed(far, 200)
	if !b.Busy() {
		t.Error("credit is not told for half of the window")
	}
}

// Circuits take turns by bytes, whatever the sizes of their packets.
func TestCircuitsTakeTurnsByBytes(t *testing.T) {
	a, b := newPair(t)
	small, farSmall := opened(t, a, b)
	large, farLarge := opened(t, a, b)
	for i := range uint64(1000) {
		a.Send(small, packet(i, 100))
	}
	for i := range uint64(50) {
		a.Send(large, packet(i, 3000))
	}
	a.write(60)
	if _, err := b.hear(a); err != nil {
		t.Fatal(err)
	}
	if s, l := farSmall.received, farLarge.received; s > l+4000 || l > s+4000 || s == 0 {
		t.Errorf("%d bytes of small packets, %d of large ones", s, l)
	}
}

// lender counts what it gets back.
type lender int

func (l *lender) Release() { *l++ }

func TestCloseGoesBehindWhatWasSent(t *testing.T) {
	a, b := newPair(t)
	near, far := opened(t, a, b)
	var kept, local lender
	for i := range uint64(3) {
		p := packet(i, 100)
		p.From = &kept
		a.Send(near, p)
		p.From, p.Local = &local, true
		a.Send(near, p)
	}
	a.Close(near, wire.CodeGone, "dead")
	if local != 3 || kept != 0 {
		t.Errorf("%d packets were taken back, %d of others", local, kept)
	}
	if a.Send(near, packet(9, 1)) {
		t.Error("sent after close")
	}
	settle(t, a, b)
	if s := far.Sink.(*sink); len(s.got) != 3 || !s.closed || s.code != wire.CodeGone || kept != 3 {
		t.Errorf("%+v, %d given back", s, kept)
	}
}

// What is taken back may have been all that the limit allowed.
func TestTakingBackLeavesTheRingInOrder(t *testing.T) {
	a, b := newPair(t)
	near, _ := opened(t, a, b)
	var local lender
	small := packet(0, 8)
	small.From, small.Local = &local, true
	a.Send(near, packet(0, 1000))
	a.write(1)
	near.limit = near.sent + 100
	a.Send(near, small)
	a.Send(near, packet(1, 1000))
	if a.Active() != 1 {
		t.Fatal("the small packet cannot go")
	}
	a.TakeBack(near)
	if local != 1 || a.Active() != 0 || !stalled(near) {
		t.Errorf("%d given back, %d in the ring", local, a.Active())
	}
	a.Credit(near, near.limit+1000)
	if a.Active() != 1 {
		t.Error("the large packet does not go")
	}
}

// Whoever has closed takes nothing any more, so nothing waits for its credit.
func TestClosedCircuitKeepsNothing(t *testing.T) {
	a, b := newPair(t)
	near, far := opened(t, a, b)
	var kept lender
	for i := range uint64(2 * Window / 1000) {
		p := packet(i, 1000)
		p.From = &kept
		a.Send(near, p)
	}
	settle(t, a, b)
	a.Close(near, wire.CodeDone, "")
	settle(t, a, b)
	if near.flags&closeSaid != 0 {
		t.Fatal("close was said before what was sent")
	}
	b.Close(far, wire.CodeDone, "")
	settle(t, a, b)
	if kept != 2*Window/1000 || a.Len() != 0 || b.Len() != 0 {
		t.Errorf("%d packets given back, %d and %d circuits left", kept, a.Len(), b.Len())
	}
}

func TestCallThatWasNeverSaidIsGoneAtOnce(t *testing.T) {
	a, b := newPair(t)
	e, _ := a.Call("x", "y", "n", new(sink))
	if !a.Close(e, wire.CodeDone, "") || a.Len() != 0 {
		t.Error("it is still there")
	}
	a.write(1)
	if len(a.out) > 0 {
		t.Errorf("% x was said", a.out)
	}
	near, _ := opened(t, a, b)
	if near.label != e.label {
		t.Error("its label is not free")
	}
}

// Who asks for circuits and closes them at once, again and again, has no more of
// them than labels: what is not confirmed is not free.
func TestRapidResetIsBounded(t *testing.T) {
	a, b := newPair(t)
	for {
		e, err := a.Call("x", "y", "n", new(sink))
		if err == ErrFull {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		a.write(1)
		a.Close(e, wire.CodeDone, "")
		a.write(1)
		if _, err := b.hear(a); err != nil { // and nobody closes, as the work goes on
			t.Fatal(err)
		}
	}
	if b.Len() != MaxCalls || a.Len() != MaxCalls {
		t.Errorf("%d circuits at the other side, %d at this", b.Len(), a.Len())
	}
	for _, e := range b.theirs {
		b.Close(e, wire.CodeDone, "")
	}
	settle(t, a, b)
	if b.Len() != 0 || a.Len() != 0 {
		t.Errorf("%d circuits at the other side, %d at this", b.Len(), a.Len())
	}
}

// One that others pass calls on for has its share only, and gets it back.
func TestNobodyTakesAllLabels(t *testing.T) {
	a, _ := newPair(t)
	var last *End
	for {
		e, err := a.CallFor("greedy", "x", "y", "n", new(sink))
		if err == ErrFull {
			break
		}
		last = e
	}
	if a.Len() != MaxShare {
		t.Errorf("%d circuits for one", a.Len())
	}
	if _, err := a.CallFor("modest", "x", "y", "n", new(sink)); err != nil {
		t.Error(err)
	}
	a.Close(last, wire.CodeDone, "")
	if _, err := a.CallFor("greedy", "x", "y", "n", new(sink)); err != nil {
		t.Error(err)
	}
}

// The connection's end gives everything back, and names the circuits whose sinks
// have not heard of their end.
func TestConnectionEnds(t *testing.T) {
	a, b := newPair(t)
	one, _ := opened(t, a, b)
	two, far := opened(t, a, b)
	var kept lender
	p := packet(1, 100)
	p.From = &kept
	a.Send(one, p)
	b.Close(far, wire.CodeDone, "")
	b.write(1)
	if _, err := a.hear(b); err != nil {
		t.Fatal(err)
	}
	if cut := a.End(); len(cut) != 1 || cut[0] != one || kept != 1 {
		t.Errorf("%d cut, %d given back", len(cut), kept)
	}
	if a.Send(one, packet(2, 1)) || a.Busy() || a.Len() != 0 {
		t.Error("something is left")
	}
	a.Passed(one, Window)
	a.Close(two, wire.CodeDone, "")
	a.Accept(one)
	if a.Busy() {
		t.Error("an end of the connection before has something to say")
	}
}
