package directory

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/transport"
)

// Options are what a Client can be told. The zero value is ready to use.
type Options struct {
	// Timeout bounds every call, in Dial's case all attempts together, and what a directory may take to answer one
	// request before it counts as gone. Default: 5 s.
	Timeout time.Duration
	// Heartbeat is how often the directory is asked for a sign of life, and told one: it renews the leases of the
	// nodes joined here. Default, and at most: a third of the directory's lease.
	Heartbeat time.Duration
	// Grace is how long, after the directory came back without its table, watchers still count on members that were
	// there before, so that nobody sees them go and come while their nodes register again. Default: the directory's
	// lease.
	Grace time.Duration
	// Lost is told when a node that was joined here cannot be registered again, because another life of it or an
	// eviction (ErrStale), or another node (ErrNameTaken), took its name while the directory could not be reached or
	// the lease had ended. It is called on the client's own goroutine and must not call the client. Default: a line in
	// the log only.
	Lost func(node NodeInfo, err error)
	// Logger takes a line when the connection is lost, is back, or a node is lost. Default: slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = MaxLease // a third of the lease is less
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
// anew what was registered over it, so that the directory may come back empty and nobody here has to know. It renews
// the leases of what it registered until Close, and registers again what the directory let go. Calls that a broken
// connection interrupts are made again over the next one.
//
// Once every directory was tried in vain, look-ups do not wait any more: Lookup, Roster and Choose answer from what was
// heard before, marked stale, and what they cannot answer, like all others, ends at once with *UnavailableError. Changes
// and new watches wait for a directory to come back, for the timeout at most. It is the same with a directory that is there
// and says that the store which it shares with others does not answer; changes and renewals go to another one then.
//
//	connected --broken--> dialing --connected--> restating --settled--> connected
//	                         ^  |failed, backoff     |broken
//	                         +--+--------------------+
//
// Leave and Remove hold even when they return ErrUnavailable or their context ended: they are made good as soon as the
// directory is there again. Join and Add that fail leave nothing behind, in the same way.
type Client struct {
	// immutable
	addrs    []string // in the order in which they are tried
	opts     Options
	identity string          // the same over all connections: a new one replaces the older at the directory at once
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	ended    chan struct{} // closed by run: it has ended
	wake     chan struct{} // room for one: something for run to do
	changing chan struct{} // room for one: whose turn it is to change, at the directory, what is held

	mu        sync.Mutex    // a watcher's mu may be taken under it
	conn      *clientConn   // nil: none that is of use
	ready     chan struct{} // closed while conn is not nil
	down      chan struct{} // closed while conn is nil and none of the directories could be reached
	cause     error         // why there is none
	lostAt    time.Time     // when there was one last
	lease     time.Duration // the directory's, as it said last
	held      map[string]*holding
	unsettled bool // a change's outcome is unknown: what is held is to be stated anew
	cache     cache
	watchers  map[*clientWatcher]struct{}
	watches   uint64 // numbers given
}

// holding is a node that was joined here, and its members.
type holding struct {
	info    NodeInfo
	load    uint32
	members map[Member]struct{}
}

// Dial connects to the directory at addr, or to the first that answers of several, separated by commas. It tries until
// one is there, ctx ends, or opts.Timeout is over: then *UnavailableError. An address that cannot be one matches ErrInvalid.
//
// When the connection breaks, the directories are tried in the same order again. Several must share what is registered
// (RegistryConfig.Shared), or only one of them may run at a time: clients that are connected to different ones do not know
// each other's nodes.
func Dial(ctx context.Context, addr string, opts Options) (*Client, error) {
	var key [16]byte
	if _, err := crand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("directory: identity: %w", err)
	}
	addrs, err := splitAddrs(addr)
	if err != nil {
		return nil, err
	}
	c := &Client{
		addrs:    addrs,
		opts:     opts.withDefaults(),
		identity: fmt.Sprintf("directory-client-%x", key),
		ended:    make(chan struct{}),
		wake:     make(chan struct{}, 1),
		changing: make(chan struct{}, 1),
		ready:    make(chan struct{}),
		down:     make(chan struct{}),
		cause:    errors.New("no connection yet"),
		lease:    DefaultLease,
		held:     make(map[string]*holding),
		cache:    newCache(),
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

// maxAddrs bounds the directories of one client: each gets a part of the timeout.
const maxAddrs = 16

func splitAddrs(list string) ([]string, error) {
	addrs := strings.Split(list, ",")
	if len(addrs) > maxAddrs {
		return nil, invalid("%d directories, more than %d", len(addrs), maxAddrs)
	}
	for i, addr := range addrs {
		if addrs[i] = strings.TrimSpace(addr); addrs[i] == "" {
			return nil, invalid("directories %q: an address is empty", list)
		}
		if err := transport.CheckAddress(addrs[i]); err != nil {
			return nil, invalid("directory %q: %v", addrs[i], err)
		}
	}
	return addrs, nil
}

// Addrs are the directories, in the order in which they are tried.
func (c *Client) Addrs() []string { return slices.Clone(c.addrs) }

// addr names all directories, for errors and the log.
func (c *Client) addr() string { return strings.Join(c.addrs, ",") }

// Close ends the connection and every call and watcher. Nodes that did not leave become orphans at the directory, for
// what is left of their leases.
func (c *Client) Close() error {
	c.cancel()
	<-c.ended
	return nil
}

// Watch implements Service. A Watcher outlives connections: while there is none, Next just waits.
func (c *Client) Watch(ctx context.Context, channel string) (Watcher, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	return c.watch(ctx, channel)
}

// WatchNodes implements Service, as Watch does.
func (c *Client) WatchNodes(ctx context.Context) (Watcher, error) { return c.watch(ctx, "") }

func (c *Client) watch(ctx context.Context, channel string) (Watcher, error) {
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
