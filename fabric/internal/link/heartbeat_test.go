package link

import (
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// kinds is what a driven link writes now.
func kinds(t *testing.T, d Driver) []wire.Kind {
	t.Helper()
	o := d.Gather()
	if o == nil {
		return nil
	}
	defer o.Done()
	var list []wire.Kind
	for _, p := range o.Packets() {
		for len(p) > 0 {
			var rec wire.Record
			rest, err := wire.Next(p, 0, &rec)
			if err != nil {
				t.Fatal(err)
			}
			p = rest
			list = append(list, rec.Kind)
		}
	}
	return list
}

// A peer that says nothing is asked from the PingTicks-th silent tick on, at
// each, and given up at the DeadTicks-th. The tick before does not count:
// something may have been heard just before it.
func TestSilenceIsCountedInTicks(t *testing.T) {
	cfg := testConfig(flow.Mark{Messages: 1, Bytes: 1})
	cfg.PingTicks, cfg.DeadTicks = 2, 7
	d := Drive(New(cfg, "b"))
	d.Bind(1)
	for round := range 3 {
		for tick := range 1 + cfg.DeadTicks {
			dead, said := d.Tick(), kinds(t, d)
			if asks := len(said) == 1 && said[0] == wire.KindPing; dead != (tick == cfg.DeadTicks) || !dead && asks != (tick >= cfg.PingTicks) {
				t.Fatalf("round %d: at silent tick %d it says %v, dead %v", round, tick, said, dead)
			}
		}
		if err := d.Packet(wire.AppendPong(nil, 0), &heldBytes{}); err != nil { // any packet counts
			t.Fatal(err)
		}
	}
}

// Who receives data says something at each tick, although it has nothing to say:
// what its peer would ask is behind the data.
func TestDataIsAnsweredAtEachTick(t *testing.T) {
	mark := flow.Mark{Messages: 1 << 16, Bytes: 1 << 20}
	a, b := Drive(New(testConfig(mark), "b")), Drive(New(testConfig(mark), "a"))
	in := NewInbox(&Flow{Channel: "c", Mark: mark}, 0, nil)
	b.l.Receive(in)
	a.Bind(1 << 20)
	b.Bind(1 << 20)
	const size = 10 * wire.MaxFragment
	if err := a.l.Stream("c", 0, mark).TrySend(testSenders[0], make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	// written is what from writes now; carry brings it to the other side.
	written := func(from Driver) [][]byte {
		o := from.Gather()
		if o == nil {
			return nil
		}
		defer o.Done()
		return o.Packets()
	}
	carry := func(to Driver, packets ...[]byte) {
		for _, p := range packets {
			if err := to.Packet(p, &heldBytes{p}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fragments := 0
	for queue := [][]byte(nil); ; {
		if queue = append(queue, written(a)...); len(queue) == 0 {
			back := written(b)
			if carry(a, back...); len(back) == 0 {
				break
			}
			continue
		}
		p := queue[0]
		queue = queue[1:]
		carry(b, p)
		back := written(b)
		b.Tick()
		back = append(back, written(b)...)
		if carry(a, back...); len(p) > wire.MaxFragment {
			if fragments++; len(back) == 0 {
				t.Errorf("nothing is said in the tick after fragment %d", fragments)
			}
		}
	}
	if fragments != size/wire.MaxFragment {
		t.Fatalf("%d fragments have come", fragments)
	}
}
