package patterns

import (
	"context"
	"errors"
	"iter"

	"github.com/zfab/zfab/fabric"
)

// ExchangeConsumer receives what the producers of an Exchange send to it. One
// goroutine at a time may call Receive or run Messages. Delivery, order and what a
// dead peer means are those of Exchange; Receive blocks while there is nothing, until
// its context ends. A consumer that does not receive holds up only what is sent to it.
type ExchangeConsumer struct {
	exchange *Exchange
	consumer *fabric.Consumer

	// The receiving goroutine's.
	over map[string]bool // nodes whose streams have ended; what a later life of them sends is not of this exchange
	lost []error         // of those with producers that had not finished
	end  error           // what Receive says from now on

	done chan struct{} // closed with end
}

// Address is the consumer's own: what producers send to.
func (c *ExchangeConsumer) Address() fabric.Address { return c.consumer.Address() }

// Receive waits for the next message, until ctx ends. Its body is valid until
// the next Receive, with which it counts as handled.
//
// It returns fabric.ErrEnd when every promised producer has finished, and only
// then. A *fabric.PeerLostError says that a node is gone some of whose producers
// had not finished. The caller may go on: when all others have finished, the
// end is an *UnfinishedError that names those who have not. It is one, too, when
// ctx ends, and matches ctx's error; the next Receive goes on from there.
// fabric.ErrClosed comes after Close.
func (c *ExchangeConsumer) Receive(ctx context.Context) (fabric.Message, error) {
	for c.end == nil {
		m, err := c.consumer.Receive(ctx)
		if err == nil {
			if len(c.over) > 0 && c.over[m.Source().Node] {
				continue
			}
			return m, nil
		}
		if lost, ok := err.(*fabric.PeerLostError); ok {
			if c.lose(lost) {
				return fabric.Message{}, lost
			}
			continue
		}
		switch {
		case err == fabric.ErrEnd:
			c.settle()
		case err == ctx.Err():
			return fabric.Message{}, c.unfinished(err)
		default:
			return fabric.Message{}, err
		}
	}
	return fabric.Message{}, c.end
}

// Messages iterates over what Receive returns. It ends by itself when all
// promised producers have finished. A *fabric.PeerLostError is yielded and the
// iteration goes on; any other error is yielded as the last.
func (c *ExchangeConsumer) Messages(ctx context.Context) iter.Seq2[fabric.Message, error] {
	return func(yield func(fabric.Message, error) bool) {
		for {
			m, err := c.Receive(ctx)
			if err == fabric.ErrEnd {
				return
			}
			_, lost := err.(*fabric.PeerLostError)
			if !yield(m, err) || err != nil && !lost {
				return
			}
		}
	}
}

// lose notes that a node is gone, and reports whether that matters.
func (c *ExchangeConsumer) lose(lost *fabric.PeerLostError) bool {
	if c.over[lost.Node] {
		return false
	}
	before, _ := c.waiting()
	if c.over == nil {
		c.over = make(map[string]bool)
	}
	c.over[lost.Node] = true
	after, _ := c.waiting()
	if before == after {
		return false
	}
	c.lost = append(c.lost, lost)
	c.settle()
	return true
}

// settle ends the receiving, if nobody is left to wait for.
func (c *ExchangeConsumer) settle() {
	waiting, finished := c.waiting()
	switch {
	case waiting > 0:
		// Others may have finished that were never promised.
		c.consumer.Promise(finished + waiting)
	case len(c.lost) > 0:
		c.end = c.unfinished(errors.Join(c.lost...))
		close(c.done)
	default:
		c.end = fabric.ErrEnd
		close(c.done)
	}
}

// waiting is how many promised producers are still to finish, and how many
// producers have finished at all.
func (c *ExchangeConsumer) waiting() (waiting, finished int) {
	list := c.consumer.Finished()
	set := setOf(list)
	for _, a := range c.exchange.promised {
		if !set[a] && !c.over[a.Node] {
			waiting++
		}
	}
	return waiting, len(list)
}

func (c *ExchangeConsumer) unfinished(cause error) error {
	e := &UnfinishedError{
		Channel: c.exchange.channel, Consumer: c.Address(), Promised: len(c.exchange.promised), Err: cause,
	}
	set := setOf(c.consumer.Finished())
	for _, a := range c.exchange.promised {
		if set[a] {
			e.Finished++
		} else {
			e.Unfinished = append(e.Unfinished, a)
		}
	}
	return e
}

func setOf(list []fabric.Address) map[fabric.Address]bool {
	set := make(map[fabric.Address]bool, len(list))
	for _, a := range list {
		set[a] = true
	}
	return set
}
