package patterns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// GathererConfig says how to open a Gatherer.
type GathererConfig[T any] struct {
	// Channel is the gathering's, and carries nothing else.
	Channel string
	// Lanes is how many ways there are to the gatherer from each node: its contributors
	// are spread over them, and those that share a lane share a stream. Each costs a
	// goroutine here, and a stream from each node that uses it. Default: 16; at most
	// 4,096.
	Lanes int
	// Contributors is how many contributors must finish until Receive says
	// fabric.ErrEnd. Default: 0, it never ends.
	Contributors int
	// HighWaterMark bounds each stream. Default: 64 KiB, 1,024 messages, so that a
	// thousand streams that are full hold a quarter of a node's usual memory budget.
	HighWaterMark fabric.HighWaterMark
	// Codec decodes values. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

// Bounds and defaults of a gatherer.
const (
	defaultLanes       = 16
	maxLanes           = 1 << 12
	defaultGatherBytes = 64 << 10
	defaultGatherCount = 1 << 10
)

func (c GathererConfig[T]) withDefaults() (GathererConfig[T], error) {
	c.Lanes = cmp.Or(c.Lanes, defaultLanes)
	c.HighWaterMark.Bytes = cmp.Or(c.HighWaterMark.Bytes, defaultGatherBytes)
	c.HighWaterMark.Messages = cmp.Or(c.HighWaterMark.Messages, defaultGatherCount)
	switch {
	case c.Lanes < 0 || c.Lanes > maxLanes:
		return c, &fabric.ConfigError{Field: "Lanes", Value: c.Lanes, Reason: fmt.Sprintf("be 1 to %d", maxLanes)}
	case c.Contributors < 0:
		return c, &fabric.ConfigError{Field: "Contributors", Value: c.Contributors, Reason: "not be negative"}
	}
	return c, nil
}

// Gatherer receives what the contributors of all nodes send: one consumer, at which
// very many streams end. One goroutine at a time may call Receive or run Values; the
// other methods may be called by any.
//
// Delivery: what a contributor's Send accepts arrives once, unless one of the two
// nodes is lost.
//
// Order: that of each contributor; none between them.
//
// What blocks: Receive, while there is nothing. A gatherer that does not receive
// holds up its contributors, each at its own high-water mark.
//
// What a dead peer means: Receive returns a *fabric.PeerLostError once for each node
// that is lost with contributors that had not finished, and may go on; the end is an
// *UnfinishedError then.
//
// Memory: what is lent to contributors stays within the node's memory budget, but for
// one message of each stream, and so does what waits here.
//
// Fairness: lanes are served in turn, one value each, and the streams of a lane as
// what they sent has come, each of which gets room again as it is served. While all
// streams have something waiting here, and the lanes as many streams each, two
// streams get the same but for a high-water mark of what waits. So over several
// times that each gets between half of and twice the mean. When the memory
// budget does not suffice for all marks, those that came first have more room.
type Gatherer[T any] struct {
	core  *gatherer
	coder coder[T]
	value T // the receiving goroutine's: what is decoded into
}

// ErrSeveralGatherers: a channel has more than one gatherer, so that a contributor
// cannot know whom to send to.
var ErrSeveralGatherers = errors.New("several gatherers on the channel")

// OpenGatherer makes the one gatherer of a channel. It waits, until ctx ends, for the
// directory.
func OpenGatherer[T any](ctx context.Context, node *fabric.Node, cfg GathererConfig[T]) (*Gatherer[T], error) {
	core, err := openGatherer(ctx, node, cfg)
	if err != nil {
		return nil, fmt.Errorf("patterns: gatherer on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Gatherer[T]{core: core, coder: newCoder(cfg.Codec)}, nil
}

// Gathered is one value as a gatherer gets it.
type Gathered[T any] struct {
	// Value is valid until the next Receive, if its codec makes it refer to the
	// message, as Raw does.
	Value  T
	Source fabric.Address // the contributor
}

// Receive waits for the next value, until ctx ends.
//
// A *fabric.PeerLostError says that a node with contributors is lost, a *CodecError
// that a value is of another type, a *RecordError that somebody else sends on the
// channel. After any of these the caller may go on. When all promised contributors
// have finished it is fabric.ErrEnd, or an *UnfinishedError that names those that
// were lost before. fabric.ErrClosed comes after Close.
func (g *Gatherer[T]) Receive(ctx context.Context) (Gathered[T], error) {
	body, source, err := g.core.receive(ctx)
	if err != nil {
		return Gathered[T]{}, err
	}
	g.value = *new(T)
	if err := g.coder.decode(body, &g.value); err != nil {
		g.core.undecodable.Add(1)
		return Gathered[T]{Source: source}, err
	}
	return Gathered[T]{Value: g.value, Source: source}, nil
}

// Values iterates over what Receive returns. It ends by itself when all promised
// contributors have finished. Errors after which Receive may be called again are
// yielded and the iteration goes on; any other is yielded as the last.
func (g *Gatherer[T]) Values(ctx context.Context) iter.Seq2[Gathered[T], error] {
	return func(yield func(Gathered[T], error) bool) {
		for {
			v, err := g.Receive(ctx)
			if err == fabric.ErrEnd {
				return
			}
			if !yield(v, err) || err != nil && (!passing(err) || isUnfinished(err)) {
				return
			}
		}
	}
}

// Drain takes what contributors have sent, until ctx ends, and closes the gatherer.
// Receive must go on being called meanwhile; it returns fabric.ErrEnd behind the last
// value. Contributors that send later get a *fabric.UnknownConsumerError.
func (g *Gatherer[T]) Drain(ctx context.Context) error { return g.core.drain(ctx) }

// Close ends the gatherer: Receive returns fabric.ErrClosed. What it has not received
// is dropped; contributors that still send get a *fabric.PeerLostError.
func (g *Gatherer[T]) Close() error { return g.core.close() }

// Stats returns the gatherer's counts, from its begin on.
func (g *Gatherer[T]) Stats() GathererStats { return g.core.statistics() }

// GathererStats is a gatherer's state at one moment.
type GathererStats struct {
	Values       uint64 // received
	Undecodable  uint64 // values that could not be decoded
	Malformed    uint64 // messages that are no records of this pattern
	Contributors int    // that have joined and not finished, as far as Receive has come
	Finished     int
	Lost         int
}

// ContributorConfig says how to open a Contributor.
type ContributorConfig[T any] struct {
	// Channel is the gatherer's.
	Channel string
	// HighWaterMark bounds the streams of this node's contributors, each of which
	// is shared by those that have the same lane. Default: as the gatherer's.
	HighWaterMark fabric.HighWaterMark
	// Codec encodes values. Default: raw for []byte, else MessagePack.
	Codec Codec[T]
}

// Contributor sends to the one gatherer of a channel. Its methods may be called by
// several goroutines.
//
// Delivery: what Send accepts arrives once, unless one of the two nodes is lost.
// Order: what one goroutine sends comes in its order. What blocks: Send, while the
// stream to the gatherer is at its high-water mark. What a dead peer means: Send and
// Drain return a *fabric.PeerLostError; another gatherer needs another contributor.
type Contributor[T any] struct {
	producer *fabric.Producer
	target   *fabric.Target
	coder    coder[T]
	values   atomic.Uint64

	finished atomic.Bool
}

// OpenContributor makes a contributor. It waits, until ctx ends, for the channel's
// gatherer; ErrSeveralGatherers if it finds more than one.
func OpenContributor[T any](ctx context.Context, node *fabric.Node, cfg ContributorConfig[T]) (*Contributor[T], error) {
	c, err := openContributor(ctx, node, cfg)
	if err != nil {
		return nil, fmt.Errorf("patterns: contributor to %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return c, nil
}

func openContributor[T any](ctx context.Context, node *fabric.Node, cfg ContributorConfig[T]) (*Contributor[T], error) {
	cfg.HighWaterMark.Bytes = cmp.Or(cfg.HighWaterMark.Bytes, defaultGatherBytes)
	cfg.HighWaterMark.Messages = cmp.Or(cfg.HighWaterMark.Messages, defaultGatherCount)
	p, err := node.Producer(ctx, cfg.Channel, fabric.ProducerConfig{HighWaterMark: cfg.HighWaterMark})
	if err != nil {
		return nil, err
	}
	lane, err := findLane(ctx, p)
	if err == nil {
		c := &Contributor[T]{producer: p, target: lane, coder: newCoder(cfg.Codec)}
		if err = lane.Send(ctx, appendRecord(nil, kindJoin)); err == nil {
			return c, nil
		}
	}
	p.Finish(nil)
	p.Close()
	return nil, err
}

// findLane waits for the gatherer, and chooses the lane of a contributor: those of
// one node have one after another, and nodes begin at different ones. A gatherer's
// first lane is registered last, so that who knows it knows all.
func findLane(ctx context.Context, p *fabric.Producer) (*fabric.Target, error) {
	for {
		changed := p.Changed()
		var lanes []fabric.Address
		first := 0
		for _, a := range p.Consumers() {
			if a.Index == 0 {
				first++
			}
			lanes = append(lanes, a)
		}
		switch {
		case first == 1 && lanes[0].Node == lanes[len(lanes)-1].Node:
			from := p.Address()
			i := (hash(from.Node) + uint64(from.Index)) % uint64(len(lanes))
			if t, err := p.To(lanes[i]); err == nil {
				return t, nil
			}
		case first > 1:
			return nil, ErrSeveralGatherers
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no gatherer is there: %w", ctx.Err())
		}
	}
}

// hash is FNV-1a, of 64 bits: http://www.isthe.com/chongo/tech/comp/fnv. It is the
// same on every node.
func hash[B []byte | string](b B) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 1099511628211
	}
	return h
}

// Address is the contributor's own: what Gathered.Source says at the gatherer.
func (c *Contributor[T]) Address() fabric.Address { return c.producer.Address() }

// Send sends v, which is the program's again when it returns. It waits while the
// stream is at its high-water mark, until ctx ends; the value is not accepted then.
// The error is ctx's, *CodecError, *fabric.TooLargeError, *fabric.PeerLostError or
// *fabric.UnknownConsumerError if the gatherer is gone, or fabric.ErrClosed after
// Finish.
func (c *Contributor[T]) Send(ctx context.Context, v T) error {
	body, err := c.coder.pack(v, false)
	if err != nil {
		return err
	}
	defer body.release()
	var mem [headRoom]byte
	if err := body.send(ctx, c.target, appendRecord(mem[:0], kindShare)); err != nil {
		return err
	}
	c.values.Add(1)
	return nil
}

// Finish tells the gatherer, behind the last value, that this contributor has
// finished. It waits for room until ctx ends; it may be called again then. Once it has
// finished, to do so again does nothing.
func (c *Contributor[T]) Finish(ctx context.Context) error {
	if c.finished.Swap(true) {
		return nil
	}
	if err := c.target.Send(ctx, appendRecord(nil, kindLast)); err != nil {
		c.finished.Store(false)
		return err
	}
	return c.producer.Finish([]*fabric.Target{c.target})
}

// Drain finishes, waits until all that was sent is stored by the gatherer's node, or
// ctx ends, and closes the contributor.
func (c *Contributor[T]) Drain(ctx context.Context) error {
	return errors.Join(c.Finish(ctx), c.target.Flush(ctx), c.producer.Close())
}

// Close ends the contributor. If it has not finished, the gatherer takes it for lost
// when its node closes, and waits for it until then. It does not wait for deliveries:
// the node goes on with them.
func (c *Contributor[T]) Close() error {
	c.producer.Finish(nil) // nothing, if it has finished
	return c.producer.Close()
}

// Sent is how many values were accepted.
func (c *Contributor[T]) Sent() uint64 { return c.values.Load() }
