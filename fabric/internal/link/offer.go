package link

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// waiter is a Send that waits for room.
type waiter struct {
	ready chan struct{}
	next  *waiter
	size  int
	from  *Sender
}

var waiterPool = sync.Pool{New: func() any { return &waiter{ready: make(chan struct{}, 1)} }}

// pop lets the first Send that waits go on.
func (s *SendStream) pop() {
	w := s.waiters
	s.waiters, w.next = w.next, nil
	w.ready <- struct{}{}
}

// queueWaiter adds w, at the end or in front.
func (s *SendStream) queueWaiter(w *waiter, front bool) {
	if front {
		w.next, s.waiters = s.waiters, w
		return
	}
	p := &s.waiters
	for *p != nil {
		p = &(*p).next
	}
	*p = w
}

// removeWaiter takes w out, and reports false if it was let go on already.
func (s *SendStream) removeWaiter(w *waiter) bool {
	for p := &s.waiters; *p != nil; p = &(*p).next {
		if *p == w {
			*p, w.next = w.next, nil
			return true
		}
	}
	return false
}

// Sender is a producer as its streams know it.
type Sender struct {
	Index  uint32 // at its node
	closed atomic.Bool
}

// Close makes all Sends of the producer end with ErrClosed that are not accepted
// yet, once Finish or Refuse was called on their stream too. It reports whether
// this was the first call.
func (p *Sender) Close() bool { return !p.closed.Swap(true) }

// Closed reports whether Close was called.
func (p *Sender) Closed() bool { return p.closed.Load() }

// TrySend sends body, which it copies, for a producer, or returns ErrHighWater.
func (s *SendStream) TrySend(from *Sender, body []byte) error {
	return s.offer(from, body, nil)
}

// offer sends body if that can be done at once: a copy of it, or owned, which
// holds it, and stays the caller's if there is an error.
func (s *SendStream) offer(from *Sender, body []byte, owned *chunk) error {
	l := s.link
	c := owned
	l.mu.Lock()
	err := l.core.admits(s, from, len(body))
	if err == nil && c == nil && len(body) >= singleMin {
		// Copied without the lock, so the room may be gone after it.
		l.mu.Unlock()
		c = newSingle(body)
		l.mu.Lock()
		err = l.core.admits(s, from, len(body))
	}
	if err != nil {
		l.mu.Unlock()
		if c != owned {
			c.release()
		}
		return err
	}
	s.push(from.Index, body, c)
	l.core.ready(s)
	// One Send for each packet that arrives writes by itself: a reply, most
	// likely. A flow of Sends goes to the writer, who gathers them.
	answers := l.prompt
	l.prompt = false
	l.promptly(answers)
	return nil
}

// admits says why s cannot take a message of n bytes from a producer now, nil if
// it can.
func (c *core) admits(s *SendStream, from *Sender, n int) error {
	if err := c.refuses(s, from, n); err != nil {
		return err
	}
	if s.waiters != nil || !s.flow.Admits(s.mark(), n) {
		return ErrHighWater
	}
	return nil
}

// refuses says why s takes no message of n bytes from a producer, nil if it does.
func (c *core) refuses(s *SendStream, from *Sender, n int) error {
	if from.closed.Load() {
		return ErrClosed
	}
	if err := c.refusal(s); err != nil {
		return err
	}
	if n > c.maxBody {
		return &TooLargeError{Size: n, Max: c.maxBody}
	}
	return nil
}

// Send sends body, which it copies, for a producer. It waits while the stream is
// at its high-water mark, in turn with other Sends on it, until ctx ends.
func (s *SendStream) Send(ctx context.Context, from *Sender, body []byte) error {
	if s.join(from, body) {
		return nil
	}
	err := s.offer(from, body, nil)
	if err != ErrHighWater {
		return err
	}
	return s.sendWait(ctx, from, body, nil)
}

// join is offer for what most Sends of a flow of small messages find: the stream
// is in the ring already, so that the writer is at work and nobody needs to be
// told, and the message goes behind others of its producer. It looks at as little
// as can decide that, and reports false, with nothing done, if anything is not so.
func (s *SendStream) join(from *Sender, body []byte) bool {
	l := s.link
	l.mu.Lock()
	if s.flags&(sendActive|sendLeaving) != sendActive || s.waiters != nil || from.closed.Load() ||
		len(body) > min(l.core.maxBody, singleMin-1) || !s.flow.Admits(s.to.Mark, len(body)) {
		l.mu.Unlock()
		return false
	}
	q := s.q
	if !q.chunks[len(q.chunks)-1].join(from.Index, body) {
		l.mu.Unlock()
		return false
	}
	q.held += len(body)
	s.flow.Accept(len(body))
	s.largest = max(s.largest, uint32(len(body)))
	s.quiet = 0
	l.prompt = false
	l.mu.Unlock()
	return true
}

// Payload is memory for one message, which SendPayload takes over.
type Payload chunk

// NewPayload returns a payload of n bytes, whatever they are.
func NewPayload(n int) *Payload {
	c := newChunk(single, classOf(n))
	c.buf = c.buf[:n]
	return (*Payload)(c)
}

// Bytes is the body's memory.
func (b *Payload) Bytes() []byte { return b.buf }

// Release gives the memory back unsent.
func (b *Payload) Release() { (*chunk)(b).release() }

// SendPayload is Send that takes the body over instead of copying it. It stays the
// caller's if there is an error.
func (s *SendStream) SendPayload(ctx context.Context, from *Sender, b *Payload) error {
	err := s.offer(from, b.buf, (*chunk)(b))
	if err != ErrHighWater {
		return err
	}
	return s.sendWait(ctx, from, b.buf, (*chunk)(b))
}

// sendWait is offer that waits for its turn and for room.
func (s *SendStream) sendWait(ctx context.Context, from *Sender, body []byte, owned *chunk) error {
	l := s.link
	c := owned
	w := waiterPool.Get().(*waiter)
	w.size, w.from = len(body), from
	began := time.Now()
	l.mu.Lock()
	var err error
	for again := false; ; again = true {
		if c == nil && len(body) >= singleMin && s.admitted(w, again) {
			// Copied without the lock, and only now: those that wait hold nothing.
			l.mu.Unlock()
			c = newSingle(body)
			l.mu.Lock()
		}
		var sent bool
		if sent, err = s.turn(w, again, body, c); err != nil {
			break
		}
		if sent {
			c, owned = nil, nil
			break
		}
		wake := l.rouse()
		l.mu.Unlock()
		if wake {
			l.wake <- struct{}{}
		}
		select {
		case <-w.ready:
			l.mu.Lock()
			continue
		case <-ctx.Done():
			err = ctx.Err()
		}
		l.mu.Lock()
		if !s.removeWaiter(w) {
			<-w.ready
		}
		break
	}
	s.endWait(w, time.Since(began))
	if c != nil && c != owned {
		c.release()
	}
	return err
}

// turn sends for w: a copy of body, or c, which holds it. If there is no room, or
// others wait and it is not again w's turn, w is queued, and sent is false. Under
// mu.
func (s *SendStream) turn(w *waiter, again bool, body []byte, c *chunk) (sent bool, err error) {
	if err := s.link.core.refuses(s, w.from, len(body)); err != nil {
		return false, err
	}
	if s.admitted(w, again) {
		s.push(w.from.Index, body, c)
		s.link.core.ready(s)
		return true, nil
	}
	s.queueWaiter(w, again)
	s.link.core.mention(s, wire.BacklogWaiting)
	return false, nil
}

// admitted reports whether it is w's turn, and there is room.
func (s *SendStream) admitted(w *waiter, again bool) bool {
	return (again || s.waiters == nil) && s.flow.Admits(s.mark(), w.size)
}

// endWait lets the next Send that waits try, after w has ended its wait, or says
// that it waits. It unlocks mu.
func (s *SendStream) endWait(w *waiter, waited time.Duration) {
	l := s.link
	s.blocked += waited.Nanoseconds()
	if s.failure == nil && !planted.Is(planted.WaiterForgotten) &&
		(!planted.Is(planted.SecondWaiterSilent) || s.waiters != nil && s.flow.Admits(s.mark(), s.waiters.size)) {
		l.core.admit(s)
	}
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	w.from = nil
	waiterPool.Put(w)
}

// Refuse makes the Sends of a closed producer end that wait on the stream.
func (s *SendStream) Refuse(from *Sender) {
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	s.refuse(from)
}

func (s *SendStream) refuse(from *Sender) {
	for p := &s.waiters; *p != nil; {
		w := *p
		if w.from != from {
			p = &w.next
			continue
		}
		*p, w.next = w.next, nil
		w.ready <- struct{}{}
	}
}

// Finish tells the consumer, in order after what was sent, that a producer has
// finished, which must have been closed before. It needs no room at the
// high-water mark: there is one per producer.
func (s *SendStream) Finish(from *Sender) error {
	l := s.link
	l.mu.Lock()
	s.refuse(from)
	if err := l.core.refusal(s); err != nil {
		l.mu.Unlock()
		return err
	}
	c := newChunk(finish, minClass)
	s.push(from.Index, nil, c)
	l.core.ready(s)
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	return nil
}
