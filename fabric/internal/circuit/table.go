package circuit

import (
	"errors"
	"fmt"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// MaxCalls is how many circuits one side of a link may have asked for at a time:
// those of a worker with every worker of 1,000 hosts with 16 each.
const MaxCalls = 1 << 14

// MaxShare is how many of them may come from one other link, so that a worker or
// a node that asks for all that it gets leaves labels for the others: two for each
// pair of workers of two large hosts' links.
const MaxShare = 1 << 11

// ErrFull: the link carries as many circuits as it may.
var ErrFull = errors.New("the link carries as many circuits as it may")

// errViolation is how the peer broke the protocol.
func errViolation(format string, args ...any) error { return fmt.Errorf(format, args...) }

// Table is all circuits of one link, as one of its sides sees them. The zero
// value is ready once Begin was called. Its methods are for whoever holds the
// link's lock.
type Table struct {
	odd    bool // this side's labels are odd
	mine   []*End
	theirs []*End   // by half the label, as mine
	free   []uint32 // of mine, halved
	ring   *End     // last of the active ones, in turn
	active int      // how many are in the ring
	say    struct{ first, last *End }
	count  int            // ends that are not gone
	shares map[string]int // of mine, by whom they come from
}

// Begin begins a connection. Odd says which labels this side chooses.
func (t *Table) Begin(odd bool) { *t = Table{odd: odd} }

// CallFor is Call on behalf of another link's peer, within its share.
func (t *Table) CallFor(share, from, to, via string, sink any) (*End, error) {
	if t.shares[share] >= MaxShare {
		return nil, ErrFull
	}
	e, err := t.Call(from, to, via, sink)
	if err != nil {
		return nil, err
	}
	if t.shares == nil {
		t.shares = make(map[string]int)
	}
	e.share = share
	t.shares[share]++
	return e, nil
}

// End ends the connection, and returns the circuits that were there: their sinks
// are to be told, unless they have heard close.
func (t *Table) End() (cut []*End) {
	for _, list := range [][]*End{t.mine, t.theirs} {
		for _, e := range list {
			if e == nil {
				continue
			}
			told := e.Ended()
			e.drop(true)
			e.flags = e.flags&mine | dead
			if !told && e.Sink != nil {
				cut = append(cut, e)
			}
		}
	}
	*t = Table{odd: t.odd}
	return cut
}

// Len is how many circuits there are.
func (t *Table) Len() int { return t.count }

// Views appends where each circuit stands.
func (t *Table) Views(list []View) []View {
	for _, ends := range [][]*End{t.mine, t.theirs} {
		for _, e := range ends {
			if e != nil {
				list = append(list, e.view())
			}
		}
	}
	return list
}

// Call asks for a circuit.
func (t *Table) Call(from, to, via string, sink any) (*End, error) {
	var half uint32
	switch n := len(t.free); {
	case n > 0:
		half, t.free = t.free[n-1], t.free[:n-1]
	case len(t.mine) < MaxCalls:
		half = uint32(len(t.mine))
		t.mine = append(t.mine, nil)
	default:
		return nil, ErrFull
	}
	e := &End{Sink: sink, From: from, To: to, Via: via, label: half << 1, flags: mine, lent: Window}
	if t.odd {
		e.label |= 1
	}
	t.mine[half] = e
	t.count++
	t.tell(e, askDue)
	return e, nil
}

// Called takes the peer's circuit record.
func (t *Table) Called(r *wire.Record) (*End, error) {
	half := r.Stream >> 1
	switch {
	case (r.Stream&1 != 0) == t.odd:
		return nil, errViolation("circuit labelled %d, which is this side's to choose", r.Stream)
	case half >= MaxCalls:
		return nil, errViolation("circuit labelled %d: at most %d are allowed", r.Stream, MaxCalls)
	case int(half) < len(t.theirs) && t.theirs[half] != nil:
		return nil, errViolation("circuit label %d is in use", r.Stream)
	}
	for int(half) >= len(t.theirs) {
		t.theirs = append(t.theirs, nil)
	}
	e := &End{From: string(r.From), To: string(r.Text), Via: string(r.Via), label: r.Stream, limit: r.Limit}
	t.theirs[half] = e
	t.count++
	return e, nil
}

// Heard finds the circuit of any other record.
func (t *Table) Heard(r *wire.Record) (*End, error) {
	list := t.theirs
	if (r.Stream&1 != 0) == t.odd {
		list = t.mine
	}
	half := r.Stream >> 1
	if uint64(half) >= uint64(len(list)) || list[half] == nil {
		return nil, errViolation("%s record of circuit %d, which is not there", r.Kind, r.Stream)
	}
	e := list[half]
	if e.flags&closeHeard != 0 {
		return nil, errViolation("%s record of circuit %d, which was closed", r.Kind, r.Stream)
	}
	return e, nil
}

// Accepted takes the peer's accept record. It reports whether the sink is to be told.
func (t *Table) Accepted(e *End, limit uint64) (bool, error) {
	if e.flags&(mine|open) != mine {
		return false, errViolation("circuit %d accepted, which nobody had asked for", e.label)
	}
	e.flags |= open
	t.Credit(e, limit)
	return !e.Closing(), nil
}

// Credit takes the peer's limit.
func (t *Table) Credit(e *End, limit uint64) {
	if limit > e.limit && e.flags&dead == 0 {
		e.limit = limit
		t.ready(e)
	}
}

// Packet takes a packet of size bytes. It reports false if nobody wants it any
// more.
func (t *Table) Packet(e *End, size int) (bool, error) {
	if e.flags&open == 0 {
		return false, errViolation("packet on circuit %d, which is not open", e.label)
	}
	if e.received += cost(size); e.received > e.lent {
		return false, errViolation("packet beyond the limit of circuit %d", e.label)
	}
	return !e.Closing(), nil
}

// Closed takes the peer's close. The sink is to be told, also if this side has
// closed before: what is joined to the End may go now.
func (t *Table) Closed(e *End) {
	e.flags |= closeHeard
	e.flags &^= acceptDue | creditDue | askDue
	t.over(e)
}

// Accept takes the circuit that the peer has asked for.
func (t *Table) Accept(e *End) {
	if e.flags&(mine|open|acceptDue) != 0 || e.Closing() || e.Ended() {
		return
	}
	e.flags |= open
	e.lent = Window
	t.tell(e, acceptDue)
}

// Passed says that packets that count n bytes are out of the way, so that as much
// can be lent again. It is told by the half of a window: more often costs more
// system calls, and less often has the other side wait for it.
func (t *Table) Passed(e *End, n uint64) {
	if e.Closing() || e.Ended() {
		return
	}
	e.passed += n
	if e.passed+Window-e.lent >= Window/2 {
		t.tell(e, creditDue)
	}
}

// Send puts p into e's queue. It reports false, and leaves p alone, if nothing can
// be sent on e any more.
func (t *Table) Send(e *End, p Parcel) bool {
	if e.Closing() || e.Ended() {
		return false
	}
	e.queue = append(e.queue, p)
	e.queued += int(cost(p.Size))
	e.kept += p.Keeps
	t.ready(e)
	return true
}

// Close closes e from this side; what it has been given to send goes first,
// except what its sender waits for. It reports whether e is gone already, and the
// peer will say nothing of it.
func (t *Table) Close(e *End, code uint8, text string) (gone bool) {
	if e.Closing() {
		return false
	}
	e.code, e.text = code, text
	if e.flags&askDue != 0 {
		// The peer has never heard of it.
		e.flags &^= askDue
		e.flags |= closeSaid | closeHeard
		t.over(e)
		return true
	}
	// Who has closed reads no more, and what waits for credit would never go.
	e.drop(e.flags&closeHeard != 0)
	e.flags = e.flags&^creditDue | closeDue
	if e.queued == 0 {
		t.tell(e, closeDue)
	}
	t.look(e)
	return false
}

// TakeBack takes out of e's queue what its sender waits for.
func (t *Table) TakeBack(e *End) {
	e.drop(false)
	t.look(e)
}

// over frees the label once both sides have closed.
func (t *Table) over(e *End) {
	if e.flags&closeHeard != 0 {
		if e.drop(true); e.flags&active != 0 {
			t.leave(e)
		}
		if e.flags&closeDue != 0 {
			t.tell(e, closeDue)
		}
	}
	if e.flags&(closeSaid|closeHeard) != closeSaid|closeHeard || e.flags&dead != 0 {
		return
	}
	half := e.label >> 1
	if e.flags&mine != 0 {
		t.mine[half] = nil
		t.free = append(t.free, half)
	} else {
		t.theirs[half] = nil
	}
	t.count--
	e.flags |= dead
	if e.share != "" {
		if t.shares[e.share]--; t.shares[e.share] == 0 {
			delete(t.shares, e.share)
		}
	}
}

// tell puts e into the list of those with something to tell.
func (t *Table) tell(e *End, what flags) {
	if e.flags&dead != 0 {
		return
	}
	e.flags |= what
	if e.flags&listed != 0 {
		return
	}
	e.flags |= listed
	e.nextSay = nil
	if t.say.last == nil {
		t.say.first = e
	} else {
		t.say.last.nextSay = e
	}
	t.say.last = e
}
