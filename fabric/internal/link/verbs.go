package link

import (
	"github.com/zfab/zfab/fabric/internal/flow"
)

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
