package patterns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric"
)

// PullerConfig says how to open a Puller.
type PullerConfig[T any] struct {
	// Channel is the pipeline's.
	Channel string
	// InFlight is how many jobs the worker has at a time, of each pusher: those
	// that it works on, and those on their way to it. More hides the way, fewer
	// share the last jobs of a run more evenly: with jobs that take longer than a
	// round trip, about twice as many as it works on at a time. Default: 32; at most
	// 65,536.
	InFlight int
	// Pushers is how many pushers must finish until Receive says fabric.ErrEnd.
	// Default: 0, it never ends.
	Pushers int
	// Codec decodes jobs. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

const (
	defaultInFlight = 32
	maxInFlight     = 1 << 16
	// decodeDelay is how long a job waits that this end could not decode: the next
	// worker may, and if none can they do not run in circles.
	decodeDelay = 200 * time.Millisecond
	// closePatience is how long a close waits for its last words to be stored.
	closePatience = time.Second
)

// Puller is a worker of a pipeline: it gets jobs from all pushers. One goroutine
// at a time may call Receive or run Jobs; the other methods, and those of jobs,
// may be called by any.
//
// Delivery: with AtLeastOnce a job must be acknowledged with Ack; one that was
// not goes to another worker when this one closes or is lost. With AtMostOnce
// there is nothing to acknowledge.
//
// Order: none.
//
// What blocks: Receive, while there is no job, also because InFlight jobs are not
// settled. It ends with its context.
//
// What a dead peer means: Receive returns a *fabric.PeerLostError for each node
// with pushers that is lost, and may go on. The jobs of a lost pusher cannot be
// acknowledged: Ack returns a *fabric.PeerLostError.
type Puller[T any] struct {
	core  *puller
	coder coder[T]
	value T // the receiving goroutine's: what is decoded into
}

// OpenPuller makes a worker. It waits, until ctx ends, for the directory.
func OpenPuller[T any](ctx context.Context, node *fabric.Node, cfg PullerConfig[T]) (*Puller[T], error) {
	core, err := openPuller(ctx, node, cfg.Channel, cfg.InFlight, cfg.Pushers)
	if err != nil {
		return nil, fmt.Errorf("patterns: puller on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Puller[T]{core: core, coder: newCoder(cfg.Codec)}, nil
}

// Job is a job as a worker gets it. Its methods may be called by any goroutine.
type Job[T any] struct {
	// Value is the job itself. If its codec makes it refer to the message, as Raw
	// does, it is valid until the next Receive.
	Value T

	hands  *hands // nil with AtMostOnce
	token  uint64
	info   jobInfo
	source fabric.Address
}

// jobInfo is what comes with a job.
type jobInfo struct {
	deliveries uint64 // of this job in its pipeline, this one included
	before     uint64 // of a dead letter, in the pipeline that it comes from
	reason     string
}

// Ack settles the job: it is done. It does not wait. The error is ErrSettled,
// fabric.ErrClosed after the worker's Close, or *fabric.PeerLostError if the
// pusher is gone.
func (j Job[T]) Ack() error {
	if j.hands == nil {
		return nil
	}
	return j.hands.ack(j.token)
}

// Reject gives the job back, to be delivered to some worker when delay is over,
// maybe to this one. The delay counts in milliseconds, up to 30 days; 0 is at
// once. The errors are those of Ack.
func (j Job[T]) Reject(delay time.Duration) error { return j.reject(delay, "rejected by its worker") }

func (j Job[T]) reject(delay time.Duration, reason string) error {
	if j.hands == nil {
		return nil
	}
	return j.hands.reject(j.token, delay, reason)
}

// Deliveries is how often the job was delivered, with this time: 1 at first.
func (j Job[T]) Deliveries() int { return int(j.info.deliveries) }

// Redelivered reports whether the job was delivered before, so that some of it
// may have been done.
func (j Job[T]) Redelivered() bool { return j.info.deliveries > 1 }

// DeadLetter says why the job was given up in the pipeline that it comes from,
// and how often it was delivered there; 0 if it is no dead letter.
func (j Job[T]) DeadLetter() (reason string, deliveries int) {
	return j.info.reason, int(j.info.before)
}

// Source is the pusher's producer.
func (j Job[T]) Source() fabric.Address { return j.source }

// Receive waits for the next job, until ctx ends.
//
// A *fabric.PeerLostError says that a node with pushers is lost. A *CodecError
// says that a job came that this end cannot decode; it is given to another
// worker, after a while. A *RecordError says that somebody else sends on the
// channel. After any of these the caller may go on. fabric.ErrEnd comes when all
// promised pushers have finished, or after Drain; fabric.ErrClosed after Close.
func (p *Puller[T]) Receive(ctx context.Context) (Job[T], error) {
	body, job, err := p.core.receive(ctx)
	if err != nil {
		return Job[T]{}, err
	}
	j := Job[T]{hands: job.hands, token: job.token, info: job.info, source: job.source}
	p.value = *new(T)
	if err := p.coder.decode(body, &p.value); err != nil {
		p.core.undecodable.Add(1)
		_ = j.reject(decodeDelay, err.Error()) // who is gone has lost it, and said so
		return Job[T]{}, err
	}
	j.Value = p.value
	return j, nil
}

// Jobs iterates over what Receive returns. It ends by itself when all promised
// pushers have finished, or after Drain. Errors after which Receive may be called
// again are yielded and the iteration goes on; any other is yielded as the last.
func (p *Puller[T]) Jobs(ctx context.Context) iter.Seq2[Job[T], error] {
	return func(yield func(Job[T], error) bool) {
		for {
			j, err := p.Receive(ctx)
			if err == fabric.ErrEnd {
				return
			}
			if !yield(j, err) || err != nil && !passing(err) {
				return
			}
		}
	}
}

// passing reports whether receiving goes on after err.
func passing(err error) bool {
	var lost *fabric.PeerLostError
	var codec *CodecError
	var record *RecordError
	var missed *MissedError
	return errors.As(err, &lost) || errors.As(err, &codec) || errors.As(err, &record) || errors.As(err, &missed)
}

// Keep returns the job with a value that stays valid: a copy of a []byte. Values
// of a codec of the program's own are as they are.
func (j Job[T]) Keep() Job[T] {
	if b, ok := any(j.Value).([]byte); ok {
		j.Value = any(bytes.Clone(b)).(T)
	}
	return j
}

// Drain takes no new jobs, and waits until those that were on their way are
// received and settled, or ctx ends; then it closes the worker. Receive must go
// on being called meanwhile; it returns fabric.ErrEnd behind the last job. What
// was not settled goes to others.
func (p *Puller[T]) Drain(ctx context.Context) error { return p.core.drain(ctx) }

// Close ends the worker: Receive returns fabric.ErrClosed, and all jobs that are
// not settled go to others. It waits, for a second at most, until pushers have
// stored what was acknowledged.
func (p *Puller[T]) Close() error { return p.core.close() }

// PullerStats is a worker's state at one moment.
type PullerStats struct {
	Received    uint64 // jobs
	InHand      int    // received and not settled
	Undecodable uint64 // jobs given back because this end could not decode them
	Malformed   uint64 // messages on the channel that are no records of this pattern
	// Orphaned is jobs that were dropped: with AtLeastOnce those of pushers that were gone
	// before they could be received, as they cannot be acknowledged; with either those that
	// were accepted for an earlier worker of this address.
	Orphaned uint64
}

// Stats returns the worker's counts, from its begin on.
func (p *Puller[T]) Stats() PullerStats { return p.core.statistics() }

// puller is a Puller without its type. It owns a goroutine that says hello to
// pushers.
type puller struct {
	node     *fabric.Node
	channel  string
	consumer *fabric.Consumer
	acks     *fabric.Producer
	hands    hands
	room     int
	greeting context.Context // ends when the worker begins to leave
	stop     context.CancelFunc
	wg       sync.WaitGroup

	received, undecodable, malformed, orphaned atomic.Uint64

	greeter *greeter // of pushers

	// The receiving goroutine's.
	meetings meetings // with pushers
	last     sender   // of the job before
	once     sender   // likewise, if that was delivered at most once

	closing sync.Once
	closeIt error
}

// receivedJob is a job that the program is about to get.
type receivedJob struct {
	hands  *hands
	token  uint64
	info   jobInfo
	source fabric.Address
}

func openPuller(ctx context.Context, node *fabric.Node, channel string, inFlight, promised int) (_ *puller, err error) {
	if inFlight == 0 {
		inFlight = defaultInFlight
	}
	if inFlight < 0 || inFlight > maxInFlight {
		return nil, &fabric.ConfigError{Field: "InFlight", Value: inFlight, Reason: fmt.Sprintf("be 1 to %d", maxInFlight)}
	}
	p := &puller{
		node: node, channel: channel, room: inFlight,
	}
	p.greeting, p.stop = context.WithCancel(context.Background())
	p.consumer, err = node.Consumer(ctx, channel, fabric.ConsumerConfig{Producers: promised})
	if err != nil {
		return nil, err
	}
	p.acks, err = node.Producer(ctx, ackChannel(channel), fabric.ProducerConfig{HighWaterMark: unlimited})
	if err != nil {
		p.consumer.Close()
		return nil, err
	}
	p.greeter = newGreeter(p.acks, kindHello, p.consumer.Address().Index, inFlight)
	p.wg.Go(func() { p.greeter.greet(p.greeting) })
	return p, nil
}

// receive waits for the next job, whose body it returns.
func (p *puller) receive(ctx context.Context) ([]byte, receivedJob, error) {
	p.tell()
	for {
		m, err := p.consumer.Receive(ctx)
		if err != nil {
			if lost := lostPeer(err); lost != nil {
				p.meetings.lose(lost.Node)
				p.last = sender{}
			}
			return nil, receivedJob{}, err
		}
		job := receivedJob{source: m.Source()}
		kind, f := readRecord(m.Body)
		acks, id := f.number(), uint64(0)
		if kind == kindMeetJob {
			if session := f.number(); f.end() && acks <= maxIndex {
				p.meet(fabric.Address{Node: job.source.Node, Index: int(acks)}, session)
				continue
			}
		}
		job.info.deliveries = 1
		if kind != kindOneJob {
			id, job.info.deliveries = f.number(), f.number()
		}
		if kind == kindDeadJob {
			job.info.before, job.info.reason = f.number(), f.text()
		}
		if !f.end() || kind < kindJob || kind > kindOneJob {
			p.malformed.Add(1)
			return nil, receivedJob{}, &RecordError{Channel: p.channel, From: m.Source()}
		}
		from := p.sender(job.source.Node, int(acks))
		if from.met == nil || from.way == nil && kind != kindOneJob {
			p.orphaned.Add(1) // for an earlier worker; or its pusher is gone, and has forgotten it
			continue
		}
		p.received.Add(1)
		if kind == kindOneJob {
			p.once = *from
		} else {
			job.hands, job.token = &p.hands, p.hands.take(hand{from.way.target, id, job.info.deliveries})
		}
		return f.rest, job, nil
	}
}

// meet takes a pusher's answer to a hello.
func (p *puller) meet(pusher fabric.Address, session uint64) {
	if session == p.greeter.session {
		p.meetings.meet(pusher, *p.greeter.known.Load())
		p.last = sender{}
	}
}

// sender is a pusher, as a worker finds it when a job comes.
type sender struct {
	addr  fabric.Address
	met   *meeting // nil if it has not answered this worker's hello
	way   *end     // to it; nil if it is gone
	known *ends
}

// sender finds the pusher of a job.
func (p *puller) sender(node string, index int) *sender {
	known := p.greeter.known.Load()
	if known != p.last.known || p.last.addr.Index != index || p.last.addr.Node != node {
		addr := fabric.Address{Node: node, Index: index}
		p.last = sender{addr: addr, met: p.meetings.met[addr], way: (*known)[addr], known: known}
	}
	return &p.last
}

// tell says, at times, how many jobs were taken, if they are delivered at most
// once. One counts as taken when the next one is asked for.
func (p *puller) tell() {
	from := p.once
	if from.way == nil {
		return
	}
	p.once = sender{}
	from.met.taken++
	if from.met.taken < uint64(max(p.room/4, 1)) {
		return
	}
	var mem [headRoom]byte
	_ = from.way.target.TrySend(appendRecord(mem[:0], kindTaken, from.met.taken)) // one that is gone need not know
	from.met.taken = 0
}

func (p *puller) drain(ctx context.Context) error {
	p.stop() // who has found that it takes no more would take a hello for that of a new worker
	err := p.consumer.Drain(ctx)
	select {
	case <-p.hands.none():
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("patterns: a worker of %s has unsettled jobs: %w", p.channel, ctx.Err()))
	}
	return errors.Join(err, p.close())
}

// close says goodbye, behind all that was acknowledged.
func (p *puller) close() error {
	p.closing.Do(func() {
		p.stop()
		p.wg.Wait()
		p.hands.close()
		err := p.consumer.Close()
		p.greeter.bye(kindBye)
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		_ = p.acks.Drain(ctx) // what a pusher does not hear is done again
		p.closeIt = err
	})
	return p.closeIt
}

func (p *puller) statistics() PullerStats {
	p.hands.mu.Lock()
	defer p.hands.mu.Unlock()
	return PullerStats{
		Received: p.received.Load(), InHand: p.hands.jobs.used,
		Undecodable: p.undecodable.Load(), Malformed: p.malformed.Load(), Orphaned: p.orphaned.Load(),
	}
}
