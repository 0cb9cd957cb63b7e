package link

import (
	"time"

	"github.com/zfab/zfab/fabric/internal/circuit"
)

// StreamStats is one stream as one of its ends sees it. Positions count
// messages and bytes from the stream's begin.
type StreamStats struct {
	Peer      string
	Channel   string
	Index     int  // of the consumer at its node
	Receiving bool // the consumer's end

	Accepted, Sent, Acknowledged uint64 // messages; the producer's end
	Received                     uint64 // messages; the consumer's end
	Consumed                     uint64 // messages, as far as known here
	Limit                        uint64 // messages
	AcceptedBytes, SentBytes     uint64
	ReceivedBytes, ConsumedBytes uint64
	LimitBytes                   uint64
	Window                       uint64        // bytes lent; the consumer's end
	Blocked                      time.Duration // that Sends have waited, in all
	Waiting                      int           // Sends that wait now
}

// Depth is how many messages the stream holds at this end.
func (s *StreamStats) Depth() uint64 {
	if s.Receiving {
		return s.Received - s.Consumed
	}
	return s.Accepted - s.Consumed
}

// Stats appends the link's streams to list and returns its counters.
func (l *Link) Stats(list []StreamStats) ([]StreamStats, Counters) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.core.flows {
		for _, s := range f.streams {
			st := StreamStats{
				Peer: l.peer, Channel: s.to.Channel, Index: int(s.index),
				Accepted: s.flow.Accepted.Messages, AcceptedBytes: s.flow.Accepted.Bytes,
				Sent: s.flow.Sent.Messages, SentBytes: s.flow.Sent.Bytes, Acknowledged: s.acked,
				Consumed: s.flow.Consumed.Messages, ConsumedBytes: s.flow.Consumed.Bytes,
				Limit: s.flow.Limit.Messages, LimitBytes: s.flow.Limit.Bytes,
				Blocked: time.Duration(s.blocked),
			}
			for w := s.waiters; w != nil; w = w.next {
				st.Waiting++
			}
			list = append(list, st)
		}
	}
	for _, r := range l.core.in {
		if r == nil {
			continue
		}
		list = append(list, StreamStats{
			Peer: l.peer, Channel: r.inbox.flow.Channel, Index: int(r.inbox.index), Receiving: true,
			Received: r.flow.Received.Messages, ReceivedBytes: r.flow.Received.Bytes,
			Consumed: r.flow.Consumed.Messages, ConsumedBytes: r.flow.Consumed.Bytes,
			Limit: r.flow.Limit.Messages, LimitBytes: r.flow.Limit.Bytes,
			Window: r.flow.Window(),
		})
	}
	return list, l.core.stats
}

// CircuitView is where a circuit stands that runs over a link.
type CircuitView = circuit.View

// CircuitViews is where each circuit stands that runs over l.
func (l *Link) CircuitViews() []CircuitView {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.core.circuits.Views(nil)
}
