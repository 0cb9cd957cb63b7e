package directory

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// replica is a table that is a copy of what a Shared store has. It changes by what the store tells, and by nothing else:
// who wants a change plans a transaction (replicaplan.go), has the store decide, and waits until the replica has seen it.
//
// All directories that share the store count alike: what changes in the store at a revision has the revisions from
// that one times updateRevisions on, in the transaction's order. So a watcher goes on at any of them.
type replica struct {
	table    *table
	own      *process // this one
	revision uint64   // the store's: everything up to here is in the table

	fabric    fabricMark
	lives     map[string]life // by name, of nodes that are there and of those that were
	floor     uint64          // the revision of the table's floor
	warm      bool            // the store says that nodes may be about that it does not know
	processes map[string]*process
	holders   map[string]map[*node]struct{} // the nodes by who joined them
	expired   map[string]bool               // nodes whose leases have ended, in the update that is being taken
}

// updateRevisions is the table's revisions for each of the store's: a node with all the members that it may have can go
// at one.
const updateRevisions = 1 << 20

// fabricMark is what all directories that share a store have in common.
type fabricMark struct {
	epoch uint64 // 0: there is none yet
	lease time.Duration
}

// life is the last incarnation of a name.
type life struct {
	tomb
	revision uint64
}

// process is a directory that shares the store.
type process struct {
	name  string
	there bool // as the store knows
	nodes int  // joined through it

	own         bool
	connections map[uint64]struct{} // of the own one: those that are there
}

// sharedNode is what a replica knows of a node besides what it is.
type sharedNode struct {
	revision   uint64 // of its entry
	lease      int64
	holder     string
	process    *process
	connection uint64        // of the process, over which it was joined; 0: that has ended
	deadline   time.Duration // of the lease, if it was renewed here; in the table's time
}

// live reports whether the connection over which the node was joined is there, as far as one can know.
func (s *sharedNode) live() bool {
	if s.process.own {
		_, there := s.process.connections[s.connection]
		return there
	}
	return s.process.there && s.connection != 0
}

func newReplica(name string, last uint64, lease time.Duration) *replica {
	p := &replica{
		table:     newTable(0, last, lease),
		own:       &process{name: name, own: true, connections: make(map[uint64]struct{})},
		lives:     make(map[string]life),
		processes: make(map[string]*process),
		holders:   make(map[string]map[*node]struct{}),
	}
	p.processes[name] = p.own
	return p
}

// load begins anew with all that the store has at a revision. Of how it came to that nothing is known: every watcher
// gets a snapshot.
func (p *replica) load(entries []SharedEntry, revision uint64) error {
	for _, n := range p.table.nodes {
		p.drop(n, false) // whatever it was: nobody is told, as every watcher begins anew
	}
	clear(p.lives)
	for _, other := range p.processes {
		other.there = false
		p.forget(other)
	}
	p.table.floor, p.floor, p.warm, p.table.warm = 0, 0, false, 0
	p.table.revision = max(p.table.revision, revision*updateRevisions-1)
	late := make([]SharedEntry, 0, len(entries)) // what is of nodes, which have to be there before
	for _, e := range entries {
		if strings.HasPrefix(e.Key, memberPrefix) || strings.HasPrefix(e.Key, loadPrefix) {
			late = append(late, e)
		} else if err := p.put(e); err != nil {
			return err
		}
	}
	for _, e := range late {
		if err := p.put(e); err != nil {
			return err
		}
	}
	p.reach(revision)
	p.table.roll.restart(p.table.revision)
	for _, c := range p.table.channels {
		c.restart(p.table.revision)
	}
	return nil
}

// restart forgets all changes of a channel.
func (c *channel) restart(revision uint64) {
	c.history, c.base, c.snapshot = nil, revision, nil
	c.announce()
}

// apply makes what has changed in the store.
func (p *replica) apply(u SharedUpdate) error {
	if u.Revision <= p.revision {
		return nil // a repetition
	}
	p.table.revision = max(p.table.revision, u.Revision*updateRevisions-1)
	p.expired = u.expired()
	for _, e := range u.Changes {
		var err error
		if e.Value != nil {
			err = p.put(e)
		} else {
			err = p.gone(e.Key)
		}
		if err != nil {
			return err
		}
	}
	p.reach(u.Revision)
	return nil
}

// expired is the nodes that the update removes because their leases have ended: nobody says in it that they left.
func (u *SharedUpdate) expired() map[string]bool {
	var names map[string]bool
	for _, e := range u.Changes {
		if kind, name := splitKey(e.Key); kind == nodePrefix && e.Value == nil {
			if names == nil {
				names = make(map[string]bool)
			}
			names[name] = true
		}
	}
	for _, e := range u.Changes {
		if kind, name := splitKey(e.Key); kind == lifePrefix && e.Value != nil {
			delete(names, name)
		}
	}
	return names
}

// reach notes that everything up to a revision is there.
func (p *replica) reach(revision uint64) {
	p.revision = revision
	if p.warm && p.table.warm == 0 {
		p.table.warm = p.table.now + p.table.lease
	}
	p.table.revision = max(p.table.revision, (revision+1)*updateRevisions-1)
}

// put takes an entry that was set.
func (p *replica) put(e SharedEntry) (err error) {
	kind, rest := splitKey(e.Key)
	switch kind {
	case fabricKey:
		err = p.putFabric(e.Value)
	case warmKey:
		p.warm = true
	case floorKey:
		p.table.floor, err = decodeFloor(e.Value)
		p.floor = e.Revision
	case processPrefix:
		p.process(rest).there = true
	case lifePrefix:
		var b tomb
		if b, err = decodeLife(rest, e.Value); err == nil {
			p.lives[rest] = life{b, e.Revision}
		}
	case nodePrefix:
		err = p.putNode(rest, e)
	case memberPrefix:
		err = p.putMember(rest)
	case loadPrefix:
		err = p.putLoad(rest, e.Value)
	default:
		err = errUnknownKind
	}
	if err != nil {
		return fmt.Errorf("entry %q: %w", e.Key, err)
	}
	return nil
}

// gone takes an entry that was removed.
func (p *replica) gone(key string) error {
	kind, rest := splitKey(key)
	switch kind {
	case fabricKey:
		return fmt.Errorf("entry %q was removed: another fabric has the store", key)
	case warmKey:
		p.warm, p.table.warm = false, 0
	case processPrefix:
		other := p.process(rest)
		other.there = false
		p.forget(other)
	case lifePrefix:
		delete(p.lives, rest)
	case nodePrefix:
		if n := p.table.nodes[rest]; n != nil {
			p.drop(n, p.expired[rest])
		}
	case memberPrefix:
		if m, err := decodeMemberKey(rest); err == nil && p.table.nodes[m.Node] != nil {
			p.table.dropMembers(p.table.nodes[m.Node], []Member{m}, p.expired[m.Node])
		}
	}
	return nil
}

func (p *replica) putFabric(value []byte) error {
	mark, err := decodeFabric(value)
	switch {
	case err != nil:
		return err
	case p.fabric.epoch == 0:
		p.fabric = mark
		p.table.epoch, p.table.lease = mark.epoch, mark.lease
	case p.fabric != mark:
		return fmt.Errorf("another fabric has the store: epoch %d, lease %v instead of %d, %v", mark.epoch, mark.lease, p.fabric.epoch, p.fabric.lease)
	}
	return nil
}

// process finds a directory, or notes that there is one.
func (p *replica) process(name string) *process {
	other := p.processes[name]
	if other == nil {
		other = &process{name: name}
		p.processes[name] = other
	}
	return other
}

// forget lets a directory go that has ended and of which no node speaks.
func (p *replica) forget(other *process) {
	if !other.there && !other.own && other.nodes == 0 {
		delete(p.processes, other.name)
	}
}

// putNode takes a node: one that is new, another life of one, or one that was joined over another connection.
func (p *replica) putNode(name string, e SharedEntry) error {
	entry, err := decodeNode(name, e.Value)
	if err != nil {
		return err
	}
	n := p.table.nodes[name]
	if n != nil && n.info != entry.info {
		p.drop(n, false)
		n = nil
	}
	if n == nil {
		n = &node{info: entry.info, shared: new(sharedNode), members: make(map[Member]*registration)}
		p.table.nodes[name] = n
		p.table.enroll(n)
	} else {
		p.release(n)
	}
	s := n.shared
	s.revision, s.lease, s.holder, s.connection = e.Revision, e.Lease, entry.holder, entry.connection
	s.process = p.process(entry.process)
	s.process.nodes++
	list := p.holders[s.holder]
	if list == nil {
		list = make(map[*node]struct{})
		p.holders[s.holder] = list
	}
	list[n] = struct{}{}
	return nil
}

// release takes a node away from who joined it.
func (p *replica) release(n *node) {
	s := n.shared
	s.process.nodes--
	p.forget(s.process)
	delete(p.holders[s.holder], n)
	if len(p.holders[s.holder]) == 0 {
		delete(p.holders, s.holder)
	}
}

// drop takes a node out, and the members that it still has.
func (p *replica) drop(n *node, expired bool) {
	members := make([]Member, 0, len(n.members))
	for m := range n.members {
		members = append(members, m)
	}
	p.table.dropMembers(n, members, expired)
	p.table.strike(n, expired)
	delete(p.table.nodes, n.info.Name)
	p.release(n)
}

func (p *replica) putMember(key string) error {
	m, err := decodeMemberKey(key)
	if err != nil {
		return err
	}
	t := p.table
	n := t.nodes[m.Node]
	if n == nil || n.members[m] != nil {
		return nil // of a node that went at the same revision, or set once more
	}
	t.enter(n, m, 0)
	t.channels[m.Channel].announce()
	return nil
}

func (p *replica) putLoad(name string, value []byte) error {
	load, err := decodeLoad(value)
	if n := p.table.nodes[name]; n != nil && err == nil {
		n.load = load
	}
	return err
}

// held finds a node to change: nil when there is none of that name, an error when it is not h's to change.
func (p *replica) held(h *holder, name string, incarnation uint64) (*node, error) {
	n := p.table.nodes[name]
	switch {
	case n == nil:
		return nil, nil
	case n.info.Incarnation != incarnation:
		return nil, &StaleError{Node: name, Incarnation: incarnation, Current: n.info.Incarnation}
	case !p.joinedBy(n, h):
		return nil, &NotJoinedError{Node: name}
	}
	return n, nil
}

// joinedBy reports whether a node was joined last over the holder's connection to this directory.
func (p *replica) joinedBy(n *node, h *holder) bool {
	return n.shared.process == p.own && n.shared.connection == h.connection
}

// heldBy lists what a client has joined, over whatever connection to whatever directory.
func (p *replica) heldBy(holder string) []string {
	var names []string
	for n := range p.holders[holder] {
		names = append(names, n.info.Name)
	}
	slices.Sort(names)
	return names
}
