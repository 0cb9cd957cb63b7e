package patterns

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// RoundsConsumer receives values of one round after another. One goroutine at a time
// may use it; Address and Stats may be called by any. Delivery, order and what a dead
// peer means are those of Rounds; Next and Values block until something comes, and end
// with their context.
type RoundsConsumer[V any] struct {
	rounds   *Rounds[V]
	coder    coder[V]
	slots    []*ExchangeConsumer
	says     *ExchangeProducer // to producers, what this consumer has ended
	promised map[fabric.Address]bool

	// The receiving goroutine's.
	round    uint64                    // that is under way, or the next one
	begun    bool                      // it is under way
	complete bool                      // all have ended it, but producers do not know
	missing  error                     // why it lacks something: the loss of every node that is lost
	pending  *fabric.Message           // came first in its round, and was not taken yet
	ended    map[fabric.Address]bool   // producers that have ended it
	left     int                       // that have not
	over     map[fabric.Address]uint64 // producers that take part in no more rounds than these
	lost     []map[string]error        // nodes that are lost, on each of the exchanges
	from     fabric.Address            // a producer that is promised: that of the message before
	value    V                         // what is decoded into

	noMore sync.Once
	done   chan struct{} // closed when there are no more rounds

	at, values, undecodable, malformed, skipped atomic.Uint64
}

// RoundValue is one value of a round.
type RoundValue[V any] struct {
	// Key is that by which it was sent, nil if it was addressed. It is valid until the
	// next value.
	Key []byte
	// Value is valid until the next one if its codec makes it refer to the message, as
	// Raw does.
	Value V
	// Source is the producer.
	Source fabric.Address
}

func newRoundsConsumer[V any](r *Rounds[V], i int, c coder[V]) *RoundsConsumer[V] {
	rc := &RoundsConsumer[V]{
		rounds: r, coder: c, says: r.ended.Producer(i), promised: setOf(r.open[0].promised),
		ended: make(map[fabric.Address]bool), over: make(map[fabric.Address]uint64), done: make(chan struct{}),
	}
	for _, ex := range r.open {
		rc.slots = append(rc.slots, ex.Consumer(i))
		rc.lost = append(rc.lost, make(map[string]error))
	}
	return rc
}

// Address is the consumer's own: what producers send to.
func (c *RoundsConsumer[V]) Address() fabric.Address { return c.slots[0].Address() }

// Next waits until the next round has begun: until some producer has sent a value of
// it, or has ended it. It returns the round's number, from 0. What was not taken of
// the round before is skipped, and counted.
//
// fabric.ErrEnd says that all producers have finished: there are no more rounds. It
// is an *UnfinishedError instead if some were lost, ctx's error if that ended first,
// with which Next may be called again, and fabric.ErrClosed after Close.
func (c *RoundsConsumer[V]) Next(ctx context.Context) (round uint64, err error) {
	for c.begun && !c.complete {
		if _, more, err := c.take(ctx); more {
			c.skipped.Add(1)
		} else if err != nil && !passing(err) {
			return 0, err
		}
	}
	if c.complete {
		if err := c.tell(ctx); err != nil {
			return 0, err
		}
	}
	c.count()
	for !c.begun {
		if c.left == 0 {
			c.noMore.Do(func() { close(c.done) })
			if err := c.unfinished(); err != nil {
				return 0, err
			}
			return 0, fabric.ErrEnd
		}
		m, ok, err := c.receive(ctx)
		switch {
		case ok:
			c.begun, c.pending = true, &m
		case err != nil && !passing(err):
			return 0, err
		}
	}
	return c.round, nil
}

// Values iterates over the values of the round that Next has returned. It ends when
// every promised producer has ended the round: then this consumer has, and producers
// may go on.
//
// A *CodecError is of one value, a *RecordError of a stranger's message, a
// *fabric.PeerLostError of a node that is lost: each is yielded, and the iteration
// goes on. Any other error is the last: an *UnfinishedError if the round is over but
// lacks what lost producers have not sent, ctx's, with which Values may be called
// again, or fabric.ErrClosed.
func (c *RoundsConsumer[V]) Values(ctx context.Context) iter.Seq2[RoundValue[V], error] {
	return func(yield func(RoundValue[V], error) bool) {
		round := c.round
		for c.begun && !c.complete && c.round == round {
			v, more, err := c.take(ctx)
			if !more && err == nil {
				break
			}
			if !yield(v, err) || err != nil && !passing(err) {
				return
			}
		}
		if !c.complete || c.round != round {
			return
		}
		unfinished := c.unfinished()
		if err := cmp.Or(c.tell(ctx), unfinished); err != nil {
			yield(RoundValue[V]{}, err)
		}
	}
}

// count begins to count who has to end the round.
func (c *RoundsConsumer[V]) count() {
	if c.begun {
		return
	}
	clear(c.ended)
	c.left = 0
	var errs []error
	lost := c.lost[c.slot()]
	for _, err := range lost {
		errs = append(errs, err)
	}
	c.missing = errors.Join(errs...)
	for a := range c.promised {
		if !c.isOver(a) && lost[a.Node] == nil {
			c.left++
		}
	}
}

func (c *RoundsConsumer[V]) slot() int { return int(c.round % uint64(len(c.slots))) }

// isOver reports whether a producer takes no part in this round.
func (c *RoundsConsumer[V]) isOver(a fabric.Address) bool {
	rounds, ok := c.over[a]
	return ok && rounds <= c.round
}

// take takes the next value of the round; none if all have ended it.
func (c *RoundsConsumer[V]) take(ctx context.Context) (v RoundValue[V], more bool, err error) {
	for {
		var m fabric.Message
		switch {
		case c.pending != nil:
			m, c.pending = *c.pending, nil
		case c.left == 0:
			c.complete = true
			return v, false, nil
		default:
			var ok bool
			if m, ok, err = c.receive(ctx); err != nil {
				return v, false, err
			}
			if !ok {
				continue
			}
		}
		kind, f := readRecord(m.Body)
		f.number() // the round
		if kind == kindRoundEnd {
			c.end(m.Source())
			continue
		}
		size := f.number()
		c.values.Add(1)
		v.Source = m.Source()
		if size > 0 {
			v.Key = f.rest[:size]
		}
		c.value = *new(V)
		if err := c.coder.decode(f.rest[size:], &c.value); err != nil {
			c.undecodable.Add(1)
			return RoundValue[V]{Source: v.Source}, false, err
		}
		v.Value = c.value
		return v, true, nil
	}
}

// end notes that a producer has ended the round.
func (c *RoundsConsumer[V]) end(from fabric.Address) {
	if !c.ended[from] {
		c.ended[from] = true
		c.left--
	}
}

// receive waits for the next message that belongs to the round: a value, or a
// producer's end of it; or until nobody is left who could send one. All else that
// comes is seen to here.
func (c *RoundsConsumer[V]) receive(ctx context.Context) (m fabric.Message, ok bool, err error) {
	slot := c.slots[c.slot()]
	for c.left > 0 {
		m, err = slot.Receive(ctx)
		lost, isLost := err.(*fabric.PeerLostError)
		switch {
		case err == nil:
		case isLost:
			c.lose(lost)
			return m, false, err
		case err == fabric.ErrEnd || isUnfinished(err) && ctx.Err() == nil:
			// All have finished or are lost. Who has not said that it has no more rounds
			// never will.
			c.left, c.missing = 0, errors.Join(c.missing, err)
			continue
		case ctx.Err() != nil:
			return m, false, ctx.Err()
		default:
			return m, false, err
		}
		switch kind, f := readRecord(m.Body); {
		case m.Source() != c.from && !c.promised[m.Source()]:
		case kind == kindNoRounds:
			if rounds := f.number(); f.end() {
				c.retire(m.Source(), rounds)
				continue
			}
		case kind == kindValue || kind == kindRoundEnd:
			c.from = m.Source()
			if round := f.number(); round != c.round {
				break
			}
			if kind == kindValue {
				if size := f.number(); !f.end() || size > uint64(len(f.rest)) {
					break
				}
			}
			if f.end() {
				return m, true, nil
			}
		}
		c.malformed.Add(1)
		return m, false, &RecordError{Channel: slot.exchange.channel, From: m.Source()}
	}
	return m, false, nil
}

// retire notes that a producer takes part in no more rounds than these.
func (c *RoundsConsumer[V]) retire(from fabric.Address, rounds uint64) {
	if _, known := c.over[from]; known {
		return
	}
	c.over[from] = rounds
	if rounds <= c.round && !c.ended[from] {
		c.left--
	}
}

// lose notes that a node is lost, and that nobody waits for its producers any more.
func (c *RoundsConsumer[V]) lose(lost *fabric.PeerLostError) {
	here := c.lost[c.slot()]
	if here[lost.Node] != nil {
		return
	}
	here[lost.Node] = lost
	for a := range c.promised {
		if a.Node == lost.Node && !c.ended[a] && !c.isOver(a) {
			c.left--
			c.missing = errors.Join(c.missing, lost)
		}
	}
}

// unfinished is the error of a round that lacks something, nil if it does not.
func (c *RoundsConsumer[V]) unfinished() error {
	if c.missing == nil {
		return nil
	}
	e := &UnfinishedError{Channel: c.rounds.channel, Consumer: c.Address(), Promised: len(c.promised), Err: c.missing}
	for a := range c.promised {
		if c.ended[a] || c.isOver(a) {
			e.Finished++
		} else {
			e.Unfinished = append(e.Unfinished, a)
		}
	}
	slices.SortFunc(e.Unfinished, compareAddress)
	return e
}

// tell ends the round: producers are told.
func (c *RoundsConsumer[V]) tell(ctx context.Context) error {
	record := appendRecord(nil, kindRoundOver, c.round+1)
	// A producer that is gone need not know.
	_ = c.says.SendAll(ctx, record)
	if ctx.Err() != nil {
		return ctx.Err() // told twice does no harm
	}
	c.round++
	c.at.Store(c.round)
	c.begun, c.complete = false, false
	return nil
}

// leave lets producers know, if there is room, that they need not wait for this
// consumer, and that it has no more to say.
func (c *RoundsConsumer[V]) leave() {
	record := appendRecord(nil, kindRoundOver, allRounds)
	for _, t := range c.says.targets {
		_ = t.TrySend(record) // one that is gone need not know
	}
	_ = c.says.Finish()
}

// Stats returns the consumer's counts, from its begin on.
func (c *RoundsConsumer[V]) Stats() RoundsConsumerStats {
	return RoundsConsumerStats{
		Rounds: c.at.Load(), Values: c.values.Load(), Skipped: c.skipped.Load(), Undecodable: c.undecodable.Load(), Malformed: c.malformed.Load(),
	}
}

// RoundsConsumerStats is a consumer's state at one moment.
type RoundsConsumerStats struct {
	Rounds      uint64 // ended
	Values      uint64 // received
	Skipped     uint64 // values of rounds that were left before their end
	Undecodable uint64 // values that could not be decoded
	Malformed   uint64 // messages that are no records of this pattern, or not of this round
}
