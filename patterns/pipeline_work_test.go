package patterns

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// Handlers run side by side as far as asked; one that fails or panics has its job
// back, with the reason, and harms no other.
func TestPipelineWork(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{MaxDeliveries: 2, DeadLetters: "dead"})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{Pushers: 1})
	grave := openPullerOf(t, openNode(t, dir, "g"), PullerConfig[int]{Channel: "dead", Pushers: 1})
	const jobs, concurrency = 100, 4
	var done ledger[int]
	var running, most atomic.Int32
	var working sync.WaitGroup
	working.Go(func() {
		check(t, w.Work(ctx, concurrency, func(_ context.Context, j Job[int]) error {
			n := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			switch {
			case j.Value == 7 && !j.Redelivered():
				return errors.New("not now")
			case j.Value == 8:
				panic("never")
			}
			time.Sleep(time.Millisecond) // so that they overlap
			done.add(j.Value)
			return nil
		}))
	})
	var reasons []string
	working.Go(func() {
		for j, err := range grave.Jobs(ctx) {
			if err != nil {
				t.Error(err)
				return
			}
			reason, _ := j.DeadLetter()
			reasons = append(reasons, reason)
			done.add(j.Value)
			check(t, j.Ack())
		}
	})
	check(t, p.WaitWorkers(ctx, 1))
	for i := range jobs {
		check(t, p.Push(ctx, i))
	}
	check(t, p.Drain(ctx))
	working.Wait()
	holds(t, &done, jobs, true)
	if len(reasons) != 1 || reasons[0] != "the handler panicked: never" {
		t.Errorf("dead letters because %q", reasons)
	}
	if most.Load() > concurrency || most.Load() < 2 {
		t.Errorf("%d handlers at a time, want %d", most.Load(), concurrency)
	}
	if err := w.Work(ctx, 0, nil); !errors.Is(err, fabric.ErrConfig) {
		t.Errorf("without a handler at a time: %v", err)
	}
}

// Work ends with its context, when the handlers have ended.
func TestPipelineWorkEndsWithItsContext(t *testing.T) {
	dir := directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{})
	check(t, p.Push(testContext(t), 1))
	ctx, cancel := context.WithCancel(testContext(t))
	ended := false
	err := w.Work(ctx, 2, func(ctx context.Context, _ Job[int]) error {
		cancel()
		<-ctx.Done()
		ended = true
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || !ended {
		t.Errorf("%v, and the handler has ended: %v", err, ended)
	}
	await(t, "the job to be given back", func() bool { return p.Stats().Rejected == 1 })
}

func TestBackoff(t *testing.T) {
	for deliveries, want := range map[int]time.Duration{
		0: workDelay, 1: workDelay, 2: 2 * workDelay, 4: 8 * workDelay, 100: maxWorkDelay,
	} {
		if got := backoff(deliveries); got != want {
			t.Errorf("after %d deliveries: %v, want %v", deliveries, got, want)
		}
	}
}
