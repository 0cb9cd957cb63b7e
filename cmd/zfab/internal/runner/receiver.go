package runner

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// A receiver is one consumer with its checker.
type receiver struct {
	consumer *patterns.ExchangeConsumer
	channel  string
	number   int
	sources  map[fabric.Address]int // producers by address

	// the receiver's goroutine's
	clock   clock
	checker *check.Checker
	latency latency
	stalled time.Duration
	ended   time.Duration

	// any goroutine's
	received atomic.Uint64
	gate     atomic.Pointer[gate] // set while the consumer must not read
}

// A gate is closed for as long as a stall lasts.
type gate struct{ open chan struct{} }

// run checks messages until every producer has finished, or ctx ends.
func (r *receiver) run(ctx context.Context) error {
	defer func() { r.ended = r.clock.now() }()
	last, source := fabric.Address{}, -1
	for {
		m, err := r.consumer.Receive(ctx)
		if errors.Is(err, fabric.ErrEnd) {
			return nil
		}
		if err != nil {
			return err
		}
		if from := m.Source(); from != last || source < 0 {
			last, source = from, r.source(from)
		}
		if planned := r.checker.Message(source, m.Body); planned != 0 {
			r.latency.record(r.clock.now() - time.Duration(planned))
		}
		r.received.Store(r.checker.Counts().Received)
		if g := r.gate.Load(); g != nil {
			r.wait(ctx, g)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
}

func (r *receiver) source(from fabric.Address) int {
	if n, ok := r.sources[from]; ok {
		return n
	}
	return -1
}

// wait is a stall: the consumer does not call Receive.
func (r *receiver) wait(ctx context.Context, g *gate) {
	begin := r.clock.now()
	select {
	case <-g.open:
	case <-ctx.Done():
	}
	r.stalled += r.clock.now() - begin
}

func (r *receiver) result(windows [][2]uint64) ConsumerResult {
	return ConsumerResult{
		Channel: r.channel, Number: r.number, Counts: r.checker.Counts(), Streams: r.checker.States(),
		Ended: r.ended.Seconds(), Stalled: r.stalled.Seconds(), Latency: r.latency, Windows: windows,
	}
}
