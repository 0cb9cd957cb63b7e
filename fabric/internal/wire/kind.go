package wire

import "fmt"

// Version is the protocol's version, the first thing a hello says.
const Version = 2

// Kind is the first element of a record.
type Kind uint8

// The kinds of record. Those above LastKind are not known to this version.
// "Forward" is from the producer's end of a stream to the consumer's end;
// "back" is the other way.
const (
	KindHello    Kind = 0  // both: who speaks, the first record on a connection
	KindOpen     Kind = 1  // back: a consumer asks for a stream and labels it
	KindData     Kind = 2  // forward: a run of whole messages
	KindFragment Kind = 3  // forward: a piece of one message
	KindEnd      Kind = 4  // forward: a producer has finished
	KindState    Kind = 5  // back: next expected, consumed, limit
	KindBacklog  Kind = 6  // forward: what waits at the producer's end
	KindCancel   Kind = 7  // back: the consumer's end gives the stream up
	KindReset    Kind = 8  // forward: the producer's end gives the stream up
	KindPing     Kind = 9  // both: are you there
	KindPong     Kind = 10 // both: I am
	KindBye      Kind = 11 // both: the speaker closes this connection, and why
	KindCircuit  Kind = 12 // both: the speaker asks for a circuit and labels it
	KindAccept   Kind = 13 // both: the circuit is there from end to end
	KindPacket   Kind = 14 // both: a packet of what runs over the circuit
	KindCredit   Kind = 15 // both: how much may be sent on the circuit
	KindClose    Kind = 16 // both: the circuit is not, or no longer, there

	// LastKind is the greatest that this version knows.
	LastKind = KindClose

	// NoKind is no record's kind: it stands in a Record or a FormatError for
	// one that could not be read.
	NoKind Kind = 255
)

// arity is the number of elements of a record's array, kind included.
var arity = [...]int{
	KindHello: 6, KindOpen: 5, KindData: 5, KindFragment: 7, KindEnd: 4,
	KindState: 9, KindBacklog: 7, KindCancel: 4, KindReset: 4, KindPing: 2,
	KindPong: 2, KindBye: 3, KindCircuit: 6, KindAccept: 3, KindPacket: 3,
	KindCredit: 3, KindClose: 4,
}

var kindNames = [...]string{
	"hello", "open", "data", "fragment", "end", "state", "backlog", "cancel",
	"reset", "ping", "pong", "bye", "circuit", "accept", "packet", "credit",
	"close",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Limits of the format, the same for every implementation.
const (
	// MaxFragment is the most that one data or fragment record carries of
	// message bodies, in bytes: it bounds how long one stream keeps the link.
	MaxFragment = 64 << 10
	// MaxPacket is the most a packet may be, in bytes.
	MaxPacket = 128 << 10
	// MaxRun is the most messages that one data record carries.
	MaxRun = 1<<16 - 1
	// MaxText bounds every string in a record, in bytes.
	MaxText = 255
	// MaxCarried is the most that one packet record carries, in bytes: so many
	// fit a packet. What may run over a circuit makes no larger packets.
	MaxCarried = MaxPacket - PacketHeaderSize
	// PacketCost is what a packet record counts of a circuit's credit beside the
	// bytes that it carries: that bounds how many of them wait somewhere.
	PacketCost = 64
)

// Flags of a backlog record.
const (
	BacklogBlocked = 1 << 0 // a message waits and the limit does not admit it
	BacklogWaiting = 1 << 1 // a Send waits at the high-water mark
	BacklogRelease = 1 << 2 // unused credit is handed back: limit := sent
	BacklogAsk     = 1 << 3 // the producer's end wants a state record now
)

// Codes of cancel, reset, bye and close.
const (
	CodeDone      = 0 // an orderly end
	CodeUnknown   = 1 // no such channel, stream or producer
	CodeProtocol  = 2 // the peer broke the protocol; the text says how
	CodeDuplicate = 3 // this connection lost against another of the same pair
	CodeFenced    = 4 // the peer is an incarnation older than one already seen
	CodeRefused   = 5 // not allowed, or over a limit
	CodeLost      = 6 // the position asked for is no longer held
	CodeBusy      = 7 // come back later
	CodeDrain     = 8 // cancel only: send what was accepted, then reset
	CodeGone      = 9 // close only: the process at the other end has ended, and will not come back
)

// FormatError says what in a packet broke the format, and where.
type FormatError struct {
	Offset int    // byte of the packet
	Kind   Kind   // of the record; NoKind if that could not be read
	Reason string // what is wrong
}

func (e *FormatError) Error() string {
	if e.Kind == NoKind {
		return fmt.Sprintf("wire: byte %d: %s", e.Offset, e.Reason)
	}
	return fmt.Sprintf("wire: %s record: byte %d: %s", e.Kind, e.Offset, e.Reason)
}
