package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// PusherConfig says how to open a Pusher.
type PusherConfig[T any] struct {
	// Channel is the pipeline's. It and the one of that name with ".acks" behind it
	// carry nothing else.
	Channel string
	// Delivery is AtLeastOnce, the default, or AtMostOnce.
	Delivery Delivery
	// MaxDeliveries is how often a job is delivered that no worker acknowledges.
	// After that it goes to DeadLetters or, if there is none, is dropped and
	// counted. Default: 0, any number of times.
	MaxDeliveries int
	// DeadLetters is the channel of another pipeline, whose workers get the jobs that
	// were delivered MaxDeliveries times, and why. Default: none.
	DeadLetters string
	// Unsettled bounds the jobs that are not settled, wherever they are; Push waits
	// beyond it. Default: 64 MiB of encoded jobs, 65,536 jobs; at most 1,000,000.
	Unsettled fabric.HighWaterMark
	// Patience is how long a worker's node may be without connection until its jobs
	// go to others. The worker is used again when it is back. Default: 2 s; at
	// least 10 ms. A node that is lost for good, or started anew, is noticed
	// without it.
	Patience time.Duration
	// Codec encodes jobs. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

// Bounds and defaults of a pusher.
const (
	defaultUnsettledBytes = 64 << 20
	defaultUnsettledJobs  = 1 << 16
	maxUnsettledJobs      = 1_000_000 // less than maxSlots
	defaultPushPatience   = 2 * time.Second
	minPatience           = 10 * time.Millisecond
)

// Pusher gives jobs to the workers of a pipeline. Its methods may be called by
// several goroutines.
//
// Delivery: with AtLeastOnce each job that Push accepts is delivered until a
// worker acknowledges it, while the pusher lives: jobs are in its memory. With
// AtMostOnce each is delivered to one worker at most.
//
// Order: none. Workers get what comes when they have room.
//
// What blocks: Push, while no worker has room, or as much is unsettled as the
// config allows; Flush and Drain, until all is settled. Each ends with its
// context.
//
// What a dead peer means: a dead worker's jobs go to others, marked as
// redelivered, when its node is lost, started anew, or without connection for
// longer than Patience. With AtMostOnce they are lost, and counted. Push never
// fails because of a worker.
type Pusher[T any] struct {
	core  *pusher
	coder coder[T]
}

// OpenPusher makes a pusher. It waits, until ctx ends, for the directory.
func OpenPusher[T any](ctx context.Context, node *fabric.Node, cfg PusherConfig[T]) (*Pusher[T], error) {
	core, err := openPusher(ctx, node, pusherConfig{
		channel: cfg.Channel, delivery: cfg.Delivery, max: cfg.MaxDeliveries, dead: cfg.DeadLetters,
		bound: cfg.Unsettled, patience: cfg.Patience,
	})
	if err != nil {
		return nil, fmt.Errorf("patterns: pusher on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Pusher[T]{core: core, coder: newCoder(cfg.Codec)}, nil
}

// Push gives a job to a worker. It returns when the job is accepted, and has
// then encoded or copied v; from then on the pusher sees to its delivery. It waits
// while no worker has room, until ctx ends; the job is not accepted then. The
// error is ctx's, *CodecError, *fabric.TooLargeError, or fabric.ErrClosed after
// Drain or Close.
func (p *Pusher[T]) Push(ctx context.Context, v T) error {
	job, err := p.coder.pack(v, p.core.cfg.delivery == AtLeastOnce)
	if err != nil {
		return err
	}
	return p.core.push(ctx, job)
}

// WaitWorkers waits until at least count workers are there, or ctx ends.
func (p *Pusher[T]) WaitWorkers(ctx context.Context, count int) error {
	return p.core.waitWorkers(ctx, count)
}

// Flush waits until all jobs accepted so far are settled: acknowledged, or taken
// by a worker of the dead letter channel; or until ctx ends. It is a
// *DroppedError if jobs were dropped since the last Flush. With AtMostOnce it
// waits until the workers' nodes have stored them.
func (p *Pusher[T]) Flush(ctx context.Context) error { return p.core.flush(ctx) }

// Drain takes no more jobs, waits as Flush does, tells the workers that this
// pusher has finished, and closes it. It ends early when ctx does; the pusher is
// closed then as well. With AtLeastOnce, when all is settled, it waits for a worker
// without connection for Patience and a second at most: such a worker may get a
// *fabric.PeerLostError in the place of the pusher's end.
func (p *Pusher[T]) Drain(ctx context.Context) error { return p.core.drain(ctx) }

// Close ends the pusher, and Push with fabric.ErrClosed. It waits, for a second at
// most, for what workers have said already. It is an *UnsettledError if there are
// jobs that no worker has acknowledged.
func (p *Pusher[T]) Close() error { return p.core.close() }

// Stats returns the pusher's counts, from its begin on.
func (p *Pusher[T]) Stats() PusherStats { return p.core.statistics() }

// PusherStats is a pusher's state at one moment.
type PusherStats struct {
	Pushed       uint64 // jobs accepted
	Settled      uint64 // acknowledged, each once
	Rejected     uint64 // deliveries that a worker has rejected
	Redelivered  uint64 // deliveries after a job's first
	Lost         uint64 // at most once: jobs that were given to a worker that is gone
	DeadLetters  uint64 // jobs given to the dead letter channel
	Dropped      uint64 // jobs given up
	Late         uint64 // acknowledgements and rejections of what was settled or delivered elsewhere
	Malformed    uint64 // messages on the acks channel that are no records of this pattern
	Unsettled    int    // jobs now
	UnsettledMem int64  // bytes of them
	Waiting      int    // Pushes that wait
	Workers      []WorkerStats
}

// WorkerStats is a worker as a pusher knows it.
type WorkerStats struct {
	Address     fabric.Address // its consumer on the channel
	Room        int
	Outstanding int
	Settled     uint64 // acknowledged or, at most once, taken
	Away        bool   // without connection for longer than the pusher's patience, or leaving
}

// pusherConfig is a PusherConfig without its type.
type pusherConfig struct {
	channel, dead string
	delivery      Delivery
	max           int
	bound         fabric.HighWaterMark
	patience      time.Duration
}

func (c pusherConfig) withDefaults() (pusherConfig, error) {
	if c.bound.Bytes == 0 {
		c.bound.Bytes = defaultUnsettledBytes
	}
	if c.bound.Messages == 0 {
		c.bound.Messages = defaultUnsettledJobs
	}
	if c.patience == 0 {
		c.patience = defaultPushPatience
	}
	switch {
	case c.delivery > AtMostOnce:
		return c, fmt.Errorf("there is no %s", c.delivery)
	case c.max < 0:
		return c, &fabric.ConfigError{Field: "MaxDeliveries", Value: c.max, Reason: "not be negative"}
	case c.dead != "" && c.max == 0:
		return c, errors.New("DeadLetters are given, and MaxDeliveries is not")
	case c.delivery == AtMostOnce && c.max > 0:
		return c, errors.New("at most once and MaxDeliveries are given")
	case c.dead == c.channel && c.dead != "":
		return c, errors.New("DeadLetters is the pipeline's own channel")
	case c.bound.Bytes < 0:
		return c, &fabric.ConfigError{Field: "Unsettled.Bytes", Value: c.bound.Bytes, Reason: "not be negative"}
	case c.bound.Messages < 0 || c.bound.Messages > maxUnsettledJobs:
		return c, &fabric.ConfigError{Field: "Unsettled.Messages", Value: c.bound.Messages, Reason: fmt.Sprintf("be 1 to %d", maxUnsettledJobs)}
	case c.patience < minPatience:
		return c, &fabric.ConfigError{Field: "Patience", Value: c.patience, Reason: fmt.Sprintf("be at least %v", minPatience)}
	}
	return c, nil
}

// pusher is a Pusher without its type. It owns, for each of its lanes, a
// goroutine that reads what workers say and one that keeps its times.
type pusher struct {
	cfg    pusherConfig
	node   *fabric.Node
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	main   *lane
	dead   *lane // nil if there are no dead letters

	mu        sync.Mutex
	jobs      slots[*job] // that are not settled
	bytes     int64       // of them
	admitted  uint64      // jobs ever
	waiting   waitList
	flushes   []*flushing
	closed    bool
	stats     PusherStats
	dropped   int // since the last flush
	dropCause string

	closing sync.Once
	closeIt error
}

func openPusher(ctx context.Context, node *fabric.Node, cfg pusherConfig) (_ *pusher, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	p := &pusher{cfg: cfg, node: node}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			p.cancel()
			for _, l := range p.lanes() {
				err = errors.Join(err, l.producer.Close(), l.acks.Close())
			}
		}
	}()
	if p.main, err = openLane(ctx, p, cfg.channel); err != nil {
		return nil, err
	}
	if cfg.dead != "" {
		if p.dead, err = openLane(ctx, p, cfg.dead); err != nil {
			return nil, err
		}
	}
	for _, l := range p.lanes() {
		p.wg.Add(2)
		go l.hear()
		go l.keep()
	}
	return p, nil
}

// lanes is the main one and, if there is one, that of the dead letters.
func (p *pusher) lanes() []*lane {
	var list []*lane
	for _, l := range []*lane{p.main, p.dead} {
		if l != nil {
			list = append(list, l)
		}
	}
	return list
}

func (p *pusher) waitWorkers(ctx context.Context, count int) error {
	n, err := waitMembers(ctx, p.ctx, &p.mu, p.main.workers, count)
	if err != nil && err != fabric.ErrClosed {
		return fmt.Errorf("patterns: %d of %d workers of %s are there: %w", n, count, p.cfg.channel, err)
	}
	return err
}

// flushing is a Flush that waits for the jobs pushed before it.
type flushing struct {
	before uint64 // jobs of lower numbers
	left   int
	done   chan struct{}
}

func (p *pusher) flush(ctx context.Context) error {
	if p.cfg.delivery == AtMostOnce {
		return p.main.producer.Flush(ctx)
	}
	p.mu.Lock()
	f := &flushing{before: p.admitted, left: p.jobs.used, done: make(chan struct{})}
	if f.left == 0 {
		close(f.done)
	} else {
		p.flushes = append(p.flushes, f)
	}
	p.mu.Unlock()
	var err error
	select {
	case <-f.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.ctx.Done():
		err = fabric.ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, g := range p.flushes {
		if g == f {
			p.flushes = append(p.flushes[:i], p.flushes[i+1:]...)
			err = fmt.Errorf("patterns: %d jobs of %s are not acknowledged: %w", f.left, p.cfg.channel, err)
			break
		}
	}
	if p.dropped > 0 {
		err = errors.Join(err, &DroppedError{Channel: p.cfg.channel, Jobs: p.dropped, Reason: p.dropCause})
		p.dropped = 0
	}
	return err
}

func (p *pusher) drain(ctx context.Context) error {
	p.refuse()
	err := p.flush(ctx)
	last := ctx
	if p.cfg.delivery == AtLeastOnce && ctx.Err() == nil {
		// All is settled, or dropped. A worker without connection, which may be dead, misses no more
		// than the word that this pusher has finished.
		var cancel context.CancelFunc
		last, cancel = context.WithTimeout(ctx, p.cfg.patience+closePatience)
		defer cancel()
	}
	for _, l := range p.lanes() {
		drained := l.producer.Drain(last)
		// What lost workers may have missed was done by others, but with at most once.
		if ctx.Err() != nil || p.cfg.delivery == AtMostOnce {
			err = errors.Join(err, drained)
		}
	}
	closed := p.close()
	if err != nil {
		return err
	}
	return closed
}

// refuse makes every Push end that waits, and those to come.
func (p *pusher) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for w := p.waiting.pop(); w != nil; w = p.waiting.pop() {
		w.ready <- nil
	}
}

func (p *pusher) close() error {
	p.closing.Do(func() {
		p.refuse()
		p.cancel()
		var errs []error
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		for _, l := range p.lanes() {
			errs = append(errs, l.close(ctx))
		}
		p.wg.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := p.jobs.used; n > 0 {
			errs = append(errs, &UnsettledError{Channel: p.cfg.channel, Jobs: n})
		}
		p.closeIt = errors.Join(errs...)
	})
	return p.closeIt
}

func (p *pusher) statistics() PusherStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.stats
	st.Unsettled, st.UnsettledMem, st.Waiting = p.jobs.used, p.bytes, p.waiting.len
	st.Workers = p.main.workerStats()
	return st
}
