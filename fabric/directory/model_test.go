package directory

import (
	"testing"
	"time"
)

// model is a table as one would write it who has all the time and memory in the world: no lists of leases, no
// histories, nothing is ever forgotten.
type model struct {
	now   time.Duration
	nodes map[string]*modelNode
	gone  map[string]tomb
	conns map[string]int // by holder; 0: none
	next  int
	given map[string]uint64 // the greatest incarnation that a name ever had
}

type modelNode struct {
	info     NodeInfo
	holder   string
	conn     int
	load     uint32
	deadline time.Duration // 0: none
	members  map[Member]struct{}
}

func (m *model) live(n *modelNode) bool { return n.holder == "here" || m.conns[n.holder] == n.conn }

// restart makes orphans of all nodes, each with a whole lease.
func (m *model) restart() {
	m.now = 0
	clear(m.conns)
	for _, n := range m.nodes {
		if n.holder == "here" {
			n.holder = "who was here"
		}
		n.conn, n.load, n.deadline = -1, 0, testLease
	}
}

func (m *model) drop(name string, left bool) {
	m.gone[name] = tomb{name: name, incarnation: m.nodes[name].info.Incarnation, left: left}
	delete(m.nodes, name)
}

// hold makes the holder's lease begin.
func (m *model) hold(holder string, n *modelNode) {
	n.holder, n.conn, n.deadline = holder, m.conns[holder], m.now+testLease
	if holder == "here" {
		n.deadline = 0
	}
}

func (m *model) pass(d time.Duration) {
	m.now += min(d, 2*testLease/ticks)
	for name, n := range m.nodes {
		if n.deadline != 0 && n.deadline <= m.now {
			m.drop(name, false)
		}
	}
}

// join returns what the table must answer: an error to match, or nil; and whether the incarnation is the table's to
// choose.
func (m *model) join(info NodeInfo) (refused error, resumed bool) {
	n, gone := m.nodes[info.Name], m.gone[info.Name]
	switch {
	case n != nil && n.info == info:
		return nil, true
	case info.Incarnation == 0:
	case n != nil && info.Incarnation < n.info.Incarnation:
		return ErrStale, false
	case n == nil && (info.Incarnation < gone.incarnation || info.Incarnation == gone.incarnation && gone.left):
		return ErrStale, false
	case n != nil && info.Incarnation == n.info.Incarnation:
		return ErrNameTaken, false
	}
	if n != nil && m.live(n) {
		return ErrNameTaken, false
	}
	return nil, false
}

// may says what the table must answer to a change of a node: an error to match, or nil.
func (m *model) may(holder, name string, incarnation uint64) (n *modelNode, refused error) {
	n = m.nodes[name]
	switch {
	case n == nil:
		return nil, nil
	case n.info.Incarnation != incarnation:
		return nil, ErrStale
	case n.holder != holder || !m.live(n):
		return nil, ErrNotJoined
	}
	return n, nil
}

// follower is a watcher of a table: it takes batches when it likes, and resumes when it likes.
type follower struct {
	channel  string
	every    int // step in which it is awake
	resets   int
	feed     *feed
	epoch    uint64
	revision uint64
	state    map[Member]NodeInfo
	fresh    map[Member]NodeInfo // a snapshot under way
}

// begin opens the feed where the follower left off, unless it is open.
func (f *follower) begin(table *table) {
	if f.feed == nil {
		f.feed, f.fresh = table.open(table.named(f.channel), f.epoch, f.revision, func() {}), nil
	}
}

func (f *follower) apply(t *testing.T, b batch) {
	if b.reset {
		f.resets++
		f.fresh = map[Member]NodeInfo{}
	}
	for _, e := range b.events {
		target := f.state
		if f.fresh != nil {
			target = f.fresh
		}
		_, there := target[e.Member]
		switch e.Kind {
		case Added:
			if there {
				t.Fatalf("%v added twice", e.Member)
			}
			target[e.Member] = e.Node
		case Removed:
			if target[e.Member] != e.Node {
				t.Fatalf("%v removed as %v, was there as %v", e.Member, e.Node, target[e.Member])
			}
			delete(target, e.Member)
		case Synced:
			if f.fresh == nil {
				t.Fatal("synced without a snapshot")
			}
			f.state, f.fresh = f.fresh, nil
		}
		if e.Revision < f.revision && f.fresh == nil {
			t.Fatalf("revision %d after %d", e.Revision, f.revision)
		}
	}
	if f.fresh == nil { // a position to resume at
		f.epoch, f.revision = f.feed.table.epoch, b.revision
	}
}
