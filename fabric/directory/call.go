package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/transport"
)

// clientConn is one connection of a Client. A request's way:
//
//  1. start gives it a number and a place in pending, takes its turn at writing, and writes it;
//  2. read, the connection's one goroutine, takes the reply with that number to the place; it never waits for anybody;
//  3. who asked waits for the reply, the connection's end, or the end of its context.
type clientConn struct {
	// immutable
	conn    *transport.Conn
	addr    string
	timeout time.Duration // of one write
	broken  chan struct{} // closed when the connection is of no more use
	ended   chan struct{} // closed by read: it has ended
	writing chan struct{} // room for one: whose turn it is to write

	mu      sync.Mutex
	err     error // why it broke
	last    uint64
	pending map[uint64]chan *reply // one per waiting caller, each with room for its reply
}

// call is a request under way.
type call struct {
	conn  *clientConn
	asked *request
	reply chan *reply
}

// errLost: the connection broke with the request's outcome unknown.
var errLost = errors.New("connection lost")

// newClientConn takes over a connection; control is called, on the reading goroutine, when flush is due.
func newClientConn(conn *transport.Conn, addr string, timeout time.Duration, control func()) *clientConn {
	c := &clientConn{
		conn:    conn,
		addr:    addr,
		timeout: timeout,
		broken:  make(chan struct{}),
		ended:   make(chan struct{}),
		writing: make(chan struct{}, 1),
		pending: make(map[uint64]chan *reply),
	}
	conn.SetControlWake(control)
	go c.read()
	return c
}

// read takes replies to who asked for them, until the connection ends. Who has stopped waiting is not found.
func (c *clientConn) read() {
	defer close(c.ended)
	for {
		frames, err := c.conn.ReadMessage()
		if err != nil {
			c.fail(err)
			return
		}
		_, body, err := splitEnvelope(frames)
		r := &reply{from: c.addr}
		if err == nil {
			err = decode(body, r)
		}
		if err != nil {
			c.fail(fmt.Errorf("malformed reply: %w", err))
			return
		}
		c.mu.Lock()
		place := c.pending[r.ID]
		delete(c.pending, r.ID)
		c.mu.Unlock()
		if place != nil {
			place <- r
		}
	}
}

// fail ends the connection; the first reason stays.
func (c *clientConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.broken)
		c.conn.Close()
	}
}

// reason is why the connection broke.
func (c *clientConn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *clientConn) isBroken() bool {
	select {
	case <-c.broken:
		return true
	default:
		return false
	}
}

// start sends a request. It waits for its turn until ctx ends, and for the network at most the timeout.
func (c *clientConn) start(ctx context.Context, q *request) (*call, error) {
	// A copy, with this connection's number: the same request may be sent again over a later one.
	asked := *q
	place := make(chan *reply, 1)
	c.mu.Lock()
	c.last++
	asked.ID = c.last
	c.pending[asked.ID] = place
	c.mu.Unlock()

	k := &call{conn: c, asked: &asked, reply: place}
	if err := c.write(ctx, encode(&asked)); err != nil {
		k.forget()
		return nil, err
	}
	return k, nil
}

func (c *clientConn) write(ctx context.Context, frames ...[]byte) error {
	select {
	case c.writing <- struct{}{}:
	case <-c.broken:
		return errLost
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.writing }()
	err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout))
	if err == nil && len(frames) == 0 {
		err = c.conn.WriteBuffers(nil)
	} else if err == nil {
		err = c.conn.WriteMessage(frames...)
	}
	if err != nil {
		c.fail(err)
		return errLost
	}
	return nil
}

// flush writes a PONG that is due.
func (c *clientConn) flush(ctx context.Context) {
	if c.conn.ControlPending() {
		_ = c.write(ctx) // a broken connection shows itself
	}
}

// call sends a request and waits for the reply. The error is errLost, the context's, or what the directory said.
func (c *clientConn) call(ctx context.Context, q *request) (*reply, error) {
	k, err := c.start(ctx, q)
	if err != nil {
		return nil, err
	}
	select {
	case r := <-k.reply:
		return r, k.result(r)
	case <-c.broken:
		return nil, errLost
	case <-ctx.Done():
		k.forget()
		return nil, ctx.Err()
	}
}

// result is what the directory said. One that is closing answers nothing useful any more: its connection is lost. One that
// cannot reach the store that it shares may soon: who asked decides, see stranded.
func (k *call) result(r *reply) error {
	switch r.Error {
	case codeClosed:
		k.conn.fail(errors.New("the directory is closing"))
		return errLost
	case codeUnavailable:
		return &UnavailableError{Addr: k.conn.addr, Err: errors.New(r.Text)}
	}
	return r.err(k.asked)
}

// forget gives the place up.
func (k *call) forget() {
	k.conn.mu.Lock()
	defer k.conn.mu.Unlock()
	delete(k.conn.pending, k.asked.ID)
}
