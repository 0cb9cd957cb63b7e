package circuit

import "github.com/zfab/zfab/fabric/internal/wire"

// Window is how many bytes an End lends: four writes of a full batch, so that two can be on
// their way while the credit for two comes back. With half of it each hop waits for the other
// after every batch, and nearly all of what is passed on is found waiting for credit.
const Window = 1 << 20

// Lender has lent the memory of a Parcel, and gets it back.
type Lender interface{ Release() }

// Parcel is a packet that is to be sent on a circuit.
type Parcel struct {
	Body  []byte   // the packet, if it lies in one piece
	Parts [][]byte // its pieces, if not
	Size  int      // of the packet, in bytes
	Keeps int      // memory, in bytes, that is not free before From is told, and not counted with the parcel before
	From  Lender   // told when the memory is free; nil: it needs no word
	Local bool     // who sends it waits until it is written, and can take it back
}

// cost is what a packet of size bytes counts of a circuit's credit.
func cost(size int) uint64 { return uint64(size) + wire.PacketCost }

// End is one side of a circuit, on one link. Its fields are under the lock of
// that link.
//
//	asked --accept--> open --close said--> closing --close heard--> gone
//	  \                 \---close heard--> ended ----close said-----/
//	   \--close heard--> ended
type End struct {
	// Sink is where what arrives goes. Nil until somebody has taken the circuit.
	Sink any

	From, To, Via string // names: who has called whom, by way of which node

	share    string // whose it takes, if it is passed on
	label    uint32
	deficit  int32
	flags    flags
	code     uint8  // of the close to say
	text     string // and its text
	next     *End   // in the ring of those with something to send
	nextSay  *End   // in the list of those with something to tell
	queue    []Parcel
	head     int    // of queue: those before it are sent
	queued   int    // bytes of credit that the queue takes
	kept     int    // bytes of memory that it keeps
	sent     uint64 // bytes of credit used
	limit    uint64 // and to be used, at most
	received uint64 // the same from the other side
	passed   uint64 // of them, those that are out of the way here
	lent     uint64
}

type flags uint16

const (
	mine       flags = 1 << iota // this side has chosen the label
	listed                       // in the list of those with something to tell
	active                       // in the ring
	askDue                       // circuit is to be said
	acceptDue                    // accept is to be said
	creditDue                    // credit is to be said
	closeDue                     // close is to be said, once the queue is empty
	open                         // accept was said or heard
	closeSaid                    //
	closeHeard                   //
	dead                         // the connection has ended, or the label is another's
)

// Closing reports whether this side has closed, or the connection has ended.
func (e *End) Closing() bool { return e.flags&(closeDue|closeSaid|dead) != 0 }

// Ended reports whether the other side has closed, or the connection has ended.
func (e *End) Ended() bool { return e.flags&(closeHeard|dead) != 0 }

// Ready reports whether a packet of size bytes would be sent at once.
func (e *End) Ready(size int) bool {
	return !e.Closing() && e.queued == 0 && e.sent+cost(size) <= e.limit
}

// Kept is how much memory, in bytes, the packets that wait keep from being used again:
// at most one piece of it more.
func (e *End) Kept() int { return e.kept }

// Last is who has lent the memory of the packet that was sent last, if it waits.
func (e *End) Last() Lender {
	if n := len(e.queue); n > e.head {
		return e.queue[n-1].From
	}
	return nil
}

// View is where an End stands.
type View struct {
	From, To, Via  string
	Calling        bool   // this side of the link has asked for the circuit
	Open           bool   // it is there from end to end
	Sent, Received uint64 // bytes, those that count for packets included
	Limit          uint64 // that Sent may reach
	Queued         int    // bytes that wait to be sent
}

func (e *End) view() View {
	return View{
		From: e.From, To: e.To, Via: e.Via, Calling: e.flags&mine != 0, Open: e.flags&open != 0,
		Sent: e.sent, Received: e.received, Limit: e.limit, Queued: e.queued,
	}
}

// front is the first parcel of the queue.
func (e *End) front() *Parcel { return &e.queue[e.head] }

// pop takes it off.
func (e *End) pop() Parcel {
	p := e.queue[e.head]
	e.queue[e.head] = Parcel{}
	e.queued -= int(cost(p.Size))
	e.kept -= p.Keeps
	if e.head++; e.head == len(e.queue) {
		e.queue, e.head = e.queue[:0], 0
		if cap(e.queue) > keepParcels {
			e.queue = nil
		}
	}
	return p
}

// keepParcels is how much room for parcels an empty queue keeps.
const keepParcels = 64

// drop empties the queue, of all parcels or just of those that can be taken back.
func (e *End) drop(all bool) {
	kept := e.queue[:0]
	for i := range e.queue[e.head:] {
		p := &e.queue[e.head+i]
		if !all && !p.Local {
			kept = append(kept, *p)
			continue
		}
		e.queued -= int(cost(p.Size))
		e.kept -= p.Keeps
		if p.From != nil {
			p.From.Release()
		}
	}
	clear(e.queue[len(kept):])
	e.queue, e.head = kept, 0
}
