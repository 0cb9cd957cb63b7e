package link

import (
	"fmt"

	"github.com/zfab/zfab/fabric/internal/circuit"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Call is a circuit that the peer asks for. Whoever is told of it ends it with
// one of Take, Pass and Refuse, now or later.
type Call struct {
	link *Link
	end  *circuit.End
}

// From is who calls, To who is called, and Via the node by which that is reached:
// the caller's words.
func (k *Call) From() string { return k.end.From }
func (k *Call) To() string   { return k.end.To }
func (k *Call) Via() string  { return k.end.Via }

// Refuse ends the call, and says why.
func (k *Call) Refuse(code uint8, text string) {
	k.link.mu.Lock()
	k.link.core.circuits.Close(k.end, code, text)
	k.link.promptly(true)
}

// Take accepts the call: this process is who is called. It returns nil if the
// caller has given up.
func (k *Call) Take() *Circuit {
	c := newCircuit(k.link, fmt.Sprintf("via:%s/%s", k.link.peer, k.end.From))
	c.end = k.end
	k.link.mu.Lock()
	if k.end.Ended() {
		k.link.core.circuits.Close(k.end, wire.CodeDone, "")
		c = nil
	} else {
		c.accepted = true
		k.end.Sink = c
		k.link.core.circuits.Accept(k.end)
	}
	k.link.promptly(true)
	return c
}

// Pass hands the call on to another link: what arrives on the one is sent on the
// other from now on. An error says that it cannot be, and leaves the call as it is.
func (k *Call) Pass(to *Link) error {
	there, back := &pass{link: to}, &pass{link: k.link, end: k.end}
	there.back, back.back = back, there
	k.link.mu.Lock()
	if k.end.Ended() {
		k.link.core.circuits.Close(k.end, wire.CodeDone, "")
		k.link.promptly(true)
		return nil
	}
	k.end.Sink = there
	k.link.mu.Unlock()

	to.mu.Lock()
	if there.over {
		to.mu.Unlock()
		k.Refuse(wire.CodeDone, "")
		return nil
	}
	var err error
	if to.conn == nil || to.closed {
		err = errNoConnection
	} else {
		there.end, err = to.core.circuits.CallFor(k.link.peer, k.end.From, k.end.To, k.end.Via, back)
	}
	if err == nil {
		to.promptly(true)
		return nil
	}
	to.mu.Unlock()
	k.link.mu.Lock()
	ended := k.end.Ended()
	k.end.Sink = nil
	k.link.mu.Unlock()
	if ended {
		k.Refuse(wire.CodeDone, "")
		return nil
	}
	return err
}

// pass is the sink of a circuit that is passed on: its other half.
type pass struct {
	link *Link
	back *pass // immutable, as link is

	// under link.mu
	end  *circuit.End // nil until it was called
	over bool         // closed before that
}

// accept says that who is called has accepted.
func (p *pass) accept() *Link {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	p.link.core.circuits.Accept(p.end)
	return p.link
}

// packet passes a packet on that lies in from. It is kept where it is, as long as
// the circuit does not keep too much that way: a packet may be a small part of its
// buffer.
func (p *pass) packet(body []byte, from Retainer) *Link {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.end.Closing() || p.end.Ended() {
		return nil
	}
	parcel := circuit.Parcel{Body: body, Size: len(body), From: from}
	switch {
	case len(body) > copyMax && p.end.Last() == circuit.Lender(from):
		from.Retain()
	case len(body) > copyMax && p.end.Kept() < circuit.Window:
		from.Retain()
		parcel.Keeps = from.Cap()
	default:
		c := newChunk(packed, classOf(len(body)))
		c.buf = append(c.buf, body...)
		parcel.Body, parcel.From = c.buf, c
	}
	l.core.circuits.Send(p.end, parcel)
	return l
}

// close passes a close on, and what was sent before goes first.
func (p *pass) close(code uint8, text string) *Link {
	l := p.link
	l.mu.Lock()
	if p.end == nil {
		p.over = true
		l.mu.Unlock()
		return nil
	}
	gone := l.core.circuits.Close(p.end, code, text)
	l.mu.Unlock()
	if gone {
		return p.back.close(wire.CodeDone, "") // nobody will confirm what was never asked for
	}
	return l
}

// passed lends again as much as packets that were passed on have taken.
func (p *pass) passed(n uint64) {
	l := p.link
	l.mu.Lock()
	l.core.circuits.Passed(p.end, n)
	l.promptly(true)
}

// Nested reports whether l itself runs over a circuit.
func (l *Link) Nested() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, nested := l.conn.(*Circuit)
	return nested
}

// stir writes what is due, or has it written.
func (l *Link) stir() {
	l.mu.Lock()
	l.promptly(true)
}

// perform does what a move asks for, without a lock. It returns a link whose
// writer has something to do, or nil.
func (l *Link) perform(m *move) (stirred *Link) {
	switch sink := m.sink.(type) {
	case nil:
		l.cfg.Hooks.Called(l, &Call{l, m.end})
	case *pass:
		switch m.kind {
		case wire.KindAccept:
			return sink.accept()
		case wire.KindPacket:
			return sink.packet(m.body, m.from)
		default:
			return sink.close(m.code, m.text)
		}
	case *Circuit:
		switch m.kind {
		case wire.KindAccept:
			sink.accept()
		case wire.KindPacket:
			sink.packet(m.body, m.from)
		default:
			sink.hangUp(m.code, m.text)
		}
	}
	return nil
}

// cutOff tells the other ends of circuits that their connection has ended.
func (l *Link) cutOff(cut []*circuit.End, cause error) {
	if len(cut) == 0 {
		return
	}
	code, text := l.cfg.Hooks.Cut(l, cause)
	for _, e := range cut {
		if other := l.perform(&move{kind: wire.KindClose, end: e, sink: e.Sink, code: code, text: text}); other != nil {
			other.stir()
		}
	}
}

// tellPassed tells where the packets of a batch came from that they are out of the
// way. Without a lock.
func (b *batch) tellPassed() {
	for _, p := range b.passes {
		p.to.passed(p.n)
	}
	clear(b.passes)
	b.passes = b.passes[:0]
}
