// Package check makes a loss visible: producers stamp every message with who
// sent it to whom, its number in that stream and a checksum over all of it, and
// a Checker at each consumer holds what arrives against the stamps.
//
// A stamped message, all numbers little-endian:
//
//	 0  checksum   xxhash64 of everything after it
//	 8  producer   its number in the channel
//	12  consumer   its number in the channel, or ToAll
//	16  sequence   0, 1, 2 ... per stream, and in its highest 24 bits the epoch
//	24  planned    when it was to be sent, in nanoseconds of the run; 0: not measured
//	32  filling    the sequence and the offset again at the start of each block
//
// The filling differs from message to message and block to block, so that a
// part of one message in place of the same part of another is seen.
package check

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

const (
	// StampSize is the size of the smallest message that can be stamped.
	StampSize = 32
	// blockSize is below the fragments that the fabric cuts messages into
	// (64 KiB at most), so that every fragment has a mark of its own.
	blockSize = 4096
	// ToAll is the consumer of a message that goes to all of them.
	ToAll = 1<<32 - 1
)

// An Epoch tells the streams of one producer to one consumer apart that follow
// each other: the life of the producer's node in its higher half, and in its
// lower one how many streams that life has lost to the same consumer. Where
// nobody dies there is one stream, of epoch 0. Later epochs are greater.
type Epoch uint32

const (
	// MaxLife and MaxLoss bound an epoch's halves.
	MaxLife = 1<<epochHalf - 1
	MaxLoss = 1<<epochHalf - 1

	epochHalf    = 12
	sequenceBits = 64 - 2*epochHalf
)

// NewEpoch is the epoch of a life's stream after so many losses.
func NewEpoch(life, losses int) Epoch { return Epoch(life<<epochHalf | losses) }

// Life is the life of the producer's node.
func (e Epoch) Life() int { return int(e >> epochHalf) }

// A Stamp is what a message says of itself.
type Stamp struct {
	Producer uint32
	Consumer uint32
	Epoch    Epoch
	Sequence uint64
	Planned  int64 // nanoseconds since the start of the run; 0: not measured
}

// Seal writes s into body, which is StampSize bytes or longer and wholly the
// caller's.
func Seal(body []byte, s Stamp) {
	le := binary.LittleEndian
	le.PutUint32(body[8:], s.Producer)
	le.PutUint32(body[12:], s.Consumer)
	le.PutUint64(body[16:], uint64(s.Epoch)<<sequenceBits|s.Sequence)
	le.PutUint64(body[24:], uint64(s.Planned))
	for at := StampSize; at+8 <= len(body); at += blockSize {
		le.PutUint64(body[at:], s.Sequence<<20^uint64(at/blockSize))
	}
	le.PutUint64(body, xxhash.Sum64(body[8:]))
}

// Open reads the stamp of body; false if the body is damaged.
func Open(body []byte) (Stamp, bool) {
	if len(body) < StampSize {
		return Stamp{}, false
	}
	le := binary.LittleEndian
	if le.Uint64(body) != xxhash.Sum64(body[8:]) {
		return Stamp{}, false
	}
	return Stamp{
		Producer: le.Uint32(body[8:]),
		Consumer: le.Uint32(body[12:]),
		Epoch:    Epoch(le.Uint64(body[16:]) >> sequenceBits),
		Sequence: le.Uint64(body[16:]) & (1<<sequenceBits - 1),
		Planned:  int64(le.Uint64(body[24:])),
	}, true
}
