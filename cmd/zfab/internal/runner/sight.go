package runner

import (
	"context"
	"time"

	"github.com/zfab/zfab/fabric"
)

// A question asks a node how its link to a peer stands, and the streams on it.
type question struct {
	Peer string `json:"peer"`
	// Until is what the answer waits for; answered at once if it is empty.
	Until condition `json:"until,omitempty"`
	// Connections is how many connections the link had before; see condition.
	Connections uint64 `json:"connections,omitempty"`
	// Sending and Receiving are positions before that have to be passed.
	Sending   []position `json:"sending,omitempty"`
	Receiving []position `json:"receiving,omitempty"`
}

// A condition of a link and its streams.
type condition string

const (
	// passed: of the streams of Sending more is acknowledged, and on those of
	// Receiving more has come, unless the stream has ended.
	passed condition = "passed"
	// reconnected is passed over another connection than those before.
	reconnected condition = "reconnected"
	// busy: messages to the peer are in flight.
	busy condition = "busy"
	// down: the last of the connections before has ended.
	down condition = "down"
)

// A sight is the answer.
type sight struct {
	At          time.Duration `json:"at"`          // of the run
	Connections uint64        `json:"connections"` // that the link had, the present one included
	Up          bool          `json:"up"`
	Sending     []position    `json:"sending"`
	Receiving   []position    `json:"receiving"`
}

// A position is how far a stream is, in messages from its begin.
type position struct {
	Channel  string `json:"channel"`
	Consumer int    `json:"consumer"` // its index at its node
	Accepted uint64 `json:"accepted"` // received, where this is the consumer's end
	Stored   uint64 `json:"stored"`   // acknowledged; the same as Accepted at the consumer's end
}

func (p position) inFlight() uint64 { return p.Accepted - p.Stored }

// inFlight is how many messages to the peer were accepted and not acknowledged.
func (s *sight) inFlight() uint64 {
	n := uint64(0)
	for _, p := range s.Sending {
		n += p.inFlight()
	}
	return n
}

// look is the link to a peer as the node's statistics have it.
func look(node *fabric.Node, peer string, c clock) *sight {
	st := node.Stats()
	s := &sight{At: c.now()}
	for _, l := range st.Links {
		if l.Peer == peer {
			s.Connections, s.Up = l.Connections, l.Up
		}
	}
	for _, p := range st.Streams {
		switch {
		case p.Peer != peer:
		case p.Receiving:
			s.Receiving = append(s.Receiving, position{p.Channel, p.Consumer, p.Messages, p.Messages})
		default:
			s.Sending = append(s.Sending, position{p.Channel, p.Consumer, p.Messages, p.Acknowledged})
		}
	}
	return s
}

// meets reports whether s is what the question waits for.
func (s *sight) meets(q question) bool {
	switch q.Until {
	case passed:
		return beyond(s.Sending, q.Sending) && beyond(s.Receiving, q.Receiving)
	case reconnected:
		return s.Connections > q.Connections && beyond(s.Sending, q.Sending) && beyond(s.Receiving, q.Receiving)
	case busy:
		return s.inFlight() > 0
	case down:
		return !s.Up || s.Connections > q.Connections
	}
	return true
}

// beyond reports whether every stream of before is further now, or another one
// is in its place.
func beyond(now, before []position) bool {
	for _, b := range before {
		for _, n := range now {
			same := n.Channel == b.Channel && n.Consumer == b.Consumer && n.Accepted >= b.Accepted
			if same && n.Stored <= b.Stored {
				return false
			}
		}
	}
	return true
}

// lookInterval is how exactly a recovery is measured.
const lookInterval = time.Millisecond

// answer answers q, or returns ctx's error.
func (m *member) answer(ctx context.Context, q question) (*sight, error) {
	if s := look(m.node, q.Peer, m.clock); s.meets(q) {
		return s, nil
	}
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
		if s := look(m.node, q.Peer, m.clock); s.meets(q) {
			return s, nil
		}
	}
}
