package patterns

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// roster is who serves one end of a pattern, as the other end knows them: the
// workers of a pusher, the servers of a requester. Each has a consumer on the
// pattern's channel, and speaks on the channel beside it, where it says hello
// first. All of it is under the lock of whoever has the roster.
//
//	        hello         node knows its consumer
//	unknown -----> member ----------------------> given work
//	   ^              |                            |      ^
//	   |              | bye, node lost,            v      | connected again
//	   +--------------+ hello of another session  away ---+
//	                                              (no connection for longer than patience)
//
// One that the node knows no more, because its lease has ended or it leaves, gets
// nothing new until the node knows it again.
type roster[T any] struct {
	node     *fabric.Node
	producer *fabric.Producer // on the pattern's channel
	patience time.Duration
	known    bool // only those that the node knows now are present
	// meet says to a member that all that follows is for it, and not for an earlier one
	// of its address, which drops what it was not met for. Nil: it need not be told.
	meet func(m *member[T]) error
	// lost takes what a member has away from it, which is gone or away. It may come
	// back from away.
	lost func(m *member[T], reason string)

	members map[fabric.Address]*member[T] // by source
	balance balancer[*member[T]]
	came    chan struct{} // closed when a member can be given work
	places  *fabric.Placement
	placed  []*member[T] // on which places places keys
}

// member is one of them.
type member[T any] struct {
	who     T
	addr    fabric.Address // its consumer on the pattern's channel
	source  fabric.Address // its producer beside the channel
	session uint64
	target  *fabric.Target // nil until the node knows the consumer, and never changed after
	known   bool           // the node knows the consumer now
	met     bool           // it was told that all that follows is for it
	seat    *seat[*member[T]]

	absence absence // of its node
	away    bool    // for too long
	gone    bool    // its consumer takes no more; what it has it may still answer
	left    bool    // it is a member no more
}

func newRoster[T any](node *fabric.Node, producer *fabric.Producer, patience time.Duration, lost func(*member[T], string)) *roster[T] {
	return &roster[T]{
		node: node, producer: producer, patience: patience, lost: lost,
		members: make(map[fabric.Address]*member[T]), came: make(chan struct{}),
	}
}

// hello takes a member in, which has room for so much work, and returns it. One
// that is in already and says it again is not new: nil.
func (r *roster[T]) hello(from fabric.Address, session uint64, index, room int) *member[T] {
	if m := r.members[from]; m != nil {
		if m.session == session && !m.gone {
			return nil
		}
		r.leave(m, "it was replaced")
	}
	m := &member[T]{addr: fabric.Address{Node: from.Node, Index: index}, source: from, session: session}
	m.seat = newSeat(m, room)
	r.members[from] = m
	r.reach(m)
	return m
}

// bye lets a member go that says so.
func (r *roster[T]) bye(from fabric.Address, session uint64) {
	if m := r.members[from]; m != nil && m.session == session {
		r.leave(m, "it has closed")
	}
}

// nodeLost lets all members of a node go.
func (r *roster[T]) nodeLost(lost *fabric.PeerLostError) {
	for _, m := range r.members {
		if m.source.Node == lost.Node {
			r.leave(m, "its node is lost: "+lost.Reason)
		}
	}
}

func (r *roster[T]) leave(m *member[T], reason string) {
	delete(r.members, m.source)
	m.left = true
	r.retire(m)
	r.lost(m, reason)
}

// retire gives m no more work: its consumer is gone, or about to go.
func (r *roster[T]) retire(m *member[T]) {
	m.gone, r.places = true, nil
	r.balance.leave(m.seat)
}

// reach finds m's consumer, or finds that it is there no more.
func (r *roster[T]) reach(m *member[T]) {
	t, err := r.producer.To(m.addr)
	if known := err == nil; known != m.known {
		m.known, r.places = known, nil
		if m.target == nil {
			m.target = t
		}
		if known {
			r.came = signal(r.came)
		}
	}
	if m.known && !m.met && (r.meet == nil || r.meet(m) == nil) { // else there is no room: it is tried again
		m.met, r.places = true, nil
		r.came = signal(r.came)
	}
	if m.known && m.met && !m.gone && !m.away {
		r.balance.sit(m.seat)
	} else {
		r.balance.leave(m.seat)
	}
}

// reachAll is to be called when the producer's consumers have changed, and once at
// first: a member may have said hello, and its consumer may have become known, before
// anybody looked.
func (r *roster[T]) reachAll() {
	for _, m := range r.members {
		r.reach(m)
	}
}

// watch looks which members have a connection. Without one for longer than
// patience, a member has what it has taken away, and gets nothing new until it
// is connected again. It is to be called every interval.
func (r *roster[T]) watch(now time.Time) {
	for _, m := range r.members {
		there := r.node.Connected(m.addr.Node)
		switch gone := m.absence.look(there, now); {
		case there && (m.away || !m.met):
			m.away = false
			r.reach(m)
		case !m.away && gone > r.patience:
			m.away = true
			r.balance.leave(m.seat)
			r.lost(m, fmt.Sprintf("its node %s has no connection", m.addr.Node))
		}
	}
}

// abandon lets those go that have no connection for longer than patience and that the
// node knows no more: their lease has ended. It returns those whose targets may still
// take a word of it, for when they are back. It is for who does not watch, and to be
// called every interval.
func (r *roster[T]) abandon(now time.Time) (list []*member[T]) {
	for _, m := range r.members {
		if m.absence.look(m.known || r.node.Connected(m.addr.Node), now) > r.patience {
			r.leave(m, fmt.Sprintf("its node %s has no connection, and its lease has ended", m.addr.Node))
			if m.target != nil {
				list = append(list, m)
			}
		}
	}
	return list
}

// waitMembers waits until so many can be given work, and returns how many. mu is
// the roster's; ctx ends the wait, and so does closed with fabric.ErrClosed.
func waitMembers[T any](ctx, closed context.Context, mu *sync.Mutex, r *roster[T], count int) (int, error) {
	for {
		mu.Lock()
		n, came := len(r.present()), r.came
		mu.Unlock()
		if n >= count {
			return n, nil
		}
		select {
		case <-came:
		case <-closed.Done():
			return n, fabric.ErrClosed
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}

// interval is how often watch is to be called.
func (r *roster[T]) interval() time.Duration { return lookEvery(r.patience) }

// present are those who can be asked: all that were met, but for those that are gone.
func (r *roster[T]) present() []*member[T] {
	var list []*member[T]
	for _, m := range r.members {
		if m.met && !m.gone && (m.known || !r.known) {
			list = append(list, m)
		}
	}
	return list
}

// owner is the member that owns key, nil if there is none. All who know the same
// members agree on it; one that is away keeps its keys.
func (r *roster[T]) owner(key []byte) *member[T] {
	if r.places == nil {
		r.placed = r.present()
		slices.SortFunc(r.placed, func(a, b *member[T]) int { return compareAddress(a.addr, b.addr) })
		addrs := make([]fabric.Address, len(r.placed))
		for i, m := range r.placed {
			addrs[i] = m.addr
		}
		r.places = fabric.Place(addrs)
	}
	if i := r.places.Owner(key); i >= 0 {
		return r.placed[i]
	}
	return nil
}
