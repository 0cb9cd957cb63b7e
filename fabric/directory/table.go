package directory

import (
	"maps"
	"slices"
	"time"
)

// Bounds of one table: with them a peer that registers all it can costs memory up to a known amount.
const (
	maxNodes       = 1 << 17 // thousands of hosts, and the workers that join by themselves
	maxMembersNode = 1 << 16 // 16 producers and 16 consumers in each of 2,000 channels
	maxMembers     = 1 << 21 // at about 400 bytes each
	maxTombs       = 1 << 17 // names whose last incarnation is remembered after they went: maxNodes may go at once
)

// table is what a directory knows: nodes, their members, and the recent changes. It has no lock, no clock and no I/O.
// Registry has the first two, and calls advance before everything else.
//
// Whoever joins a node holds it: this process, or one client of a Server. A node is changed only by its holder, and
// is an orphan once the connection over which it was joined has ended. What a client holds lives for a lease after
// it was joined or renewed last; what this process holds lives until it leaves.
//
//	           join            connection ends
//	(absent) -------> live ---------------------> orphan
//	    ^             | |  <---------------------   | | |
//	    | leave, evict| |   join, same incarnation  | | | join by another: members removed,
//	    +-------------+-|---------------------------+ | | greater incarnation
//	    |   lease over  |   lease over                | |
//	    +---------------+-----------------------------+ |
//	                    ^-------------------------------+
type table struct {
	epoch    uint64        // tells this table's life from any other's: revisions mean nothing across it
	lease    time.Duration // how long a registration lives without renewal
	warm     time.Duration // until then, what is not known may be a node that has not registered again yet
	now      time.Duration // the table's time, see advance
	clock    time.Duration // what advance was told last
	revision uint64        // changes made so far
	last     uint64        // no incarnation chosen here is greater, except over a greater one that was brought along
	floor    uint64        // the greatest incarnation of a name that is remembered no more
	rounds   uint64        // restatements begun, by all holders: a number is never met again under another holder

	nodes    map[string]*node
	roll     *channel // the nodes, as the members of a channel without a name
	channels map[string]*channel
	members  int
	holders  map[string]*holder
	here     *holder // this process
	absent   *holder // who joined what another life of this directory kept, if that is not known
	leases   leases
	tombs    tombs

	keeps   bool     // changes are to be kept
	changes []change // since noted
}

// node is a registered node.
type node struct {
	info       NodeInfo
	load       uint32
	holder     *holder
	connection uint64 // the holder's connection over which the node was last joined
	round      uint64 // the holder's round in which it was
	members    map[Member]*registration

	shared *sharedNode // instead of all of the holder's, where the table is a replica

	// of the list of leases
	leased         bool
	deadline       time.Duration
	earlier, later *node
}

// registration is a member's entry.
type registration struct {
	node  *node
	round uint64 // the holder's round in which the member was last added
}

// holder is who joined some nodes: this process or one client, over all of that client's connections.
type holder struct {
	id         string
	lasting    bool   // the id means the same to the directory's next life
	live       bool   // it has a connection
	connection uint64 // counts them
	restating  bool   // between restate and settle
	round      uint64 // its latest restatement's number
	nodes      map[*node]struct{}

	stated map[string]map[Member]struct{} // the session's, where the table is a replica: what it has stated so far
}

func newTable(epoch, last uint64, lease time.Duration) *table {
	t := &table{
		epoch:    epoch,
		lease:    lease,
		last:     last,
		nodes:    make(map[string]*node),
		channels: make(map[string]*channel),
		holders:  make(map[string]*holder),
		here:     &holder{live: true, nodes: make(map[*node]struct{})},
		absent:   &holder{nodes: make(map[*node]struct{})},
		tombs:    newTombs(),
	}
	t.roll = newChannel("", 0)
	return t
}

// join claims a name, or resumes the registration that has it.
func (t *table) join(h *holder, info NodeInfo) (uint64, error) {
	if err := checkInfo(info); err != nil {
		return 0, err
	}
	old := t.nodes[info.Name]
	incarnation, resumed, err := t.claim(old, t.tombs.get(info.Name), info)
	switch {
	case err != nil:
		return 0, err
	case resumed:
		t.move(old, h)
		return incarnation, nil
	}
	info.Incarnation = incarnation
	if old != nil {
		t.drop(old, true)
	}
	t.unbury(info.Name)
	n := &node{info: info, members: make(map[Member]*registration)}
	t.nodes[info.Name] = n
	t.move(n, h)
	t.enroll(n)
	return info.Incarnation, nil
}

// claim decides who gets a name, of which old is the node, if there is one, and gone what is remembered of it otherwise:
// the registration that is there resumes, or a new one begins, with that incarnation.
func (t *table) claim(old *node, gone tomb, info NodeInfo) (incarnation uint64, resumed bool, err error) {
	known, over := gone.incarnation, gone.left
	switch {
	case old != nil:
		known, over = old.info.Incarnation, false
	case known == 0:
		known, over = t.floor, true // for all that is known, the name's last one
	}
	switch {
	case old != nil && info == old.info: // the same life again: its holder reconnected
		return info.Incarnation, true, nil
	case info.Incarnation != 0 && (info.Incarnation < known || info.Incarnation == known && over):
		return 0, false, &StaleError{Node: info.Name, Incarnation: info.Incarnation, Current: known}
	case old != nil && (old.live() || info.Incarnation == known):
		return 0, false, &NameTakenError{Name: info.Name, Endpoint: old.info.Endpoint}
	case old == nil && len(t.nodes) >= maxNodes:
		return 0, false, &LimitError{What: "nodes", Max: maxNodes}
	case info.Incarnation != 0:
		return info.Incarnation, false, nil
	case max(known, t.last) >= MaxIncarnation:
		return 0, false, &LimitError{What: "incarnations of " + info.Name, Max: MaxIncarnation}
	}
	t.last++
	return max(t.last, known+1), false, nil
}

// move makes h the node's holder, and its lease begin anew.
func (t *table) move(n *node, h *holder) {
	if n.holder != h {
		if n.holder != nil {
			delete(n.holder.nodes, n)
			t.forgetHolder(n.holder)
		}
		was := n.holder
		n.holder = h
		h.nodes[n] = struct{}{}
		if was == nil || was.lastingID() != h.lastingID() {
			t.note(change{kind: nodeKind, node: n.info, holder: h.lastingID()})
		}
	}
	n.connection, n.round = h.connection, h.round
	t.leases.remove(n)
	if h != t.here {
		t.leases.renew(n, t.now+t.lease)
	}
}

// lastingID is how a store remembers the holder.
func (h *holder) lastingID() string {
	if h.lasting {
		return h.id
	}
	return ""
}

// live reports whether the connection over which the node was joined is there still.
func (n *node) live() bool {
	if n.shared != nil {
		return n.shared.live()
	}
	return n.holder.live && n.connection == n.holder.connection
}

func (t *table) leave(h *holder, name string, incarnation uint64) error {
	if err := CheckName("node", name); err != nil {
		return err
	}
	n, err := t.held(h, name, incarnation)
	if err != nil || n == nil {
		return err
	}
	t.drop(n, true)
	return nil
}

// evict is leave by somebody else: of an orphan, or, with force, of any node. Incarnation 0 is any.
func (t *table) evict(name string, incarnation uint64, force bool) error {
	n, err := t.evictable(name, incarnation, force)
	if err != nil {
		return err
	}
	t.drop(n, true)
	return nil
}

// evictable finds a node to evict.
func (t *table) evictable(name string, incarnation uint64, force bool) (*node, error) {
	if err := CheckName("node", name); err != nil {
		return nil, err
	}
	n := t.nodes[name]
	switch {
	case n == nil:
		return nil, t.unknown(name)
	case incarnation != 0 && n.info.Incarnation != incarnation:
		return nil, &StaleError{Node: name, Incarnation: incarnation, Current: n.info.Incarnation}
	case n.live() && !force:
		return nil, &LiveError{Name: name, Endpoint: n.info.Endpoint}
	}
	return n, nil
}

// held finds a node to change: nil when there is none of that name, an error when it is not h's to change.
func (t *table) held(h *holder, name string, incarnation uint64) (*node, error) {
	n := t.nodes[name]
	switch {
	case n == nil:
		return nil, nil
	case n.info.Incarnation != incarnation:
		return nil, &StaleError{Node: name, Incarnation: incarnation, Current: n.info.Incarnation}
	case n.holder != h || !n.live():
		return nil, &NotJoinedError{Node: name}
	}
	return n, nil
}

// drop takes a node and its members out, in the members' order. One that left does not come back in the same life.
func (t *table) drop(n *node, left bool) {
	t.dropMembers(n, slices.Collect(maps.Keys(n.members)), !left)
	t.strike(n, !left)
	delete(t.nodes, n.info.Name)
	delete(n.holder.nodes, n)
	t.forgetHolder(n.holder)
	t.leases.remove(n)
	t.note(change{kind: nodeKind, gone: true, node: n.info})
	t.bury(tomb{name: n.info.Name, incarnation: n.info.Incarnation, left: left})
}

// bury remembers a node that is gone, and unbury forgets it.
func (t *table) bury(b tomb) {
	forgotten := t.tombs.put(b)
	t.note(change{kind: tombKind, tomb: b})
	if forgotten.name != "" {
		t.floor = max(t.floor, forgotten.incarnation)
		t.note(change{kind: tombKind, gone: true, tomb: forgotten})
	}
}

func (t *table) unbury(name string) {
	if b := t.tombs.get(name); b.name != "" {
		t.tombs.delete(name)
		t.note(change{kind: tombKind, gone: true, tomb: b})
	}
}

// enroll and strike keep the roll of the nodes.
func (t *table) enroll(n *node) {
	m := Member{Node: n.info.Name}
	t.roll.members[m] = &registration{node: n}
	t.revision++
	t.roll.record(Event{Revision: t.revision, Kind: Added, Member: m, Node: n.info})
	t.roll.announce()
}

func (t *table) strike(n *node, expired bool) {
	m := Member{Node: n.info.Name}
	delete(t.roll.members, m)
	t.revision++
	t.roll.record(Event{Revision: t.revision, Kind: Removed, Member: m, Node: n.info, Expired: expired})
	t.roll.announce()
}

func (t *table) add(h *holder, incarnation uint64, members []Member) error {
	if len(members) == 0 {
		return nil
	}
	name, err := checkMembers(members)
	if err != nil {
		return err
	}
	n, err := t.held(h, name, incarnation)
	if err != nil {
		return err
	}
	if n == nil {
		return &UnknownNodeError{Name: name}
	}
	if err := t.admits(n, members); err != nil {
		return err
	}
	touched := make(map[*channel]struct{}, 1)
	for _, m := range members {
		if old := n.members[m]; old != nil {
			old.round = h.round
			continue
		}
		c := t.enter(n, m, h.round)
		touched[c] = struct{}{}
	}
	for c := range touched {
		c.announce()
	}
	return nil
}

// enter puts a member in that is new, and returns its channel, for the caller to announce.
func (t *table) enter(n *node, m Member, round uint64) *channel {
	c := t.channel(m.Channel)
	m.Channel, m.Node = c.name, n.info.Name // one copy of each name, whatever the request's bytes were
	entry := &registration{node: n, round: round}
	n.members[m], c.members[m] = entry, entry
	t.members++
	t.revision++
	t.note(change{kind: memberKind, member: m})
	c.record(Event{Revision: t.revision, Kind: Added, Member: m, Node: n.info})
	return c
}

// admits reports whether the bounds allow the members that are new.
func (t *table) admits(n *node, members []Member) error {
	if len(n.members)+len(members) <= maxMembersNode && t.members+len(members) <= maxMembers {
		return nil
	}
	fresh := make(map[Member]struct{})
	for _, m := range members {
		if n.members[m] == nil {
			fresh[m] = struct{}{}
		}
	}
	if len(n.members)+len(fresh) > maxMembersNode {
		return &LimitError{What: "members of node " + n.info.Name, Max: maxMembersNode}
	}
	if t.members+len(fresh) > maxMembers {
		return &LimitError{What: "members", Max: maxMembers}
	}
	return nil
}

func (t *table) remove(h *holder, incarnation uint64, members []Member) error {
	if len(members) == 0 {
		return nil
	}
	name, err := checkMembers(members)
	if err != nil {
		return err
	}
	n, err := t.held(h, name, incarnation)
	if err != nil || n == nil {
		return err
	}
	t.dropMembers(n, slices.Clone(members), false)
	return nil
}

// dropMembers takes those of the members out that are there; it sorts the slice. expired says that nobody asked for it.
func (t *table) dropMembers(n *node, members []Member, expired bool) {
	slices.SortFunc(members, Member.Compare)
	touched := make(map[*channel]struct{}, 1)
	for _, m := range members {
		if n.members[m] == nil {
			continue
		}
		c := t.channels[m.Channel]
		m.Channel, m.Node = c.name, n.info.Name
		delete(n.members, m)
		delete(c.members, m)
		t.members--
		t.revision++
		t.note(change{kind: memberKind, gone: true, member: m})
		c.record(Event{Revision: t.revision, Kind: Removed, Member: m, Node: n.info, Expired: expired})
		touched[c] = struct{}{}
	}
	for c := range touched {
		c.announce()
		t.forget(c)
	}
}

// channel finds a channel, or makes it.
func (t *table) channel(name string) *channel {
	c := t.channels[name]
	if c == nil {
		c = newChannel(name, t.revision)
		t.channels[name] = c
	}
	return c
}

// named is what a watch of that name follows: a channel or, without a name, the nodes.
func (t *table) named(name string) *channel {
	if name == "" {
		return t.roll
	}
	return t.channel(name)
}

// known is the same without making a channel; nil if there is none.
func (t *table) known(name string) *channel {
	if name == "" {
		return t.roll
	}
	return t.channels[name]
}

// forget lets a channel go that has neither members nor watchers.
func (t *table) forget(c *channel) {
	if c != t.roll && len(c.members) == 0 && len(c.feeds) == 0 {
		delete(t.channels, c.name)
	}
}
