package directory

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Bounds of one registry: with them a peer that registers all it can costs memory up to a known amount.
const (
	maxNodes       = 1 << 16 // thousands of hosts, and the workers that join by themselves
	maxMembersNode = 1 << 16 // 16 producers and 16 consumers in each of 2,000 channels
	maxMembers     = 1 << 21 // at about 400 bytes each
	maxLeft        = 1 << 16 // names whose last incarnation is remembered after they left
)

// Registry is a directory's table: nodes, their members, and the channels' recent changes. It does no I/O and
// starts no goroutine; every call is short and none waits. Make one with NewRegistry.
//
// Whoever joins a node holds it: this process, or one client of a Server. A node is changed only by its holder, and
// is an orphan once its holder's connection has ended.
//
//	           Join            connection ends
//	(absent) -------> live ---------------------> orphan
//	    ^              |  <---------------------   |   |
//	    |    Leave     |   Join, same incarnation  |   | Join by another: members removed,
//	    +--------------+---------------------------+   | greater incarnation
//	                   ^-------------------------------+
type Registry struct {
	epoch uint64 // tells this table's life from any other's: revisions mean nothing across it
	here  *holder

	mu       sync.Mutex
	revision uint64 // changes made so far
	last     uint64 // no incarnation chosen here is greater, except over a greater one that was brought along
	nodes    map[string]*node
	channels map[string]*channel
	members  int
	left     map[string]uint64 // last incarnations of nodes that left
	holders  map[string]*holder
	rounds   uint64 // restatements begun, by all holders: a number is never met again under another holder
	closed   bool
}

// node is a registered node; under Registry.mu, as holder and registration are.
type node struct {
	info       NodeInfo
	holder     *holder
	connection uint64 // the holder's connection over which the node was last joined
	round      uint64 // the holder's round in which it was
	members    map[Member]*registration
}

// registration is a member's entry.
type registration struct {
	node  *node
	round uint64 // the holder's round in which the member was last added
}

// holder is who joined some nodes: this process or one client, over all of that client's connections.
type holder struct {
	id         string
	live       bool   // it has a connection
	connection uint64 // counts them
	restating  bool   // between restate and settle
	round      uint64 // its latest restatement's number
	nodes      map[*node]struct{}
}

// NewRegistry returns an empty registry. It reads the clock, once, so that incarnations chosen by a directory that
// lost its table are greater than those that it chose in its earlier life; a clock that went back costs only this.
func NewRegistry() *Registry {
	return newRegistry(rand.Uint64()>>1|1, uint64(time.Now().UnixMilli()))
}

func newRegistry(epoch, last uint64) *Registry {
	r := &Registry{
		epoch:    epoch,
		here:     &holder{live: true, nodes: make(map[*node]struct{})},
		last:     last,
		nodes:    make(map[string]*node),
		channels: make(map[string]*channel),
		left:     make(map[string]uint64),
		holders:  make(map[string]*holder),
	}
	return r
}

// Join implements Service for nodes of this process.
func (r *Registry) Join(ctx context.Context, info NodeInfo) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return r.join(r.here, info)
}

// Leave implements Service.
func (r *Registry) Leave(ctx context.Context, node string, incarnation uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.leave(r.here, node, incarnation)
}

// Add implements Service.
func (r *Registry) Add(ctx context.Context, incarnation uint64, members ...Member) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.add(r.here, incarnation, members)
}

// Remove implements Service.
func (r *Registry) Remove(ctx context.Context, incarnation uint64, members ...Member) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.remove(r.here, incarnation, members)
}

// Members implements Service.
func (r *Registry) Members(ctx context.Context, channel string) ([]Member, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	return query(ctx, r, func() []Member {
		c := r.channels[channel]
		if c == nil {
			return nil
		}
		list := make([]Member, 0, len(c.members))
		for m := range c.members {
			list = append(list, m)
		}
		slices.SortFunc(list, Member.Compare)
		return list
	})
}

// Channels implements Service.
func (r *Registry) Channels(ctx context.Context) ([]string, error) {
	return query(ctx, r, func() []string {
		list := make([]string, 0, len(r.channels))
		for name, c := range r.channels {
			if len(c.members) > 0 {
				list = append(list, name)
			}
		}
		slices.Sort(list)
		return list
	})
}

// Nodes implements Service.
func (r *Registry) Nodes(ctx context.Context) ([]NodeInfo, error) {
	return query(ctx, r, func() []NodeInfo {
		list := make([]NodeInfo, 0, len(r.nodes))
		for _, n := range r.nodes {
			list = append(list, n.info)
		}
		slices.SortFunc(list, compareInfo)
		return list
	})
}

// Node implements Service.
func (r *Registry) Node(ctx context.Context, name string) (NodeInfo, error) {
	if err := CheckName("node", name); err != nil {
		return NodeInfo{}, err
	}
	n, err := query(ctx, r, func() *NodeInfo {
		if n := r.nodes[name]; n != nil {
			return &n.info
		}
		return nil
	})
	switch {
	case err != nil:
		return NodeInfo{}, err
	case n == nil:
		return NodeInfo{}, &UnknownNodeError{Name: name}
	}
	return *n, nil
}

// Watch implements Service.
func (r *Registry) Watch(ctx context.Context, channel string) (Watcher, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return newWatcher(r, channel)
}

// Close implements Service: it ends all watchers and refuses all later calls.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	for _, c := range r.channels {
		c.announce()
	}
	return nil
}

// query reads the table.
func query[T any](ctx context.Context, r *Registry, read func() T) (result T, err error) {
	if err := ctx.Err(); err != nil {
		return result, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return result, ErrClosed
	}
	return read(), nil
}

func (r *Registry) join(h *holder, info NodeInfo) (uint64, error) {
	if err := checkInfo(info); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, ErrClosed
	}
	old, known := r.nodes[info.Name], r.left[info.Name]
	if old != nil {
		known = old.info.Incarnation
	}
	switch {
	case old != nil && info == old.info: // the same life again: its holder reconnected
		r.move(old, h)
		return info.Incarnation, nil
	case info.Incarnation != 0 && (info.Incarnation < known || old == nil && info.Incarnation == known):
		return 0, &StaleError{Node: info.Name, Incarnation: info.Incarnation, Current: known}
	case old != nil && (old.live() || info.Incarnation == known):
		return 0, &NameTakenError{Name: info.Name, Endpoint: old.info.Endpoint}
	case old == nil && len(r.nodes) >= maxNodes:
		return 0, &LimitError{What: "nodes", Max: maxNodes}
	case info.Incarnation == 0:
		if known >= MaxIncarnation || r.last >= MaxIncarnation {
			return 0, &LimitError{What: "incarnations of " + info.Name, Max: MaxIncarnation}
		}
		r.last++
		info.Incarnation = max(r.last, known+1)
	}
	if old != nil {
		r.drop(old)
	}
	delete(r.left, info.Name)
	n := &node{info: info, members: make(map[Member]*registration)}
	r.nodes[info.Name] = n
	r.move(n, h)
	r.revision++
	return info.Incarnation, nil
}

// move makes h the node's holder.
func (r *Registry) move(n *node, h *holder) {
	if n.holder != h {
		if n.holder != nil {
			delete(n.holder.nodes, n)
			r.forgetHolder(n.holder)
		}
		n.holder = h
		h.nodes[n] = struct{}{}
	}
	n.connection, n.round = h.connection, h.round
}

// live reports whether the connection over which the node was joined is there still.
func (n *node) live() bool { return n.holder.live && n.connection == n.holder.connection }

func (r *Registry) leave(h *holder, name string, incarnation uint64) error {
	if err := CheckName("node", name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.held(h, name, incarnation)
	if err != nil || n == nil {
		return err
	}
	r.drop(n)
	return nil
}

// held finds a node to change: nil when there is none of that name, an error when it is not h's to change.
func (r *Registry) held(h *holder, name string, incarnation uint64) (*node, error) {
	n := r.nodes[name]
	switch {
	case r.closed:
		return nil, ErrClosed
	case n == nil:
		return nil, nil
	case n.info.Incarnation != incarnation:
		return nil, &StaleError{Node: name, Incarnation: incarnation, Current: n.info.Incarnation}
	case n.holder != h || !n.live():
		return nil, &NotJoinedError{Node: name}
	}
	return n, nil
}

// drop takes a node and its members out, in the members' order.
func (r *Registry) drop(n *node) {
	gone := make([]Member, 0, len(n.members))
	for m := range n.members {
		gone = append(gone, m)
	}
	r.dropMembers(n, gone)
	delete(r.nodes, n.info.Name)
	delete(n.holder.nodes, n)
	r.forgetHolder(n.holder)
	r.revision++

	// Incarnations never fall, also for a name whose memory must make room: the numbers chosen next pass it.
	if len(r.left) >= maxLeft {
		for name, incarnation := range r.left {
			r.last = max(r.last, incarnation)
			delete(r.left, name)
			break
		}
	}
	r.left[n.info.Name] = n.info.Incarnation
}

func (r *Registry) add(h *holder, incarnation uint64, members []Member) error {
	if len(members) == 0 {
		return nil
	}
	name, err := checkMembers(members)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.held(h, name, incarnation)
	if err != nil {
		return err
	}
	if n == nil {
		return &UnknownNodeError{Name: name}
	}
	if len(n.members)+len(members) > maxMembersNode || r.members+len(members) > maxMembers {
		fresh := make(map[Member]struct{})
		for _, m := range members {
			if n.members[m] == nil {
				fresh[m] = struct{}{}
			}
		}
		if len(n.members)+len(fresh) > maxMembersNode {
			return &LimitError{What: "members of node " + name, Max: maxMembersNode}
		}
		if r.members+len(fresh) > maxMembers {
			return &LimitError{What: "members", Max: maxMembers}
		}
	}
	touched := make(map[*channel]struct{}, 1)
	for _, m := range members {
		if old := n.members[m]; old != nil {
			old.round = h.round
			continue
		}
		entry := &registration{node: n, round: h.round}
		c := r.channel(m.Channel)
		n.members[m], c.members[m] = entry, entry
		r.members++
		r.revision++
		c.record(Event{Revision: r.revision, Kind: Added, Member: m, Node: n.info})
		touched[c] = struct{}{}
	}
	for c := range touched {
		c.announce()
	}
	return nil
}

func (r *Registry) remove(h *holder, incarnation uint64, members []Member) error {
	if len(members) == 0 {
		return nil
	}
	name, err := checkMembers(members)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.held(h, name, incarnation)
	if err != nil || n == nil {
		return err
	}
	r.dropMembers(n, slices.Clone(members))
	return nil
}

// dropMembers takes those of the members out that are there; it sorts the slice.
func (r *Registry) dropMembers(n *node, members []Member) {
	slices.SortFunc(members, Member.Compare)
	touched := make(map[*channel]struct{}, 1)
	for _, m := range members {
		if n.members[m] == nil {
			continue
		}
		c := r.channels[m.Channel]
		delete(n.members, m)
		delete(c.members, m)
		r.members--
		r.revision++
		c.record(Event{Revision: r.revision, Kind: Removed, Member: m, Node: n.info})
		touched[c] = struct{}{}
	}
	for c := range touched {
		c.announce()
		r.forget(c)
	}
}

// channel finds a channel, or makes it.
func (r *Registry) channel(name string) *channel {
	c := r.channels[name]
	if c == nil {
		c = &channel{
			name:    name,
			members: make(map[Member]*registration),
			feeds:   make(map[*feed]struct{}),
			base:    r.revision,
		}
		r.channels[name] = c
	}
	return c
}

// forget lets a channel go that has neither members nor watchers.
func (r *Registry) forget(c *channel) {
	if len(c.members) == 0 && len(c.feeds) == 0 {
		delete(r.channels, c.name)
	}
}

func compareInfo(a, b NodeInfo) int {
	switch {
	case a.Name < b.Name:
		return -1
	case a.Name > b.Name:
		return 1
	}
	return 0
}
