package patterns

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// share is what one worker did of a run.
type share struct {
	jobs int
	busy time.Duration // in jobs
	end  time.Time     // of its last one
}

// runShared lets workers of which each job takes its pace do jobs, and returns
// how long that took, and what each has done.
func runShared(t *testing.T, paces []time.Duration, jobs int) (time.Duration, []share) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := directory.NewRegistry()
	pusherNode := openNode(t, dir, "pusher")
	p := openPusherOf(t, pusherNode, PusherConfig[int]{})
	defer p.Close()
	shares := make([]share, len(paces))
	var working sync.WaitGroup
	for i, pace := range paces {
		w := openPullerOf(t, openNode(t, dir, fmt.Sprint("worker", i)), PullerConfig[int]{InFlight: 2, Pushers: 1})
		working.Go(func() {
			defer w.Close()
			for j, err := range w.Jobs(ctx) {
				if err != nil {
					t.Error(err)
					return
				}
				began := time.Now()
				time.Sleep(pace) // is the work
				shares[i].end = time.Now()
				shares[i].busy += shares[i].end.Sub(began)
				shares[i].jobs++
				check(t, j.Ack())
			}
		})
	}
	check(t, p.WaitWorkers(ctx, len(paces)))
	began := time.Now()
	for i := range jobs {
		check(t, p.Push(ctx, i))
	}
	check(t, p.Drain(ctx))
	working.Wait()
	last := slices.MaxFunc(shares, func(a, b share) int { return a.end.Compare(b.end) }).end
	return last.Sub(began), shares
}

// Eight workers, each pair twice as fast as the one before: all finish within 5 %
// of the run of each other, and the run takes at most 10 % longer than if no
// worker ever waited. What a job really took counts, so that a machine that is
// late with everything does not; as it may be late in the wrong moment, one good
// run of three is enough; and on a machine so busy that a sleep takes a quarter
// longer than asked, nothing can be said.
func TestPipelineUnequalWorkersFinishTogether(t *testing.T) {
	const unit = 2 * time.Millisecond
	paces := []time.Duration{unit, unit, 2 * unit, 2 * unit, 4 * unit, 4 * unit, 8 * unit, 8 * unit}
	const jobs = 2800 // about 1.5 s
	for run := 1; ; run++ {
		took, shares := runShared(t, paces, jobs)
		rate, done, asked, slept := 0.0, 0, time.Duration(0), time.Duration(0)
		first, last := shares[0].end, shares[0].end
		for i, s := range shares {
			asked += time.Duration(s.jobs) * paces[i]
			slept += s.busy
			if s.jobs == 0 {
				t.Fatalf("a worker starved: %+v", shares)
			}
			rate += float64(s.jobs) / s.busy.Seconds()
			done += s.jobs
			if s.end.Before(first) {
				first = s.end
			}
			if s.end.After(last) {
				last = s.end
			}
		}
		ideal := time.Duration(float64(jobs) / rate * float64(time.Second))
		apart, over := last.Sub(first).Seconds()/took.Seconds(), took.Seconds()/ideal.Seconds()-1
		t.Logf("%d jobs in %v, %.1f %% over the ideal %v; workers end within %.1f %%", done, took, 100*over, ideal, 100*apart)
		if done != jobs {
			t.Fatalf("%d jobs done, want %d", done, jobs)
		}
		if apart <= 0.05 && over <= 0.10 {
			return
		}
		if run == 3 && slept > asked*5/4 {
			t.Skipf("sleeps of %v took %v: the machine is too busy to tell", asked, slept)
		}
		if run == 3 {
			t.Fatalf("not in any of three runs; the last one's shares: %+v", shares)
		}
	}
}

// A worker whose link is cut five times a second notices nothing, and nothing of
// what it has is delivered twice.
func TestPipelineThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	relays := []*relay{newRelay(t, dir), newRelay(t, dir)}
	p := openPusherOf(t, openRelayed(t, relays[0], fabric.Config{Name: "a-pusher"}), PusherConfig[int]{Patience: 20 * time.Second})
	var done ledger[int]
	var working sync.WaitGroup
	for i, dir := range []directory.Service{dir, relays[1]} {
		w := openPullerOf(t, openNode(t, dir, fmt.Sprint("worker", i)), PullerConfig[int]{Pushers: 1})
		working.Go(func() { work(t, ctx, w, &done) })
	}
	check(t, p.WaitWorkers(ctx, 2))
	const each = 50 * time.Millisecond
	var stops []func() int
	for _, r := range relays {
		stops = append(stops, r.cutEvery(each))
	}
	jobs := 0
	for began := time.Now(); time.Since(began) < 20*each; jobs++ {
		check(t, p.Push(ctx, jobs))
	}
	cuts := 0
	for _, stop := range stops {
		cuts += stop()
	}
	check(t, p.Drain(ctx))
	working.Wait()
	holds(t, &done, jobs, true)
	st := p.Stats()
	if st.Settled != uint64(jobs) || st.Redelivered > 0 || cuts < 10 {
		t.Errorf("%d cuts, %d jobs: %+v", cuts, jobs, st)
	}
	t.Logf("%d jobs through %d cuts", jobs, cuts)
}

// A worker that is away for longer than the pusher's patience has its jobs done
// by others. When it is back, what it did meanwhile is not counted twice, and it
// gets jobs again.
func TestPipelineWorkerAway(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	r := newRelay(t, dir)
	p := openPusherOf(t, openRelayed(t, r, fabric.Config{Name: "pusher"}), PusherConfig[int]{Patience: 50 * time.Millisecond})
	away := openPullerOf(t, openNodeOf(t, fabric.Config{Name: "away", Directory: hidden{dir}}), PullerConfig[int]{InFlight: 2})
	for i := range 2 {
		check(t, p.Push(ctx, i))
	}
	has := []Job[int]{next(t, away), next(t, away)}
	r.hide(true)
	await(t, "the worker to be away", func() bool { return p.Stats().Workers[0].Away })
	near := openPullerOf(t, p.core.node, PullerConfig[int]{InFlight: 2})
	for range 2 {
		if j := next(t, near); j.Deliveries() != 2 {
			t.Errorf("job %d, delivery %d", j.Value, j.Deliveries())
		} else if j.Value == 0 {
			check(t, j.Ack())
		} // and job 1 is being worked on
	}
	await(t, "the acknowledgement", func() bool { return p.Stats().Settled == 1 })
	for _, j := range has {
		check(t, j.Ack()) // on its way until the link is back
	}
	r.hide(false)
	await(t, "late acknowledgements", func() bool { return p.Stats().Late == 2 })
	if st := p.Stats(); st.Settled != 2 || st.Unsettled != 0 {
		t.Errorf("%+v", st)
	}
	await(t, "the worker to be back", func() bool {
		return !slices.ContainsFunc(p.Stats().Workers, func(w WorkerStats) bool { return w.Away })
	})
	for i := 2; i < 5; i++ { // more than the near one has room for
		check(t, p.Push(ctx, i))
	}
	if j := next(t, away); j.Redelivered() {
		t.Errorf("job %d, delivery %d", j.Value, j.Deliveries())
	}
}

// hidden is a directory for a node that nobody can dial, but that dials others.
type hidden struct{ directory.Service }

// Join registers an address at which nobody listens.
func (h hidden) Join(ctx context.Context, info directory.NodeInfo) (uint64, error) {
	info.Endpoint = "tcp://127.0.0.1:1"
	return h.Service.Join(ctx, info)
}
