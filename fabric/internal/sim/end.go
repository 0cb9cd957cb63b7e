package sim

import (
	"time"

	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// end is a node's end of a connection: its socket, and what reads and writes it.
//
//	greeting --hellos said, link bound--> bound --> closed
//	    \----------- refused ------------------------^
type end struct {
	conn    *conn
	node    *node
	other   *end
	out     pipe
	w       *world
	dialled bool

	reading bool
	closed  bool
	hear    func(*wire.Record) // takes the peer's hello or bye; nil once bound
	over    func()             // told when the end closes before it is bound

	peer    *peer          // whose link it is bound to
	writing *link.Outgoing // what the writer is just writing
	pumping bool           // the writer's next step is scheduled
	repeat  repeater
	heard   int  // the node's ticks when something was read last
	shaken  bool // a fault of this connection may have made it silent
}

// Sizes of the real transport.
const (
	placeMin  = 16 << 10 // bytes of a packet from which its place is asked for
	placeHead = 64       // bytes of it that must be there for that
)

// read begins to take what arrives.
func (e *end) read() {
	e.reading = true
	e.other.out.arm()
}

// arrived takes what the pipe brings.
func (e *end) arrived(it parcel) {
	switch {
	case it.final:
		e.close("the connection was reset")
	case it.short:
		e.begin(it.data, it.part) // the rest never comes
	case e.peer == nil:
		e.greeted(it.data)
	default:
		if dst := e.begin(it.data, len(it.data)); dst == nil {
			e.packet(it.data)
		}
	}
}

// greeted takes a packet that comes before the link has the connection.
func (e *end) greeted(p []byte) {
	var rec wire.Record
	if _, err := wire.Next(p, 0, &rec); err != nil {
		e.w.fail("%s: the packet before the first is bad: %v", e, err)
		return
	}
	e.w.logPacket(e.other.node, e.node, "reads", p)
	if e.hear != nil {
		e.hear(&rec)
	}
}

// begin reads a large packet, of which n bytes are there, right to its place,
// as the transport does if there is one. Until the rest has been read anything
// may happen.
func (e *end) begin(p []byte, n int) (dst []byte) {
	if e.peer == nil || len(p) < placeMin || n < placeHead || n == len(p) && e.w.dice.percent(40) {
		return nil
	}
	if dst = e.peer.drv.Place(p[:placeHead], len(p)); dst == nil {
		return nil
	}
	e.w.counts.add(placed, 1)
	e.peer.touched()
	at := len(p) - len(dst)
	copy(dst, p[min(at, n):n])
	if n < len(p) {
		return dst
	}
	e.reading = false
	e.w.at(e.w.now+e.w.dice.span(0, e.w.net.lag[1]), e.node, func() {
		if e.closed {
			return
		}
		e.w.logPacket(e.other.node, e.node, "reads", p)
		e.heard = e.node.ticks
		e.peer.drv.Placed()
		e.peer.touched()
		e.read()
	})
	return dst
}

// packet gives a packet to the link.
func (e *end) packet(p []byte) {
	w := e.w
	w.counts.add(packets, 1)
	e.heard = e.node.ticks
	w.logPacket(e.other.node, e.node, "reads", p)
	b := newBuffer(w.dice, p)
	peer := e.peer
	err := peer.drv.Packet(p, b)
	b.Release()
	peer.touched()
	if err == nil {
		return
	}
	if bye, ok := err.(*link.ByeError); ok {
		e.closeWith("the peer said bye", bye)
		return
	}
	w.fail("%s: %v", e.node, err)
}

// pump is the writer's step.
func (e *end) pump() {
	e.pumping = false
	w := e.w
	if e.closed || e.writing != nil || e.out.bytes >= w.plan.socket {
		return
	}
	if e.writing = e.peer.drv.Gather(); e.writing == nil {
		if e.peer.drv.Busy() {
			w.fail("%s: the writer is woken for nothing", e.node)
		}
		return
	}
	e.peer.touched()
	w.at(w.now+w.dice.span(0, w.plan.writeTime), e.node, func() {
		if !e.closed {
			e.wrote()
		}
	})
}

// wrote ends a write: its bytes are in the pipe.
func (e *end) wrote() {
	o := e.writing
	if o == nil {
		return
	}
	e.writing = nil
	w, list := e.w, o.Packets()
	o.Done()
	data := w.inspect(e, list)
	for _, p := range list {
		if w.plan.repeats {
			for _, q := range e.repeat.again(w.dice, p) {
				e.write(q)
			}
		} else {
			e.write(p)
		}
	}
	if o.Bye {
		e.closeWith("bye is said", nil)
		return
	}
	if data {
		w.aimed(e)
	}
	e.poke()
}

func (e *end) write(p []byte) {
	e.w.logPacket(e.node, e.other.node, "writes", p)
	e.out.write(p)
}

// poke wakes the writer if there is something for it.
func (e *end) poke() {
	if e.closed || e.pumping || e.writing != nil || e.peer == nil || e.out.bytes >= e.w.plan.socket || !e.peer.drv.Busy() {
		return
	}
	e.pumping = true
	e.w.at(e.w.now+e.w.dice.span(0, e.w.plan.wakeTime), e.node, e.pump)
}

// roomier says that the pipe has room again.
func (e *end) roomier() { e.poke() }

// say writes one packet by hand: a hello or bye.
func (e *end) say(p []byte) { e.write(p) }

// refuse says bye and closes.
func (e *end) refuse(code uint8, reason string) {
	if e.closed {
		return
	}
	e.say(wire.AppendBye(nil, code, reason))
	e.out.push(parcel{final: true})
	e.out.broken = true
	e.shut("refused: " + reason)
}

// close ends the connection from this side.
func (e *end) close(cause string) { e.closeWith(cause, nil) }

func (e *end) closeWith(cause string, bye *link.ByeError) {
	if e.closed {
		return
	}
	if e.writing != nil && e.w.dice.percent(50) {
		// The kernel had taken a part of it, or all.
		for _, p := range e.writing.Packets() {
			e.out.write(p)
		}
	}
	e.out.lose(true)
	peer := e.peer
	e.shut(cause)
	if peer != nil {
		peer.ended(e, bye)
	}
}

// shut marks the end as closed, and lets go of what it was doing.
func (e *end) shut(cause string) {
	w := e.w
	e.closed, e.reading = true, false
	w.log(e.node, "closes %s to %s: %s", e.conn, e.other.node, cause)
	e.other.out.arm() // what still comes is dropped
	if e.other.closed {
		w.net.over()
	}
	if e.over != nil {
		over := e.over
		e.over = nil
		over()
	}
}

// in is how many bytes are under way to this end.
func (e *end) in() int { return e.other.out.bytes }

func (e *end) String() string { return e.node.String() + " " + e.conn.String() }

// buffer is memory that a packet was read to. It is overwritten as soon as
// nobody holds it, as a connection does that reads on.
type buffer struct {
	mem      []byte
	capacity int
	refs     int
}

func newBuffer(d dice, p []byte) *buffer {
	return &buffer{mem: p, capacity: one(d, len(p), len(p)*8, 256<<10), refs: 1}
}

func (b *buffer) Retain() {
	if b.refs++; b.refs <= 1 {
		panic("sim: a buffer is retained that nobody holds")
	}
}

func (b *buffer) Release() {
	b.refs--
	switch {
	case b.refs < 0:
		panic("sim: a buffer is released twice")
	case b.refs == 0:
		for i := range b.mem {
			b.mem[i] = 0xdb
		}
	}
}

func (b *buffer) Cap() int { return b.capacity }

const never = time.Duration(1<<63 - 1)
