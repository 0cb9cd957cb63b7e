package runner

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/fabric"
)

// A receiver is one consumer with its checker.
type receiver struct {
	receive func(context.Context) (from fabric.Address, body []byte, err error)
	listen  func(context.Context) error // instead of receive, where the pattern wants more
	node    string                      // its own
	open    bool                        // peers may go and come back
	channel string
	number  int
	sources map[fabric.Address]int // producers by address

	mu        sync.Mutex // over checker, sharer, stalled and stalledTo
	stalled   time.Duration
	stalledTo time.Duration // when the last of those that waited went on
	checker   *check.Checker
	sharer    *check.Sharer // in the checker's place, where consumers share what is sent

	// the receiver's goroutine's
	clock   clock
	latency latency
	ended   time.Duration

	// any goroutine's
	received atomic.Uint64
	abroad   atomic.Uint64        // those of other nodes
	lost     atomic.Int64         // peers that Receive said are lost
	gate     atomic.Pointer[gate] // set while the consumer must not read
}

// messagesOf receives from a consumer.
func messagesOf(c interface {
	Receive(context.Context) (fabric.Message, error)
}) func(context.Context) (fabric.Address, []byte, error) {
	return func(ctx context.Context) (fabric.Address, []byte, error) {
		m, err := c.Receive(ctx)
		if err != nil {
			return fabric.Address{}, nil, err
		}
		return m.Source(), m.Body, nil
	}
}

// A gate is closed for as long as a stall lasts.
type gate struct{ open chan struct{} }

// run checks messages until every producer has finished, or ctx ends.
func (r *receiver) run(ctx context.Context) error {
	defer func() { r.ended = r.clock.now() }()
	if r.listen != nil {
		return r.listen(ctx)
	}
	last, source, abroad := fabric.Address{}, -1, false
	for {
		from, body, err := r.receive(ctx)
		if errors.Is(err, fabric.ErrEnd) {
			return nil
		}
		var lost *fabric.PeerLostError
		if r.open && errors.As(err, &lost) {
			r.lost.Add(1)
			continue
		}
		if err != nil {
			return err
		}
		if from != last || source < 0 {
			last, source, abroad = from, r.source(from), from.Node != r.node
		}
		if abroad {
			r.abroad.Add(1)
		}
		if planned := r.check(source, body); planned != 0 {
			r.latency.record(r.clock.now() - time.Duration(planned))
		}
		if g := r.gate.Load(); g != nil {
			r.wait(ctx, g)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
}

// check is behind a mutex that nobody else takes but for an account now and then.
func (r *receiver) check(source int, body []byte) (planned int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	planned = r.checker.Message(source, body)
	r.received.Store(r.checker.Counts().Received)
	return planned
}

// share checks messages that the consumers share, until next says that it was the
// last, or ctx ends.
func (r *receiver) share(ctx context.Context, next func(context.Context) (fabric.Address, check.Arrival, error)) error {
	for {
		from, a, err := next(ctx)
		if errors.Is(err, fabric.ErrEnd) {
			return nil
		}
		if err != nil {
			return err
		}
		if from.Node != r.node {
			r.abroad.Add(1)
		}
		if stamp, sound := r.shared(a); sound && stamp.Planned != 0 {
			r.latency.record(r.clock.now() - time.Duration(stamp.Planned))
		}
		if err := r.pause(ctx); err != nil {
			return err
		}
	}
}

// take checks one message, for those that do not run the loop of run.
func (r *receiver) take(ctx context.Context, from fabric.Address, body []byte) error {
	if from.Node != r.node {
		r.abroad.Add(1)
	}
	if planned := r.check(r.source(from), body); planned != 0 {
		r.latency.record(r.clock.now() - time.Duration(planned))
	}
	return r.pause(ctx)
}

// pause waits for as long as a stall lasts; ctx's error if that ends meanwhile.
func (r *receiver) pause(ctx context.Context) error {
	g := r.gate.Load()
	if g == nil {
		return nil
	}
	r.wait(ctx, g)
	return ctx.Err()
}

// shared is check for what consumers share.
func (r *receiver) shared(a check.Arrival) (check.Stamp, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stamp, sound := r.sharer.Message(a)
	r.received.Store(r.sharer.Counts().Received)
	return stamp, sound
}

// account is what the consumer saw so far; any goroutine may ask.
func (r *receiver) account() ConsumerResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sharer != nil {
		return ConsumerResult{Channel: r.channel, Number: r.number, Counts: r.sharer.Counts()}
	}
	return ConsumerResult{Channel: r.channel, Number: r.number, Counts: r.checker.Counts(), Streams: r.checker.States()}
}

func (r *receiver) source(from fabric.Address) int {
	if n, ok := r.sources[from]; ok {
		return n
	}
	return -1
}

// wait is a stall: the consumer does not call Receive. Several that wait at a time
// count as one.
func (r *receiver) wait(ctx context.Context, g *gate) {
	begin := r.clock.now()
	select {
	case <-g.open:
	case <-ctx.Done():
	}
	now := r.clock.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stalled += now - max(begin, r.stalledTo)
	r.stalledTo = now
}

func (r *receiver) result(windows [][2]uint64) ConsumerResult {
	c := r.account()
	if r.sharer != nil {
		c.Shares = r.sharer.Shares() // as it is used no more
	}
	c.Ended, c.Stalled, c.Latency, c.Windows = r.ended.Seconds(), r.stalled.Seconds(), r.latency, windows
	return c
}
