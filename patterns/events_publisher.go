package patterns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// EventPublisherConfig says how to open an EventPublisher.
type EventPublisherConfig[T any] struct {
	// Channel is the group's. It and the one of that name with ".upto" behind it carry
	// nothing else. A channel has one group; every group of its own has its channel.
	Channel string
	// Partitions is how many the keys are divided into, and so how many members can
	// have work at a time. All publishers of a channel must have the same number, or
	// they give a key to different members. Default: 64; at most 1,024.
	Partitions int
	// Unacknowledged bounds what is kept of each partition until it is acknowledged;
	// Publish waits beyond it. One event may be larger. Default: 1 MiB of encoded
	// events, 1,024 events.
	Unacknowledged fabric.HighWaterMark
	// Patience is how long a member's node may be without connection until its partitions
	// move, once its lease has ended as well. It must be longer than the members'
	// Patience, by at least as much as the two nodes may be apart in finding that the
	// connection is gone, or two members may handle a key at a time. Default: 5 s; at
	// least 10 ms.
	Patience time.Duration
	// Codec encodes events. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

const (
	defaultEventsPatience = 5 * time.Second
	defaultPartitions     = 64
	maxPartitions         = 1 << 10 // far fewer than there are places for keys
	defaultEventsBytes    = 1 << 20
	defaultEvents         = 1 << 10
)

func (c EventPublisherConfig[T]) withDefaults() (EventPublisherConfig[T], error) {
	c.Partitions = cmp.Or(c.Partitions, defaultPartitions)
	c.Patience = cmp.Or(c.Patience, defaultEventsPatience)
	c.Unacknowledged.Bytes = cmp.Or(c.Unacknowledged.Bytes, defaultEventsBytes)
	c.Unacknowledged.Messages = cmp.Or(c.Unacknowledged.Messages, defaultEvents)
	switch {
	case c.Partitions < 0 || c.Partitions > maxPartitions:
		return c, &fabric.ConfigError{Field: "Partitions", Value: c.Partitions, Reason: fmt.Sprintf("be 1 to %d", maxPartitions)}
	case c.Unacknowledged.Messages < 0:
		return c, &fabric.ConfigError{Field: "Unacknowledged.Messages", Value: c.Unacknowledged.Messages, Reason: "not be negative"}
	case c.Unacknowledged.Bytes < 0:
		return c, &fabric.ConfigError{Field: "Unacknowledged.Bytes", Value: c.Unacknowledged.Bytes, Reason: "not be negative"}
	case c.Patience < minPatience:
		return c, &fabric.ConfigError{Field: "Patience", Value: c.Patience, Reason: fmt.Sprintf("be at least %v", minPatience)}
	}
	return c, nil
}

// EventPublisher sends events to a group of members, each by its key. Its methods
// may be called by several goroutines.
//
// Delivery: at least once: each event that Publish accepts is delivered until a
// member acknowledges it, while the publisher lives: events are in its memory.
//
// Order: events of one key, and of one partition, are handled in the order of their
// publishing, whichever members handle them: an event is handled again only together
// with all behind it. There is none between partitions or publishers.
//
// What blocks: Publish, while as much of the key's partition is not acknowledged as
// the config allows, also because there is no member; Flush and Drain, until all is
// acknowledged. Each ends with its context. A partition that does not get on holds up
// its own keys only.
//
// What a dead peer means: a dead member's partitions move to others, with what it has
// not acknowledged, when its node has had no connection for Patience and its lease has
// ended, or when the fabric says that it is lost or started anew: after the node's
// ResumeWindow at the latest. One that has a connection or a lease keeps what it has.
// One that was only cut off and comes back begins no event that others have by then
// (see EventMemberConfig.Patience), and is a member again. Publish never fails because
// of a member.
type EventPublisher[T any] struct {
	core  *eventPublisher
	coder coder[T]
}

// OpenEventPublisher makes a publisher. It waits, until ctx ends, for the directory.
func OpenEventPublisher[T any](ctx context.Context, node *fabric.Node, cfg EventPublisherConfig[T]) (*EventPublisher[T], error) {
	cfg, err := cfg.withDefaults()
	if err == nil {
		var core *eventPublisher
		if core, err = openEventPublisher(ctx, node, cfg.Channel, cfg.Partitions, cfg.Unacknowledged, cfg.Patience); err == nil {
			return &EventPublisher[T]{core: core, coder: newCoder(cfg.Codec)}, nil
		}
	}
	return nil, fmt.Errorf("patterns: event publisher on %q at node %s: %w", cfg.Channel, node.Name(), err)
}

// Publish publishes an event. It returns when the event is accepted, and has then
// encoded or copied v and key; from then on the publisher sees to its delivery. It
// waits while the key's partition is full, until ctx ends; the event is not accepted
// then. The error is ctx's, *CodecError, *fabric.TooLargeError, or fabric.ErrClosed
// after Drain or Close.
func (p *EventPublisher[T]) Publish(ctx context.Context, key []byte, v T) error {
	body, err := p.coder.packKeyed(key, v)
	if err != nil {
		return err
	}
	return p.core.publish(ctx, key, body)
}

// WaitMembers waits until at least count members are there, or ctx ends.
func (p *EventPublisher[T]) WaitMembers(ctx context.Context, count int) error {
	n, err := waitMembers(ctx, p.core.ctx, &p.core.mu, p.core.members, count)
	if err != nil && err != fabric.ErrClosed {
		return fmt.Errorf("patterns: %d of %d members of %s are there: %w", n, count, p.core.channel, err)
	}
	return err
}

// Flush waits until all events accepted so far are acknowledged, or ctx ends. It is an
// *UndeliverableError if events were dropped since the last Flush.
func (p *EventPublisher[T]) Flush(ctx context.Context) error { return p.core.flush(ctx) }

// Drain takes no more events, waits as Flush does, tells the members that this
// publisher has finished, and closes it. It ends early when ctx does; the publisher
// is closed then as well.
func (p *EventPublisher[T]) Drain(ctx context.Context) error {
	p.core.refuse()
	err := p.core.flush(ctx)
	return errors.Join(err, p.core.close())
}

// Close ends the publisher, and Publish with fabric.ErrClosed. It waits, for a second
// at most, for what members have said already. It is an *UnacknowledgedError if there
// are events that no member has acknowledged: they are lost, unless they were handled.
func (p *EventPublisher[T]) Close() error { return p.core.close() }

// Stats returns the publisher's counts, from its begin on.
func (p *EventPublisher[T]) Stats() EventPublisherStats { return p.core.statistics() }

// EventPublisherStats is a publisher's state at one moment.
type EventPublisherStats struct {
	Published      uint64 // events accepted
	Acknowledged   uint64 // events, each once
	Redelivered    uint64 // deliveries after an event's first
	Moved          uint64 // times that a partition went from one member to another
	Dropped        uint64 // events that no member's node takes
	Late           uint64 // acknowledgements of what was given to somebody else
	Malformed      uint64 // messages beside the channel that are no records of this pattern
	Unacknowledged int    // events now
	Leaving        int    // partitions whose owner is to be another member
	Members        int
	Owned          map[fabric.Address]int // partitions by member
}

// eventPublisher is an EventPublisher without its type. It owns a goroutine that hears
// members, and one that follows who is there.
type eventPublisher struct {
	channel  string
	bound    fabric.HighWaterMark // of each partition
	producer *fabric.Producer
	acks     *fabric.Consumer
	ctx      context.Context // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu      sync.Mutex
	members *roster[struct{}]
	parts   []partition
	count   int                // events that are not acknowledged
	fewer   bell               // some were acknowledged, or dropped
	closed  bool               // no more are taken
	dropped UndeliverableError // since the last flush
	stats   EventPublisherStats

	closing sync.Once
	closeIt error
}

func openEventPublisher(
	ctx context.Context, node *fabric.Node, channel string, partitions int, bound fabric.HighWaterMark, patience time.Duration,
) (*eventPublisher, error) {
	p := &eventPublisher{channel: channel, bound: bound, parts: make([]partition, partitions)}
	for i := range p.parts {
		p.parts[i].index = uint64(i)
		p.parts[i].key = appendNumber(nil, uint64(i))
		p.parts[i].epoch = rand.Uint64() >> 1 // so that one of an earlier publisher here is not taken for one of this
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	var err error
	if p.acks, err = node.Consumer(ctx, upToChannel(channel), fabric.ConsumerConfig{}); err != nil {
		return nil, err
	}
	// What is on a stream counts as unacknowledged, and so has the pattern's bound.
	if p.producer, err = node.Producer(ctx, channel, fabric.ProducerConfig{HighWaterMark: unlimited}); err != nil {
		p.acks.Close()
		return nil, err
	}
	p.members = newRoster(node, p.producer, patience, p.lost)
	p.members.known = true // whose lease has ended is to have no partitions
	p.members.meet = func(m *member[struct{}]) error { return p.tell(m, kindMeetGroup, m.session) }
	p.wg.Go(p.hear)
	p.wg.Go(p.follow)
	return p, nil
}

// publish puts an event behind the others of its key, when there is room. The body is
// the publisher's, also if there is an error.
func (p *eventPublisher) publish(ctx context.Context, key []byte, body parcel) error {
	part := &p.parts[hash(key)%uint64(len(p.parts))]
	size := int64(len(body.body()))
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && len(part.events) > 0 && (int64(len(part.events)) >= p.bound.Messages || part.bytes+size > p.bound.Bytes) {
		fewer := part.fewer.next()
		p.mu.Unlock()
		var err error
		select {
		case <-fewer:
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.mu.Lock()
		if err != nil {
			body.release()
			return err
		}
	}
	if p.closed {
		body.release()
		return fabric.ErrClosed
	}
	part.last++
	part.events = append(part.events, event{body: body, key: len(key), sequence: part.last})
	part.bytes += size
	p.count++
	p.stats.Published++
	if err := p.advance(part); err != nil && (len(part.events) == 0 || part.events[len(part.events)-1].sequence != part.last) {
		p.stats.Published-- // it was the one just taken
		p.stats.Dropped--
		p.dropped.Events--
		return err
	}
	p.rebalance()
	return nil
}

// hear takes what members say, until the publisher is closed.
func (p *eventPublisher) hear() {
	for {
		m, err := p.acks.Receive(context.Background())
		lost := lostPeer(err)
		if err != nil && lost == nil {
			return
		}
		p.mu.Lock()
		if lost != nil {
			p.members.nodeLost(lost)
		} else if !p.take(m.Source(), m.Body) {
			p.stats.Malformed++
		}
		p.rebalance()
		p.mu.Unlock()
	}
}

// take takes a record, and reports whether it is one. Under mu.
func (p *eventPublisher) take(from fabric.Address, record []byte) bool {
	kind, f := readRecord(record)
	switch kind {
	case kindUpTo:
		partition, epoch, sequence := f.number(), f.number(), f.number()
		if !f.end() || partition >= uint64(len(p.parts)) {
			return false
		}
		p.upTo(&p.parts[partition], from, epoch, sequence)
	case kindGroupHello:
		session, index, room := f.number(), f.number(), f.number()
		if !f.end() || room == 0 || room > maxInFlight {
			return false
		}
		p.members.hello(from, session, int(index), int(room))
	case kindAmI:
		session, question := f.number(), f.number()
		if !f.end() {
			return false
		}
		// Who is none was told when it was let go.
		if m := p.members.members[from]; m != nil && m.session == session && m.target != nil {
			_ = p.tell(m, kindStill, session, question) // one that is gone need not know
		}
	case kindGroupBye:
		session := f.number()
		if !f.end() {
			return false
		}
		p.members.bye(from, session)
	default:
		return false
	}
	return true
}

// tell says something to a member. Under mu.
func (p *eventPublisher) tell(m *member[struct{}], kind uint64, numbers ...uint64) error {
	var mem [headRoom]byte
	b := appendArray(mem[:0], 2+len(numbers))
	return m.target.TrySend(appendNumbers(appendNumber(appendNumber(b, kind), p.index()), numbers))
}

// index is what members address this publisher by.
func (p *eventPublisher) index() uint64 { return uint64(p.acks.Address().Index) }

// follow follows which members take events, until the publisher is closed.
func (p *eventPublisher) follow() {
	tick := time.NewTicker(p.members.interval())
	defer tick.Stop()
	for {
		changed := p.producer.Changed()
		p.mu.Lock()
		p.members.reachAll() // who leaves may still acknowledge what it has
		for _, m := range p.members.abandon(time.Now()) {
			_ = p.tell(m, kindLetGo, m.session) // one that is gone need not know
		}
		p.rebalance()
		p.mu.Unlock()
		select {
		case <-p.ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// refuse takes no more events.
func (p *eventPublisher) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for i := range p.parts {
		p.parts[i].fewer.ring()
	}
}

func (p *eventPublisher) flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := make([]uint64, len(p.parts))
	for i := range p.parts {
		last[i] = p.parts[i].last
	}
	for i := 0; i < len(p.parts); {
		if part := &p.parts[i]; len(part.events) == 0 || part.events[0].sequence > last[i] {
			i++
			continue
		}
		fewer := p.fewer.next()
		p.mu.Unlock()
		var err error
		select {
		case <-fewer:
		case <-p.ctx.Done():
			err = fabric.ErrClosed
		case <-ctx.Done():
			err = fmt.Errorf("patterns: events of %s are not acknowledged: %w", p.channel, ctx.Err())
		}
		p.mu.Lock()
		if err != nil {
			return err
		}
	}
	if p.dropped.Events == 0 {
		return nil
	}
	dropped := p.dropped
	dropped.Channel = p.channel
	p.dropped = UndeliverableError{}
	return &dropped
}

func (p *eventPublisher) close() error {
	p.closing.Do(func() {
		p.refuse()
		p.cancel()
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		err := p.producer.Close()
		if drained := p.acks.Drain(ctx); ctx.Err() == nil {
			err = errors.Join(err, drained)
		}
		p.wg.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.count > 0 {
			err = errors.Join(err, &UnacknowledgedError{Channel: p.channel, Events: p.count})
		}
		for i := range p.parts {
			p.parts[i].clear()
		}
		p.closeIt = err
	})
	return p.closeIt
}

func (p *eventPublisher) statistics() EventPublisherStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.stats
	st.Unacknowledged, st.Members = p.count, len(p.members.present())
	st.Owned = make(map[fabric.Address]int)
	for i := range p.parts {
		part := &p.parts[i]
		if part.owner != nil {
			st.Owned[part.owner.addr]++
			if part.owner != part.chosen {
				st.Leaving++
			}
		}
	}
	return st
}
