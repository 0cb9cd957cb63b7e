package patterns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// SubscriberConfig says how to open a Subscriber.
type SubscriberConfig[T any] struct {
	// Channel is the publishers'.
	Channel string
	// Filters say which topics the subscriber gets: those that one of them takes, each
	// message once. There are 1 to 64.
	Filters []Filter
	// Quality says what becomes of messages while the subscriber is behind. Default:
	// PublisherQuality, what each publisher says.
	Quality Quality
	// Conflate keeps only the newest message of each topic among those that wait. It
	// goes with Latest.
	Conflate bool
	// Queue is how much may wait for the subscriber to read: in all, or of each
	// publisher if it is Reliable. One message may go beyond the bytes. What is
	// replayed comes besides. Default: 1,024 messages, 4 MiB; at most 1,048,576
	// messages.
	Queue fabric.HighWaterMark
	// Retained asks for the last message of each topic, before those that follow, as
	// far as publishers keep it.
	Retained bool
	// Replay asks for so many of the last messages of each publisher, before those that
	// follow, as far as publishers keep them. It goes not with Retained. Default: 0; at
	// most 65,536.
	Replay int
	// Publishers is how many publishers must finish until Receive says fabric.ErrEnd.
	// Default: 0, it never ends.
	Publishers int
	// Codec decodes messages. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

// Subscriber receives what is published on the topics that it wants, by all
// publishers of a channel, also those that come later. One goroutine at a time may
// call Receive or run Messages; the other methods may be called by any. The
// subscribers of a channel at one node share one stream from each publisher.
//
// Delivery: each message that is published after OpenSubscriber has returned, once;
// unless it is dropped because the subscriber is behind, as its Quality says, and
// counted.
//
// Order: from each publisher that of the publishing, replayed messages included.
// Between publishers there is none.
//
// What blocks: Receive, while there is nothing, and OpenSubscriber, until all
// publishers have confirmed. Each ends with its context. A subscriber that does not
// read holds up no other one. If it is reliable, it holds up publishers, for as long
// as they are configured to wait.
//
// What a dead peer means: Receive returns a *fabric.PeerLostError for each node with
// publishers that had not finished and is lost, or has forgotten the subscription,
// and may go on; after that error messages of that node may be missing. One whose lease
// has ended counts as lost once it has had no connection for two seconds. A publisher
// that comes back is subscribed to by itself, and asked for the past again.
type Subscriber[T any] struct {
	core        *subscriber
	coder       coder[T]
	value       T // the receiving goroutine's: what is decoded into
	undecodable atomic.Uint64

	closing sync.Once
	closeIt error
}

// OpenSubscriber makes a subscriber. It returns when all publishers that the
// directory knows have confirmed the subscription: what is published after that
// reaches the subscriber. If ctx ends before, it is an *UnconfirmedError. A filter
// that is none is a *PatternError; a publisher that takes no more subscriptions
// makes it a *DeniedError.
func OpenSubscriber[T any](ctx context.Context, node *fabric.Node, cfg SubscriberConfig[T]) (*Subscriber[T], error) {
	core, err := openSubscriber(ctx, node, cfg.Channel, subscriberConfig{
		filters: slices.Clone(cfg.Filters), quality: cfg.Quality, conflate: cfg.Conflate, queue: cfg.Queue,
		retained: cfg.Retained, replay: cfg.Replay, promised: cfg.Publishers,
	})
	if err != nil {
		return nil, fmt.Errorf("patterns: subscriber on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Subscriber[T]{core: core, coder: newCoder(cfg.Codec)}, nil
}

// Publication is a message as a subscriber gets it.
type Publication[T any] struct {
	Topic string
	// Value is the message itself. If its codec makes it refer to the message, as Raw
	// does, it is shared with the node's other subscribers and must not be changed; it
	// is valid for ever.
	Value     T
	Publisher fabric.Address
	Replayed  bool // it was published before the subscription was confirmed
}

// Keep returns the publication with a copy of a []byte, which may be changed.
func (p Publication[T]) Keep() Publication[T] {
	if b, ok := any(p.Value).([]byte); ok {
		p.Value = any(bytes.Clone(b)).(T)
	}
	return p
}

// Receive waits for the next message, until ctx ends.
//
// A *MissedError says that messages were dropped here. A *fabric.PeerLostError says
// that a node with publishers is lost. A *CodecError says that a message came that
// is no T; its publication has topic and publisher. A *RecordError says that
// somebody else sends on the channel. After any of these the caller may go on.
//
// An *EvictedError is the end of a reliable subscriber that was behind for too long:
// open another one, with Replay to get what it missed. fabric.ErrEnd comes when all
// promised publishers have finished, or after Drain; fabric.ErrClosed after Close.
func (s *Subscriber[T]) Receive(ctx context.Context) (Publication[T], error) {
	l, err := s.core.next(ctx)
	if err != nil {
		return Publication[T]{}, err
	}
	switch l.kind {
	case missedLetter:
		return Publication[T]{}, &MissedError{Channel: s.core.hub.key.channel, Publisher: l.word.from, Messages: l.word.missed}
	case lostLetter, strangeLetter:
		return Publication[T]{}, l.word.err
	}
	p := Publication[T]{Topic: l.topic, Publisher: l.tie.source.addr, Replayed: l.kind == pastLetter}
	s.value = *new(T)
	if err := s.coder.decode(l.body, &s.value); err != nil {
		s.undecodable.Add(1)
		return p, err
	}
	p.Value = s.value
	return p, nil
}

// Messages iterates over what Receive returns. It ends by itself when all promised
// publishers have finished, or after Drain. Errors after which Receive may be called
// again are yielded and the iteration goes on; any other is yielded as the last.
func (s *Subscriber[T]) Messages(ctx context.Context) iter.Seq2[Publication[T], error] {
	return func(yield func(Publication[T], error) bool) {
		for {
			p, err := s.Receive(ctx)
			if err == fabric.ErrEnd {
				return
			}
			if !yield(p, err) || err != nil && !passing(err) {
				return
			}
		}
	}
}

// Drain ends the subscription, waits until what was published before that is
// received, or ctx ends, and closes the subscriber. Receive must go on being called
// meanwhile; it returns fabric.ErrEnd behind the last message.
func (s *Subscriber[T]) Drain(ctx context.Context) error {
	s.core.hub.drain(s.core)
	var err error
	select {
	case <-s.core.read:
	case <-ctx.Done():
		err = fmt.Errorf("patterns: draining a subscriber of %s: %w", s.core.hub.key.channel, ctx.Err())
	}
	return errors.Join(err, s.Close())
}

// Close ends the subscriber: Receive returns fabric.ErrClosed, and what waits is
// dropped.
func (s *Subscriber[T]) Close() error {
	s.closing.Do(func() { s.closeIt = s.core.close() })
	return s.closeIt
}

// SubscriberStats is a subscriber's state at one moment.
type SubscriberStats struct {
	Received    uint64 // messages, also those that could not be decoded
	Missed      uint64 // messages that were dropped, here or at their publishers
	Conflated   uint64 // messages that gave way in the queue to a newer one of their topic
	Undecodable uint64
	Malformed   uint64 // messages on the channel, at this node, that are no records of this pattern
	Unwanted    uint64 // messages that came to this node and that nobody there wanted any more
	Queued      int    // messages that wait
	QueuedBytes int64
	Publishers  int // that have confirmed, and are not gone
}

// Stats returns the subscriber's counts, from its begin on.
func (s *Subscriber[T]) Stats() SubscriberStats {
	st := s.core.statistics()
	st.Undecodable = s.undecodable.Load()
	return st
}

// subscriberConfig is a SubscriberConfig without its type.
type subscriberConfig struct {
	filters  []Filter
	quality  Quality
	conflate bool
	queue    fabric.HighWaterMark
	retained bool
	replay   int
	promised int
}

func (c subscriberConfig) withDefaults() (subscriberConfig, error) {
	if c.queue.Messages == 0 {
		c.queue.Messages = defaultBehind.Messages
	}
	if c.queue.Bytes == 0 {
		c.queue.Bytes = defaultBehind.Bytes
	}
	switch {
	case len(c.filters) == 0 || len(c.filters) > maxFilters:
		return c, &fabric.ConfigError{Field: "Filters", Value: c.filters, Reason: fmt.Sprintf("be 1 to %d", maxFilters)}
	case c.quality > Reliable:
		return c, fmt.Errorf("there is no %s", c.quality)
	case c.conflate && c.quality != Latest:
		return c, &fabric.ConfigError{Field: "Conflate", Value: true, Reason: "go with the quality " + Latest.String()}
	case c.queue.Messages < 0 || c.queue.Messages > maxQueue:
		return c, &fabric.ConfigError{Field: "Queue.Messages", Value: c.queue.Messages, Reason: fmt.Sprintf("be 1 to %d", maxQueue)}
	case c.queue.Bytes < 0 || c.queue.Bytes > maxQueueBytes:
		return c, &fabric.ConfigError{Field: "Queue.Bytes", Value: c.queue.Bytes, Reason: fmt.Sprintf("be 1 to %d", int64(maxQueueBytes))}
	case c.replay < 0 || c.replay > maxHistory:
		return c, &fabric.ConfigError{Field: "Replay", Value: c.replay, Reason: fmt.Sprintf("be 0 to %d", maxHistory)}
	case c.replay > 0 && c.retained:
		return c, &fabric.ConfigError{Field: "Replay", Value: c.replay, Reason: "be 0 with Retained"}
	case c.promised < 0:
		return c, &fabric.ConfigError{Field: "Publishers", Value: c.promised, Reason: "not be negative"}
	}
	for _, f := range c.filters {
		if err := f.check(); err != nil {
			return c, err
		}
	}
	return c, nil
}

func openSubscriber(ctx context.Context, node *fabric.Node, channel string, cfg subscriberConfig) (*subscriber, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	h, err := useHub(ctx, node, channel)
	if err != nil {
		return nil, err
	}
	s := &subscriber{hub: h, cfg: cfg, ready: make(chan struct{}, 1), read: make(chan struct{})}
	if err := h.add(s); err != nil {
		return nil, errors.Join(err, h.leave())
	}
	if err := h.confirmed(ctx, s); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}
