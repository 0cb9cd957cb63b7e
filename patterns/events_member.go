package patterns

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric"
)

// EventMemberConfig says how to open an EventMember.
type EventMemberConfig[T any] struct {
	// Channel is the group's.
	Channel string
	// InFlight is how many events of each partition, and each publisher, the member has
	// at a time: that its program handles, and on their way to it. More hides the way;
	// with fewer there is less to be done again if the member is lost, and less to wait
	// for when a partition moves. Default: 32; at most 65,536.
	InFlight int
	// Publishers is how many publishers must finish until Receive says fabric.ErrEnd.
	// Default: 0, it never ends.
	Publishers int
	// Patience is how long a publisher's node may be without connection until Handle
	// begins no more of its events: others may have them by then. It goes on when the
	// publisher has said that they have not. Default: 1 s; at least 10 ms. See
	// EventPublisherConfig.Patience, which must be longer.
	Patience time.Duration
	// MaxAttempts is how often Handle tries an event whose handler fails, before it
	// gives it up: counted, logged, and acknowledged. Default: 0, until it succeeds; the
	// event's partition waits for it.
	MaxAttempts int
	// Logger takes the events that Handle has given up. Default: slog.Default().
	Logger *slog.Logger
	// Codec decodes events. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

func (c EventMemberConfig[T]) withDefaults() (EventMemberConfig[T], error) {
	c.InFlight = cmp.Or(c.InFlight, defaultInFlight)
	c.Patience = cmp.Or(c.Patience, defaultMemberPatience)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	switch {
	case c.InFlight < 0 || c.InFlight > maxInFlight:
		return c, &fabric.ConfigError{Field: "InFlight", Value: c.InFlight, Reason: fmt.Sprintf("be 1 to %d", maxInFlight)}
	case c.Patience < minPatience:
		return c, &fabric.ConfigError{Field: "Patience", Value: c.Patience, Reason: fmt.Sprintf("be at least %v", minPatience)}
	case c.MaxAttempts < 0:
		return c, &fabric.ConfigError{Field: "MaxAttempts", Value: c.MaxAttempts, Reason: "not be negative"}
	}
	return c, nil
}

// EventMember is a member of the group that handles a channel's events. One goroutine
// at a time may call Receive or run Events or Handle; the other methods, and those of
// events, may be called by any.
//
// Delivery: at least once: an event must be acknowledged. One that was not is
// delivered again when this member closes or is lost, to the partition's next owner,
// with all behind it, and marked.
//
// Order: that of the publishing, for the events of a partition from one publisher,
// and so of a key.
//
// What blocks: Receive, while there is nothing, also because InFlight events of each
// partition are not acknowledged. It ends with its context.
//
// What a dead peer means: Receive returns a *fabric.PeerLostError for each node with
// publishers that is lost, and may go on. The events of a lost publisher cannot be
// acknowledged any more; those that Handle has not begun are dropped and counted, as
// it may be this node that was cut off, and others handle them by now. It is the same
// with the events of a publisher that has let this member go meanwhile, but that it
// need not be told: the member comes again by itself.
type EventMember[T any] struct {
	core     *eventMember
	coder    coder[T]
	attempts int
	logger   *slog.Logger
	value    T // the receiving goroutine's: what is decoded into

	retried, failed atomic.Uint64
}

// OpenEventMember makes a member. It waits, until ctx ends, for the directory.
func OpenEventMember[T any](ctx context.Context, node *fabric.Node, cfg EventMemberConfig[T]) (*EventMember[T], error) {
	cfg, err := cfg.withDefaults()
	if err == nil {
		var core *eventMember
		if core, err = openEventMember(ctx, node, cfg.Channel, cfg.InFlight, cfg.Publishers, cfg.Patience); err == nil {
			return &EventMember[T]{core: core, coder: newCoder(cfg.Codec), attempts: cfg.MaxAttempts, logger: cfg.Logger}, nil
		}
	}
	return nil, fmt.Errorf("patterns: event member on %q at node %s: %w", cfg.Channel, node.Name(), err)
}

// Event is an event as a member gets it. Its methods may be called by any goroutine.
type Event[T any] struct {
	// Key is valid until the next Receive, and so is Value if its codec makes it refer
	// to the message, as Raw does.
	Key   []byte
	Value T
	// Partition is the key's at its publisher.
	Partition int
	Source    fabric.Address // the publisher's producer

	hand *eventHand
	info eventInfo
}

// eventInfo is what comes with an event.
type eventInfo struct{ sequence, deliveries uint64 }

// Ack acknowledges the event: it is handled. It does not wait. Events of a partition
// may be acknowledged in any order; its publisher learns up to where all are. To
// acknowledge again does nothing. The error is ErrMoved, fabric.ErrClosed after the
// member's Close, or *fabric.PeerLostError if the publisher is gone.
func (e Event[T]) Ack() error { return e.hand.ack(e.info.sequence) }

// Redelivered reports whether the event was delivered before, so that it may have been
// handled, in part or wholly.
func (e Event[T]) Redelivered() bool { return e.info.deliveries > 1 }

// Deliveries is how often the event was delivered, with this time: 1 at first.
func (e Event[T]) Deliveries() int { return int(e.info.deliveries) }

// Keep returns the event with a key and a value that stay valid: copies of a []byte.
// Values of a codec of the program's own are as they are.
func (e Event[T]) Keep() Event[T] {
	e.Key = bytes.Clone(e.Key)
	if b, ok := any(e.Value).([]byte); ok {
		e.Value = any(bytes.Clone(b)).(T)
	}
	return e
}

// Address is the member's own: the consumer of events.
func (m *EventMember[T]) Address() fabric.Address { return m.core.consumer.Address() }

// Receive waits for the next event, until ctx ends.
//
// A *fabric.PeerLostError says that a node with publishers is lost. A *CodecError says
// that an event came which this end cannot decode: it is counted, and acknowledged, as
// its partition would stand still else. A *RecordError says that somebody else sends
// on the channel. After any of these the caller may go on. fabric.ErrEnd comes when
// all promised publishers have finished, or after Drain; fabric.ErrClosed after Close.
func (m *EventMember[T]) Receive(ctx context.Context) (Event[T], error) {
	key, body, got, err := m.core.receive(ctx)
	if err != nil {
		return Event[T]{}, err
	}
	e := Event[T]{Key: key, Partition: int(got.hand.key.partition), Source: got.source, hand: got.hand, info: got.info}
	m.value = *new(T)
	if err := m.coder.decode(body, &m.value); err != nil {
		m.core.undecodable.Add(1)
		_ = e.Ack() // who is gone has lost it, and said so
		return Event[T]{}, err
	}
	e.Value = m.value
	return e, nil
}

// Events iterates over what Receive returns. It ends by itself when all promised
// publishers have finished, or after Drain. Errors after which Receive may be called
// again are yielded and the iteration goes on; any other is yielded as the last.
func (m *EventMember[T]) Events(ctx context.Context) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		for {
			e, err := m.Receive(ctx)
			if err == fabric.ErrEnd {
				return
			}
			if !yield(e, err) || err != nil && !passing(err) {
				return
			}
		}
	}
}

// Drain takes nothing new, and waits until the events that were on their way are
// received and acknowledged, or ctx ends; then it closes the member. Receive or Handle
// must go on meanwhile; Receive returns fabric.ErrEnd behind the last event. What was
// not acknowledged goes to others.
func (m *EventMember[T]) Drain(ctx context.Context) error { return m.core.drain(ctx) }

// Close ends the member: Receive returns fabric.ErrClosed, and its partitions go to
// others, with all events that are not acknowledged. It ends the contexts of Handle's
// handlers and waits for them; what a program that calls Receive still has in its hands
// others may handle meanwhile. Then it waits, for a second at most, until publishers
// have stored what was acknowledged.
func (m *EventMember[T]) Close() error { return m.core.close() }

// Stats returns the member's counts, from its begin on.
func (m *EventMember[T]) Stats() EventMemberStats {
	st := m.core.statistics()
	st.Retried, st.Failed = m.retried.Load(), m.failed.Load()
	return st
}

// EventMemberStats is a member's state at one moment.
type EventMemberStats struct {
	Received    uint64 // events
	Redelivered uint64 // of them, that were delivered before
	InHand      int    // received and not acknowledged
	Retried     uint64 // times that Handle tried an event again
	Failed      uint64 // events that Handle has given up
	Stale       uint64 // events that were given to somebody else before Handle had begun them
	Undecodable uint64 // events that this end could not decode
	Malformed   uint64 // messages on the channel that are no records of this pattern
	Orphaned    uint64 // events of publishers that were gone before they could be received, or for an earlier member of this address
}

// eventMember is an EventMember without its type. It owns a goroutine that says hello
// to publishers, and one that looks whether it is in touch with them.
type eventMember struct {
	node     *fabric.Node
	channel  string
	consumer *fabric.Consumer
	acks     *fabric.Producer
	room     int
	patience time.Duration
	greeter  *greeter        // of publishers
	greeting context.Context // ends when the member begins to leave
	stop     context.CancelFunc
	ctx      context.Context // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	hands    eventHands

	received, redelivered, undecodable, malformed, orphaned, stale atomic.Uint64

	meetings meetings // with publishers; the receiving goroutine's

	mu        sync.Mutex
	closed    bool
	handling  sync.WaitGroup            // Handles under way
	touches   map[fabric.Address]*touch // by publishers' consumers of acknowledgements
	questions uint64                    // that were asked, of all publishers

	closing sync.Once
	closeIt error
}

// enter begins a Handle, unless the member is closed.
func (m *eventMember) enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.handling.Add(1)
	}
	return !m.closed
}

// receivedEvent is an event that the program is about to get.
type receivedEvent struct {
	hand   *eventHand
	info   eventInfo
	source fabric.Address
}

func openEventMember(ctx context.Context, node *fabric.Node, channel string, room, promised int, patience time.Duration) (_ *eventMember, err error) {
	m := &eventMember{node: node, channel: channel, room: room, patience: patience, hands: newEventHands(channel), touches: make(map[fabric.Address]*touch)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.greeting, m.stop = context.WithCancel(m.ctx)
	if m.consumer, err = node.Consumer(ctx, channel, fabric.ConsumerConfig{Producers: promised}); err != nil {
		return nil, err
	}
	if m.acks, err = node.Producer(ctx, upToChannel(channel), fabric.ProducerConfig{HighWaterMark: unlimited}); err != nil {
		m.consumer.Close()
		return nil, err
	}
	m.greeter = newGreeter(m.acks, kindGroupHello, m.consumer.Address().Index, room)
	m.wg.Go(func() { m.greeter.greet(m.greeting) })
	m.wg.Go(m.keepTouch)
	return m, nil
}

// receive waits for the next event, whose key and body it returns.
func (m *eventMember) receive(ctx context.Context) (key, body []byte, got receivedEvent, err error) {
	for {
		msg, err := m.consumer.Receive(ctx)
		if err != nil {
			if lost := lostPeer(err); lost != nil {
				m.lost(lost.Node)
				m.meetings.lose(lost.Node)
			}
			return nil, nil, got, err
		}
		got.source = msg.Source()
		kind, f := readRecord(msg.Body)
		if kind == kindLetGo || kind == kindStill || kind == kindMeetGroup {
			if m.told(got.source.Node, kind, &f) {
				continue
			}
			m.malformed.Add(1)
			return nil, nil, got, &RecordError{Channel: m.channel, From: got.source}
		}
		acks, partition, epoch := f.number(), f.number(), f.number()
		got.info = eventInfo{f.number(), f.number()}
		size := f.number()
		if !f.end() || kind != kindEvent || partition >= maxPartitions || size > uint64(len(f.rest)) {
			m.malformed.Add(1)
			return nil, nil, got, &RecordError{Channel: m.channel, From: got.source}
		}
		from := fabric.Address{Node: got.source.Node, Index: int(acks)}
		to := m.greeter.find(from)
		if to == nil || m.meetings.met[from] == nil {
			m.orphaned.Add(1) // gone, and forgotten the event; or it was for an earlier member
			continue
		}
		if got.hand = m.hands.take(handKey{from, partition}, to.target, epoch, got.info.sequence, m.room); got.hand == nil {
			m.malformed.Add(1) // more than it was said to have room for
			return nil, nil, got, &RecordError{Channel: m.channel, From: got.source}
		}
		m.received.Add(1)
		if got.info.deliveries > 1 {
			m.redelivered.Add(1)
		}
		return f.rest[:size:size], f.rest[size:], got, nil
	}
}

func (m *eventMember) drain(ctx context.Context) error {
	m.stop() // who has found that it takes no more would take a hello for that of a new member
	err := m.consumer.Drain(ctx)
	for {
		busy, fewer := m.hands.busy()
		if busy == 0 {
			break
		}
		select {
		case <-fewer:
			continue
		case <-ctx.Done():
			err = errors.Join(err, fmt.Errorf("patterns: a member of %s has %d events that are not acknowledged: %w", m.channel, busy, ctx.Err()))
		}
		break
	}
	return errors.Join(err, m.close())
}

// close says goodbye, behind all that was acknowledged.
func (m *eventMember) close() error {
	m.closing.Do(func() {
		m.cancel() // handlers' contexts, too
		m.mu.Lock()
		m.closed = true
		m.mu.Unlock()
		m.wg.Wait()
		m.handling.Wait() // as others get their events from now on
		m.hands.close()
		m.closeIt = m.consumer.Close()
		m.greeter.bye(kindGroupBye)
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		_ = m.acks.Drain(ctx) // what a publisher does not hear is delivered again
	})
	return m.closeIt
}

func (m *eventMember) statistics() EventMemberStats {
	busy, _ := m.hands.busy()
	return EventMemberStats{
		Received: m.received.Load(), Redelivered: m.redelivered.Load(), InHand: busy, Stale: m.stale.Load(),
		Undecodable: m.undecodable.Load(), Malformed: m.malformed.Load(), Orphaned: m.orphaned.Load(),
	}
}
