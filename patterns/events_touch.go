package patterns

import (
	"time"

	"github.com/zfab/zfab/fabric"
)

// defaultMemberPatience is far less than defaultEventsPatience: the ends of a
// connection find within a heartbeat or two of each other that it is gone.
const defaultMemberPatience = time.Second

// touch is whether a member is in touch with a publisher. The goroutine's that keeps
// it, but for what is said.
//
//	         no connection for patience           told that it is a member still,
//	in touch --------------------------> asking ---------------------------------> in touch
//	                                       ^  |    let go, or the publisher lost
//	                                       +--+ no connection once more
type touch struct {
	since    time.Time // when its node was first seen without connection; zero if it has one
	asking   bool
	question uint64 // the last one; under the member's mu
}

// keepTouch looks which publishers have a connection, until the member closes. Of one
// that has none for longer than patience no event is begun until it has answered
// whether this member still is one. The question waits on its stream, as what the
// publisher says waits on another, behind all that it had sent.
func (m *eventMember) keepTouch() {
	tick := time.NewTicker(min(max(m.patience/4, minPatience), time.Second))
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
	for addr := range m.touches {
		if known[addr] == nil {
			delete(m.touches, addr) // and its hands end by the fabric's word
		}
	}
	for addr, e := range known {
		t := m.touches[addr]
		if t == nil {
			t = new(touch)
			m.touches[addr] = t
		}
		switch {
		case m.node.Connected(addr.Node):
			t.since = time.Time{}
			continue
		case t.since.IsZero():
			t.since = now
			if !t.asking {
				continue
			}
		case t.asking || now.Sub(t.since) <= m.patience:
			continue
		}
		m.hands.hold(addr)
		t.asking = true
		t.question++
		var mem [headRoom]byte
		_ = e.target.TrySend(appendRecord(mem[:0], kindAmI, m.greeter.session, t.question)) // to who is gone nothing is to be said
	}
}

// lostTouch forgets the publishers of a node that is lost.
func (m *eventMember) lostTouch(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr := range m.touches {
		if addr.Node == node {
			delete(m.touches, addr)
		}
	}
}

// told takes a publisher's word about this member, and reports whether it is one.
func (m *eventMember) told(node string, kind uint64, f *fields) bool {
	publisher := fabric.Address{Node: node, Index: int(f.number())}
	session, question := f.number(), uint64(0)
	if kind == kindStill {
		question = f.number()
	}
	if !f.end() {
		return false
	}
	if session != m.greeter.session {
		return true // to an earlier one here
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.touches[publisher]
	switch {
	case kind == kindLetGo:
		m.hands.letGo(publisher)
		if e := m.greeter.find(publisher); e != nil {
			_ = e.target.TrySend(m.greeter.hello) // to who is gone nothing is to be said
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
