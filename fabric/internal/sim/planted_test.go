//go:build plantedbugs

package sim

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zfab/zfab/fabric/internal/planted"
)

// plantedSeeds is within how many seeds each mistake must show.
const plantedSeeds = 2000

// Every mistake that can be planted is found: else the world is too quiet for it,
// or the checks are too weak.
func TestPlantedBugs(t *testing.T) {
	defer func() { planted.Planted = planted.None }()
	for bug := planted.None + 1; int(bug) < planted.Count; bug++ {
		t.Run(bug.String(), func(t *testing.T) {
			planted.Planted = bug
			seed, failure := firstFailure(plantedSeeds)
			if failure == nil {
				t.Fatalf("not found within %d seeds", plantedSeeds)
			}
			what, _, _ := strings.Cut(failure.Error(), "\n")
			t.Logf("found by seed %d: %.150s", seed, what)
		})
	}
}

// firstFailure is the first seed that fails, with two worlds at a time.
func firstFailure(seeds uint64) (seed uint64, failure error) {
	var next atomic.Uint64
	var mu sync.Mutex
	var wg sync.WaitGroup
	first := seeds + 1
	for range 2 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				mu.Lock()
				over := n >= first
				mu.Unlock()
				if over || n > seeds {
					return
				}
				if result := Run(n, nil); result.Failure != nil {
					mu.Lock()
					if n < first {
						first, failure = n, result.Failure
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first, failure
}
