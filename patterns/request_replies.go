package patterns

import (
	"bytes"
	"context"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// hear takes what servers say, until the requester is closed.
func (r *requester) hear() {
	for {
		m, err := r.replies.Receive(context.Background())
		lost := lostPeer(err)
		if err != nil && lost == nil {
			return
		}
		if lost != nil {
			r.mu.Lock()
			r.servers.nodeLost(lost)
			r.mu.Unlock()
		} else if !r.take(m.Source(), m.Body) {
			r.mu.Lock()
			r.stats.Malformed++
			r.mu.Unlock()
		}
	}
}

// take takes a record, and reports whether it is one.
func (r *requester) take(from fabric.Address, record []byte) bool {
	kind, f := readRecord(record)
	id := f.number() // or a session
	switch kind {
	case kindReply:
		if !f.end() {
			return false
		}
		r.finish(from, id, outcome{kind: replied, body: r.keepBody(f.rest)})
	case kindItem:
		if !f.end() {
			return false
		}
		r.item(from, id, f.rest)
	case kindEnd:
		if !f.end() {
			return false
		}
		r.finish(from, id, outcome{kind: ended})
	case kindFailure:
		code, text := f.number(), f.text()
		if !f.end() {
			return false
		}
		r.finish(from, id, outcome{kind: failed, err: &ReplyError{Code: Code(code), Text: text}})
	case kindRefused:
		code := f.number()
		if !f.end() {
			return false
		}
		r.finish(from, id, outcome{kind: refused, err: &ReplyError{Code: Code(code), Text: "the request was not started"}})
	case kindServe:
		index, room := f.number(), f.number()
		if !f.end() || room == 0 {
			return false
		}
		r.mu.Lock()
		r.servers.hello(from, id, int(index), anyRoom)
		r.mu.Unlock()
	case kindGone:
		if !f.end() {
			return false
		}
		r.mu.Lock()
		r.servers.bye(from, id)
		r.mu.Unlock()
	default:
		return false
	}
	return true
}

// keepBody is a reply that outlives its message: in pooled memory, or in memory
// that its value may go on to refer to.
func (r *requester) keepBody(body []byte) parcel {
	if r.cfg.copying {
		return packed(body)
	}
	return parcel{own: bytes.Clone(body)}
}

// find finds the attempt that a server speaks of. Under mu.
func (r *requester) find(from fabric.Address, id uint64) *attempt {
	a, ok := r.attempts.get(id)
	if !ok || a.server.source != from {
		r.stats.LateReplies++
		return nil
	}
	return a
}

// finish ends an attempt.
func (r *requester) finish(from fabric.Address, id uint64, o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.find(from, id)
	if a == nil {
		o.body.release()
		return
	}
	if e, ok := o.err.(*ReplyError); ok {
		e.Server = a.server.addr
	}
	o.of = a
	if a.items != nil && (o.kind == replied || o.kind == ended) {
		switch {
		case !a.items.claims(a):
			o.body.release()
			o = outcome{of: a, kind: beaten}
		case o.kind == replied: // a stream of one
			a.items.put(o.body)
			o = outcome{of: a, kind: ended}
		}
	}
	r.remove(a)
	a.results <- o
}

// item takes one of a stream.
func (r *requester) item(from fabric.Address, id uint64, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.find(from, id)
	if a == nil {
		return
	}
	o := outcome{of: a, kind: beaten}
	switch {
	case a.items != nil && !a.items.claims(a):
	case a.items == nil || a.items.full(): // nobody asked for a stream, or for so much of it
		o = outcome{of: a, kind: failed, err: &RecordError{Channel: replyChannel(r.cfg.channel), From: from}}
	default:
		a.items.put(r.keepBody(body))
		return
	}
	r.remove(a)
	r.tellCancel(a)
	a.results <- o
}

// lost ends the attempts at a server that is gone or away.
func (r *requester) lost(m *server, reason string) {
	for a := m.who.first; a != nil; a = m.who.first {
		r.stats.Lost++
		r.remove(a)
		a.results <- outcome{of: a, kind: lost, err: &ServerLostError{Channel: r.cfg.channel, Server: m.addr, Reason: reason}}
	}
	if m.left {
		m.who.owed = nil
	}
}

// items is what has come of a stream and was not yielded yet. Its bound is the
// window, which the server knows.
type items struct {
	window int
	ready  chan struct{} // capacity 1: there is something

	mu    sync.Mutex
	from  *attempt // whose items they are: of the first to send one
	queue []parcel // from head on
	head  int
	came  uint64
	taken uint64

	yielded bool // the reading goroutine's: something was
}

func newItems(window int) *items { return &items{window: window, ready: make(chan struct{}, 1)} }

// claims reports whether the stream is the attempt's: it is the first one to
// send any of it.
func (q *items) claims(a *attempt) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.from == nil {
		q.from = a
	}
	return q.from == a
}

// full reports whether the window allows no more.
func (q *items) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.came >= q.taken+uint64(q.window)
}

// reset forgets what has come of a stream that begins anew at another server.
func (q *items) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, body := range q.queue[q.head:] {
		body.release()
	}
	q.from, q.queue, q.head, q.came, q.taken = nil, nil, 0, 0, 0
}

func (q *items) put(body parcel) {
	q.mu.Lock()
	q.queue = append(q.queue, body)
	q.came++
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take takes the next item, and returns how many there may be in all if that is
// to be told: half of the window was taken since it was.
func (q *items) take() (body parcel, ok bool, allowed uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.queue) {
		return parcel{}, false, 0
	}
	body, q.queue[q.head] = q.queue[q.head], parcel{}
	q.head++
	q.taken++
	if q.head == len(q.queue) {
		q.queue, q.head = q.queue[:0], 0
	} else if q.head >= q.window {
		q.queue, q.head = append(q.queue[:0], q.queue[q.head:]...), 0
	}
	if half := uint64(max(q.window/2, 1)); q.taken%half == 0 {
		allowed = q.taken + uint64(q.window)
	}
	return body, true, allowed
}

// itemsReady is nil unless a stream is asked for.
func (c *call) itemsReady() <-chan struct{} {
	if c.items == nil {
		return nil
	}
	return c.items.ready
}

// next waits for the next item of a stream. There are no more after its end.
func (c *call) next() (body parcel, more bool, err error) {
	for {
		body, ok, allowed := c.items.take()
		if ok {
			c.items.yielded = true
			if allowed > 0 {
				c.allow(allowed)
			}
			return body, true, nil
		}
		if c.over {
			return parcel{}, false, c.failure
		}
		o, err := c.wait()
		if err != nil && o.of == nil { // the call's own end
			return parcel{}, false, err
		}
		c.over, c.failure = o.of != nil, err
	}
}

// allow lets the stream's server send so many items in all.
func (c *call) allow(items uint64) {
	var mem [headRoom]byte
	c.items.mu.Lock()
	a := c.items.from
	c.items.mu.Unlock()
	if a != nil {
		_ = a.server.target.Send(c.ctx, appendRecord(mem[:0], kindCredit, c.r.index(), a.id, items))
	}
}
