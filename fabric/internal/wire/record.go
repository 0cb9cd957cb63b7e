package wire

// Record is one decoded record. Which fields hold something depends on Kind;
// Body, Text and the strings point into the packet.
type Record struct {
	Kind     Kind
	Stream   uint32 // or the circuit's label
	Producer uint32 // data, fragment, end: index of the producer at its node
	Seq      uint64 // data, fragment, end: position of the first message

	// data: Count messages with Bytes of bodies in all, coded in Body as
	// NextMessage reads them. fragment: Body is the piece. packet: Body is a
	// packet that runs over the circuit.
	Count int
	Bytes int
	Body  []byte

	Total  uint32 // fragment: the whole message's size
	Offset uint32 // fragment: where the piece belongs

	State   State
	Backlog Backlog

	Code  uint8  // cancel, reset, bye, close
	Text  []byte // cancel, reset, bye, close: for people; open: the channel; circuit: who is called
	Index uint32 // open: the consumer's index at its node
	// Instance tells an open that goes on with a stream from one that begins
	// anew: the consumer's end never gives two streams the same.
	Instance uint64
	Nonce    uint64 // ping, pong
	From     []byte // circuit: who calls
	Via      []byte // circuit: the node by which who is called is reached
	Limit    uint64 // circuit, accept, credit: what may be sent towards the speaker
	Hello    HelloView
}

// State is all that a consumer's end has to say of a stream: the
// acknowledgement (everything before Next and the first Offset bytes of the
// message at Next are stored), the settlement (everything before the consumed
// positions was handled) and the credit (nothing at or beyond the limits may
// be sent). Positions are absolute, counted from the stream's begin.
type State struct {
	Stream           uint32
	Epoch            uint32 // of the credit: see Backlog.Epoch
	Next             uint64
	Offset           uint32
	ConsumedMessages uint64
	ConsumedBytes    uint64
	LimitMessages    uint64
	LimitBytes       uint64
}

// Backlog is what the producer's end says of a stream: up to where messages
// wait there, and how large the next unsent one is. With BacklogRelease it
// hands unused credit back and begins a new epoch: limits of an older epoch
// count no longer.
type Backlog struct {
	Stream      uint32
	Epoch       uint32
	EndMessages uint64
	EndBytes    uint64
	NextSize    uint32
	Flags       uint8
}

// Hello is the first record on every connection, from either side.
type Hello struct {
	Version     uint8
	Node        string
	Incarnation uint64
	MaxMessage  uint32 // the largest message that the speaker accepts, bytes
	// Connection numbers the connections of the pair. The dialler says the
	// number of the last one that it knows of, 0 if none; the acceptor answers
	// with this one's, greater than both know. It tells a connection that
	// replaces a broken one from a second one dialled at the same time.
	Connection uint64
}

// HelloView is a decoded Hello; Node points into the packet.
type HelloView struct {
	Version     uint8
	Node        []byte
	Incarnation uint64
	MaxMessage  uint32
	Connection  uint64
}
