package link

import (
	"slices"
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
// something may have been heard just before it. At each tick it gets a sign of
// life.
func TestSilenceIsCountedInTicks(t *testing.T) {
	cfg := testConfig(flow.Mark{Messages: 1, Bytes: 1})
	cfg.PingTicks, cfg.DeadTicks = 2, 7
	d := Drive(New(cfg, "b"))
	d.Bind(1)
	for round := range 3 {
		for tick := range 1 + cfg.DeadTicks {
			dead, said := d.Tick(), kinds(t, d)
			var want []wire.Kind
			switch {
			case tick >= cfg.DeadTicks:
			case tick >= cfg.PingTicks:
				want = []wire.Kind{wire.KindPong, wire.KindPing}
			default:
				want = []wire.Kind{wire.KindPong}
			}
			if dead != (tick == cfg.DeadTicks) || !slices.Equal(said, want) {
				t.Fatalf("round %d: at silent tick %d it says %v, dead %v; want %v", round, tick, said, dead, want)
			}
		}
		if err := d.Packet(wire.AppendPong(nil, 0), &heldBytes{}); err != nil { // any packet counts
			t.Fatal(err)
		}
	}
}
