package link

import (
	"fmt"
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// TestEverythingArrivesOnceInOrder runs seeds of random sends, writes,
// deliveries, consumption, ticks and cuts over several streams in both
// directions, and checks every byte.
func TestEverythingArrivesOnceInOrder(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 60
	}
	var placed int
	var resent uint64
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := randomRun(t, seed)
			placed += w.placed
			resent += w.side[0].core.stats.Resent + w.side[1].core.stats.Resent
		})
	}
	if placed < 100 || resent < 100 {
		t.Errorf("only %d packets were read to their place and %d messages sent again: the runs show too little", placed, resent)
	}
}

func randomRun(t *testing.T, seed uint64) *world {
	marks := []flow.Mark{
		{Messages: 1 << 16, Bytes: 1 << 20}, {Messages: 3, Bytes: 1 << 20}, {Messages: 100, Bytes: 1000}, {Messages: 1, Bytes: 1},
		{Messages: 1 << 16, Bytes: 4 << 20},
	}
	sizes := []int{0, 100, 5000, 70000, 300000}
	w := newWorld(t, seed, marks[0])
	streams := 1 + w.rng.IntN(5)
	mark := marks[w.rng.IntN(len(marks))]
	most := sizes[w.rng.IntN(len(sizes))]
	cuts := w.rng.IntN(2) == 0
	for i := range streams {
		w.addStream(w.rng.IntN(2), "c", i, mark)
	}
	w.connect()
	for range 600 {
		s, k := w.sends[w.rng.IntN(streams)], w.rng.IntN(100)
		switch {
		case k < 40:
			w.send(s, most)
		case k < 60:
			w.emit(w.rng.IntN(2))
		case k < 80:
			if w.transfer(w.rng.IntN(2)); w.lost {
				w.cut()
			}
		case k < 96:
			w.consume(s)
		case k < 98:
			w.side[w.rng.IntN(2)].core.tick()
		case k == 98 && cuts && w.up:
			w.cut()
		case k == 99 && !w.up:
			w.connect()
		}
		w.check()
	}
	for _, s := range w.sends {
		if w.rng.IntN(2) == 0 && s.out.Finish(testSenders[7]) == nil {
			s.sent = append(s.sent, nil)
		}
	}
	w.finish()
	return w
}
