package link

import (
	"flag"
	"math"
	"runtime/debug"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
)

var exploreFor = flag.Duration("explore", 0, "how long TestExplore visits the states of small worlds")

// smallMark is a window of two messages.
var smallMark = flow.Mark{Messages: 2, Bytes: 1 << 20}

// quickWorlds are visited whole, in some seconds together.
var quickWorlds = []smallConfig{
	{name: "two messages, a cut", from: []int{0}, sizes: []int{1, -1}, flush: true, mark: smallMark, cuts: 1, underway: 1},
	{name: "a message, a restart", from: []int{0}, sizes: []int{1}, again: 1, flush: true, mark: smallMark, restarts: 1, underway: 1},
	{name: "a consumer that closes or drains, a cut", from: []int{0}, sizes: []int{1}, mark: smallMark, cuts: 1, closes: 1, underway: 1},
	{name: "a Send that waits", from: []int{0}, sizes: []int{1, 1}, flush: true, mark: flow.Mark{Messages: 1, Bytes: 1}, underway: 2},
	{name: "two streams", from: []int{0, 0}, sizes: []int{1}, mark: smallMark, underway: 1},
}

// theWorld is the one that most of the time is for: a window of two messages,
// three messages on each stream, the last of them the producer's end,
// two cuts and a restart. The producers may hold all of it, so that it is the
// window that makes them wait.
func theWorld(name string, from ...int) smallConfig {
	return smallConfig{
		name: name, from: from, sizes: []int{1, 1, -1}, again: 1, flush: true, mark: smallMark, hold: 3, cuts: 2, restarts: 1, underway: 2,
	}
}

// worlds are those of TestExplore. Without a width they are visited whole, if
// there is time.
var worlds = []struct {
	smallConfig
	width int     // states of each depth that are followed up
	least int     // states that have to be visited, or all
	share float64 // of the time
}{
	{theWorld("two streams, each way one: every interleaving of their first actions", 0, 1), 0, 1_000_000, 12},
	{theWorld("two streams, each way one: some to the end", 0, 1), 3_000, 0, 5},
	{theWorld("two streams, one way", 0, 0), 3_000, 0, 3},
	{theWorld("one stream", 0), 15_000, 0, 3},
	{smallConfig{
		name: "two streams with a message each, a cut",
		from: []int{0, 1}, sizes: []int{1}, flush: true, mark: smallMark, cuts: 1, underway: 2,
	}, 0, 0, 1},
	{smallConfig{
		name: "a consumer that closes or drains, a cut",
		from: []int{0}, sizes: []int{1, 1}, flush: true, mark: smallMark, cuts: 1, closes: 1, underway: 2,
	}, 0, 0, 1.5},
	{smallConfig{
		name: "the same beside another stream",
		from: []int{0, 0}, sizes: []int{1, 1}, flush: true, mark: smallMark, cuts: 1, closes: 1, underway: 2,
	}, 2_000, 0, 2},
	{smallConfig{
		name: "messages larger than the window, two cuts, a restart",
		from: []int{0}, sizes: []int{1, 66_000}, again: 1, mark: flow.Mark{Messages: 2, Bytes: 2}, cuts: 2, restarts: 1, underway: 2,
	}, 2_000, 0, 2},
	{smallConfig{
		name: "a window of two bytes, two cuts",
		from: []int{0}, sizes: []int{1, 1, 2}, flush: true, mark: flow.Mark{Messages: 16, Bytes: 2}, cuts: 2, underway: 2,
	}, 0, 0, 1},
}

const (
	// maxStates bounds the memory that is taken for a world: a state takes some
	// 60 bytes.
	maxStates = 6_000_000
	// quickStates is more than any of the quick worlds has.
	quickStates = 100_000
)

// explore visits the states of a world, at most width of each depth unless that
// is 0, for as long as patience. It tells what it saw, and whether that was all.
func explore(t *testing.T, cfg *smallConfig, width, limit int, patience time.Duration) (states int, whole bool) {
	t.Helper()
	if width == 0 {
		width = math.MaxInt
	}
	x := newExplorer(cfg)
	began := time.Now()
	f := x.run(limit, width, began.Add(patience))
	states = len(x.parent)
	whole = f == nil && x.followed == states
	extent := "a part"
	if whole {
		extent = "the whole space"
	}
	t.Logf("%s: %d states, %d of them followed up, %d edges, depth %d, in %v: %s",
		cfg.name, states, x.followed, x.edges, x.depth, time.Since(began).Round(10*time.Millisecond), extent)
	if f != nil {
		t.Error(f.describe(cfg))
	}
	return states, whole
}

// TestSmallWorlds visits all states of the quick worlds.
func TestSmallWorlds(t *testing.T) {
	skipWithRace(t)
	for i := range quickWorlds {
		t.Run(quickWorlds[i].name, func(t *testing.T) {
			if _, whole := explore(t, &quickWorlds[i], 0, quickStates, time.Hour); !whole && !t.Failed() {
				t.Error("there is no end of states: if something is counted on which no later step depends, it is immaterial")
			}
		})
	}
}

// TestExplore visits more, for as long as it is told: `make explore`.
func TestExplore(t *testing.T) {
	if *exploreFor == 0 {
		t.Skip("runs with make explore")
	}
	// States are short-lived: collecting them rarely is worth the memory, up to here.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(3 << 30))
	end := time.Now().Add(*exploreFor)
	shares := 0.0
	for i := range worlds {
		shares += worlds[i].share
	}
	states := 0
	for i := range worlds {
		w := &worlds[i]
		t.Run(w.name, func(t *testing.T) {
			n, whole := explore(t, &w.smallConfig, w.width, maxStates, time.Duration(float64(time.Until(end))*w.share/shares))
			if states += n; n < w.least && !whole && !t.Failed() {
				t.Errorf("only %d states, %d have to be visited", n, w.least)
			}
		})
		shares -= w.share
	}
	t.Logf("%d states in all", states)
}

// TestExplorerFindsFaults plants faults, and sees that each of them is found.
func TestExplorerFindsFaults(t *testing.T) {
	skipWithRace(t)
	for _, plant := range []struct {
		fault          plantedFault
		name           string
		cuts, restarts uint8
	}{
		{loseState, "a state record is lost", 0, 0},
		{widenLimit, "the window is off by one", 0, 0},
		{noRestate, "a new connection begins without state", 1, 0},
		{noFencing, "a new life goes on with the old streams", 0, 1},
	} {
		t.Run(plant.name, func(t *testing.T) {
			cfg := smallConfig{
				name: plant.name, from: []int{0}, sizes: []int{1, 1, 1}, flush: true, mark: smallMark, hold: 3,
				cuts: plant.cuts, restarts: plant.restarts, underway: 2, fault: plant.fault,
			}
			x := newExplorer(&cfg)
			f := x.run(quickStates, math.MaxInt, time.Now().Add(time.Hour))
			if f == nil {
				t.Fatalf("not found in %d states", len(x.parent))
			}
			t.Logf("found in %d states: %v", len(x.parent), f.describe(&cfg))
		})
	}
}

func skipWithRace(t *testing.T) {
	if raceEnabled {
		t.Skip("takes minutes with the race detector, which has nothing to find where each world is one goroutine's")
	}
}
