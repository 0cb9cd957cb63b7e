package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// How nodes agree on an exchange without anyone in charge:
//
//  1. Each watches the channel's members, registers its producers, and then its
//     consumers. So whoever sees a node's consumers knows its producers, too.
//  2. Each waits until all promised consumers are there. From then on the set
//     is fixed: keys are placed on it, and producers send to its streams alone.
//     A consumer that is lost, or takes another's place, is an error and moves
//     no key.
//  3. A producer finishes by telling the consumers of the set, each on the
//     stream that carried what it sent.
//  4. A consumer ends when all promised producers have told it so.
//  5. Consumers are there until their Close, producers until theirs, so that a
//     node that is late still sees all.

// Exchange is a node's part in an all-to-all. Its methods may be called by
// several goroutines; of its producers and consumers see there.
//
// Delivery: an accepted message arrives once, unless one of the two nodes is lost.
//
// Order: from one producer to one consumer that of the sending; none between
// producers.
//
// What blocks: OpenExchange, until all that were promised are there; sending, while
// the stream to that consumer is at its high-water mark; receiving, while there is
// nothing and producers have not finished. Each until its context ends.
//
// What a dead peer means: a lost consumer's messages are in doubt, and those to it
// fail with a *fabric.PeerLostError, while all others go on. A lost producer that had
// not finished makes the end of every consumer an *UnfinishedError that names it.
type Exchange struct {
	channel   string
	addresses []fabric.Address // of all consumers
	index     map[fabric.Address]int
	promised  []fabric.Address // all producers; set where there are consumers
	placement *fabric.Placement
	producers []*ExchangeProducer
	consumers []*ExchangeConsumer

	closing sync.Once
	gone    chan struct{} // closed with it
	closed  error
}

// OpenExchange makes the node's producers and consumers, and waits until all
// promised consumers of all nodes are there, and on a node with consumers all
// producers, too. If ctx ends before, it is a *MissingError, which says who is
// missing; if more come than were promised, a *ShapeError.
//
// The exchange ends with Close; the node stays the caller's.
func OpenExchange(ctx context.Context, node *fabric.Node, cfg ExchangeConfig) (*Exchange, error) {
	ex, err := openExchange(ctx, node, cfg)
	if err != nil {
		return nil, fmt.Errorf("patterns: open exchange %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return ex, nil
}

func openExchange(ctx context.Context, node *fabric.Node, cfg ExchangeConfig) (_ *Exchange, err error) {
	s, err := newShape(node.Name(), cfg)
	if err != nil {
		return nil, err
	}
	w, err := node.Directory().Watch(ctx, cfg.Channel)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	ex := &Exchange{channel: cfg.Channel, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			ex.Close()
		}
	}()
	if err := ex.register(ctx, node, cfg); err != nil {
		return nil, err
	}
	r := newRoll(s)
	if err := r.call(ctx, w); err != nil {
		return nil, err
	}
	if err := ex.agree(ctx, r); err != nil {
		return nil, err
	}
	return ex, nil
}

// register makes the node's producers, then its consumers.
func (ex *Exchange) register(ctx context.Context, node *fabric.Node, cfg ExchangeConfig) error {
	for i := range cfg.Producers {
		p, err := node.Producer(ctx, cfg.Channel, fabric.ProducerConfig{Index: i, HighWaterMark: cfg.HighWaterMark})
		if err != nil {
			return err
		}
		ex.producers = append(ex.producers, &ExchangeProducer{exchange: ex, producer: p})
		if p.Address().Index != i {
			return fmt.Errorf("producer %d: %w", i, fabric.ErrIndexTaken)
		}
	}
	for i := range cfg.Consumers {
		c, err := node.Consumer(ctx, cfg.Channel, fabric.ConsumerConfig{Index: i, HighWaterMark: cfg.HighWaterMark})
		if err != nil {
			return err
		}
		ex.consumers = append(ex.consumers, &ExchangeConsumer{exchange: ex, consumer: c, done: make(chan struct{})})
		if c.Address().Index != i {
			return fmt.Errorf("consumer %d: %w", i, fabric.ErrIndexTaken)
		}
	}
	return nil
}

// agree fixes who takes part.
func (ex *Exchange) agree(ctx context.Context, r *roll) error {
	ex.addresses, ex.promised = r.consumers(), r.promised()
	ex.placement = fabric.Place(ex.addresses)
	ex.index = make(map[fabric.Address]int, len(ex.addresses))
	for i, a := range ex.addresses {
		ex.index[a] = i
	}
	for _, p := range ex.producers {
		// The node follows the directory by itself, and may be behind r.
		if err := p.producer.WaitConsumers(ctx, len(ex.addresses)); err != nil {
			return err
		}
		for _, a := range ex.addresses {
			t, err := p.producer.To(a)
			if err != nil {
				return fmt.Errorf("consumer %s came and went: %w", a, err)
			}
			p.targets = append(p.targets, t)
		}
	}
	for _, c := range ex.consumers {
		c.consumer.Promise(len(ex.promised))
	}
	return nil
}

// Producers is this node's producers, by index.
func (ex *Exchange) Producers() []*ExchangeProducer { return ex.producers }

// Producer is this node's i-th producer, from 0. It panics if there is none.
func (ex *Exchange) Producer(i int) *ExchangeProducer { return ex.producers[i] }

// Consumers is this node's consumers, by index.
func (ex *Exchange) Consumers() []*ExchangeConsumer { return ex.consumers }

// Consumer is this node's i-th consumer, from 0. It panics if there is none.
func (ex *Exchange) Consumer(i int) *ExchangeConsumer { return ex.consumers[i] }

// Addresses is all consumers of all nodes, by node and index: the same on every
// node. It must not be changed.
func (ex *Exchange) Addresses() []fabric.Address { return ex.addresses }

// Owner is the index in Addresses of the consumer that owns key, which is the
// same on every node for as long as the exchange lives.
func (ex *Exchange) Owner(key []byte) int { return ex.placement.Owner(key) }

// Drain ends this node's part in order, and closes it: its producers finish, what they
// sent is stored by the consumers' nodes, and its own consumers come to their ends, for
// which Receive must go on being called. It waits for all that until ctx ends. The error
// joins those of the producers' Drain, ctx's for each consumer that was still to receive
// something, and Close's.
func (ex *Exchange) Drain(ctx context.Context) error {
	err := drainAll(ctx, ex.producers)
	for _, c := range ex.consumers {
		err = errors.Join(err, c.drain(ctx))
	}
	return errors.Join(err, ex.Close())
}

// drain waits until the consumer has come to its end, and those who sent to it know that
// it has all.
func (c *ExchangeConsumer) drain(ctx context.Context) error {
	if err := awaitEnd(ctx, c.exchange.gone, c.done, c.Address()); err != nil {
		return err
	}
	select {
	case <-c.done:
	default:
		return nil // closed
	}
	if c.end != fabric.ErrEnd {
		return nil // some are lost, and the others have had their time
	}
	return c.consumer.Drain(ctx)
}

// drainAll drains producers side by side.
func drainAll[P interface{ Drain(context.Context) error }](ctx context.Context, producers []P) error {
	errs := make([]error, len(producers))
	var draining sync.WaitGroup
	for i, p := range producers {
		draining.Go(func() { errs[i] = p.Drain(ctx) })
	}
	draining.Wait()
	return errors.Join(errs...)
}

// awaitEnd waits until a consumer is done, or all is gone.
func awaitEnd(ctx context.Context, gone, done <-chan struct{}, addr fabric.Address) error {
	select {
	case <-done:
		return nil
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("patterns: consumer %s has not come to its end: %w", addr, ctx.Err())
	}
}

// Close ends this node's part. Its consumers' Receive returns fabric.ErrClosed;
// what they have not handled is dropped. Producers that have not finished do
// not finish by it: the consumers that wait for them get a *fabric.PeerLostError
// once this node is closed, and before that wait until their contexts end. What
// was sent is still delivered while the node is open; Drain the producers first
// to know that it was.
func (ex *Exchange) Close() error {
	ex.closing.Do(func() {
		close(ex.gone)
		var errs []error
		for _, p := range ex.producers {
			p.producer.Finish(nil) // nothing, if it has finished
			errs = append(errs, p.producer.Close())
		}
		for _, c := range ex.consumers {
			errs = append(errs, c.consumer.Close())
		}
		if err := errors.Join(errs...); err != nil {
			ex.closed = fmt.Errorf("patterns: close exchange %q: %w", ex.channel, err)
		}
	})
	return ex.closed
}
