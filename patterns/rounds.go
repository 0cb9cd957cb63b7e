package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// How rounds go. Rounds are several exchanges of one shape, side by side: round r
// is on exchange r modulo their number. Each has streams and credit of its own, so
// that what a fast producer sends of the next round waits there, and is not in the
// way of what is missing of this one. One more exchange goes the other way: on it
// consumers say which rounds they have ended.
//
//  1. A producer sends values of round r, by key or addressed, and then its end to
//     every consumer, behind them. (rounds_producer.go)
//  2. A consumer's round r ends when every promised producer has ended it, or takes
//     part in no more rounds, or is lost. It then says so to all producers.
//     (rounds_consumer.go)
//  3. A producer begins round r when every consumer has ended round r less the
//     number of exchanges: so many rounds are open at most. (rounds_barrier.go)
//  4. A producer that has finished says how many rounds it took part in, on every
//     exchange.

// The kinds of records of rounds.
const (
	// producer to consumer, on an exchange of rounds
	kindValue    = 64 // [round, size of key] + key, value
	kindRoundEnd = 65 // [round]
	kindNoRounds = 66 // [rounds]: this producer takes part in no more
	// consumer to producer, on the exchange that goes the other way
	kindRoundOver = 67 // [rounds that this consumer has ended]
)

// roundChannel is that of the i-th exchange, and endedChannel where consumers tell
// what they have ended.
func roundChannel(channel string, i int) string { return fmt.Sprintf("%s.round%d", channel, i) }
func endedChannel(channel string) string        { return channel + ".ended" }

// RoundsConfig says how a node takes part in Rounds. All nodes must mean the same
// shape, and the same number of open rounds.
type RoundsConfig[V any] struct {
	// ExchangeConfig is who takes part, as in an Exchange. The channel's name is the
	// beginning of several: with ".round" and a number, and ".ended" behind it. The
	// high-water mark is that of each open round.
	ExchangeConfig
	// Open is how many rounds may be open: begun by a producer, and not yet ended by
	// every consumer. 1 is a barrier at which all wait for the slowest. Each costs a
	// stream from every node to every consumer. Default: 2; at most 16.
	Open int
	// Combine makes one value of two that a producer sends by the same key, in its
	// memory, so that fewer are sent: it must not matter in which order and how values
	// are combined. Default: none, every value is sent.
	Combine func(a, b V) V
	// CombineEntries and CombineBytes bound what a producer keeps to be combined: so
	// many keys, and so many bytes of keys and values, of which only the memory counts
	// that V itself takes, and that of a []byte or string. What is kept is sent when
	// either is reached, and at the end of the round. Default: 65,536 and 16 MiB.
	CombineEntries int
	CombineBytes   int64
	// Codec encodes and decodes values. Default: raw for []byte, else MessagePack.
	Codec Codec[V]
}

// Bounds and defaults of rounds.
const (
	defaultOpenRounds     = 2
	maxOpenRounds         = 16
	defaultCombineEntries = 1 << 16
	defaultCombineBytes   = 16 << 20
)

// withDefaults is the config with its zeros replaced.
func (c RoundsConfig[V]) withDefaults() (RoundsConfig[V], error) {
	if c.Open == 0 {
		c.Open = defaultOpenRounds
	}
	if c.CombineEntries == 0 {
		c.CombineEntries = defaultCombineEntries
	}
	if c.CombineBytes == 0 {
		c.CombineBytes = defaultCombineBytes
	}
	switch {
	case c.Open < 0 || c.Open > maxOpenRounds:
		return c, &fabric.ConfigError{Field: "Open", Value: c.Open, Reason: fmt.Sprintf("be 1 to %d", maxOpenRounds)}
	case c.CombineEntries < 0:
		return c, &fabric.ConfigError{Field: "CombineEntries", Value: c.CombineEntries, Reason: "not be negative"}
	case c.CombineBytes < 0:
		return c, &fabric.ConfigError{Field: "CombineBytes", Value: c.CombineBytes, Reason: "not be negative"}
	}
	return c, nil
}

// Rounds is a node's part in an all-to-all that goes in rounds, with a barrier
// between them. Its methods may be called by several goroutines; of its producers
// and consumers see there.
//
// Delivery: what is sent arrives once, in its round, unless one of the two nodes is
// lost.
//
// Order: from one producer to one consumer that of the sending, and rounds one
// after another; with a Combine, none within a round.
//
// What blocks: a producer that begins a round, until all consumers have ended the
// one so many before it as may be open; sending, while the stream to that consumer
// is at its high-water mark; a consumer, until all producers have ended the round.
//
// What a dead peer means: a round that lacks a lost producer's part ends with an
// *UnfinishedError, as do all further ones; nobody waits for it. A producer gets a
// *fabric.PeerLostError for what it sends to a lost consumer, and its barrier does
// not wait for that one.
//
// Computations at once, each with Rounds or an Exchange of its own, share the links
// between nodes: a link serves its streams in turn, by bytes, so that each gets its
// share whatever the others have waiting. Who waits at its barrier has nothing waiting:
// of rounds that are less than the streams hold, computations end about as many.
type Rounds[V any] struct {
	channel   string
	open      []*Exchange // one for each open round
	ended     *Exchange   // the other way
	producers []*RoundsProducer[V]
	consumers []*RoundsConsumer[V]
	barriers  sync.WaitGroup // a goroutine of each producer, that hears what consumers have ended

	closing sync.Once
	gone    chan struct{} // closed with it
	closed  error
}

// OpenRounds makes the node's producers and consumers, and waits until all that
// were promised are there, as OpenExchange does and with its errors.
func OpenRounds[V any](ctx context.Context, node *fabric.Node, cfg RoundsConfig[V]) (*Rounds[V], error) {
	r, err := openRounds(ctx, node, cfg)
	if err != nil {
		return nil, fmt.Errorf("patterns: open rounds %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return r, nil
}

func openRounds[V any](ctx context.Context, node *fabric.Node, cfg RoundsConfig[V]) (_ *Rounds[V], err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	r := &Rounds[V]{channel: cfg.Channel, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	for i := range cfg.Open {
		shape := cfg.ExchangeConfig
		shape.Channel = roundChannel(cfg.Channel, i)
		ex, err := openExchange(ctx, node, shape)
		if err != nil {
			return nil, err
		}
		r.open = append(r.open, ex)
	}
	mirror := cfg.ExchangeConfig
	mirror.Channel, mirror.HighWaterMark = endedChannel(cfg.Channel), fabric.HighWaterMark{}
	mirror.Producers, mirror.Consumers = cfg.Consumers, cfg.Producers
	mirror.TotalProducers, mirror.TotalConsumers = cfg.TotalConsumers, cfg.TotalProducers
	if r.ended, err = openExchange(ctx, node, mirror); err != nil {
		return nil, err
	}
	coder := newCoder(cfg.Codec)
	for i := range cfg.Producers {
		p := newRoundsProducer(r, i, coder, cfg)
		r.producers = append(r.producers, p)
		r.barriers.Go(func() { p.barrier.hear(r.ended.Consumer(i)) })
	}
	for i := range cfg.Consumers {
		r.consumers = append(r.consumers, newRoundsConsumer(r, i, coder))
	}
	return r, nil
}

// Producers is this node's producers, by index.
func (r *Rounds[V]) Producers() []*RoundsProducer[V] { return r.producers }

// Producer is this node's i-th producer, from 0. It panics if there is none.
func (r *Rounds[V]) Producer(i int) *RoundsProducer[V] { return r.producers[i] }

// Consumers is this node's consumers, by index.
func (r *Rounds[V]) Consumers() []*RoundsConsumer[V] { return r.consumers }

// Consumer is this node's i-th consumer, from 0. It panics if there is none.
func (r *Rounds[V]) Consumer(i int) *RoundsConsumer[V] { return r.consumers[i] }

// Addresses is all consumers of all nodes, by node and index: the same on every
// node. It must not be changed.
func (r *Rounds[V]) Addresses() []fabric.Address { return r.open[0].Addresses() }

// Owner is the index in Addresses of the consumer that owns key, which is the same
// on every node and in every round.
func (r *Rounds[V]) Owner(key []byte) int { return r.open[0].Owner(key) }

// Drain ends this node's part in order, and closes it: its producers, which nobody else
// may use meanwhile, finish, what they sent is stored by the consumers' nodes, and its
// own consumers come to their ends, for which Next must go on being called. It waits for
// all that until ctx ends. The error joins those of the producers' Drain, ctx's for each
// consumer that was still to receive something, and Close's.
func (r *Rounds[V]) Drain(ctx context.Context) error {
	err := drainAll(ctx, r.producers)
	for _, c := range r.consumers {
		err = errors.Join(err, awaitEnd(ctx, r.gone, c.done, c.Address()))
	}
	return errors.Join(err, r.Close())
}

// Close ends this node's part. Its consumers' iterations end with fabric.ErrClosed,
// and no producer waits for them any more; those who send to them get a
// *fabric.PeerLostError. Its producers' waits end with fabric.ErrClosed; one that has
// not finished does not finish by it, as with Exchange.Close. Drain the producers
// first to know that all was delivered.
func (r *Rounds[V]) Close() error {
	r.closing.Do(func() {
		close(r.gone)
		for _, c := range r.consumers {
			c.leave()
		}
		var errs []error
		for _, ex := range r.open {
			errs = append(errs, ex.Close())
		}
		if r.ended != nil {
			errs = append(errs, r.ended.Close())
		}
		r.barriers.Wait()
		r.closed = errors.Join(errs...)
	})
	return r.closed
}
