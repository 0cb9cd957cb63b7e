package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// RoundsProducer sends values of one round after another. One goroutine at a time
// may use it; Address and Stats may be called by any.
//
// A value is encoded, or combined with others, before the call that sends it
// returns. A call waits for the barrier if it is the first of its round, and while a
// stream is at its high-water mark, until ctx ends; the value is not accepted then,
// and the call may be repeated. Other errors are a *CodecError, a
// *fabric.TooLargeError, a *fabric.PeerLostError or *fabric.UnknownConsumerError if
// the value's consumer is gone, and fabric.ErrClosed after Finish or Close. With a
// Combine they may be those of values that were sent before; such values are lost,
// and counted. Delivery, order and what a dead peer means are those of Rounds.
type RoundsProducer[V any] struct {
	rounds  *Rounds[V]
	coder   coder[V]
	slots   []*ExchangeProducer // by round, modulo their number
	barrier *barrier

	// The sending goroutine's.
	round    uint64 // that is under way, or the next one
	begun    bool   // it is under way
	told     []bool // consumers that know its end; nil while it has not ended
	finished bool
	combiner *combiner[V] // nil if values are not combined
	buf      []byte

	at, values, combined, flushes, undelivered atomic.Uint64
}

func newRoundsProducer[V any](r *Rounds[V], i int, c coder[V], cfg RoundsConfig[V]) *RoundsProducer[V] {
	p := &RoundsProducer[V]{rounds: r, coder: c, combiner: newCombiner(cfg), barrier: newBarrier(r.Addresses())}
	for _, ex := range r.open {
		p.slots = append(p.slots, ex.Producer(i))
	}
	return p
}

// Address is the producer's own: what RoundValue.Source says at the consumer.
func (p *RoundsProducer[V]) Address() fabric.Address { return p.slots[0].Address() }

// Round is the number of the round that is under way, or of the next one; from 0.
func (p *RoundsProducer[V]) Round() uint64 { return p.round }

// SendKey sends v to the consumer that owns key, or keeps it to be combined with
// others of that key.
func (p *RoundsProducer[V]) SendKey(ctx context.Context, key []byte, v V) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	if p.combiner == nil {
		return p.send(ctx, p.rounds.Owner(key), key, v)
	}
	if p.combiner.full() {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if p.combiner.add(key, v) {
		p.combined.Add(1)
	}
	return nil
}

// Send sends v to the consumer at addr, uncombined and without a key; a
// *fabric.UnknownConsumerError if the rounds have none there.
func (p *RoundsProducer[V]) Send(ctx context.Context, addr fabric.Address, v V) error {
	i, ok := p.rounds.open[0].index[addr]
	if !ok {
		return &fabric.UnknownConsumerError{Channel: p.rounds.channel, Address: addr}
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	return p.send(ctx, i, nil, v)
}

// begin begins the round, if it is not under way: when no more are open than may be.
func (p *RoundsProducer[V]) begin(ctx context.Context) error {
	switch {
	case p.finished:
		return fabric.ErrClosed
	case p.told != nil: // an EndRound was interrupted
		if err := p.tellEnd(ctx); err != nil {
			return err
		}
	case p.begun:
		return nil
	}
	if open := uint64(len(p.slots)); p.round >= open {
		if err := p.barrier.wait(ctx, p.round-open+1); err != nil {
			return err
		}
		select {
		case <-p.rounds.gone: // it was this node's own consumers, which left, that held it
			return fabric.ErrClosed
		default:
		}
	}
	p.begun = true
	return nil
}

// targets is all consumers, on the exchange of the round.
func (p *RoundsProducer[V]) targets() []*fabric.Target {
	return p.slots[p.round%uint64(len(p.slots))].targets
}

// send sends one value to the i-th consumer.
func (p *RoundsProducer[V]) send(ctx context.Context, i int, key []byte, v V) error {
	b := append(appendRecord(p.buf[:0], kindValue, p.round, uint64(len(key))), key...)
	b, err := p.coder.append(b, v)
	if cap(b) <= keepMax {
		p.buf = b
	}
	if err != nil {
		return err
	}
	if err := p.targets()[i].Send(ctx, b); err != nil {
		return err
	}
	p.values.Add(1)
	return nil
}

// flush sends what was kept to be combined. What cannot be sent, because it cannot
// be encoded or its consumer is gone, is taken out and counted, and does not keep
// the others. The error joins one of each kind.
func (p *RoundsProducer[V]) flush(ctx context.Context) error {
	p.flushes.Add(1)
	failed := make(map[int]error) // by consumer; -1 is the codec's
	for key, v := range p.combiner.values {
		i := p.rounds.Owner([]byte(key))
		err := p.send(ctx, i, []byte(key), *v)
		if err != nil && (ctx.Err() != nil || err == fabric.ErrClosed) {
			return err // and what is left may still be sent
		}
		p.combiner.remove(key)
		if err == nil {
			continue
		}
		p.undelivered.Add(1)
		var codec *CodecError
		if errors.As(err, &codec) {
			i = -1
		}
		failed[i] = err
	}
	var errs []error
	for _, err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// EndRound ends the round: it sends what was kept to be combined, and tells every
// consumer, behind the last value to it, that this producer has ended the round. The
// next call that sends begins the next one. An empty round is one, too.
//
// It does not wait for consumers, but for room, and for the barrier if nothing was
// sent in the round. If ctx ends meanwhile the call is to be repeated. Other errors
// are those of consumers that are gone, joined, and of values that could not be
// sent; the round has ended then.
func (p *RoundsProducer[V]) EndRound(ctx context.Context) error {
	if p.told != nil {
		return p.tellEnd(ctx)
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	var lost error
	if p.combiner != nil && len(p.combiner.values) > 0 {
		if lost = p.flush(ctx); len(p.combiner.values) > 0 {
			return lost
		}
	}
	p.told = make([]bool, len(p.rounds.Addresses()))
	err := p.tellEnd(ctx)
	if lost == nil {
		return err
	}
	return errors.Join(lost, err)
}

// tellEnd tells the consumers that do not know it that the round has ended.
func (p *RoundsProducer[V]) tellEnd(ctx context.Context) error {
	var mem [headRoom]byte
	err := p.tellAll(ctx, p.targets(), p.told, appendRecord(mem[:0], kindRoundEnd, p.round))
	for _, told := range p.told {
		if !told {
			return err
		}
	}
	p.told, p.begun = nil, false
	p.round++
	p.at.Store(p.round)
	return err
}

// tellAll sends a record to all that were not told, and notes who was. Those that
// are gone count as told; the error joins what failed.
func (p *RoundsProducer[V]) tellAll(ctx context.Context, targets []*fabric.Target, told []bool, record []byte) error {
	var errs []error
	var interrupted error
	note := func(i int, err error) error {
		told[i] = told[i] || err == nil
		return err
	}
	distribute(len(targets), func(i int) error {
		if told[i] {
			return nil
		}
		return note(i, targets[i].TrySend(record))
	}, func(i int) error {
		return note(i, targets[i].Send(ctx, record))
	}, func(i int, err error) {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) || err == fabric.ErrClosed {
			interrupted = err
			return
		}
		told[i] = true
		errs = append(errs, fmt.Errorf("to %s: %w", p.rounds.Addresses()[i], err))
	})
	if interrupted != nil {
		return interrupted // which is all that matters
	}
	return errors.Join(errs...)
}

// Finish ends the round that is under way, if there is one, and tells every consumer
// that this producer takes part in no more. A consumer has come to the end when all
// have said so. It waits for room until ctx ends, and is to be repeated then. Other
// errors are those of EndRound.
func (p *RoundsProducer[V]) Finish(ctx context.Context) error {
	if p.finished {
		return nil
	}
	var errs []error
	if p.begun {
		if err := p.EndRound(ctx); p.begun {
			return err
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	record := appendRecord(nil, kindNoRounds, p.round)
	for _, slot := range p.slots {
		told := make([]bool, len(slot.targets)) // told twice does no harm, should this be repeated
		if err := p.tellAll(ctx, slot.targets, told, record); ctx.Err() != nil || errors.Is(err, fabric.ErrClosed) {
			return err
		}
	}
	p.finished = true
	for i, slot := range p.slots {
		if err := slot.Finish(); i == 0 { // who is gone is gone on all of them
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Drain finishes and waits until all that this producer sent is stored by the
// consumers' nodes, or ctx ends. Only then is it safe to close the node. The error
// joins a *fabric.PeerLostError for each consumer that may not have got all.
func (p *RoundsProducer[V]) Drain(ctx context.Context) error {
	if err := p.Finish(ctx); !p.finished {
		return err
	}
	var errs []error
	for _, slot := range p.slots {
		errs = append(errs, slot.Drain(ctx))
	}
	return errors.Join(errs...)
}

// Stats returns the producer's counts, from its begin on.
func (p *RoundsProducer[V]) Stats() RoundsProducerStats {
	return RoundsProducerStats{
		Rounds: p.at.Load(), Values: p.values.Load(), Combined: p.combined.Load(), Flushes: p.flushes.Load(), Undelivered: p.undelivered.Load(),
	}
}

// RoundsProducerStats is a producer's state at one moment.
type RoundsProducerStats struct {
	Rounds      uint64 // ended
	Values      uint64 // sent to consumers
	Combined    uint64 // values that became part of another one, and were not sent by themselves
	Flushes     uint64 // times that combined values were sent
	Undelivered uint64 // combined values that were lost: their consumer is gone, or they could not be encoded
}
