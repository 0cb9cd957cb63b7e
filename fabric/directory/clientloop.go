package directory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/zfab/zfab/fabric/internal/transport"
)

// Reconnecting waits a random time up to a bound that doubles from the first to the second of these. All of it is
// random (full jitter): a thousand clients lose their directory at the same instant.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// Nodes are to be registered again within a third of a lease after the directory is back: at this part of a lease at
// the latest the next attempt is made.
const backoffs = 6

// A Client's one goroutine: it keeps a connection, and tells every new one what is held.

// unsettle has what is held stated anew.
func (c *Client) unsettle() {
	c.mu.Lock()
	c.unsettled = true
	c.mu.Unlock()
	signal(c.wake)
}

func (c *Client) isUnsettled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsettled
}

// run keeps a connection until Close.
func (c *Client) run(conn *clientConn) {
	defer close(c.ended)
	for {
		c.tend(conn)
		conn.fail(ErrClosed) // unless it broke before
		<-conn.ended
		if c.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.dropBroken()
		c.mu.Unlock()
		c.opts.Logger.Warn("directory: connection lost", "directory", conn.addr, "error", conn.reason())

		var err error
		if conn, err = c.reconnect(c.ctx); err != nil {
			return // closed
		}
		c.publish(conn)
		c.opts.Logger.Info("directory: connected again", "directory", conn.addr)
	}
}

// tend looks after a connection until it breaks or the client is closed.
func (c *Client) tend(conn *clientConn) {
	// A random first wait: all clients connect at the same instant to a directory that comes back.
	heartbeat := time.NewTimer(rand.N(c.period()))
	defer heartbeat.Stop()
	for {
		select {
		case <-conn.broken:
			return
		case <-c.ctx.Done():
			return
		case <-heartbeat.C:
			err := c.within(func(ctx context.Context) error { return c.renew(ctx, conn) })
			if c.ends(conn, "no sign of life", err) {
				return
			}
			heartbeat.Reset(c.next(err))
			if err == nil && c.isUnsettled() {
				signal(c.wake)
			}
		case <-c.wake:
			err := c.within(func(ctx context.Context) error {
				conn.flush(ctx)
				if !c.isUnsettled() {
					return nil
				}
				return c.inTurn(ctx, conn, c.restate)
			})
			if c.ends(conn, "registering again", err) {
				return
			}
			if err != nil {
				heartbeat.Reset(c.next(err))
			}
		}
	}
}

// ends reports whether an error is the connection's end. A directory that cannot reach its store, and is the only one, is
// alive.
func (c *Client) ends(conn *clientConn, what string, err error) bool {
	switch {
	case err == nil:
		return false
	case c.stranded(conn, err):
		return true
	case errors.Is(err, ErrUnavailable):
		return false
	}
	conn.fail(fmt.Errorf("%s: %w", what, err))
	return true
}

// next is the time to the next sign of life: soon, if the directory could not reach its store.
func (c *Client) next(err error) time.Duration {
	if err != nil {
		return min(c.period(), rand.N(maxBackoff))
	}
	return c.period()
}

func (c *Client) leaseTime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lease
}

// period is the time from one sign of life to the next.
func (c *Client) period() time.Duration {
	return min(c.opts.Heartbeat, c.leaseTime()/renewals)
}

// grace is how long a watcher counts on what a directory without its table does not know.
func (c *Client) grace() time.Duration {
	if c.opts.Grace > 0 {
		return c.opts.Grace
	}
	return c.leaseTime()
}

// renew shows the directory that all that is held here is alive, and whether the directory is.
func (c *Client) renew(ctx context.Context, conn *clientConn) error {
	c.mu.Lock()
	list := make(wireRenewals, 0, len(c.held))
	for _, h := range c.held {
		list = append(list, renewal{name: h.info.Name, incarnation: h.info.Incarnation, load: h.load})
	}
	c.mu.Unlock()
	if len(list) == 0 {
		_, err := conn.call(ctx, &request{Op: opPing})
		return err
	}
	for part := range slices.Chunk(list, batchLen) {
		r, err := conn.call(ctx, &request{Op: opRenew, Renewals: part})
		if err != nil {
			return err
		}
		if c.misses(part, r.Unknown) {
			c.unsettle()
		}
	}
	return nil
}

// misses reports whether a node is held here, as it was when its renewal was sent, that the directory does not know.
func (c *Client) misses(sent []renewal, unknown []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range sent {
		h := c.held[r.name]
		if h != nil && h.info.Incarnation == r.incarnation && slices.Contains(unknown, r.name) {
			return true
		}
	}
	return false
}

// within calls f with a context that the timeout ends.
func (c *Client) within(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
	defer cancel()
	return f(ctx)
}

// reconnect dials until a directory is there that answers and knows all that is held, or ctx ends.
func (c *Client) reconnect(ctx context.Context) (*clientConn, error) {
	for bound := minBackoff; ; bound = min(2*bound, maxBackoff, c.leaseTime()/backoffs) {
		conn, err := c.connectAny(ctx)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() == nil {
			c.failed(err)
			c.opts.Logger.Debug("directory: connecting failed", "directory", c.addr(), "error", err)
		}
		timer := time.NewTimer(rand.N(bound))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// connectAny dials one directory after the other, once. Each gets its part of the timeout, so that one that hangs does
// not hide those behind it.
func (c *Client) connectAny(ctx context.Context) (*clientConn, error) {
	var failures []error
	for _, addr := range c.addrs {
		conn, err := c.connect(ctx, addr)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	if len(failures) == 1 {
		return nil, failures[0]
	}
	return nil, &noneError{c.addrs, failures}
}

// noneError is why none of several directories could be reached.
type noneError struct {
	addrs  []string
	errors []error
}

func (e *noneError) Error() string {
	parts := make([]string, len(e.errors))
	for i, err := range e.errors {
		parts[i] = fmt.Sprintf("%s: %v", e.addrs[i], err)
	}
	return strings.Join(parts, "; ")
}

func (e *noneError) Unwrap() []error { return e.errors }

// connect dials once. Stating anew what is held shows, also when that is nothing, that a directory answers.
func (c *Client) connect(ctx context.Context, addr string) (*clientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout/time.Duration(len(c.addrs)))
	defer cancel()
	raw, err := transport.Dial(ctx, addr, transport.Config{
		SocketType:       transport.Dealer,
		Accepts:          []transport.SocketType{transport.Router, transport.Dealer}, // a node's, that passes requests on
		Identity:         c.identity,
		HandshakeTimeout: c.opts.Timeout,
		MaxFrame:         maxReply,
		Logger:           c.opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	conn := newClientConn(raw, addr, c.opts.Timeout, func() { signal(c.wake) })
	if err := c.inTurn(ctx, conn, c.restate); err != nil {
		conn.fail(err)
		<-conn.ended
		if errors.Is(err, errLost) {
			err = conn.reason()
		}
		return nil, err
	}
	return conn, nil
}

// restate tells the directory all that is held, and with it that it is all. In turn with other changes.
func (c *Client) restate(ctx context.Context, conn *clientConn) (err error) {
	defer func() {
		if err != nil {
			c.mu.Lock()
			c.unsettled = true
			c.mu.Unlock()
		}
	}()
	c.mu.Lock()
	c.unsettled = false
	held := make([]holding, 0, len(c.held))
	for _, h := range c.held {
		held = append(held, holding{info: h.info, members: maps.Clone(h.members)})
	}
	c.mu.Unlock()
	slices.SortFunc(held, func(a, b holding) int { return compareInfo(a.info, b.info) })

	if _, err := conn.call(ctx, &request{Op: opRestate}); err != nil {
		return err
	}
	for _, h := range held {
		err := c.restateNode(ctx, conn, h)
		if errors.Is(err, ErrStale) || errors.Is(err, ErrNameTaken) {
			c.lost(h.info, err)
		} else if err != nil {
			return err
		}
	}
	r, err := conn.call(ctx, &request{Op: opSettle})
	if err != nil {
		return err
	}
	if lease := r.Lease.duration(); lease >= MinLease {
		c.mu.Lock()
		c.lease = lease
		c.mu.Unlock()
	}
	return nil
}

func (c *Client) restateNode(ctx context.Context, conn *clientConn, h holding) error {
	if _, err := conn.call(ctx, joinRequest(h.info)); err != nil {
		return err
	}
	for part := range slices.Chunk(slices.SortedFunc(maps.Keys(h.members), Member.Compare), batchLen) {
		if _, err := conn.call(ctx, &request{Op: opAdd, Incarnation: h.info.Incarnation, Members: part}); err != nil {
			return err
		}
	}
	return nil
}

// lost lets a node go whose name is another's now.
func (c *Client) lost(info NodeInfo, err error) {
	c.mu.Lock()
	if h := c.held[info.Name]; h != nil && h.info == info {
		delete(c.held, info.Name)
	}
	c.mu.Unlock()
	c.opts.Logger.Error("directory: a node's name was taken over", "directory", c.addr(), "node", info.Name, "error", err)
	c.opts.Lost(info, err)
}
