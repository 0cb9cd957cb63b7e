package fabric

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
)

// ConsumerConfig says how to make a Consumer. The zero value works.
type ConsumerConfig struct {
	// Index tells the node's consumers on a channel apart. Default: the lowest
	// that is free.
	Index int
	// HighWaterMark bounds the room lent to each stream to this consumer: there
	// is one per node that has producers.
	HighWaterMark HighWaterMark
	// Producers is how many different producers must finish until Receive says
	// ErrEnd. What a producer sends that has finished before, in another life of
	// its node, does not count and is dropped. Default: 0, it never ends.
	Producers int
}

// Consumer receives the messages that producers of a channel send to it. One
// goroutine at a time may call Receive or run Messages; the other methods may
// be called by any.
type Consumer struct {
	channel *channel
	addr    Address
	inbox   *link.Inbox

	// The receiving goroutine's.
	promise  int
	from     *sender // of the message before; nil to look anew
	late     bool    // that was finished before
	plain    bool    // what follows it in its run is handed out as it is
	finished map[Address]struct{}
	senders  map[sender]*sender // each once; at most maxSenders, and then anew

	drained chan struct{} // closed when Drain's end has come
	atEnd   atomic.Bool   // Receive has said ErrEnd: nobody needs to call it any more
	listed  atomic.Bool   // in the directory

	mu       sync.Mutex
	streams  map[string]*link.RecvStream   // by node
	ending   map[*link.RecvStream]struct{} // that have ended, and the receiving goroutine does not know yet
	asked    map[*link.RecvStream]struct{} // that began while it drains
	renewed  map[string]struct{}           // nodes whose streams began after another had ended
	gone     bool
	draining bool
}

// sender is a producer, as a stream knows it.
type sender struct {
	stream   *link.RecvStream
	producer uint32
}

// maxSenders is how many senders a consumer remembers, so that a message of each
// costs no memory: more than any channel has at a time, and a bound for what a
// peer can make up.
const maxSenders = 1 << 16

// sender is the producer of a stream, the same pointer while it is remembered.
func (c *Consumer) sender(stream *link.RecvStream, producer uint32) *sender {
	key := sender{stream, producer}
	s := c.senders[key]
	if s == nil {
		if len(c.senders) >= maxSenders {
			clear(c.senders)
		}
		s = &key
		c.senders[key] = s
	}
	return s
}

// Consumer makes a consumer on a channel. It waits, until ctx ends, for the
// directory to take it.
func (n *Node) Consumer(ctx context.Context, name string, cfg ConsumerConfig) (*Consumer, error) {
	c, err := n.newConsumer(ctx, name, cfg)
	if err != nil {
		return nil, fmt.Errorf("fabric: consumer on %q at node %s: %w", name, n.cfg.Name, err)
	}
	return c, nil
}

func (n *Node) newConsumer(ctx context.Context, name string, cfg ConsumerConfig) (*Consumer, error) {
	mark, err := cfg.HighWaterMark.mark()
	if err != nil {
		return nil, err
	}
	if cfg.Producers < 0 {
		return nil, &ConfigError{"Producers", cfg.Producers, "not be negative"}
	}
	ch, err := n.channelOf(ctx, name)
	if err != nil {
		return nil, err
	}
	ch.mu.Lock()
	index, err := freeIndex(ch.consumers, cfg.Index)
	if err != nil {
		ch.mu.Unlock()
		return nil, err
	}
	c := &Consumer{
		channel: ch, addr: Address{n.cfg.Name, index}, promise: cfg.Producers,
		drained:  make(chan struct{}),
		finished: make(map[Address]struct{}),
		senders:  make(map[sender]*sender),
		streams:  make(map[string]*link.RecvStream),
		ending:   make(map[*link.RecvStream]struct{}),
		asked:    make(map[*link.RecvStream]struct{}),
		renewed:  make(map[string]struct{}),
	}
	c.inbox = link.NewInbox(&link.Flow{Channel: name, Mark: mark}, index, c)
	ch.consumers[index] = c
	nodes := make(map[string]struct{})
	for a := range ch.sources {
		nodes[a.Node] = struct{}{}
	}
	ch.mu.Unlock()
	for node := range nodes {
		ch.subscribe(c, node)
	}
	c.listed.Store(true)
	if err := n.dir.Add(ctx, n.incarnation, c.member()); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

func (c *Consumer) member() directory.Member {
	return directory.Member{Channel: c.channel.name, Role: directory.Consumer, Node: c.addr.Node, Index: c.addr.Index}
}

// Address is the consumer's own: what producers send to.
func (c *Consumer) Address() Address { return c.addr }

// Message is one message, as a consumer gets it.
type Message struct {
	// Body is valid until the next Receive, and may be changed until then.
	Body []byte

	from *sender // one word, so that a Message travels in registers
}

// Source is the producer that sent it.
func (m Message) Source() Address { return Address{m.from.stream.Peer(), int(m.from.producer)} }

// Keep returns the message with a copy of its body, valid for ever.
func (m Message) Keep() Message {
	m.Body = bytes.Clone(m.Body)
	return m
}

// Receive waits for the next message, until ctx ends. The message before it is
// settled with this call: it counts as handled, and its room is lent again.
//
// A *PeerLostError says that nothing more will come from a node whose producers
// had not all finished; the consumer may go on receiving from others. ErrEnd
// comes when all promised producers have finished, or Drain has, ErrClosed after
// Close.
func (c *Consumer) Receive(ctx context.Context) (Message, error) {
	if c.plain {
		if body, ok := c.inbox.More(); ok {
			return Message{body, c.from}, nil
		}
	}
	return c.receive(ctx)
}

// receive is Receive where something else may come than another message of the
// same producer.
func (c *Consumer) receive(ctx context.Context) (Message, error) {
	c.plain = false
	for {
		if c.promise > 0 && len(c.finished) >= c.promise {
			c.atEnd.Store(true)
			return Message{}, ErrEnd
		}
		body, kind, err := c.inbox.Next(ctx)
		stream, producer := c.inbox.Source()
		switch {
		case kind == link.Lost:
			last := c.handled(stream)
			if err != nil && !c.complete(err) {
				if last {
					c.inbox.Nudge() // the next one is told the end
				}
				return Message{}, public(err)
			}
			if last {
				return Message{}, ErrEnd
			}
		case err == link.ErrClosed && c.isDrained():
			return Message{}, ErrEnd
		case err != nil:
			return Message{}, public(err)
		case kind == link.Finished:
			c.finished[Address{stream.Peer(), int(producer)}] = struct{}{}
			c.from = nil
		default:
			if c.from == nil || *c.from != (sender{stream, producer}) {
				c.from = c.sender(stream, producer)
				_, c.late = c.finished[Address{stream.Peer(), int(producer)}]
			}
			if c.late && c.promise > 0 {
				continue // of another life of a producer that has kept its promise
			}
			c.plain = true
			return Message{body, c.from}, nil
		}
	}
}

// complete reports whether nothing is missing although a stream was lost:
// producers at that node have finished, and the directory knows of no other.
func (c *Consumer) complete(err error) bool {
	var lost *link.LostError
	if !errors.As(err, &lost) || lost.Stated {
		return false
	}
	some := false
	for a := range c.finished {
		some = some || a.Node == lost.Node
	}
	for _, a := range c.Producers() {
		if _, done := c.finished[a]; a.Node == lost.Node && !done {
			return false
		}
	}
	return some
}

// over takes a stream that has ended out of the consumer's. One that drains asks
// the node once more, until nothing comes: another stream may have taken the
// place of one that was leaving.
func (c *Consumer) over(r *link.RecvStream) {
	node := r.Peer()
	gone := c.channel.node.gone(node)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[node] != r {
		return
	}
	delete(c.streams, node)
	c.ending[r] = struct{}{}
	_, asked := c.asked[r]
	delete(c.asked, r)
	if !c.draining || gone || asked && r.Received() == 0 {
		return
	}
	next := r.Again()
	next.Drain()
	c.streams[node], c.asked[next] = next, struct{}{}
}

// dropUnknown gives the stream from node up if it began after another had ended,
// and the node has not heard of it: the node was gone before the directory said
// so. A first stream stays, as a producer may have left with messages accepted
// that wait for it.
func (c *Consumer) dropUnknown(node string) {
	if !c.channel.node.gone(node) {
		return // it may be finishing
	}
	c.mu.Lock()
	_, renewed := c.renewed[node]
	delete(c.renewed, node)
	r := c.streams[node]
	c.mu.Unlock()
	if renewed && r != nil {
		c.drop(node, r)
	}
}

// drop gives a stream up of which its node has not heard. It may have been the
// last one that a Drain waits for.
func (c *Consumer) drop(node string, r *link.RecvStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[node] != r || !r.CancelUnknown() {
		return // it ends as others do
	}
	delete(c.streams, node)
	delete(c.asked, r)
	if c.draining {
		c.inbox.Nudge()
	}
}

// handled takes a stream's end, behind its last message, and reports whether it
// was the last one of a consumer that drains.
func (c *Consumer) handled(r *link.RecvStream) bool {
	maps.DeleteFunc(c.senders, func(key sender, _ *sender) bool { return key.stream == r })
	if r.Owner() != nil { // else it is Nudge's
		c.over(r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ending, r)
	if !c.draining || len(c.streams)+len(c.ending) > 0 {
		return false
	}
	if !c.isDrained() {
		close(c.drained)
	}
	return true
}

func (c *Consumer) isDrained() bool {
	select {
	case <-c.drained:
		return true
	default:
		return false
	}
}

// Messages iterates over what Receive returns. It ends by itself when all
// promised producers have finished. A *PeerLostError is yielded and the
// iteration goes on; any other error is yielded as the last.
func (c *Consumer) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := c.Receive(ctx)
			if err == ErrEnd {
				return
			}
			var lost *PeerLostError
			if !yield(m, err) || err != nil && !errors.As(err, &lost) {
				return
			}
		}
	}
}

// Finished is the producers that have finished, as far as Receive has come; in
// no order. The receiving goroutine may call it.
func (c *Consumer) Finished() []Address { return slices.Collect(maps.Keys(c.finished)) }

// Promise replaces ConsumerConfig.Producers: for one who learns later how many
// there are, or that some are lost. The receiving goroutine may call it.
func (c *Consumer) Promise(producers int) { c.promise, c.plain = producers, false }

// Producers is the channel's producers now, by node and index.
func (c *Consumer) Producers() []Address {
	ch := c.channel
	ch.mu.Lock()
	defer ch.mu.Unlock()
	list := make([]Address, 0, len(ch.sources))
	for a := range ch.sources {
		list = append(list, a)
	}
	slices.SortFunc(list, compareAddress)
	return list
}

// Close takes the consumer out of the directory and ends Receive with
// ErrClosed. Producers that still send to it get a *PeerLostError; what it has
// not handled is dropped.
func (c *Consumer) Close() error {
	c.end()
	if c.channel.node.ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	return c.delist(ctx)
}

// delist takes the consumer out of the directory, once.
func (c *Consumer) delist(ctx context.Context) error {
	n := c.channel.node
	if !c.listed.Swap(false) || n.left.Load() {
		return nil
	}
	return n.dir.Remove(ctx, n.incarnation, c.member())
}

// Drain takes the consumer out of the directory, lets producers deliver what
// they have accepted for it already, and closes it. Receive must go on being
// called meanwhile; it returns ErrEnd behind the last message. Sends that come
// too late get an *UnknownConsumerError, which says that the message was not
// accepted; SendKey and SendAll go to the other consumers.
//
// It waits for every node that has producers on the channel, also while the link
// to it is down, until ctx ends; then the consumer is closed all the same, and
// what was on its way is in doubt for its producers. The error joins ctx's and
// the directory's, which hears later of the consumer's leaving if it could not
// be reached.
//
// A consumer that has said ErrEnd, as its promised producers have finished, is
// closed, and Receive need not be called. It waits only until their nodes know that
// all is stored, or are lost.
func (c *Consumer) Drain(ctx context.Context) error {
	if c.atEnd.Load() {
		return c.leave(ctx)
	}
	err := c.delist(ctx)
	c.meet(ctx)
	c.mu.Lock()
	c.draining = true
	streams := slices.Collect(maps.Values(c.streams))
	c.mu.Unlock()
	for _, r := range streams {
		r.Drain()
	}
	c.inbox.Nudge()
	select {
	case <-c.drained:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("fabric: draining consumer %s of %s: %w", c.addr, c.channel.name, ctx.Err()))
	case <-c.channel.node.ctx.Done():
		err = errors.Join(err, ErrClosed)
	}
	return errors.Join(err, c.Close())
}

// leave closes a consumer that has had all that was promised, and waits for the
// producers' nodes: one whose link is down may have messages in doubt of which this
// end has stored every one.
func (c *Consumer) leave(ctx context.Context) error {
	streams := c.end()
	err := c.delist(ctx)
	for node, r := range streams {
		select {
		case <-r.Gone():
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("fabric: draining consumer %s of %s: node %s may not know that all is stored: %w", c.addr, c.channel.name, node, ctx.Err()))
		case <-c.channel.node.ctx.Done():
			return errors.Join(err, ErrClosed)
		}
	}
	return err
}

// meet opens the streams from all producers that may have seen the consumer in
// the directory: those that were there before it was taken out. The channel's
// watch may be behind and know less, so it takes a fresh one; without the
// directory what is known must do.
func (c *Consumer) meet(ctx context.Context) {
	ch := c.channel
	w, err := ch.node.dir.Watch(ctx, ch.name)
	if err != nil {
		return
	}
	defer w.Close()
	for {
		e, err := w.Next(ctx)
		if err != nil || e.Kind == directory.Synced {
			return
		}
		if e.Kind == directory.Added && e.Member.Role == directory.Producer {
			ch.node.learn(e.Node, false)
			ch.subscribe(c, e.Member.Node)
		}
	}
}

// end closes the inbox and gives all streams up, which it returns by node, once.
func (c *Consumer) end() map[string]*link.RecvStream {
	ch := c.channel
	ch.mu.Lock()
	if ch.consumers[c.addr.Index] == c {
		delete(ch.consumers, c.addr.Index)
	}
	ch.mu.Unlock()
	c.mu.Lock()
	streams := c.streams
	c.streams, c.gone = nil, true
	c.mu.Unlock()
	c.inbox.Close()
	for _, r := range streams {
		r.Cancel()
	}
	return streams
}
