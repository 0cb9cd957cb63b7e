package patterns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// PublisherConfig says how to open a Publisher.
type PublisherConfig[T any] struct {
	// Channel is where publishers and subscribers meet. It and the one of that name
	// with ".subs" behind it carry nothing else.
	Channel string
	// Quality is that of subscribers that leave it to the publisher. Default:
	// BoundedDrop.
	Quality Quality
	// EvictAfter is how long a reliable subscriber may be without room for what is
	// published until this publisher waits no longer for it. Default: 0, it waits for
	// as long as Publish's context allows; at least 10 ms.
	EvictAfter time.Duration
	// Patience is how long a node with subscribers may be without connection until it is
	// forgotten, with what waits for it, once its lease has ended as well. Default: 2 s;
	// at least 10 ms.
	Patience time.Duration
	// Backlog bounds what waits here for a node whose stream is full, besides what
	// reliable subscribers have room for: beyond it the oldest is dropped. Messages that
	// give way to newer ones of their topic have as much for themselves. While somebody
	// at that node waits to have the past replayed, so much more may wait. Default:
	// 1,024 messages, 4 MiB.
	Backlog fabric.HighWaterMark
	// HighWaterMark bounds the stream to each node that has subscribers. A smaller one
	// keeps what a slow link delivers fresh, a larger one hides a long way. Default:
	// fabric's, 65,536 messages, 2 MiB.
	HighWaterMark fabric.HighWaterMark
	// Retain is of how many topics the last message is kept, for subscribers that ask
	// for it. Of more topics the one published to the longest ago is forgotten, and
	// beyond 64 MiB as well. Default: 0; at most 65,536.
	Retain int
	// Replay is how many of the last messages are kept, for subscribers that ask for
	// them, within 64 MiB. Default: 0; at most 65,536.
	Replay int
	// Codec encodes messages. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

// Publisher sends messages to whoever subscribes to their topics. Its methods may
// be called by several goroutines.
//
// Delivery: each message goes to those who are subscribed when it is published,
// once. What becomes of it at a subscriber that is behind is its Quality's
// business: it is counted if it is dropped, and never dropped if it is reliable.
// Messages are in memory only, until their subscribers' nodes have them.
//
// Order: each subscriber gets the messages of one publisher in the order in which
// they were published, also what is replayed; between goroutines that publish at
// the same time, and between publishers, there is none.
//
// What blocks: Publish, while a reliable subscriber that wants the message has no
// room, for EvictAfter at most; for others it does not wait. Flush and Drain, until
// nodes have stored what was published. Each ends with its context.
//
// What a dead peer means: the subscriptions of a node that is lost are forgotten at
// once, and Publish waits for them no more; so are those of one that has had no
// connection for Patience and whose lease has ended. A node that is without connection
// has its messages kept until then, within the bounds, for as long as fabric takes it
// to come back.
type Publisher[T any] struct {
	core  *publisher
	coder coder[T]
}

// OpenPublisher makes a publisher. It waits, until ctx ends, for the directory.
func OpenPublisher[T any](ctx context.Context, node *fabric.Node, cfg PublisherConfig[T]) (*Publisher[T], error) {
	core, err := openPublisher(ctx, node, publisherConfig{
		channel: cfg.Channel, quality: cfg.Quality, evictAfter: cfg.EvictAfter, patience: cfg.Patience, backlog: cfg.Backlog,
		stream: cfg.HighWaterMark, retain: cfg.Retain, replay: cfg.Replay,
	})
	if err != nil {
		return nil, fmt.Errorf("patterns: publisher on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Publisher[T]{core: core, coder: newCoder(cfg.Codec)}, nil
}

// recordPool has memory for messages while they are published.
var recordPool = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// Publish sends v to all who subscribe to topic: tokens with dots between them, none
// of which is empty or a wildcard, 255 bytes at most. It returns when the message
// is on its way to their nodes, or waits for those that are behind; v belongs to
// the program again then. It waits while a reliable subscriber has no room, until
// ctx ends: the message is then published to nobody.
//
// The error is ctx's, *TopicError, *CodecError, or fabric.ErrClosed after Drain or
// Close. A *fabric.TooLargeError says that some node takes no message so large: its
// subscribers are told that they missed one, and all others have it. If that comes
// out later, because the node is behind, only the subscribers are told.
func (p *Publisher[T]) Publish(ctx context.Context, topic string, v T) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	mem := recordPool.Get().(*[]byte)
	record := appendTextRecord((*mem)[:0], topic, kindPublished)
	head := len(record)
	record, err := p.coder.append(record, v)
	if err == nil {
		err = p.core.publish(ctx, topic, record, head)
	}
	if cap(record) <= keepMax {
		*mem = record
		recordPool.Put(mem)
	}
	return err
}

// WaitSubscribers waits until there are at least count subscribers, all of which
// get what is published from then on; or until ctx ends.
func (p *Publisher[T]) WaitSubscribers(ctx context.Context, count int) error {
	return p.core.waitSubscribers(ctx, count)
}

// Flush waits until all that was published so far is stored at the nodes of its
// subscribers, or dropped and counted; or until ctx ends. It does not wait for
// nodes that are lost meanwhile, nor for subscribers to read.
func (p *Publisher[T]) Flush(ctx context.Context) error { return p.core.flush(ctx) }

// Drain publishes no more, waits as Flush does, tells subscribers that this
// publisher has finished, and closes it. It ends early when ctx does; what waits
// for nodes that are behind then is as with Close.
func (p *Publisher[T]) Drain(ctx context.Context) error { return p.core.drain(ctx) }

// Close ends the publisher, and Publish with fabric.ErrClosed. For a second at most
// it does what Drain does. It is an *UndeliveredError if messages wait for nodes
// that are behind after that: they are dropped.
func (p *Publisher[T]) Close() error { return p.core.close() }

// Stats returns the publisher's counts, from its begin on.
func (p *Publisher[T]) Stats() PublisherStats { return p.core.statistics() }

// Address is the publisher's own: what Publication.Publisher says.
func (p *Publisher[T]) Address() fabric.Address { return p.core.producer.Address() }

// PublisherStats is a publisher's state at one moment.
type PublisherStats struct {
	Published   uint64 // messages
	Unwanted    uint64 // of them, that nobody subscribed to
	Copies      uint64 // messages sent, one to each node that wants it; replayed ones included
	Replayed    uint64 // messages sent, or to be sent, to those who asked for the past
	Dropped     uint64 // messages that a subscription missed in the backlog; one that several missed counts for each
	Conflated   uint64 // copies in the backlog that gave way to a newer one of their topic
	Evicted     uint64 // subscriptions
	Denied      uint64 // subscriptions
	Malformed   uint64 // messages on the subscriptions channel that are no records of this pattern
	Late        uint64 // records there about what is gone
	Waiting     int    // Publishes that wait
	Kept        int    // messages for Replay
	Retained    int    // topics
	Subscribers int
	Nodes       []PublisherNodeStats // with subscribers, by address
}

// PublisherNodeStats is a node with subscribers as a publisher knows it.
type PublisherNodeStats struct {
	Address      fabric.Address // of the consumer that its subscribers share
	Subscribers  int
	Copies       uint64
	Dropped      uint64 // as PublisherStats.Dropped
	Backlog      int    // copies that wait
	BacklogBytes int64
}

// publisherConfig is a PublisherConfig without its type.
type publisherConfig struct {
	channel         string
	quality         Quality
	evictAfter      time.Duration
	patience        time.Duration
	backlog, stream fabric.HighWaterMark
	retain, replay  int
}

func (c publisherConfig) withDefaults() (publisherConfig, error) {
	if c.quality == PublisherQuality {
		c.quality = BoundedDrop
	}
	if c.backlog.Messages == 0 {
		c.backlog.Messages = defaultBehind.Messages
	}
	if c.backlog.Bytes == 0 {
		c.backlog.Bytes = defaultBehind.Bytes
	}
	if c.patience == 0 {
		c.patience = defaultPubSubPatience
	}
	history := fmt.Sprintf("be 0 to %d", maxHistory)
	switch {
	case c.quality > Reliable:
		return c, fmt.Errorf("there is no %s", c.quality)
	case c.evictAfter != 0 && c.evictAfter < minEvictAfter:
		return c, &fabric.ConfigError{Field: "EvictAfter", Value: c.evictAfter, Reason: fmt.Sprintf("be at least %v", minEvictAfter)}
	case c.patience < minPatience:
		return c, &fabric.ConfigError{Field: "Patience", Value: c.patience, Reason: fmt.Sprintf("be at least %v", minPatience)}
	case c.backlog.Messages < 0 || c.backlog.Messages > maxQueue:
		return c, &fabric.ConfigError{Field: "Backlog.Messages", Value: c.backlog.Messages, Reason: fmt.Sprintf("be 1 to %d", maxQueue)}
	case c.backlog.Bytes < 0:
		return c, &fabric.ConfigError{Field: "Backlog.Bytes", Value: c.backlog.Bytes, Reason: "not be negative"}
	case c.retain < 0 || c.retain > maxHistory:
		return c, &fabric.ConfigError{Field: "Retain", Value: c.retain, Reason: history}
	case c.replay < 0 || c.replay > maxHistory:
		return c, &fabric.ConfigError{Field: "Replay", Value: c.replay, Reason: history}
	}
	return c, nil
}

// defaultPubSubPatience is how long publishers and subscribers' nodes wait for each
// other to come back whose leases have ended.
const defaultPubSubPatience = 2 * time.Second

// publisher is a Publisher without its type. It owns a goroutine that reads what
// hubs say, one that greets them, and one for each outlet in which something
// waits.
type publisher struct {
	cfg      publisherConfig
	node     *fabric.Node
	producer *fabric.Producer
	heard    *fabric.Consumer // what hubs say
	ctx      context.Context  // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	greet    chan struct{} // capacity 1: an outlet was forgotten

	// Under mu, which is held while messages are given to streams that have room:
	// that makes the one order in which all get them. Nothing waits under it.
	mu      sync.Mutex
	outlets slots[*outlet]
	byAddr  map[fabric.Address]*outlet
	routes  *matcher[*subscription, *route]
	history history
	moved   chan struct{} // closed when a subscription has room again, or is gone
	came    chan struct{} // closed when there is a new one
	emptied chan struct{} // closed when an outlet has sent something; nil while nobody asks
	closed  bool
	stats   PublisherStats

	closing sync.Once
	closeIt error
}

func openPublisher(ctx context.Context, node *fabric.Node, cfg publisherConfig) (_ *publisher, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	p := &publisher{
		cfg: cfg, node: node, greet: make(chan struct{}, 1), byAddr: make(map[fabric.Address]*outlet),
		routes: newMatcher(newRoute), history: history{messages: cfg.replay, topics: cfg.retain},
		moved: make(chan struct{}), came: make(chan struct{}),
	}
	// First, so that who hears of the publisher can answer it.
	if p.heard, err = node.Consumer(ctx, subscriptionChannel(cfg.channel), fabric.ConsumerConfig{}); err != nil {
		return nil, err
	}
	if p.producer, err = node.Producer(ctx, cfg.channel, fabric.ProducerConfig{HighWaterMark: cfg.stream}); err != nil {
		return nil, errors.Join(err, p.heard.Close())
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.hear)
	p.wg.Go(p.meet)
	return p, nil
}

func (p *publisher) waitSubscribers(ctx context.Context, count int) error {
	for {
		p.mu.Lock()
		n, came := len(p.routes.entries), p.came
		p.mu.Unlock()
		if n >= count {
			return nil
		}
		select {
		case <-came:
		case <-p.ctx.Done():
			return fabric.ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("patterns: %d of %d subscribers of %s are there: %w", n, count, p.cfg.channel, ctx.Err())
		}
	}
}

// signal closes a channel for all who wait for it, and returns the next one.
func signal(c chan struct{}) chan struct{} {
	close(c)
	return make(chan struct{})
}

func (p *publisher) flush(ctx context.Context) error {
	outlets := p.wanted()
	if err := p.empty(ctx, outlets); err != nil {
		return err
	}
	for o := range outlets {
		// What becomes of nodes that are lost is not the publisher's concern.
		if _ = o.target.Flush(ctx); ctx.Err() != nil {
			return fmt.Errorf("patterns: flush %s: %w", p.cfg.channel, ctx.Err())
		}
	}
	return nil
}

// wanted is the outlets of nodes with subscribers, and how much has waited in each.
func (p *publisher) wanted() map[*outlet]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make(map[*outlet]uint64)
	p.outlets.all(func(_ uint64, o *outlet) {
		if len(o.subs) > 0 {
			list[o] = o.put
		}
	})
	return list
}

// empty waits until outlets have sent, or dropped, all up to what has waited so far.
func (p *publisher) empty(ctx context.Context, upTo map[*outlet]uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		behind := 0
		for o, n := range upTo {
			if !o.passed(n) {
				behind++
			}
		}
		if behind == 0 {
			return nil
		}
		if p.emptied == nil {
			p.emptied = make(chan struct{})
		}
		emptied := p.emptied
		p.mu.Unlock()
		var err error
		select {
		case <-emptied:
		case <-ctx.Done():
			err = ctx.Err()
		case <-p.ctx.Done():
			err = fabric.ErrClosed
		}
		p.mu.Lock()
		if err != nil {
			return fmt.Errorf("patterns: messages of %s wait for %d nodes that are behind: %w", p.cfg.channel, behind, err)
		}
	}
}

func (p *publisher) drain(ctx context.Context) error {
	p.finish()
	err := p.flush(ctx)
	if closed := p.close(); err == nil {
		err = closed
	}
	return err
}

// finish ends all Publishes, and says the last word to all hubs, behind what they
// are to get; once.
func (p *publisher) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.moved = signal(p.moved)
	p.outlets.all(func(_ uint64, o *outlet) { p.say(o, dispatch{kind: kindLastWord}) })
}

func (p *publisher) close() error {
	p.closing.Do(func() {
		p.finish()
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		_ = p.empty(ctx, p.wanted()) // what is left is counted below
		p.cancel()
		p.mu.Lock()
		left := &UndeliveredError{Channel: p.cfg.channel}
		p.outlets.all(func(_ uint64, o *outlet) {
			if n := o.messages; n > 0 {
				left.Messages += n
				left.Nodes = append(left.Nodes, o.addr.Node)
			}
		})
		p.mu.Unlock()
		slices.Sort(left.Nodes)
		var errs []error
		if left.Messages > 0 {
			errs = append(errs, left, p.producer.Finish(nil)) // nobody is told that it has finished
		}
		errs = append(errs, p.producer.Close(), p.heard.Close())
		p.wg.Wait()
		p.closeIt = errors.Join(errs...)
	})
	return p.closeIt
}

func (p *publisher) statistics() PublisherStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.stats
	st.Subscribers, st.Kept, st.Retained = len(p.routes.entries), p.history.last.len, p.history.values.len
	p.outlets.all(func(_ uint64, o *outlet) {
		if len(o.subs) == 0 {
			return
		}
		st.Nodes = append(st.Nodes, PublisherNodeStats{
			Address: o.addr, Subscribers: len(o.subs), Copies: o.copies, Dropped: o.dropped,
			Backlog: o.messages, BacklogBytes: o.bytes,
		})
	})
	slices.SortFunc(st.Nodes, func(a, b PublisherNodeStats) int { return compareAddress(a.Address, b.Address) })
	return st
}
