package faultproxy

import (
	"io"
	"net"
	"sync"
	"time"
)

// A pipe is one direction of one connection. Its reader waits when too much is
// on the way, as a sender does whose window is full.
type pipe struct {
	link      *Link
	conn      *conn
	direction Direction
	from, to  *net.TCPConn

	mu     sync.Mutex
	moved  sync.Cond // something was queued or taken, or the pipe has stopped
	queue  []chunk   // oldest first
	queued int       // bytes in it
	ended  bool      // the connection has
}

// A chunk is what one read gave, and when. One without bytes is the sender's end:
// it has sent all (FIN), or is gone (RST).
type chunk struct {
	bytes []byte
	sent  time.Time
	reset bool
}

const (
	readSize = 64 << 10
	// maxQueued bounds what is on the way in one direction: little, so that a
	// proxy does not add a buffer that a network does not have.
	maxQueued = 2 * readSize
	// maxDelayed is the same under a delay, where that much fits into the time:
	// with 100 ms it admits 160 MiB/s.
	maxDelayed = 16 << 20
)

func newPipe(l *Link, c *conn, d Direction) *pipe {
	p := &pipe{link: l, conn: c, direction: d, from: c.ends[d], to: c.ends[1-d]}
	p.moved.L = &p.mu
	return p
}

// read queues what comes until it ends.
func (p *pipe) read() {
	buffer := make([]byte, readSize)
	for {
		n, err := p.from.Read(buffer)
		if n > 0 && !p.push(chunk{bytes: append([]byte(nil), buffer[:n]...), sent: time.Now()}) {
			return
		}
		if err != nil {
			p.push(chunk{sent: time.Now(), reset: err != io.EOF})
			return
		}
	}
}

// write gives the receiving end what is due. A receiver that is gone is no end:
// that it is gone is for the other direction to tell, when it can.
func (p *pipe) write() {
	gone := false
	for {
		c, ok := p.pop()
		if !ok {
			return
		}
		for first := true; first || len(c.bytes) > 0; first = false {
			permit, ok := p.conn.pass(p.link, p.direction, len(c.bytes), c.sent)
			if !ok {
				return
			}
			switch {
			case c.reset:
				p.conn.reset()
				return
			case len(c.bytes) == 0:
				p.to.CloseWrite()
				return
			}
			if !gone {
				_, err := p.to.Write(c.bytes[:permit.bytes])
				gone = err != nil
			}
			c.bytes = c.bytes[permit.bytes:]
			if permit.last != nil {
				close(permit.last.reached)
			}
		}
	}
}

// push waits for room; false if the pipe has stopped.
func (p *pipe) push(c chunk) bool {
	room := maxQueued
	if p.link.delayed(p.direction) {
		room = maxDelayed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended && p.queued > 0 && p.queued+len(c.bytes) > room {
		p.moved.Wait()
	}
	if p.ended {
		return false
	}
	p.queue = append(p.queue, c)
	p.queued += len(c.bytes)
	p.moved.Broadcast()
	return true
}

// pop waits for a chunk; false if the pipe has stopped.
func (p *pipe) pop() (chunk, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended && len(p.queue) == 0 {
		p.moved.Wait()
	}
	if p.ended {
		return chunk{}, false
	}
	c := p.queue[0]
	p.queue[0] = chunk{}
	p.queue = p.queue[1:]
	p.queued -= len(c.bytes)
	p.moved.Broadcast()
	return c, true
}

func (p *pipe) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.moved.Broadcast()
}

func (l *Link) delayed(d Direction) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ways[d].delay > 0
}
