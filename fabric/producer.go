package fabric

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
)

// ProducerConfig says how to make a Producer. The zero value works.
type ProducerConfig struct {
	// Index tells the node's producers on a channel apart. Default: the lowest
	// that is free.
	Index int
	// HighWaterMark bounds each stream that the node's producers on this channel
	// share: there is one per consumer, and the greatest mark asked for counts.
	HighWaterMark HighWaterMark
}

// Producer sends messages to the consumers of a channel. Its methods may be
// called by several goroutines.
//
// The producers of one node share a stream to each consumer, and its
// high-water mark.
type Producer struct {
	channel *channel
	addr    Address
	sender  link.Sender
	told    atomic.Bool // the consumers know that it has finished

	losses losses // since the last Flush; under the channel's mu
}

// Producer makes a producer on a channel. It waits, until ctx ends, for the
// directory to take it and to tell which consumers there are.
func (n *Node) Producer(ctx context.Context, name string, cfg ProducerConfig) (*Producer, error) {
	p, err := n.newProducer(ctx, name, cfg)
	if err != nil {
		return nil, fmt.Errorf("fabric: producer on %q at node %s: %w", name, n.cfg.Name, err)
	}
	return p, nil
}

func (n *Node) newProducer(ctx context.Context, name string, cfg ProducerConfig) (*Producer, error) {
	mark, err := cfg.HighWaterMark.mark()
	if err != nil {
		return nil, err
	}
	ch, err := n.channelOf(ctx, name)
	if err != nil {
		return nil, err
	}
	ch.mu.Lock()
	index, err := freeIndex(ch.producers, cfg.Index)
	if err != nil {
		ch.mu.Unlock()
		return nil, err
	}
	p := &Producer{channel: ch, addr: Address{n.cfg.Name, index}, sender: link.Sender{Index: uint32(index)}}
	if len(ch.producers) == 0 {
		ch.mark = mark
	} else {
		ch.mark.Bytes, ch.mark.Messages = max(ch.mark.Bytes, mark.Bytes), max(ch.mark.Messages, mark.Messages)
	}
	ch.producers[index] = p
	for _, t := range ch.targets {
		if t.stream != nil {
			t.stream.SetMark(ch.mark)
		}
		ch.reach(t)
	}
	ch.change()
	ch.mu.Unlock()
	if err := n.dir.Add(ctx, n.incarnation, p.member()); err != nil {
		ch.mu.Lock()
		delete(ch.producers, index)
		ch.mu.Unlock()
		return nil, err
	}
	return p, nil
}

func (p *Producer) member() directory.Member {
	return directory.Member{Channel: p.channel.name, Role: directory.Producer, Node: p.addr.Node, Index: p.addr.Index}
}

// Address is the producer's own: what Message.Source says at the consumer.
func (p *Producer) Address() Address { return p.addr }

// Target is one consumer, as one producer reaches it.
type Target struct {
	stream   *link.SendStream
	producer *Producer
}

// To returns the consumer at addr, found once for many Sends. It is an
// *UnknownConsumerError if the channel has none there now.
func (p *Producer) To(addr Address) (*Target, error) {
	s := p.channel.snapshot().streams[addr]
	if s == nil {
		return nil, p.unknown(addr)
	}
	return &Target{stream: s, producer: p}, nil
}

func (p *Producer) unknown(addr Address) error {
	return &UnknownConsumerError{Channel: p.channel.name, Address: addr}
}

// Send sends body, which it copies, to the consumer. It returns when the
// message is accepted: from then on the node delivers it. It waits while the
// stream is at its high-water mark, also while the consumer's node is not
// reachable, until ctx ends, the consumer is gone, or the producer is closed.
//
// With an error the message was not accepted. It is ctx's, a *TooLargeError, an
// *UnknownConsumerError if the consumer leaves or has left, a *PeerLostError if
// it is lost, or ErrClosed.
func (t *Target) Send(ctx context.Context, body []byte) error {
	if err := t.stream.Send(ctx, &t.producer.sender, body); err != nil {
		return public(err)
	}
	return nil
}

// TrySend is Send that returns ErrHighWater instead of waiting.
func (t *Target) TrySend(body []byte) error {
	if err := t.stream.TrySend(&t.producer.sender, body); err != nil {
		return public(err)
	}
	return nil
}

// Flush waits until every message accepted so far for the consumer, from this
// producer and its neighbours at the node, is acknowledged: stored by the
// consumer's end, which need not have handled it. While the link is down it
// waits, for Config.ResumeWindow at most, and until ctx ends. It is a
// *PeerLostError if the consumer is gone and may not have got all.
func (t *Target) Flush(ctx context.Context) error {
	err := public(t.stream.Flush(ctx))
	switch e := err.(type) {
	case *UnknownConsumerError:
		return nil // it left with all of them
	case *PeerLostError:
		if e.Acknowledged == e.InDoubtTo {
			return nil
		}
	}
	return err
}

// Send sends body to the consumer at addr: To and Target.Send in one.
func (p *Producer) Send(ctx context.Context, addr Address, body []byte) error {
	s := p.channel.snapshot().streams[addr]
	if s == nil {
		return p.unknown(addr)
	}
	return (&Target{s, p}).Send(ctx, body)
}

// TrySend is Send that returns ErrHighWater instead of waiting.
func (p *Producer) TrySend(addr Address, body []byte) error {
	s := p.channel.snapshot().streams[addr]
	if s == nil {
		return p.unknown(addr)
	}
	return (&Target{s, p}).TrySend(body)
}

// SendKey sends body to the consumer that owns key. All producers that know the
// same consumers agree on the owner; when a consumer comes or goes, only the
// keys move that it takes or leaves: also while it leaves, so no error tells of
// that. WaitConsumers first, if it matters who is there.
func (p *Producer) SendKey(ctx context.Context, key, body []byte) error {
	for {
		s := p.channel.snapshot().owner(key)
		if s == nil {
			return p.unknown(Address{})
		}
		err := (&Target{s, p}).Send(ctx, body)
		if !errors.Is(err, ErrNoConsumer) {
			return err
		}
		select {
		case <-p.channel.without(s):
		case <-ctx.Done():
			return ctx.Err()
		case <-p.channel.node.ctx.Done():
			return ErrClosed
		}
	}
}

// TrySendKey is SendKey that returns ErrHighWater instead of waiting.
func (p *Producer) TrySendKey(key, body []byte) error {
	for {
		s := p.channel.snapshot().owner(key)
		if s == nil {
			return p.unknown(Address{})
		}
		err := (&Target{s, p}).TrySend(body)
		if !errors.Is(err, ErrNoConsumer) {
			return err
		}
		select {
		case <-p.channel.without(s):
		default:
			return ErrHighWater // it leaves just now
		}
	}
}

// Owner is the consumer that owns key now.
func (p *Producer) Owner(key []byte) (Address, error) {
	s := p.channel.snapshot().owner(key)
	if s == nil {
		return Address{}, p.unknown(Address{})
	}
	return Address{s.Peer(), s.Index()}, nil
}

// SendAll sends body to every consumer that there is now, one after another,
// each as Send does. It goes on after a consumer that fails; the error joins
// what failed.
func (p *Producer) SendAll(ctx context.Context, body []byte) error {
	v := p.channel.snapshot()
	if len(v.order) == 0 {
		return p.unknown(Address{})
	}
	var errs []error
	for _, s := range v.order {
		err := (&Target{s, p}).Send(ctx, body)
		if err != nil && !errors.Is(err, ErrNoConsumer) { // one that leaves is there no more
			errs = append(errs, fmt.Errorf("to %s/%d: %w", s.Peer(), s.Index(), err))
		}
	}
	return errors.Join(errs...)
}

// Consumers is the channel's consumers now, by node and index.
func (p *Producer) Consumers() []Address {
	return append([]Address(nil), p.channel.snapshot().addrs...)
}

// WaitConsumers waits until the channel has at least count consumers, or ctx
// ends.
func (p *Producer) WaitConsumers(ctx context.Context, count int) error {
	ch := p.channel
	for {
		ch.mu.Lock()
		changed := ch.changed
		ch.mu.Unlock()
		n := len(ch.snapshot().addrs)
		if n >= count {
			return nil
		}
		select {
		case <-changed:
		case <-ch.node.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("fabric: %d of %d consumers of %s are there: %w", n, count, ch.name, ctx.Err())
		}
	}
}

// Flush waits until every message accepted so far, from this producer and its
// neighbours at the node, is acknowledged: stored by its consumer's end, which
// need not have handled it. While a link is down it waits, for
// Config.ResumeWindow at most, and until ctx ends.
//
// The error joins a *PeerLostError for each stream that was lost since the last
// Flush with messages that its consumer may not have got, each told once to each
// producer; if there are very many, a *MoreLostError counts the rest. It is
// ctx's if that ended first.
func (p *Producer) Flush(ctx context.Context) error {
	ch := p.channel
	streams := ch.snapshot().order
	ch.mu.Lock()
	for s := range ch.leaving {
		streams = append(streams[:len(streams):len(streams)], s)
	}
	ch.mu.Unlock()
	var errs []error
	for _, s := range streams {
		if s.Flush(ctx) != nil && ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("fabric: flush to %s/%d on %s: %w", s.Peer(), s.Index(), ch.name, ctx.Err()))
			break
		}
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for _, s := range streams {
		ch.lost(s)
	}
	return errors.Join(append(errs, p.losses.take()...)...)
}

// Drain closes the producer and waits as Flush does, with its error, until
// everything it sent, and the word that it has finished, is stored by the
// consumers' ends, or ctx ends; the node goes on delivering then.
func (p *Producer) Drain(ctx context.Context) error {
	return errors.Join(p.finish(), p.Flush(ctx), p.leave(ctx))
}

// Close tells every consumer, behind the last message, that this producer has
// finished, and takes it out of the directory. Sends that wait end with
// ErrClosed. It does not wait for deliveries: the node goes on with them until
// its own Close. The error is the directory's, for which it waits a second at
// most.
func (p *Producer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	return errors.Join(p.finish(), p.leave(ctx))
}

// Finish ends the sending as Close does, but tells targets only, and leaves the
// producer in the directory until Close. It is for consumers that were agreed
// upon: who took the place of one since is not told, and the error joins a
// *PeerLostError or *UnknownConsumerError for each that is gone. Without targets
// nobody is told, and no consumer takes the producer for one that has finished.
// Only the first call does anything.
func (p *Producer) Finish(targets []*Target) error {
	if !p.sender.Close() {
		return nil
	}
	p.told.Store(len(targets) > 0)
	for _, s := range p.channel.snapshot().order {
		s.Refuse(&p.sender)
	}
	var errs []error
	for _, t := range targets {
		if err := t.stream.Finish(&p.sender); err != nil {
			errs = append(errs, public(err))
		}
	}
	return errors.Join(errs...)
}

func (p *Producer) finish() error {
	if !p.sender.Close() {
		return nil
	}
	p.told.Store(true)
	for _, s := range p.channel.snapshot().order {
		// A consumer that is gone need not be told.
		_ = s.Finish(&p.sender)
	}
	return nil
}

func (p *Producer) leave(ctx context.Context) error {
	ch := p.channel
	ch.mu.Lock()
	if ch.producers[p.addr.Index] != p {
		ch.mu.Unlock()
		return nil
	}
	delete(ch.producers, p.addr.Index)
	ch.mu.Unlock()
	if !p.told.Load() {
		ch.node.unfinished.Store(true)
	}
	if ch.node.ctx.Err() != nil || ch.node.left.Load() {
		return nil
	}
	return ch.node.dir.Remove(ctx, ch.node.incarnation, p.member())
}
