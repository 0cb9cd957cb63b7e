package circuit

import "github.com/zfab/zfab/fabric/internal/wire"

// What a link's writer asks for.

// Busy reports whether there is anything to write.
func (t *Table) Busy() bool { return t.ring != nil || t.say.first != nil }

// Active is how many circuits have packets to send and credit to send them.
func (t *Table) Active() int { return t.active }

// Telling reports whether there is a record for Say.
func (t *Table) Telling() bool {
	for t.say.first != nil && !t.say.first.telling() {
		t.unlist()
	}
	return t.say.first != nil
}

// telling reports whether e has something to tell.
func (e *End) telling() bool {
	return e.flags&dead == 0 && (e.flags&(askDue|acceptDue|creditDue) != 0 || e.flags&closeDue != 0 && e.queued == 0)
}

// unlist takes the first off the list of those with something to tell.
func (t *Table) unlist() {
	e := t.say.first
	e.flags &^= listed
	if t.say.first = e.nextSay; t.say.first == nil {
		t.say.last = nil
	}
	e.nextSay = nil
}

// Say appends one record of the first End that has something to tell: Telling has
// said that there is one.
func (t *Table) Say(b []byte) []byte {
	e := t.say.first
	switch {
	case e.flags&askDue != 0:
		e.flags &^= askDue
		b = wire.AppendCircuit(b, e.label, e.From, e.To, e.Via, e.lent)
	case e.flags&acceptDue != 0:
		e.flags &^= acceptDue
		b = wire.AppendAccept(b, e.label, e.lent)
	case e.flags&creditDue != 0:
		e.flags &^= creditDue
		e.lent = e.passed + Window
		b = wire.AppendCredit(b, e.label, e.lent)
	default:
		e.flags = e.flags&^closeDue | closeSaid
		b = wire.AppendClose(b, e.label, e.code, e.text)
		t.over(e)
	}
	if !e.telling() {
		t.unlist()
	}
	return b
}

// ready puts e into the ring if its first packet may be sent.
func (t *Table) ready(e *End) {
	if e.flags&(active|dead) != 0 || e.queued == 0 || e.sent+cost(e.front().Size) > e.limit {
		return
	}
	e.flags |= active
	t.active++
	if t.ring == nil {
		e.next = e
	} else {
		e.next = t.ring.next
		t.ring.next = e
	}
	t.ring = e
}

// look looks whether e belongs into the ring, after its first packet was taken back.
func (t *Table) look(e *End) {
	if e.flags&active != 0 && (e.queued == 0 || e.sent+cost(e.front().Size) > e.limit) {
		t.leave(e)
	}
	t.ready(e)
}

// leave takes e out of the ring. The search is paid for only when a circuit ends
// with packets on their way.
func (t *Table) leave(e *End) {
	prev := e
	for prev.next != e {
		prev = prev.next
	}
	t.drop(prev, e)
}

// drop takes e, which follows prev, out of the ring.
func (t *Table) drop(prev, e *End) {
	if prev == e {
		t.ring = nil
	} else if prev.next = e.next; t.ring == e {
		t.ring = prev
	}
	e.next, e.deficit = nil, 0
	e.flags &^= active
	t.active--
}

// Turn begins the turn of the first in the ring, which may send quantum bytes
// more than it has left. One that has sent far more than its share, as packets can
// be larger than a quantum, waits a turn or two.
func (t *Table) Turn(quantum int32) *End {
	for {
		e := t.ring.next
		if e.deficit <= 0 {
			e.deficit += quantum
		}
		if e.deficit > 0 {
			return e
		}
		t.ring = e
	}
}

// Take takes the next packet off e, whose turn it is, and says with which label it
// goes. More is false if its turn is over.
func (t *Table) Take(e *End) (p Parcel, label uint32, more bool) {
	p = e.pop()
	n := cost(p.Size)
	e.sent += n
	e.deficit -= int32(n)
	switch {
	case e.queued == 0 || e.sent+cost(e.front().Size) > e.limit:
		t.drop(t.ring, e)
		if e.queued == 0 && e.flags&closeDue != 0 {
			t.tell(e, closeDue)
		}
	case e.deficit <= 0:
		t.ring = e
	default:
		more = true
	}
	return p, e.label, more
}
