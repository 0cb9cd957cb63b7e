package patterns

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// Flush waits for what was pushed before it, not for what comes after.
func TestPipelineFlushIsNotHeldUpByNewJobs(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{})
	for i := range 2 {
		check(t, p.Push(ctx, i))
	}
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush(ctx) }()
	await(t, "the Flush", func() bool { p.core.mu.Lock(); defer p.core.mu.Unlock(); return len(p.core.flushes) == 1 })
	for i := 2; i < 4; i++ {
		check(t, p.Push(ctx, i))
	}
	jobs := []Job[int]{next(t, w), next(t, w), next(t, w), next(t, w)}
	check(t, jobs[3].Ack())
	check(t, jobs[0].Ack())
	await(t, "two acknowledgements", func() bool { return p.Stats().Settled == 2 })
	select {
	case err := <-flushed:
		t.Fatal("Flush did not wait for job 1:", err)
	default:
	}
	check(t, jobs[1].Ack())
	check(t, <-flushed)
	check(t, jobs[2].Ack())
	check(t, p.Drain(ctx))
}

// A worker that drains finishes what it has, gets nothing new, and nothing of it
// is delivered twice.
func TestPipelineWorkerDrains(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	leaving := openPullerOf(t, openNode(t, dir, "leaving"), PullerConfig[int]{InFlight: 8})
	var pushing, working sync.WaitGroup
	const jobs = 50
	pushing.Go(func() {
		for i := range jobs {
			check(t, p.Push(ctx, i))
		}
	})
	var done ledger[int]
	held := next(t, leaving)
	drained := make(chan error, 1)
	go func() { drained <- leaving.Drain(ctx) }()
	for j, err := range leaving.Jobs(ctx) { // ends by itself
		if err != nil {
			t.Fatal(err)
		}
		done.add(j.Value)
		check(t, j.Ack())
	}
	select {
	case err := <-drained:
		t.Fatal("Drain did not wait for the last job:", err)
	default:
	}
	done.add(held.Value)
	check(t, held.Ack())
	check(t, <-drained)
	stays := openPullerOf(t, openNode(t, dir, "stays"), PullerConfig[int]{Pushers: 1})
	working.Go(func() { work(t, ctx, stays, &done) })
	pushing.Wait()
	await(t, "the pusher to know the other worker alone", func() bool {
		w := p.Stats().Workers
		return len(w) == 1 && w[0].Address.Node == "stays"
	})
	check(t, p.Drain(ctx))
	working.Wait()
	holds(t, &done, jobs, true)
	if st := p.Stats(); st.Redelivered != 0 || st.Settled != jobs {
		t.Errorf("%+v", st)
	}
}

// A worker that drains says hello no more, whoever comes beside it meanwhile: a pusher
// that has found that it takes no more would take it for a new one, and give what it
// works on to others.
func TestPipelineDrainingWorkerIsNoNewOne(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{})
	check(t, p.Push(ctx, 0))
	has := next(t, w)
	drained := make(chan error, 1)
	go func() { drained <- w.Drain(ctx) }()
	if _, err := w.Receive(ctx); err != fabric.ErrEnd {
		t.Fatal(err)
	}
	p.core.mu.Lock()
	for _, member := range p.core.main.workers.members {
		p.core.main.workers.retire(member) // as a Push does that comes just now
	}
	p.core.mu.Unlock()
	openPusherOf(t, openNode(t, dir, "q"), PusherConfig[int]{})
	other := openPullerOf(t, openNode(t, dir, "other"), PullerConfig[int]{})
	check(t, p.Push(ctx, 1))
	if j := next(t, other); j.Value != 1 {
		t.Errorf("%d is done twice at a time", j.Value)
	} else {
		check(t, j.Ack())
	}
	check(t, has.Ack())
	check(t, <-drained)
	check(t, p.Drain(ctx))
	if st := p.Stats(); st.Redelivered != 0 || st.Settled != 2 {
		t.Errorf("%+v", st)
	}
}

// When all jobs are done or dropped, a pusher that drains does not wait for a worker that
// may be dead, however long the resume window is.
func TestPipelineDrainBesideADeadWorker(t *testing.T) {
	for name, drops := range map[string]bool{"all done": false, "one dropped": true} {
		t.Run(name, func(t *testing.T) {
			ctx, dir := testContext(t), directory.NewRegistry()
			r := newRelay(t, dir)
			node := openRelayed(t, r, fabric.Config{Name: "pusher", ResumeWindow: time.Hour})
			p := openPusherOf(t, node, PusherConfig[int]{Patience: 50 * time.Millisecond, MaxDeliveries: 1})
			dead := openPullerOf(t, openNodeOf(t, fabric.Config{Name: "dead", Directory: hidden{dir}, ResumeWindow: time.Hour}), PullerConfig[int]{})
			check(t, p.Push(ctx, 1))
			check(t, next(t, dead).Ack())
			check(t, p.Flush(ctx))
			r.hide(true)
			await(t, "the worker to be away", func() bool { return p.Stats().Workers[0].Away })
			near := openPullerOf(t, node, PullerConfig[int]{})
			check(t, p.Push(ctx, 2))
			settled := uint64(2)
			if job := next(t, near); drops {
				check(t, job.Reject(0))
				settled = 1
			} else {
				check(t, job.Ack())
			}
			began := time.Now()
			err := p.Drain(ctx)
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("after %v", d)
			}
			if dropped := (*DroppedError)(nil); errors.As(err, &dropped) != drops || !drops && err != nil {
				t.Errorf("the end: %v", err)
			}
			if st := p.Stats(); st.Settled != settled || st.Unsettled != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}
