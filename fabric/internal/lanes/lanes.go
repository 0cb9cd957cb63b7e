// Package lanes has the few bytes by which one connection with the directory is that of several clients: a node passes
// on what its workers and the directory say to each other, and the part of the connection that is one worker's is its
// lane. A frame before each message says which; the frames behind it are the worker's and the directory's as they are.
// PROTOCOL.md of package directory tells it to those who write a relay.
package lanes

import (
	"encoding/binary"
	"fmt"
)

// Identity begins the identity of a connection that has lanes.
const Identity = "directory-relay-"

// Kind is what a message on such a connection is.
type Kind byte

const (
	Open    Kind = 'o' // from the relay: a client is there; one frame follows, its identity
	Message Kind = 'm' // of a client, or to it: its frames follow
	End     Kind = 'e' // a client has gone, or is to go; no frame follows. The directory says it last, and once of each lane
)

// HeaderSize is how many bytes a message's first frame has.
const HeaderSize = 9

// MaxLanes bounds the lanes of one connection: those that the relay has opened, and of which the directory has not told
// the end. One more is a fault of the relay, which ends the connection.
const MaxLanes = 2048

// What the directory takes of a client as one message, with a lane or without. A larger one ends the connection that it
// comes on: so a relay passes none on. A client that asks more loses its own connection with the relay.
const (
	MaxFrame   = 320 << 10        // bytes of a frame: of a request's body
	MaxMessage = MaxFrame + 8<<10 // bytes of all frames: and of an envelope
	MaxFrames  = 17               // an envelope's and the body
)

// Fits reports whether the directory takes a client's message.
func Fits(message [][]byte) bool {
	bytes := 0
	for _, frame := range message {
		if len(frame) > MaxFrame {
			return false
		}
		bytes += len(frame)
	}
	return len(message) <= MaxFrames && bytes <= MaxMessage
}

// Size is how many bytes a message takes in memory, about.
func Size(message [][]byte) (bytes int) {
	for _, frame := range message {
		bytes += len(frame) + frameOverhead
	}
	return bytes
}

const frameOverhead = 64 // of a slice, and of what it is allocated in

// Append appends a message's first frame. The relay numbers its clients, and gives no number twice on a connection.
func Append(dst []byte, kind Kind, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(kind)), number)
}

// Parse takes a message apart. The rest lies in frames.
func Parse(frames [][]byte) (kind Kind, number uint64, rest [][]byte, err error) {
	if len(frames) == 0 || len(frames[0]) != HeaderSize {
		return 0, 0, nil, fmt.Errorf("a message without a lane's header of %d bytes", HeaderSize)
	}
	kind, number, rest = Kind(frames[0][0]), binary.BigEndian.Uint64(frames[0][1:]), frames[1:]
	if kind == Open && len(rest) == 1 || kind == Message && len(rest) > 0 || kind == End && len(rest) == 0 {
		return kind, number, rest, nil
	}
	return 0, 0, nil, fmt.Errorf("a message of kind %q with %d frames on a lane", byte(kind), len(rest))
}
