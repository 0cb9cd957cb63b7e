package circuit

import (
	"testing"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// FuzzHostile lets a peer say anything. Nothing panics, and there are never more
// circuits than labels.
func FuzzHostile(f *testing.F) {
	open := wire.AppendCircuit(nil, 0, "x", "y", "n", 1<<20)
	f.Add(open)
	f.Add(append(wire.AppendPacketHeader(open, 0, 8), make([]byte, 8)...))
	f.Add(wire.AppendClose(wire.AppendCredit(open, 0, 1<<40), 0, wire.CodeGone, "z"))
	f.Add(wire.AppendClose(wire.AppendAccept(nil, 1, 1<<62), 1, wire.CodeDone, ""))
	f.Fuzz(func(t *testing.T, packet []byte) {
		b := &side{t: t}
		b.Begin(true)
		mine, _ := b.Call("y", "x", "n", new(sink))
		b.write(1)
		b.Send(mine, Parcel{Body: make([]byte, 8), Size: 8})
		var r wire.Record
		for n := 0; len(packet) > 0 && n < 1000; n++ {
			rest, err := wire.Next(packet, 0, &r)
			if err != nil {
				return
			}
			packet = rest
			if r.Kind < wire.KindCircuit {
				continue
			}
			if r.Kind == wire.KindPacket && len(r.Body) < 8 {
				continue // what numbers packets here needs eight bytes
			}
			call, err := b.record(&r)
			if err != nil {
				return
			}
			if call != nil && r.Stream&2 == 0 {
				call.Sink = new(sink)
				b.Accept(call)
			} else if call != nil {
				b.Close(call, wire.CodeBusy, "no")
			}
			if b.Len() > 2*MaxCalls {
				t.Fatalf("%d circuits", b.Len())
			}
			b.write(2)
			for _, e := range append(b.theirs, b.mine...) {
				if e != nil && e.received > e.lent {
					t.Fatalf("%d bytes were taken, %d lent", e.received, e.lent)
				}
			}
		}
		b.End()
	})
}

// FuzzPair lets two sides do what they may, in any order: nobody breaks the
// protocol, packets come in order and none twice, none is missing of a circuit that was not closed
// early, and at last nothing is left.
func FuzzPair(f *testing.F) {
	f.Add([]byte{0, 20, 2, 30, 2, 40, 7, 9, 2, 11, 5, 8, 3})
	f.Add([]byte{1, 0, 33, 44, 55, 66, 77, 88, 99, 110, 121, 132, 143, 154, 165})
	f.Fuzz(pairSteps)
}

func pairSteps(t *testing.T, steps []byte) {
	a, b := newPair(t)
	sides := [2]*side{a, b}
	type state struct {
		end  *End
		sent uint64
	}
	var ends [2][]*state
	if len(steps) > 4000 {
		steps = steps[:4000]
	}
	take := func(i int, calls []*End) {
		for _, e := range calls {
			e.Sink = new(sink)
			sides[i].Accept(e)
			ends[i] = append(ends[i], &state{end: e})
		}
	}
	exchange := func(i int) {
		sides[i].write(3)
		calls, err := sides[1-i].hear(sides[i])
		if err != nil {
			t.Fatal(err)
		}
		take(1-i, calls)
	}
	for _, step := range steps {
		i := int(step & 1)
		s := sides[i]
		var st *state
		if n := len(ends[i]); n > 0 {
			st = ends[i][int(step>>4)%n]
		}
		switch what := step >> 1 & 7; {
		case what == 0:
			e, err := s.Call("x", "y", "n", new(sink))
			if err != nil {
				t.Fatal(err)
			}
			ends[i] = append(ends[i], &state{end: e})
		case what == 1 || what == 2:
			exchange(i)
		case st == nil:
		case what == 3 && step > 200:
			s.Close(st.end, wire.CodeDone, "")
		case what == 4 || what == 3:
			if to, _ := st.end.Sink.(*sink); to != nil {
				s.Passed(st.end, st.end.received-st.end.passed)
			}
		default:
			if st.end.flags&open != 0 && s.Send(st.end, packet(st.sent, int(step)*97)) {
				st.sent++
			}
		}
	}
	for i := range sides {
		for _, st := range ends[i] {
			for k, number := range st.end.Sink.(*sink).got {
				if number != uint64(k) {
					t.Fatalf("packet %d comes in place %d", number, k)
				}
			}
		}
	}
	// Both close everything: first what is on its way arrives.
	for round := 0; a.Busy() || b.Busy() || len(a.out)+len(b.out) > 0; round++ {
		if round > 100_000 {
			t.Fatal("does not come to rest")
		}
		for i := range sides {
			exchange(i)
			for _, st := range ends[i] {
				sides[i].Passed(st.end, st.end.received-st.end.passed)
			}
		}
	}
	for i := range sides {
		for _, st := range ends[i] {
			if !st.end.Closing() && !st.end.Ended() && st.end.queued > 0 {
				t.Fatalf("%d bytes wait for ever", st.end.queued)
			}
			sides[i].Close(st.end, wire.CodeDone, "")
		}
	}
	for a.Busy() || b.Busy() || len(a.out)+len(b.out) > 0 {
		exchange(0)
		exchange(1)
	}
	if a.Len() != 0 || b.Len() != 0 || a.Active() != 0 || b.Active() != 0 {
		t.Fatalf("%d and %d circuits are left, %d and %d in the ring", a.Len(), b.Len(), a.Active(), b.Active())
	}
}
