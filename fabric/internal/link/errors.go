package link

import (
	"errors"
	"fmt"
)

// ErrHighWater is what TrySend says when the stream holds as much as its
// high-water mark allows.
var ErrHighWater = errors.New("stream is at its high-water mark")

// ErrClosed is what everything says after Close.
var ErrClosed = errors.New("closed")

// TooLargeError is a message over what the other end accepts.
type TooLargeError struct{ Size, Max int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message of %d bytes is larger than the %d that are accepted", e.Size, e.Max)
}

// LostError ends a stream: its other end is gone. Messages are counted from
// the stream's begin. At the producer's end those before Acknowledged were
// stored by the consumer's end, and those from there to Accepted are in doubt.
// At the consumer's end those before Acknowledged arrived.
type LostError struct {
	Node                   string
	Channel                string
	Index                  int
	Reason                 string
	Acknowledged, Accepted uint64
	Receiving              bool // said at the consumer's end
	Stated                 bool // the other end said that something is missing
	Left                   bool // the consumer leaves in order: it takes what was accepted, and no more
}

func (e *LostError) Error() string {
	if e.Receiving {
		return fmt.Sprintf("stream of %s from node %s ended after %d messages: %s", e.Channel, e.Node, e.Acknowledged, e.Reason)
	}
	return fmt.Sprintf("stream of %s to consumer %s/%d: %s; %d messages acknowledged, %d in doubt",
		e.Channel, e.Node, e.Index, e.Reason, e.Acknowledged, e.Accepted-e.Acknowledged)
}

// ProtocolError is a fault of the peer's; it ends the connection.
type ProtocolError struct{ Node, Reason string }

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("node %s broke the protocol: %s", e.Node, e.Reason)
}

// errNoConnection: a circuit needs a link that is up.
var errNoConnection = errors.New("the link is down")

// CircuitError is why a circuit is not, or no longer, there.
type CircuitError struct {
	To   string // the other end's name
	Code uint8  // wire.CodeGone and others
	Text string
}

func (e *CircuitError) Error() string {
	return fmt.Sprintf("circuit with %s: %s (code %d)", e.To, e.Text, e.Code)
}

// ByeError is the peer's word that it closes the connection.
type ByeError struct {
	Node string
	Code uint8 // wire.CodeDone and others
	Text string
}

func (e *ByeError) Error() string {
	return fmt.Sprintf("node %s closed the link: %s (code %d)", e.Node, e.Text, e.Code)
}
