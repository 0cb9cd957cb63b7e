package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// How a broadcast gets to all, and how many contributions get to one.
//
// A broadcaster has a producer on the channel. A node with listeners has one
// consumer on it, however many they are: so each node gets one copy. There it is
// kept once more, in a queue that all of the node's listeners read, each at its own
// pace; what all have read is forgotten. (broadcast_fan.go)
//
// A gatherer has several consumers on its channel, its lanes; each contributor has a
// producer and keeps to one lane, so that it shares a stream with few others of its
// node, and with none if there are enough lanes. One goroutine for each lane offers
// what came on it, one message at a time, and the program takes from all lanes in
// turn. (gather_lane.go)

// The kinds of records of broadcasts and gatherings.
const (
	kindBroadcast = 72 // [] + body
	kindJoin      = 73 // []: a contributor is there
	kindShare     = 74 // [] + body
	kindLast      = 75 // []: the contributor has finished
)

// BroadcasterConfig says how to open a Broadcaster.
type BroadcasterConfig[T any] struct {
	// Channel is the broadcast's, and carries nothing else.
	Channel string
	// HighWaterMark bounds each stream: there is one to each node with listeners.
	// Default: fabric's.
	HighWaterMark fabric.HighWaterMark
	// Codec encodes values. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

// Broadcaster sends to all listeners of all nodes. Its methods may be called by
// several goroutines.
//
// Delivery: what Send accepts for a node reaches each listener there once, unless
// one of the two nodes is lost. Listeners of nodes that come later get what is sent
// from then on.
//
// Order: what one goroutine sends comes in its order. Listeners of one node all see
// the same order; those of different nodes may see what different goroutines or
// broadcasters send in different ones.
//
// What blocks: Send, while the stream to a node is at its high-water mark, because
// the slowest of its listeners is behind; all other nodes have got it by then. It
// ends with its context.
//
// What a dead peer means: Send returns a *fabric.PeerLostError for a node that is
// lost, and has sent to all others.
type Broadcaster[T any] struct {
	channel  string
	producer *fabric.Producer
	coder    coder[T]

	values, copies, failed atomic.Uint64

	mu      sync.Mutex
	targets []broadcastTarget // of all nodes with listeners; replaced as a whole
	changed <-chan struct{}   // closed when targets are out of date
}

type broadcastTarget struct {
	addr   fabric.Address
	target *fabric.Target
}

// OpenBroadcaster makes a broadcaster. It waits, until ctx ends, for the directory.
func OpenBroadcaster[T any](ctx context.Context, node *fabric.Node, cfg BroadcasterConfig[T]) (*Broadcaster[T], error) {
	p, err := node.Producer(ctx, cfg.Channel, fabric.ProducerConfig{HighWaterMark: cfg.HighWaterMark})
	if err != nil {
		return nil, fmt.Errorf("patterns: broadcaster on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Broadcaster[T]{channel: cfg.Channel, producer: p, coder: newCoder(cfg.Codec)}, nil
}

// Address is the broadcaster's own: what Heard.Source says.
func (b *Broadcaster[T]) Address() fabric.Address { return b.producer.Address() }

// Send sends v to every node that has listeners now; v is the program's again when
// it returns. Nodes that have room get it before it waits for the others, until ctx
// ends. It goes on after a node that fails. The error joins what failed, each with
// the node it is of: ctx's, a *fabric.PeerLostError, a *fabric.TooLargeError; all
// other nodes have got it. It is a *CodecError or fabric.ErrClosed if none has, and
// a *fabric.UnknownConsumerError if there is none. A node that leaves in the middle
// is no error.
func (b *Broadcaster[T]) Send(ctx context.Context, v T) error {
	body, err := b.coder.pack(v, true)
	if err != nil {
		return err
	}
	defer body.release()
	targets := b.nodes()
	if len(targets) == 0 {
		return &fabric.UnknownConsumerError{Channel: b.channel}
	}
	var mem [headRoom]byte
	head := appendRecord(mem[:0], kindBroadcast)
	failed := 0
	var errs []error
	distribute(len(targets), func(i int) error {
		return body.trySend(targets[i].target, head)
	}, func(i int) error {
		return body.send(ctx, targets[i].target, head)
	}, func(i int, err error) {
		failed++
		switch {
		case errors.Is(err, fabric.ErrNoConsumer): // it leaves, and need not get it
		case err == fabric.ErrClosed:
			errs = append(errs[:0], err)
		default:
			b.failed.Add(1)
			errs = append(errs, fmt.Errorf("to %s: %w", targets[i].addr, err))
		}
	})
	b.copies.Add(uint64(len(targets) - failed))
	if failed < len(targets) {
		b.values.Add(1)
	}
	if len(errs) == 1 && errs[0] == fabric.ErrClosed {
		return errs[0]
	}
	return errors.Join(errs...)
}

// nodes is all nodes with listeners, as this one knows them.
func (b *Broadcaster[T]) nodes() []broadcastTarget {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.changed:
	default:
		if b.changed != nil {
			return b.targets
		}
	}
	b.changed = b.producer.Changed()
	b.targets = nil
	for _, addr := range b.producer.Consumers() {
		if t, err := b.producer.To(addr); err == nil {
			b.targets = append(b.targets, broadcastTarget{addr, t})
		}
	}
	return b.targets
}

// WaitNodes waits until at least count nodes have listeners, or ctx ends.
func (b *Broadcaster[T]) WaitNodes(ctx context.Context, count int) error {
	return b.producer.WaitConsumers(ctx, count)
}

// Flush waits until all that was sent is stored by the listeners' nodes, which need
// not have handed it to them, or ctx ends. The error joins a *fabric.PeerLostError
// for each node that may not have got all.
func (b *Broadcaster[T]) Flush(ctx context.Context) error { return b.producer.Flush(ctx) }

// Drain finishes, waits as Flush does, and closes the broadcaster.
func (b *Broadcaster[T]) Drain(ctx context.Context) error { return b.producer.Drain(ctx) }

// Close tells all listeners, behind the last value, that this broadcaster has
// finished. It does not wait for deliveries: the node goes on with them.
func (b *Broadcaster[T]) Close() error { return b.producer.Close() }

// Stats returns the broadcaster's counts, from its begin on.
func (b *Broadcaster[T]) Stats() BroadcasterStats {
	return BroadcasterStats{Values: b.values.Load(), Copies: b.copies.Load(), Failed: b.failed.Load(), Nodes: len(b.nodes())}
}

// BroadcasterStats is a broadcaster's state at one moment.
type BroadcasterStats struct {
	Values uint64 // sent, to some node at least
	Copies uint64 // sent: one for each node and value
	Failed uint64 // copies that could not be sent
	Nodes  int    // that have listeners now
}
