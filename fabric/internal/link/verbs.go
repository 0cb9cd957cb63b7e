package link

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
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

// flusher is a Flush that waits for acknowledgements.
type flusher struct {
	stream *SendStream
	until  uint64
	done   chan struct{}
}

// flushed lets those Flushes go on whose streams have come far enough.
func (c *core) flushed() {
	if len(c.flushers) == 0 {
		return
	}
	rest := c.flushers[:0]
	for _, f := range c.flushers {
		if f.stream.acked >= f.until || f.stream.failure != nil {
			close(f.done)
		} else {
			rest = append(rest, f)
		}
	}
	clear(c.flushers[len(rest):])
	c.flushers = rest
}

// flushing reports whether a Flush waits for s.
func (c *core) flushing(s *SendStream) bool {
	for _, f := range c.flushers {
		if f.stream == s {
			return true
		}
	}
	return false
}

// Stream returns the producer's end of the stream to a consumer at the peer,
// the index-th of the channel there. It may be used before the consumer has
// opened it: up to mark messages wait until then.
func (l *Link) Stream(channel string, index int, mark flow.Mark) *SendStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.core.flow(channel).Mark = mark
	return l.core.stream(channel, uint32(index))
}

// Receive makes the consumer's end of a stream from the peer's producers to in.
func (l *Link) Receive(in *Inbox) *RecvStream {
	l.mu.Lock()
	r := l.core.receive(in)
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	return r
}

// Cancel gives a consumer's end up: all its credit returns.
func (r *RecvStream) Cancel() {
	l := r.link
	l.mu.Lock()
	l.core.cancel(r, l.conn != nil)
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
}

// Gone returns what is closed when a stream that was cancelled is no more: the
// producer's end has confirmed it, and so knows what was stored, or all streams of
// the link are lost. A link that is closed tells nothing any more.
func (r *RecvStream) Gone() <-chan struct{} {
	c := &r.link.core
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	gone := c.parting[r]
	if gone != nil {
		return gone
	}
	gone = make(chan struct{})
	if c.in[r.label] != r {
		close(gone)
		return gone
	}
	if c.parting == nil {
		c.parting = make(map[*RecvStream]chan struct{})
	}
	c.parting[r] = gone
	return gone
}

// Drain gives a consumer's end up in order: the producer's end takes no more
// messages for it, sends those that it has accepted, and ends the stream then.
func (r *RecvStream) Drain() {
	l := r.link
	l.mu.Lock()
	if l.core.in[r.label] == r && r.flags&(recvCancel|recvCancelled) == 0 {
		r.flags |= recvDraining
		l.core.tell(r, recvState)
	}
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
}

// CancelUnknown cancels the stream if the peer has never heard of it, and
// reports whether it did.
func (r *RecvStream) CancelUnknown() bool {
	l := r.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.flags&(recvKnown|recvCancel|recvCancelled) != 0 || l.core.in[r.label] != r {
		return false
	}
	l.core.forget(r.label)
	return true
}

// Receiving reports whether the link has consumer's ends.
func (l *Link) Receiving() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.core.in) > len(l.core.free)
}

// Again begins another stream to the same consumer, after this one has ended.
func (r *RecvStream) Again() *RecvStream { return r.link.Receive(r.inbox) }

// Received is how many messages have arrived.
func (r *RecvStream) Received() uint64 {
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	return r.flow.Received.Messages
}

// Owner is what NewInbox was given; nil of what Inbox.Nudge delivers.
func (r *RecvStream) Owner() any {
	if r.inbox == nil {
		return nil
	}
	return r.inbox.owner
}

// Peer is the name of the node that the stream comes from.
func (r *RecvStream) Peer() string { return r.link.peer }

// consumed is the inbox's word that messages of r were handled.
func (l *Link) consumed(r *RecvStream, messages, bytes int) {
	l.mu.Lock()
	l.core.consumed(r, messages, bytes)
	l.promptly(true) // a state record at most, and few of them
}

// Delist says that the consumer is in the directory no more. While it is
// connected it says itself what becomes of the stream. Else the stream takes no
// more messages, and keeps those that it has for ResumeTicks, as the consumer may
// come back for them.
func (s *SendStream) Delist() {
	l := s.link
	l.mu.Lock()
	if s.flags |= sendDelisted; s.failure == nil && s.flags&sendBound == 0 && !l.core.parted {
		if s.flags&sendUsed == 0 && s.flow.Accepted.Messages == 0 {
			l.core.giveUp(s)
		} else {
			l.core.depart(s)
		}
	}
	events := l.takeEvents()
	l.mu.Unlock()
	l.tellEvents(events)
}

// GiveUp is Delist for a consumer whose node is gone for good.
func (s *SendStream) GiveUp() {
	l := s.link
	l.mu.Lock()
	if s.flags |= sendDelisted; s.failure == nil && s.flags&sendBound == 0 {
		l.core.giveUp(s)
	}
	events := l.takeEvents()
	l.mu.Unlock()
	l.tellEvents(events)
}

// Relist takes Delist back.
func (s *SendStream) Relist() {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.flags &^= sendDelisted
}

// SetMark changes the high-water mark of the stream's channel on its link.
func (s *SendStream) SetMark(mark flow.Mark) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.to.Mark = mark
}

// Failure is why the stream has ended, nil if it has not, and Pending whether
// messages were accepted that its consumer's end may not have.
func (s *SendStream) Failure() (err error, pending bool) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.failure, s.acked < s.flow.Accepted.Messages
}

// TakeLoss is the error of a stream that has failed with messages in doubt, once;
// else nil.
func (s *SendStream) TakeLoss() error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.failure == nil || s.flags&sendTold != 0 || s.acked >= s.flow.Accepted.Messages {
		return nil
	}
	s.flags |= sendTold
	return s.failure
}

// Used reports whether a consumer has ever opened the stream.
func (s *SendStream) Used() bool {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.flags&sendUsed != 0
}

// Open reports whether the stream takes messages, now or once there is room.
func (s *SendStream) Open() bool {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.link.core.refusal(s) == nil
}

// Leaving reports whether the stream's consumer takes what was accepted, and no
// more.
func (s *SendStream) Leaving() bool {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.failure == nil && s.flags&sendLeaving != 0
}

// Left reports whether the stream's consumer leaves, or has left, in order.
func (s *SendStream) Left() bool {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.flags&sendLeaving != 0
}

// Pending reports whether the link holds messages that were accepted and not
// acknowledged.
func (l *Link) Pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.core.flows {
		for _, s := range f.streams {
			if s.acked < s.flow.Accepted.Messages {
				return true
			}
		}
	}
	for _, s := range l.core.leave {
		if s.acked < s.flow.Accepted.Messages {
			return true
		}
	}
	return false
}

// Unused reports whether the link has no stream at all.
func (l *Link) Unused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.core.flows {
		if len(f.streams) > 0 {
			return false
		}
	}
	return len(l.core.leave) == 0 && len(l.core.in) == len(l.core.free)
}

// Index is the consumer's index at its node, Peer that node's name.
func (s *SendStream) Index() int      { return int(s.index) }
func (s *SendStream) Peer() string    { return s.link.peer }
func (s *SendStream) Channel() string { return s.to.Channel }

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

// Flush waits until everything that the link has accepted so far is stored by
// its consumers' ends, or ctx ends. The error joins one for each stream that
// failed meanwhile with messages in doubt.
func (l *Link) Flush(ctx context.Context) error {
	l.mu.Lock()
	streams := slices.Clone(l.core.leave)
	for _, f := range l.core.flows {
		streams = append(streams, f.streams...)
	}
	l.mu.Unlock()
	var errs []error
	for _, s := range streams {
		if err := s.Flush(ctx); err != nil {
			if _, pending := s.Failure(); pending {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Flush waits until everything accepted so far is stored by the consumer's
// end, the stream fails, or ctx ends.
func (s *SendStream) Flush(ctx context.Context) error {
	l := s.link
	l.mu.Lock()
	if s.failure != nil || s.acked >= s.flow.Accepted.Messages {
		defer l.mu.Unlock()
		return s.failure
	}
	f := s.beginFlush()
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	select {
	case <-f.done:
		l.mu.Lock()
		defer l.mu.Unlock()
		return s.failure
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, g := range l.core.flushers {
			if g == f {
				l.core.flushers = append(l.core.flushers[:i], l.core.flushers[i+1:]...)
				break
			}
		}
		return ctx.Err()
	}
}

// beginFlush notes a Flush that waits for what is accepted now, and asks for the
// acknowledgement. Under mu.
func (s *SendStream) beginFlush() *flusher {
	c := &s.link.core
	f := &flusher{stream: s, until: s.flow.Accepted.Messages, done: make(chan struct{})}
	c.flushers = append(c.flushers, f)
	if !s.flow.Backlog() {
		c.mention(s, wire.BacklogAsk)
	}
	return f
}
