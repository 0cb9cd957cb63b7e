package link

import (
	"github.com/zfab/zfab/fabric/internal/circuit"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// The circuits that the link carries for others: how they share it with its
// streams. Package circuit has the bookkeeping; what arrives is left in moves, and
// goes to other links and to connections without the lock.

// move is something that has happened to a circuit, in the order in which it was
// heard. Its body lies in the packet that was read.
type move struct {
	kind wire.Kind
	end  *circuit.End
	sink any // of end, then
	body []byte
	from Retainer
	code uint8
	text string
}

// passage says that packets which count n bytes have left end's queue: as much may
// come again where they came from.
type passage struct {
	to *pass
	n  uint64
}

// circuit takes a record of a circuit.
func (c *core) circuit(rec *wire.Record, from Retainer) error {
	if rec.Kind == wire.KindCircuit {
		e, err := c.circuits.Called(rec)
		if err != nil {
			return c.violation("%v", err)
		}
		c.moves = append(c.moves, move{kind: rec.Kind, end: e})
		return nil
	}
	e, err := c.circuits.Heard(rec)
	if err != nil {
		return c.violation("%v", err)
	}
	tell := true
	switch rec.Kind {
	case wire.KindAccept:
		tell, err = c.circuits.Accepted(e, rec.Limit)
	case wire.KindPacket:
		if tell, err = c.circuits.Packet(e, len(rec.Body)); !tell {
			c.stats.Late++
		}
	case wire.KindCredit:
		c.circuits.Credit(e, rec.Limit)
		tell = false
	case wire.KindClose:
		c.circuits.Closed(e)
	}
	if err != nil {
		return c.violation("%v", err)
	}
	if tell && e.Sink != nil {
		m := move{kind: rec.Kind, end: e, sink: e.Sink, body: rec.Body, from: from, code: rec.Code}
		if rec.Kind == wire.KindClose {
			m.text = string(rec.Text)
		}
		c.moves = append(c.moves, m)
	}
	return nil
}

// gatherBoth lets streams and circuits take turns: as many streams as there are
// active ones, then as many circuits, and so on. So all have the same share.
func (c *core) gatherBoth(b *batch) {
	for !b.full() && (c.ring != nil || c.circuits.Active() > 0) {
		if c.turns <= 0 {
			if c.carrying = !c.carrying; c.carrying {
				c.turns = c.circuits.Active()
			} else {
				c.turns = c.active
			}
			continue
		}
		c.turns--
		switch {
		case c.carrying && c.circuits.Active() > 0:
			c.carry(b)
		case !c.carrying && c.ring != nil:
			c.serve(c.ring.next, b)
		default:
			c.turns = 0
		}
	}
}

// carry gives the first of the active circuits its turn.
func (c *core) carry(b *batch) {
	e := c.circuits.Turn(quantum)
	for more := true; more && !b.full(); {
		var p circuit.Parcel
		var label uint32
		p, label, more = c.circuits.Take(e)
		b.carry(&p, label)
		if to, ok := e.Sink.(*pass); ok {
			b.pass(to, uint64(p.Size)+wire.PacketCost)
		}
	}
}

// carry adds p as a packet record.
func (b *batch) carry(p *circuit.Parcel, label uint32) {
	b.record(wire.PacketHeaderSize + p.Size)
	b.scratch = wire.AppendPacketHeader(b.scratch, label, p.Size)
	if p.Size <= copyMax {
		b.scratch = append(b.scratch, p.Body...)
		for _, part := range p.Parts {
			b.scratch = append(b.scratch, part...)
		}
		if p.From != nil {
			p.From.Release()
		}
		return
	}
	b.cut()
	if p.Body != nil {
		b.vec = append(b.vec, p.Body)
	}
	b.vec = append(b.vec, p.Parts...)
	if p.From != nil {
		b.loans = append(b.loans, p.From)
	}
}

func (b *batch) pass(to *pass, n uint64) {
	if last := len(b.passes) - 1; last >= 0 && b.passes[last].to == to {
		b.passes[last].n += n
		return
	}
	b.passes = append(b.passes, passage{to, n})
}
