// Command run lives through the histories that seeds decide, and says which of
// them broke a promise: see package sim. `make sim` calls it.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric/internal/sim"
)

func main() {
	from := flag.Uint64("from", 1, "the first seed")
	seeds := flag.Uint64("seeds", 25_000, "how many seeds there are")
	seed := flag.Uint64("seed", 0, "one seed alone")
	trace := flag.Bool("trace", false, "with -seed: an event per line to stdout")
	jobs := flag.Int("jobs", runtime.GOMAXPROCS(0), "seeds at a time")
	flag.Parse()
	if flag.NArg() > 0 || *seeds == 0 || *jobs < 1 || *trace && *seed == 0 {
		flag.Usage()
		os.Exit(64)
	}
	if *seed > 0 {
		os.Exit(one(*seed, *trace))
	}
	// Worlds are short and die young: collecting less often costs little memory
	// and saves a quarter of the time.
	debug.SetGCPercent(400)
	os.Exit(many(*from, *seeds, *jobs))
}

// one lives through one seed.
func one(seed uint64, trace bool) int {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	var result sim.Result
	if trace {
		result = sim.Run(seed, out)
	} else {
		result = sim.Run(seed, nil)
	}
	fmt.Fprint(out, result.Counts.String())
	if result.Failure != nil {
		fmt.Fprintf(out, "seed %d: %v\n", seed, result.Failure)
		return 1
	}
	fmt.Fprintf(out, "seed %d: every promise was kept\n", seed)
	return 0
}

// maxFailures is after how many failures a run ends early.
const maxFailures = 10

// many lives through seeds, jobs at a time.
func many(from, seeds uint64, jobs int) int {
	var (
		next, done atomic.Uint64
		failures   atomic.Int64
		mu         sync.Mutex
		sum        sim.Counts
		wg         sync.WaitGroup
	)
	began := time.Now()
	for range jobs {
		wg.Go(func() {
			for failures.Load() < maxFailures {
				n := next.Add(1) - 1
				if n >= seeds {
					return
				}
				result := sim.Run(from+n, nil)
				done.Add(1)
				mu.Lock()
				sum.Add(&result.Counts)
				if result.Failure != nil {
					failures.Add(1)
					fmt.Printf("seed %d: %v\n  replay: make sim SEED=%d TRACE=1\n", result.Seed, result.Failure, result.Seed)
				}
				mu.Unlock()
			}
		})
	}
	stop := progress(&done, seeds, began)
	wg.Wait()
	stop()
	took := time.Since(began)
	fmt.Print(sum.String())
	n := done.Load()
	fmt.Printf("%d seeds from %d in %v: %.0f seeds/s, %.1f million steps/s, %d failed\n", n, from, took.Round(time.Millisecond),
		float64(n)/took.Seconds(), float64(sum.Steps())/took.Seconds()/1e6, failures.Load())
	if failures.Load() > 0 {
		return 1
	}
	return 0
}

// progress tells from time to time how far it is, until stop.
func progress(done *atomic.Uint64, seeds uint64, began time.Time) (stop func()) {
	ticker := time.NewTicker(5 * time.Second)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ticker.C:
				n := done.Load()
				fmt.Fprintf(os.Stderr, "%d of %d seeds, %.0f seeds/s\n", n, seeds, float64(n)/time.Since(began).Seconds())
			case <-end:
				return
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(end)
		<-ended
	}
}
