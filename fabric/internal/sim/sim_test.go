package sim

import (
	"bytes"
	"fmt"
	"testing"
)

// Every promise is kept, whatever the seed; make sim has many more.
func TestSeeds(t *testing.T) {
	seeds := uint64(500)
	if raced || testing.Short() {
		seeds = 40
	}
	var sum Counts
	for seed := range seeds {
		result := Run(1_000_000+seed, nil)
		if result.Failure != nil {
			t.Errorf("seed %d: %v\nreplay: make sim SEED=%d TRACE=1", result.Seed, result.Failure, result.Seed)
		}
		sum.Add(&result.Counts)
	}
	t.Logf("%d seeds:\n%s", seeds, &sum)
	if seeds < 500 {
		return
	}
	// A world in which nothing happens would keep every promise.
	for what, n := range sum.of {
		if n == 0 {
			t.Errorf("no seed has shown %q", counterNames[what])
		}
	}
	for f := range numFaults {
		if sum.hit[f] == 0 {
			t.Errorf("no %s has hit anything", f)
		}
	}
}

// Seeds that once failed: they stay, as what they met is rare.
func TestFormerSeeds(t *testing.T) {
	for seed, met := range map[uint64]string{
		419750: "a consumer's end that has the number of one of its node's former life, and opens the stream that this one could not go on with",
		46836:  "a consumer's open on its way, when all had finished but for what it asks for",
		778887: "an answer to a dial that comes when two other connections have come and gone",
		84162:  "a producer that pauses as long as the safety phase",
	} {
		if result := Run(seed, nil); result.Failure != nil {
			t.Errorf("seed %d (%s): %v", seed, met, result.Failure)
		}
	}
}

// A seed is the same history each time, and whether it is traced or not.
func TestSeedReplays(t *testing.T) {
	last := uint64(20)
	if raced {
		last = 3
	}
	for seed := uint64(1); seed <= last; seed++ {
		var first, second bytes.Buffer
		a, b, c := Run(seed, &first), Run(seed, &second), Run(seed, nil)
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("seed %d: two runs have different traces", seed)
		}
		if a.Counts != b.Counts || a.Counts != c.Counts || fmt.Sprint(a.Failure) != fmt.Sprint(c.Failure) {
			t.Errorf("seed %d: runs differ", seed)
		}
		if first.Len() < 1000 {
			t.Errorf("seed %d: the trace is only %q", seed, first.String())
		}
	}
}
