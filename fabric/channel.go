package fabric

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/link"
)

// Address names a producer or a consumer within its channel.
type Address struct {
	Node  string
	Index int // at its node, from 0
}

func (a Address) String() string { return fmt.Sprintf("%s/%d", a.Node, a.Index) }

func compareAddress(a, b Address) int {
	if c := strings.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return a.Index - b.Index
}

// channel is a named flow as this node sees it: who takes part, and the streams
// that follow from it. One goroutine, watch, takes the directory's word.
type channel struct {
	node   *Node
	name   string
	synced chan struct{} // closed once the directory has told what there was

	view atomic.Pointer[view] // of targets; nil when out of date. Stored under mu

	mu        sync.Mutex
	mark      flow.Mark                     // of the producers here: the greatest asked for
	producers map[int]*Producer             // at this node
	consumers map[int]*Consumer             // at this node
	sources   map[Address]struct{}          // producers anywhere
	targets   map[Address]*target           // consumers anywhere, as the producers here reach them
	changed   chan struct{}                 // closed when targets change
	leaving   map[*link.SendStream]struct{} // whose consumers take what was accepted, and no more
	watchErr  error                         // the watch has ended
}

// target is a consumer that producers here send to.
type target struct {
	addr   Address
	stream *link.SendStream // nil while no producer is here
	listed bool             // in the directory; else it only opened a stream
}

// view is a snapshot of a channel's targets that Sends share.
type view struct {
	addrs     []Address
	streams   map[Address]*link.SendStream
	order     []*link.SendStream
	placement *Placement // of keys on addrs; made by once
	once      sync.Once
}

// channelOf returns the channel called name, watched.
func (n *Node) channelOf(ctx context.Context, name string) (*channel, error) {
	if err := directory.CheckName("channel", name); err != nil {
		return nil, err
	}
	n.mu.Lock()
	if n.closed || n.draining {
		n.mu.Unlock()
		return nil, ErrClosed
	}
	ch := n.channels[name]
	if ch == nil {
		ch = &channel{
			node: n, name: name, synced: make(chan struct{}), changed: make(chan struct{}),
			producers: make(map[int]*Producer), consumers: make(map[int]*Consumer),
			sources: make(map[Address]struct{}), targets: make(map[Address]*target),
			leaving: make(map[*link.SendStream]struct{}),
		}
		n.channels[name] = ch
		n.wg.Add(1)
		go ch.watch()
	}
	n.mu.Unlock()
	select {
	case <-ch.synced:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.ctx.Done():
		return nil, ErrClosed
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch, ch.watchErr
}

// watch follows the directory's word on the channel until the node closes.
func (ch *channel) watch() {
	n := ch.node
	defer n.wg.Done()
	err := ch.follow()
	if n.ctx.Err() == nil {
		n.cfg.Logger.Error("the directory's watch has ended", "channel", ch.name, "reason", err)
	}
	ch.mu.Lock()
	ch.watchErr = fmt.Errorf("watching channel %s: %w", ch.name, err)
	ch.mu.Unlock()
	ch.sync()
	n.mu.Lock()
	if n.channels[ch.name] == ch && !n.closed {
		delete(n.channels, ch.name) // the next use watches anew
	}
	n.mu.Unlock()
}

func (ch *channel) sync() {
	select {
	case <-ch.synced:
	default:
		close(ch.synced)
	}
}

func (ch *channel) follow() error {
	ctx := ch.node.ctx
	w, err := ch.node.dir.Watch(ctx, ch.name)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return err
		}
		switch e.Kind {
		case directory.Synced:
			ch.sync()
		case directory.Added:
			ch.added(e)
		case directory.Removed:
			ch.removed(e)
		}
	}
}

// added takes a new member: a consumer becomes a target of the producers here,
// a producer's node a source for the consumers here.
func (ch *channel) added(e directory.Event) {
	n, addr := ch.node, Address{e.Member.Node, e.Member.Index}
	n.learn(e.Node, e.Member.Role == directory.Consumer)
	if e.Member.Role == directory.Consumer {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		t := ch.targets[addr]
		if t == nil {
			t = &target{addr: addr}
			ch.targets[addr] = t
		}
		t.listed = true
		ch.reach(t)
		ch.change()
		return
	}
	ch.mu.Lock()
	ch.sources[addr] = struct{}{}
	consumers := ch.localConsumersLocked()
	ch.mu.Unlock()
	for _, c := range consumers {
		ch.subscribe(c, addr.Node)
	}
}

// removed takes a member out: no Send chooses it any more. Its streams end by
// themselves: with the records that say so, or with the link.
func (ch *channel) removed(e directory.Event) {
	addr := Address{e.Member.Node, e.Member.Index}
	ch.mu.Lock()
	if e.Member.Role == directory.Producer {
		delete(ch.sources, addr)
		left := false
		for a := range ch.sources {
			left = left || a.Node == addr.Node
		}
		consumers := ch.localConsumersLocked()
		ch.mu.Unlock()
		if !left {
			ch.node.unwant(addr.Node, ch.name)
			for _, c := range consumers {
				c.dropUnknown(addr.Node)
			}
		}
		return
	}
	t := ch.targets[addr]
	delete(ch.targets, addr)
	if t != nil && t.stream != nil {
		ch.leaving[t.stream] = struct{}{} // until it fails, as Flush waits for it
	}
	ch.change()
	ch.mu.Unlock()
	if t == nil || t.stream == nil {
		return
	}
	switch {
	case ch.node.gone(addr.Node):
		t.stream.GiveUp()
	case e.Expired && t.stream.Used():
		// Its node is away, and the directory with it or not: who has the target waits
		// for it to come back within the resume window.
	default:
		t.stream.Delist()
	}
}

// reach gives t its stream if there is a producer here. Under mu.
func (ch *channel) reach(t *target) {
	if t.stream != nil || len(ch.producers) == 0 {
		return
	}
	l, err := ch.node.outLink(t.addr.Node)
	if err != nil {
		return // closing
	}
	t.stream = l.Stream(ch.name, t.addr.Index, ch.mark)
	t.stream.Relist()
	delete(ch.leaving, t.stream) // its consumer was away, and is back
}

// change makes the next Send look anew, and wakes those that wait for
// consumers. Under mu.
func (ch *channel) change() {
	ch.view.Store(nil)
	close(ch.changed)
	ch.changed = make(chan struct{})
}

// snapshot is the targets as they are now.
func (ch *channel) snapshot() *view {
	if v := ch.view.Load(); v != nil {
		return v
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if v := ch.view.Load(); v != nil {
		return v
	}
	v := &view{streams: make(map[Address]*link.SendStream, len(ch.targets))}
	for a, t := range ch.targets {
		if t.stream != nil {
			v.addrs = append(v.addrs, a)
			v.streams[a] = t.stream
		}
	}
	slices.SortFunc(v.addrs, compareAddress)
	for _, a := range v.addrs {
		v.order = append(v.order, v.streams[a])
	}
	ch.view.Store(v)
	return v
}

// without returns what is closed once no snapshot has the stream, which takes no
// more messages.
func (ch *channel) without(s *link.SendStream) <-chan struct{} {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for _, t := range ch.targets {
		if t.stream == s {
			return ch.changed
		}
	}
	return closedChan
}

// closedChan lets nobody wait.
var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// opened: a consumer at the peer has opened the stream. It may be one that is
// in no directory.
func (n *Node) opened(l *link.Link, s *link.SendStream) {
	n.mu.Lock()
	ch := n.channels[s.Channel()]
	n.mu.Unlock()
	if ch == nil {
		return
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !s.Open() {
		return // it has ended, or is leaving, since; failed tells, or has told
	}
	addr := Address{l.Peer(), s.Index()}
	t := ch.targets[addr]
	if t == nil {
		t = &target{addr: addr}
		ch.targets[addr] = t
	}
	if t.stream != s && len(ch.producers) > 0 {
		s.SetMark(ch.mark)
		t.stream = s
		ch.change()
	}
}

// failed: the stream's consumer is gone, or takes no more than was accepted.
func (n *Node) failed(l *link.Link, s *link.SendStream) {
	n.mu.Lock()
	ch := n.channels[s.Channel()]
	n.mu.Unlock()
	if ch == nil {
		return
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	addr := Address{l.Peer(), s.Index()}
	if s.Leaving() {
		ch.leaving[s] = struct{}{}
	} else {
		delete(ch.leaving, s)
		ch.lost(s)
	}
	t := ch.targets[addr]
	if t == nil || t.stream != s {
		return
	}
	t.stream = nil
	if t.listed && !s.Left() {
		ch.reach(t) // it may come again, and begins anew
	} else {
		delete(ch.targets, addr) // who takes its place opens a stream by itself
	}
	ch.change()
}

// ended: the producers' end has ended the stream. If there are producers at
// that node all the same, another stream begins.
func (n *Node) ended(l *link.Link, r *link.RecvStream) {
	c, _ := r.Owner().(*Consumer)
	if c == nil {
		return
	}
	node := l.Peer()
	c.over(r)
	ch := c.channel
	ch.mu.Lock()
	again := false
	for a := range ch.sources {
		again = again || a.Node == node
	}
	ch.mu.Unlock()
	if again {
		c.mu.Lock()
		c.renewed[node] = struct{}{}
		c.mu.Unlock()
		ch.subscribe(c, node)
	}
}

// outLink is the link on which producers here reach consumers at node.
func (n *Node) outLink(node string) (*link.Link, error) {
	if node == n.cfg.Name {
		out, _, err := n.selfLink()
		return out, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, ErrClosed
	}
	return n.peerOf(node).link, nil
}

// subscribe opens the stream from the producers at node to c, once; unless the
// node has closed, and the directory has not said so yet.
func (ch *channel) subscribe(c *Consumer, node string) {
	n := ch.node
	var l *link.Link
	var p *peer
	if node == n.cfg.Name {
		_, in, err := n.selfLink()
		if err != nil {
			return // closing
		}
		l = in
	} else {
		n.mu.Lock()
		p = n.peerOf(node)
		if p.peering.Closed() {
			n.mu.Unlock()
			return
		}
		p.wanted[ch.name] = struct{}{}
		l = p.link
		n.mu.Unlock()
	}
	var r *link.RecvStream
	c.mu.Lock()
	if c.streams[node] == nil && !c.gone && !c.draining {
		r = l.Receive(c.inbox)
		c.streams[node] = r
	}
	c.mu.Unlock()
	if p != nil {
		n.want(p)
	}
	// If it has closed meanwhile, the link's streams may have been lost before this
	// one was among them.
	if r != nil && n.peerClosed(node) {
		c.drop(node, r)
	}
}

func (ch *channel) localProducers() []*Producer {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	list := make([]*Producer, 0, len(ch.producers))
	for _, p := range ch.producers {
		list = append(list, p)
	}
	return list
}

func (ch *channel) localConsumers() []*Consumer {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.localConsumersLocked()
}

func (ch *channel) localConsumersLocked() []*Consumer {
	list := make([]*Consumer, 0, len(ch.consumers))
	for _, c := range ch.consumers {
		list = append(list, c)
	}
	return list
}

// freeIndex is asked if it is free, or the lowest free one if it is 0.
func freeIndex[T any](taken map[int]T, asked int) (int, error) {
	if asked < 0 || asked > directory.MaxIndex {
		return 0, &ConfigError{"Index", asked, fmt.Sprintf("be 0 to %d", directory.MaxIndex)}
	}
	if _, ok := taken[asked]; ok && asked > 0 {
		return 0, fmt.Errorf("index %d: %w", asked, ErrIndexTaken)
	}
	for {
		if _, ok := taken[asked]; !ok {
			return asked, nil
		}
		asked++
	}
}
