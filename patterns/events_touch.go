package patterns

import (
	"time"

	"github.com/zfab/zfab/fabric"
)

// defaultMemberPatience is far less than defaultEventsPatience: the ends of a
// connection find within a heartbeat or two of each other that it is gone.
const defaultMemberPatience = time.Second

// maxAskAgain bounds the interval at which a question without an answer is asked again:
// also a member whose program does not receive asks, and each answer waits for it.
const maxAskAgain = 30 * time.Second

// touch is whether a member is in touch with a publisher. Under the member's mu.
//
//	         no connection for patience           told that it is a member still,
//	in touch --------------------------> asking ---------------------------------> in touch
//	                                       ^  |    let go, or the publisher lost
//	                                       +--+ no connection once more, or another way back
type touch struct {
	way      fabric.Target // back; zero if there is none any more
	absence  absence       // of its node
	asking   bool          // and its events are held
	question uint64        // the last one
	asked    time.Time     // when it was asked last
	again    time.Duration // after which it is to be asked again
}

// keepTouch looks which publishers have a connection, until the member closes. Of one
// that has none for longer than patience no event is begun until it has answered
// whether this member still is one. The question waits on its stream, as what the
// publisher says waits on another, behind all that it had sent.
func (m *eventMember) keepTouch() {
	tick := time.NewTicker(lookEvery(m.patience))
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case now := <-tick.C:
			m.look(now)
		}
	}
}

// look is one look at all publishers.
func (m *eventMember) look(now time.Time) {
	known := *m.greeter.known.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr, t := range m.touches {
		if known[addr] == nil {
			m.part(addr, t)
		}
	}
	for addr, e := range known {
		t := m.touches[addr]
		if t == nil {
			t = &touch{way: *e.target}
			m.touches[addr] = t
		}
		connected, before := m.node.Connected(addr.Node), t.absence
		gone := t.absence.look(connected, now)
		renewed := t.way != *e.target
		t.way = *e.target
		switch {
		case !t.asking:
			if gone > m.patience {
				m.hands.hold(addr)
				t.asking = true
				m.ask(t, now)
			}
		case renewed: // by another publisher in its place, or as all was lost that was on the way
			m.hands.partWith(addr)
			m.ask(t, now)
		case !connected && before == (absence{}): // once more: the answer may be of the time before
			m.ask(t, now)
		case connected && now.Sub(t.asked) >= t.again:
			m.askAgain(t, now)
		}
	}
}

// part is one look at a publisher to whom there is no way back. What it had sent is
// nobody's to begin, if others may have it; what is still to be received of that is
// not taken for that of somebody who has its place later, as the hold stays: until he
// has answered, or the node is nowhere.
func (m *eventMember) part(addr fabric.Address, t *touch) {
	if !t.asking {
		delete(m.touches, addr)
		return
	}
	if t.way != (fabric.Target{}) {
		t.way = fabric.Target{}
		m.hands.partWith(addr)
	}
	if m.node.Connected(addr.Node) {
		return
	}
	for _, p := range m.consumer.Producers() {
		if p.Node == addr.Node {
			return
		}
	}
	m.hands.goOn(addr)
	delete(m.touches, addr)
}

// ask asks a publisher, with a new question: an answer to an earlier one tells nothing.
func (m *eventMember) ask(t *touch, now time.Time) {
	m.questions++
	t.question, t.again = m.questions, m.patience
	m.say(t, now)
}

// askAgain asks the same once more, as it had no answer: its publisher may not have
// known the way to this member.
func (m *eventMember) askAgain(t *touch, now time.Time) {
	t.again = min(2*t.again, max(m.patience, maxAskAgain))
	m.say(t, now)
}

// say says the question, behind a hello: a publisher that could not tell this member
// that it was let go knows it again.
func (m *eventMember) say(t *touch, now time.Time) {
	t.asked = now
	m.sayHello(t.way)
	var mem [headRoom]byte
	_ = t.way.TrySend(appendRecord(mem[:0], kindAmI, m.greeter.session, t.question)) // to who is gone nothing is to be said
}

// sayHello says hello, unless the member is leaving.
func (m *eventMember) sayHello(way fabric.Target) {
	if m.greeting.Err() == nil {
		_ = way.TrySend(m.greeter.hello) // to who is gone nothing is to be said
	}
}

// lost gives up the publishers of a node that is lost, and their events.
func (m *eventMember) lost(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hands.lose(node)
	for addr := range m.touches {
		if addr.Node == node {
			delete(m.touches, addr)
		}
	}
}

// told takes a publisher's word about this member, and reports whether it is one. The
// receiving goroutine's.
func (m *eventMember) told(node string, kind uint64, f *fields) bool {
	upto, session, question := f.number(), f.number(), uint64(0)
	if kind == kindStill {
		question = f.number()
	}
	if !f.end() || upto > maxIndex {
		return false
	}
	publisher := fabric.Address{Node: node, Index: int(upto)}
	if session != m.greeter.session {
		return true // to an earlier one here
	}
	if kind == kindMeetGroup {
		m.meetings.meet(publisher, *m.greeter.known.Load())
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.touches[publisher]
	switch {
	case kind == kindLetGo:
		m.hands.letGo(publisher)
		if e := m.greeter.find(publisher); e != nil {
			m.sayHello(*e.target)
		}
	case t == nil || question != t.question:
		return true // it has been out of touch since
	default:
		m.hands.goOn(publisher)
	}
	if t != nil {
		t.asking = false
	}
	return true
}
