package patterns

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// ListenersConfig says how to open a node's Listeners.
type ListenersConfig[T any] struct {
	// Channel is the broadcast's.
	Channel string
	// Listeners is how many this node has. Default: 1; at most 65,536.
	Listeners int
	// Broadcasters is how many broadcasters must finish until Receive says
	// fabric.ErrEnd. Default: 0, it never ends.
	Broadcasters int
	// Queue bounds what the node keeps for listeners that are behind others; then the
	// broadcasters wait. One value may be larger. Default: 1,024 values, 4 MiB.
	Queue fabric.HighWaterMark
	// HighWaterMark bounds the streams to this node, one from each with broadcasters.
	// Default: fabric's.
	HighWaterMark fabric.HighWaterMark
	// Codec decodes values. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

const (
	maxListeners         = 1 << 16
	defaultListenerQueue = 1 << 10
	defaultListenerBytes = 4 << 20
)

func (c ListenersConfig[T]) withDefaults() (ListenersConfig[T], error) {
	if c.Listeners == 0 {
		c.Listeners = 1
	}
	if c.Queue.Messages == 0 {
		c.Queue.Messages = defaultListenerQueue
	}
	if c.Queue.Bytes == 0 {
		c.Queue.Bytes = defaultListenerBytes
	}
	switch {
	case c.Listeners < 0 || c.Listeners > maxListeners:
		return c, &fabric.ConfigError{Field: "Listeners", Value: c.Listeners, Reason: fmt.Sprintf("be 1 to %d", maxListeners)}
	case c.Queue.Messages < 0:
		return c, &fabric.ConfigError{Field: "Queue.Messages", Value: c.Queue.Messages, Reason: "not be negative"}
	case c.Queue.Bytes < 0:
		return c, &fabric.ConfigError{Field: "Queue.Bytes", Value: c.Queue.Bytes, Reason: "not be negative"}
	}
	return c, nil
}

// Listeners is a node's listeners to a broadcast. Its methods may be called by
// several goroutines. Delivery, order, what blocks and what a dead peer means: see
// Listener; a value comes to the node once, however many of them there are.
type Listeners[T any] struct {
	fan  *fan
	list []*Listener[T]
}

// OpenListeners makes the node's listeners to a channel: a node has them once, with
// all that it will have. It waits, until ctx ends, for the directory. It is
// fabric.ErrIndexTaken if the node has some already.
func OpenListeners[T any](ctx context.Context, node *fabric.Node, cfg ListenersConfig[T]) (*Listeners[T], error) {
	l, err := openListeners(ctx, node, cfg)
	if err != nil {
		return nil, fmt.Errorf("patterns: listeners to %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return l, nil
}

func openListeners[T any](ctx context.Context, node *fabric.Node, cfg ListenersConfig[T]) (*Listeners[T], error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c, err := node.Consumer(ctx, cfg.Channel, fabric.ConsumerConfig{Producers: cfg.Broadcasters, HighWaterMark: cfg.HighWaterMark})
	if err != nil {
		return nil, err
	}
	if c.Address().Index != 0 { // a second one would be a second copy
		c.Close()
		return nil, fabric.ErrIndexTaken
	}
	l := &Listeners[T]{fan: newFan(cfg.Channel, c, cfg.Listeners, cfg.Queue)}
	coder := newCoder(cfg.Codec)
	for i := range cfg.Listeners {
		l.list = append(l.list, &Listener[T]{fan: l.fan, index: i, coder: coder})
	}
	return l, nil
}

// All is the listeners, by index. It must not be changed.
func (l *Listeners[T]) All() []*Listener[T] { return l.list }

// Listener is the i-th listener, from 0. It panics if there is none.
func (l *Listeners[T]) Listener(i int) *Listener[T] { return l.list[i] }

// Drain takes nothing new, waits until the listeners have received what was on its
// way, or ctx ends, and closes them. Receive must go on being called meanwhile; it
// returns fabric.ErrEnd behind the last value.
func (l *Listeners[T]) Drain(ctx context.Context) error { return l.fan.drain(ctx) }

// Close ends all listeners: Receive returns fabric.ErrClosed. What they have not
// received is dropped.
func (l *Listeners[T]) Close() error { return l.fan.close() }

// Stats returns the listeners' counts, from their begin on.
func (l *Listeners[T]) Stats() ListenersStats {
	st := l.fan.statistics()
	for _, listener := range l.list {
		st.Undecodable += listener.undecodable.Load()
	}
	return st
}

// ListenersStats is the state of a node's listeners at one moment.
type ListenersStats struct {
	Values      uint64 // that came to the node, each once
	Bytes       uint64 // of them
	Malformed   uint64 // messages on the channel that are no records of this pattern
	Undecodable uint64 // values that a listener could not decode, each time counted
	Queued      int    // values kept for those that are behind
	QueuedBytes int64
	Listeners   int // that are not closed
}

// Listener hears what broadcasters send. One goroutine at a time may call Receive or
// run Values; Close may be called by any.
//
// Delivery: each value once, unless a node is lost. Order: that of the node's other
// listeners. What blocks: Receive, while there is nothing; a listener that does not
// receive holds up the broadcasters when the node's queue is full, until it is
// closed. What a dead peer means: Receive returns a *fabric.PeerLostError for a node
// with broadcasters that is lost, and may go on.
type Listener[T any] struct {
	fan         *fan
	index       int
	coder       coder[T]
	value       T // the receiving goroutine's: what is decoded into
	undecodable atomic.Uint64
}

// Heard is one value that a listener got.
type Heard[T any] struct {
	// Value is valid until the next Receive, if its codec makes it refer to the
	// message, as Raw does. All listeners of the node then have the same memory: it
	// must not be changed.
	Value  T
	Source fabric.Address // the broadcaster
}

// Receive waits for the next value, until ctx ends.
//
// A *fabric.PeerLostError says that a node with broadcasters is lost, a *CodecError
// that a value is of another type, a *RecordError that somebody else sends on the
// channel. After any of these the caller may go on. fabric.ErrEnd comes when all
// promised broadcasters have finished, or after Drain; fabric.ErrClosed after Close.
func (l *Listener[T]) Receive(ctx context.Context) (Heard[T], error) {
	e, err := l.fan.next(ctx, l.index)
	if err != nil {
		return Heard[T]{}, err
	}
	l.value = *new(T)
	if err := l.coder.decode(e.body.body(), &l.value); err != nil {
		l.undecodable.Add(1)
		return Heard[T]{Source: e.source}, err
	}
	return Heard[T]{Value: l.value, Source: e.source}, nil
}

// Values iterates over what Receive returns. It ends by itself when all promised
// broadcasters have finished, or after Drain. Errors after which Receive may be
// called again are yielded and the iteration goes on; any other is yielded as the
// last.
func (l *Listener[T]) Values(ctx context.Context) iter.Seq2[Heard[T], error] {
	return func(yield func(Heard[T], error) bool) {
		for {
			h, err := l.Receive(ctx)
			if err == fabric.ErrEnd {
				return
			}
			if !yield(h, err) || err != nil && !passing(err) {
				return
			}
		}
	}
}

// Close ends this listener: it holds nobody up any more, and its Receive returns
// fabric.ErrClosed.
func (l *Listener[T]) Close() error {
	l.fan.leave(l.index)
	return nil
}
