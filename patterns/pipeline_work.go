package patterns

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

const (
	// workDelay is how long a job waits that a handler has failed at, the first
	// time; it doubles with each delivery, up to maxWorkDelay.
	workDelay    = 100 * time.Millisecond
	maxWorkDelay = 30 * time.Second
)

// Work runs handle for each job, for up to concurrency of them at a time, until
// all promised pushers have finished or the worker drains; or until ctx ends or
// the worker closes, which is an error. It returns when all handlers have. The
// worker's InFlight should be twice the concurrency.
//
// A job whose handler returns nil is acknowledged. If it returns an error or
// panics, the job is rejected, to be delivered again after a delay that doubles
// from 100 ms to 30 s; the error is the reason of a dead letter. Jobs that cannot
// be decoded and pushers that are lost are passed over: Stats counts the former.
func (p *Puller[T]) Work(ctx context.Context, concurrency int, handle func(context.Context, Job[T]) error) error {
	if concurrency < 1 {
		return &fabric.ConfigError{Field: "concurrency", Value: concurrency, Reason: "be at least 1"}
	}
	free := make(chan struct{}, concurrency)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		j, err := p.Receive(ctx)
		switch {
		case err == fabric.ErrEnd:
			return nil
		case err != nil && !passing(err):
			return err
		case err != nil:
			<-free
			continue
		}
		j = j.Keep()
		running.Go(func() {
			defer func() { <-free }()
			// An error of either says that the pusher is gone, and the job no longer ours.
			if err := handleJob(ctx, j, handle); err != nil {
				_ = j.reject(backoff(j.Deliveries()), err.Error())
			} else {
				_ = j.Ack()
			}
		})
	}
}

// handleJob runs a handler, whose panic is an error.
func handleJob[T any](ctx context.Context, j Job[T], handle func(context.Context, Job[T]) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the handler panicked: %v", r)
		}
	}()
	return handle(ctx, j)
}

// backoff is the delay after so many deliveries.
func backoff(deliveries int) time.Duration {
	return min(workDelay<<min(max(deliveries-1, 0), 16), maxWorkDelay)
}
