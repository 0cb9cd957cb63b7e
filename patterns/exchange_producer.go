package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// ExchangeProducer sends to the consumers of an Exchange. Its methods may be
// called by several goroutines.
//
// Every way to send copies the body, and returns when the message is accepted:
// from then on it is delivered. It waits while the stream to that consumer is
// at its high-water mark, also while the consumer's node is not reachable, until
// ctx ends; the message is not accepted then. The error is ctx's,
// *fabric.TooLargeError, *fabric.PeerLostError if that consumer is lost,
// *fabric.UnknownConsumerError if it has left in the middle, or fabric.ErrClosed
// after Finish or Close. Delivery, order and what a dead peer means are those of
// Exchange.
type ExchangeProducer struct {
	exchange *Exchange
	producer *fabric.Producer
	targets  []*fabric.Target // by index in Addresses

	finishing sync.Once
	finished  error
}

// Address is the producer's own: what Message.Source says at the consumer.
func (p *ExchangeProducer) Address() fabric.Address { return p.producer.Address() }

// Targets is all consumers, in the order of Exchange.Addresses, for hot loops:
//
//	targets[ex.Owner(key)].Send(ctx, body)
//
// It must not be changed.
func (p *ExchangeProducer) Targets() []*fabric.Target { return p.targets }

// Send sends body to the consumer at addr; a *fabric.UnknownConsumerError if
// the exchange has none there.
func (p *ExchangeProducer) Send(ctx context.Context, addr fabric.Address, body []byte) error {
	t, err := p.to(addr)
	if err != nil {
		return err
	}
	return t.Send(ctx, body)
}

// TrySend is Send that returns fabric.ErrHighWater instead of waiting.
func (p *ExchangeProducer) TrySend(addr fabric.Address, body []byte) error {
	t, err := p.to(addr)
	if err != nil {
		return err
	}
	return t.TrySend(body)
}

func (p *ExchangeProducer) to(addr fabric.Address) (*fabric.Target, error) {
	if i, ok := p.exchange.index[addr]; ok {
		return p.targets[i], nil
	}
	return nil, &fabric.UnknownConsumerError{Channel: p.exchange.channel, Address: addr}
}

// SendKey sends body to the consumer that owns key.
func (p *ExchangeProducer) SendKey(ctx context.Context, key, body []byte) error {
	return p.targets[p.exchange.Owner(key)].Send(ctx, body)
}

// TrySendKey is SendKey that returns fabric.ErrHighWater instead of waiting.
func (p *ExchangeProducer) TrySendKey(key, body []byte) error {
	return p.targets[p.exchange.Owner(key)].TrySend(body)
}

// SendAll sends body to every consumer. Those that have room get it before it
// waits for the others. It goes on after a consumer that fails; the error joins
// what failed, so that all others have got it.
func (p *ExchangeProducer) SendAll(ctx context.Context, body []byte) error {
	var errs []error
	distribute(len(p.targets), func(i int) error {
		return p.targets[i].TrySend(body)
	}, func(i int) error {
		return p.targets[i].Send(ctx, body)
	}, func(i int, err error) {
		errs = append(errs, fmt.Errorf("to %s: %w", p.exchange.addresses[i], err))
	})
	return errors.Join(errs...)
}

// Finish tells every consumer, behind the last message to it, that this producer
// has finished. It does not wait for deliveries. The error joins a
// *fabric.PeerLostError or *fabric.UnknownConsumerError for each consumer that is
// gone; the others are told all the same. To finish again does nothing, and
// returns the same.
func (p *ExchangeProducer) Finish() error {
	p.finishing.Do(func() { p.finished = p.producer.Finish(p.targets) })
	return p.finished
}

// Drain finishes and waits until all that this producer sent, and the word that
// it has finished, is stored by the consumers' nodes, or ctx ends. Only then is
// it safe to close the node. The error joins a *fabric.PeerLostError for each
// consumer that may not have got all.
func (p *ExchangeProducer) Drain(ctx context.Context) error {
	finished := p.Finish()
	var errs []error
	for i, t := range p.targets {
		if err := t.Flush(ctx); err != nil {
			errs = append(errs, fmt.Errorf("to %s: %w", p.exchange.addresses[i], err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return finished
	}
	return errors.Join(errs...)
}
