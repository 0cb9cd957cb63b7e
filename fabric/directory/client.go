package directory

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Options are what a Client can be told. The zero value is ready to use.
type Options struct {
	// Timeout bounds every call, in Dial's case all attempts together, and what a directory may take to answer one
	// request before it counts as gone. Default: 5 s.
	Timeout time.Duration
	// Heartbeat is how often the directory is asked for a sign of life. Default: 5 s.
	Heartbeat time.Duration
	// Grace is how long, after the directory came back without its table, watchers still count on members that were
	// there before, so that nobody sees them go and come while their nodes register again. It should be longer than
	// Heartbeat, Timeout and the 2 s of a reconnect together, which another node may need to notice. Default: 15 s.
	Grace time.Duration
	// Lost is told when a node that was joined here cannot be registered again, because another life of it
	// (ErrStale) or another node (ErrNameTaken) took its name while the directory could not be reached. It is called
	// on the client's own goroutine and must not call the client. Default: a line in the log only.
	Lost func(node NodeInfo, err error)
	// Logger takes a line when the connection is lost, is back, or a node is lost. Default: slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 5 * time.Second
	}
	if o.Grace <= 0 {
		o.Grace = 15 * time.Second
	}
	if o.Lost == nil {
		o.Lost = func(NodeInfo, error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Client is a directory in another process. It keeps one connection, dials again when it breaks, and then states
// anew what was registered over it, so that the directory may come back empty and nobody here has to know. Calls
// that a broken connection interrupts are made again over the next one. Only what the directory does not answer
// within the timeout ends with *UnavailableError; Node and Members then still tell what was known last.
//
//	connected --broken--> dialing --connected--> restating --settled--> connected
//	                         ^  |failed, backoff     |broken
//	                         +--+--------------------+
//
// Leave and Remove hold even when they return ErrUnavailable or their context ended: they are made good as soon as the
// directory is there again. Join and Add that fail leave nothing behind, in the same way.
type Client struct {
	// immutable
	addr     string
	opts     Options
	identity string          // the same over all connections: a new one replaces the older at the directory at once
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	ended    chan struct{} // closed by run: it has ended
	wake     chan struct{} // room for one: something for run to do
	changing chan struct{} // room for one: whose turn it is to change, at the directory, what is held

	mu        sync.Mutex
	conn      *clientConn   // nil: none that is of use
	ready     chan struct{} // closed while conn is not nil
	cause     error         // why there is none
	held      map[string]*holding
	unsettled bool // a change's outcome is unknown: what is held is to be stated anew
	cache     map[string]NodeInfo
	watchers  map[*clientWatcher]struct{}
	watches   uint64 // numbers given
}

// holding is a node that was joined here, and its members.
type holding struct {
	info    NodeInfo
	members map[Member]struct{}
}

// Dial connects to the directory at addr. It tries until it is there, ctx ends, or opts.Timeout is over: then
// *UnavailableError.
func Dial(ctx context.Context, addr string, opts Options) (*Client, error) {
	var key [16]byte
	if _, err := crand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("directory: identity: %w", err)
	}
	c := &Client{
		addr:     addr,
		opts:     opts.withDefaults(),
		identity: fmt.Sprintf("directory-client-%x", key),
		ended:    make(chan struct{}),
		wake:     make(chan struct{}, 1),
		changing: make(chan struct{}, 1),
		ready:    make(chan struct{}),
		cause:    errors.New("no connection yet"),
		held:     make(map[string]*holding),
		cache:    make(map[string]NodeInfo),
		watchers: make(map[*clientWatcher]struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())

	bounded, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	conn, err := c.reconnect(bounded)
	if err != nil {
		err = c.outcome(ctx, err)
		c.cancel()
		return nil, err
	}
	c.publish(conn)
	go c.run(conn)
	return c, nil
}

// Close ends the connection and every call and watcher. Nodes that did not leave become orphans at the directory.
func (c *Client) Close() error {
	c.cancel()
	<-c.ended
	return nil
}

// Join implements Service.
func (c *Client) Join(ctx context.Context, info NodeInfo) (uint64, error) {
	if err := checkInfo(info); err != nil {
		return 0, err
	}
	q := &request{Op: opJoin, Node: info.Name, Incarnation: info.Incarnation, Endpoint: info.Endpoint}
	err := c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		r, err := conn.call(ctx, q)
		if err != nil {
			return err
		}
		info.Incarnation = r.Incarnation
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[info.Name]; h == nil || h.info != info {
			c.held[info.Name] = &holding{info: info, members: make(map[Member]struct{})}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	c.remember(info)
	return info.Incarnation, nil
}

// Leave implements Service.
func (c *Client) Leave(ctx context.Context, node string, incarnation uint64) error {
	if err := CheckName("node", node); err != nil {
		return err
	}
	drop := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[node]; h != nil && h.info.Incarnation == incarnation {
			delete(c.held, node)
		}
	}
	drop() // at once, whatever becomes of the call; and in turn, after a Join that was under way
	return c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		drop()
		_, err := conn.call(ctx, &request{Op: opLeave, Node: node, Incarnation: incarnation})
		return err
	})
}

// Add implements Service.
func (c *Client) Add(ctx context.Context, incarnation uint64, members ...Member) error {
	if len(members) == 0 {
		return nil
	}
	node, err := checkMembers(members)
	if err != nil {
		return err
	}
	return c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		for part := range slices.Chunk(members, batchLen) {
			if _, err := conn.call(ctx, &request{Op: opAdd, Incarnation: incarnation, Members: part}); err != nil {
				if len(members) > batchLen {
					c.unsettle() // all or none
				}
				return err
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[node]; h != nil && h.info.Incarnation == incarnation {
			for _, m := range members {
				h.members[m] = struct{}{}
			}
		}
		return nil
	})
}

// Remove implements Service.
func (c *Client) Remove(ctx context.Context, incarnation uint64, members ...Member) error {
	if len(members) == 0 {
		return nil
	}
	node, err := checkMembers(members)
	if err != nil {
		return err
	}
	drop := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[node]; h != nil && h.info.Incarnation == incarnation {
			for _, m := range members {
				delete(h.members, m)
			}
		}
	}
	drop() // at once, whatever becomes of the call; and in turn, after an Add that was under way
	return c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		drop()
		for part := range slices.Chunk(members, batchLen) {
			if _, err := conn.call(ctx, &request{Op: opRemove, Incarnation: incarnation, Members: part}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Members implements Service. While the directory cannot be reached, a channel that is being watched here is still
// known.
func (c *Client) Members(ctx context.Context, channel string) ([]Member, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	if list, ok := c.watched(channel); ok && !c.connected() {
		return list, nil
	}
	var list []Member
	q := &request{Op: opMembers, Channel: channel}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			if known, ok := c.watched(channel); ok && errors.Is(err, ErrUnavailable) {
				return known, nil
			}
			return nil, err
		}
		list = append(list, r.Members...)
		if !r.More || len(list) == 0 {
			return list, nil
		}
		q.AfterMember = wireMembers{list[len(list)-1]}
	}
}

// Channels implements Service.
func (c *Client) Channels(ctx context.Context) ([]string, error) {
	var list []string
	q := &request{Op: opChannels}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			return nil, err
		}
		list = append(list, r.Channels...)
		if !r.More || len(list) == 0 {
			return list, nil
		}
		q.After = list[len(list)-1]
	}
}

// Nodes implements Service.
func (c *Client) Nodes(ctx context.Context) ([]NodeInfo, error) {
	var list []NodeInfo
	q := &request{Op: opNodes}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			return nil, err
		}
		list = append(list, r.Nodes...)
		if !r.More || len(list) == 0 {
			c.remember(list...)
			return list, nil
		}
		q.After = list[len(list)-1].Name
	}
}

// Node implements Service. While the directory cannot be reached, what was last heard of the node is returned.
func (c *Client) Node(ctx context.Context, name string) (NodeInfo, error) {
	if err := CheckName("node", name); err != nil {
		return NodeInfo{}, err
	}
	if info, ok := c.recall(name); ok && !c.connected() {
		return info, nil
	}
	r, err := c.ask(ctx, &request{Op: opNode, Node: name})
	if err == nil && len(r.Nodes) != 1 {
		err = fmt.Errorf("directory: %s answered with %d nodes for one", c.addr, len(r.Nodes))
	}
	if err != nil {
		if info, ok := c.recall(name); ok && errors.Is(err, ErrUnavailable) {
			return info, nil
		}
		if errors.Is(err, ErrUnknownNode) {
			c.forget(name)
		}
		return NodeInfo{}, err
	}
	c.remember(r.Nodes[0])
	return r.Nodes[0], nil
}

// Watch implements Service. A Watcher outlives connections: while there is none, Next just waits.
func (c *Client) Watch(ctx context.Context, channel string) (Watcher, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	w := newClientWatcher(c, channel)
	bounded, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	if err := w.begin(bounded); err != nil {
		c.suspect(ctx, bounded, w.conn)
		w.Close()
		return nil, c.outcome(ctx, err)
	}
	return w, nil
}
