package faultproxy

import (
	"net"
	"sync"
	"time"
)

// A conn is one connection through a link: a socket to each of the two nodes and
// a pipe for each direction.
type conn struct {
	ends  [2]*net.TCPConn // of the pair's first node, and of its second
	pipes [2]*pipe        // by direction
	done  chan struct{}   // closed when the connection has ended
	once  sync.Once
}

// accept takes connections until the listener closes. Each has a goroutine that
// waits for its pipes.
func (l *Link) accept(ln net.Listener, dialling Direction) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return
		}
		l.proxy.wg.Go(func() { l.serve(client.(*net.TCPConn), dialling) })
	}
}

// serve carries one connection until it ends.
func (l *Link) serve(client *net.TCPConn, dialling Direction) {
	if !l.open() {
		client.Close()
		return
	}
	target := l.pair.B
	if dialling == Backward {
		target = l.pair.A
	}
	server, err := l.proxy.dial(target)
	if err != nil {
		abort(client) // as a host does on which nobody listens
		return
	}
	c := &conn{done: make(chan struct{})}
	c.ends[dialling], c.ends[1-dialling] = client, server.(*net.TCPConn)
	for d := range c.pipes {
		c.pipes[d] = newPipe(l, c, Direction(d))
	}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	if l.proxy.ctx.Err() != nil {
		c.close() // Close may have looked before
	}
	var pipes sync.WaitGroup
	for _, p := range c.pipes {
		pipes.Go(p.read)
		pipes.Go(p.write)
	}
	pipes.Wait()
	c.close()
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// close ends both sockets and the pipes.
func (c *conn) close() {
	c.once.Do(func() {
		close(c.done)
		for _, end := range c.ends {
			end.Close()
		}
		for _, p := range c.pipes {
			p.stop()
		}
	})
}

// reset is close with RST to both ends.
func (c *conn) reset() {
	for _, end := range c.ends {
		end.SetLinger(0)
	}
	c.close()
}

func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// pass waits until bytes that were sent at a time, or some of them, may go on;
// false if the connection ends first.
func (c *conn) pass(l *Link, d Direction, bytes int, sent time.Time) (permit, bool) {
	for {
		p, ok, wait, changed := l.admit(d, bytes, sent, time.Now())
		if ok {
			return p, true
		}
		var due <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-changed:
		case <-due:
		case <-c.done:
		}
		if timer != nil {
			timer.Stop()
		}
		select {
		case <-c.done:
			return permit{}, false
		default:
		}
	}
}
