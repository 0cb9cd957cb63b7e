package directory

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How a Client's call finds its connection, and what its caller is told.

// ask makes a request that changes nothing, over the connections that there are within the timeout; without waiting
// for one if no directory can be reached.
func (c *Client) ask(ctx context.Context, q *request) (*reply, error) {
	bounded, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	for {
		conn, err := c.awaitUnlessDown(bounded)
		if err != nil {
			return nil, c.outcome(ctx, err)
		}
		r, err := conn.call(bounded, q)
		switch {
		case errors.Is(err, errLost):
			continue
		case err == nil:
			return r, nil
		}
		c.suspect(ctx, bounded, conn)
		return nil, c.outcome(ctx, err)
	}
}

// change makes requests that change what is held, one caller at a time. If their outcome stays unknown, what is
// held is stated anew: soon, and before any other change, so that a second try does not meet what the first one left.
func (c *Client) change(ctx context.Context, requests func(context.Context, *clientConn) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	for {
		conn, err := c.await(bounded, nil)
		if err == nil {
			err = c.inTurn(bounded, conn, func(ctx context.Context, conn *clientConn) error {
				if c.isUnsettled() {
					if err := c.restate(ctx, conn); err != nil {
						return err
					}
				}
				return requests(ctx, conn)
			})
		}
		switch {
		case errors.Is(err, errLost), c.stranded(conn, err):
			continue
		case errors.Is(err, ErrUnavailable):
			c.unsettle()
		case bounded.Err() != nil && errors.Is(err, bounded.Err()):
			c.suspect(ctx, bounded, conn)
			c.unsettle()
		}
		return c.outcome(ctx, err)
	}
}

// stranded gives a connection up if the directory said that it cannot reach its store, and there are others who may.
// Look-ups do not: all clients would move at the same moment, and be back with nothing if the store is away for all.
func (c *Client) stranded(conn *clientConn, err error) bool {
	if len(c.addrs) == 1 || conn == nil || !errors.Is(err, ErrUnavailable) {
		return false
	}
	conn.fail(err)
	return true
}

func (c *Client) inTurn(ctx context.Context, conn *clientConn, requests func(context.Context, *clientConn) error) error {
	select {
	case c.changing <- struct{}{}:
	case <-conn.broken:
		return errLost
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.changing }()
	if conn.isBroken() {
		return errLost
	}
	return requests(ctx, conn)
}

// suspect gives a connection up that left a request without an answer for the whole timeout, rather than until the
// caller's own context ended.
func (c *Client) suspect(ctx, bounded context.Context, conn *clientConn) {
	if conn != nil && ctx.Err() == nil && bounded.Err() != nil {
		conn.fail(fmt.Errorf("no answer within %v", c.opts.Timeout))
	}
}

// outcome makes what a caller is told of err: the directory's word, ErrClosed, the cancelled context's error, or that
// the directory is unavailable, which matches the context's error too if its deadline came first.
func (c *Client) outcome(ctx context.Context, err error) error {
	if err == errDown {
		c.mu.Lock()
		defer c.mu.Unlock()
		return &UnavailableError{Addr: c.addr(), Err: c.cause}
	}
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cause := errors.New("no answer yet")
	if c.conn == nil {
		cause = c.cause
	}
	if ctx.Err() != nil {
		return &UnavailableError{Addr: c.addr(), Err: fmt.Errorf("%w: %w", ctx.Err(), cause)}
	}
	return &UnavailableError{Addr: c.addr(), Err: fmt.Errorf("within %v: %w", c.opts.Timeout, cause)}
}

// errDown: no directory can be reached.
var errDown = errors.New("no directory can be reached")

// awaitUnlessDown waits for a connection, until ctx ends, the client is closed, or all directories were tried in vain.
func (c *Client) awaitUnlessDown(ctx context.Context) (*clientConn, error) {
	for {
		conn, ready, down, err := c.current(ctx)
		if conn != nil || err != nil {
			return conn, err
		}
		select {
		case <-ready:
		case <-down:
			return nil, errDown
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
	}
}

// await waits for a connection, until ctx ends or the client, or the watcher whose closed this is, is closed.
func (c *Client) await(ctx context.Context, closed <-chan struct{}) (*clientConn, error) {
	for {
		conn, ready, _, err := c.current(ctx)
		if conn != nil || err != nil {
			return conn, err
		}
		select {
		case <-ready:
		case <-ctx.Done():
		case <-c.ctx.Done():
		case <-closed:
			return nil, ErrClosed
		}
	}
}

// current is the connection, or what to wait for.
func (c *Client) current(ctx context.Context) (conn *clientConn, ready, down <-chan struct{}, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, nil, err
	}
	if c.ctx.Err() != nil {
		return nil, nil, nil, ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropBroken()
	return c.conn, c.ready, c.down, nil
}

// dropBroken takes a broken connection away from the callers; under mu.
func (c *Client) dropBroken() {
	if c.conn != nil && c.conn.isBroken() {
		c.cause = c.conn.reason()
		c.conn, c.ready, c.down, c.lostAt = nil, make(chan struct{}), make(chan struct{}), time.Now()
	}
}

// failed notes that no directory could be reached.
func (c *Client) failed(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = cause
	select {
	case <-c.down:
	default:
		close(c.down)
	}
}

func (c *Client) publish(conn *clientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	close(c.ready)
}
