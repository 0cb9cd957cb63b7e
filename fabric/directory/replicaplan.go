package directory

import (
	"cmp"
	"maps"
	"slices"
)

// plan is what a replica would have the store do.
//
// A plan holds only if the store is still as the replica was: its transaction says so for all that decided it, and the
// store refuses it otherwise. An error, or a plan of nothing, has no transaction, and is worth only what the replica
// was: who gets one asks again once the replica has surely caught up.
type plan struct {
	transaction SharedTransaction
	more        bool  // it is a part only: plan again once it is done
	ends        int64 // a lease that is of no use afterwards; 0: none
}

func (p plan) empty() bool { return len(p.transaction.Then) == 0 }

// A transaction has room for these, one of them for what is not a member.
const partLen = MaxSharedTransaction - 1

// asItIs is the condition that a node is as the replica has it.
func asItIs(n *node) SharedCondition {
	return SharedCondition{Key: nodePrefix + n.info.Name, Revision: n.shared.revision}
}

// joinPlan is a step of joining a node.
type joinPlan struct {
	plan
	incarnation uint64
	granted     bool  // the transaction takes the lease that was given
	grant       bool  // a lease is to be granted first
	renews      int64 // a lease to be renewed first; 0: none
}

// join plans to claim a name, or to resume the registration that has it. Chosen is the incarnation that an attempt
// before this one has chosen, whose outcome may not be known; lease is what was granted, 0 if nothing was yet.
func (p *replica) join(h *holder, info NodeInfo, chosen uint64, lease int64) (joinPlan, error) {
	t := p.table
	old, last := t.nodes[info.Name], p.lives[info.Name]
	incarnation, resumed, err := uint64(0), false, error(ErrStale)
	if chosen != 0 {
		again := info
		again.Incarnation = chosen
		incarnation, resumed, err = t.claim(old, last.tomb, again)
	}
	if err != nil {
		incarnation, resumed, err = t.claim(old, last.tomb, info)
	}
	if err != nil {
		return joinPlan{}, err
	}
	info.Incarnation = incarnation
	entry := nodeEntry{info: info, holder: h.id, process: p.own.name, connection: h.connection}
	step := joinPlan{incarnation: incarnation}
	if resumed {
		step.renews = old.shared.lease
		if !p.joinedBy(old, h) {
			step.transaction = SharedTransaction{
				If:   []SharedCondition{asItIs(old)},
				Then: []SharedChange{{Key: nodePrefix + info.Name, Value: entry.encode(), Lease: old.shared.lease}},
			}
		}
		return step, nil
	}
	if lease == 0 {
		step.grant = true
		return step, nil
	}
	step.granted = true
	there := SharedCondition{Key: nodePrefix + info.Name}
	if old != nil {
		there = asItIs(old)
		step.ends = old.shared.lease
		step.transaction.Then = emptied(info.Name)
	}
	step.transaction.If = []SharedCondition{there, {Key: lifePrefix + info.Name, Revision: last.revision}}
	if last.revision == 0 {
		step.transaction.If = append(step.transaction.If, SharedCondition{Key: floorKey, Revision: p.floor})
	}
	step.transaction.Then = append(step.transaction.Then,
		SharedChange{Key: nodePrefix + info.Name, Value: entry.encode(), Lease: lease},
		SharedChange{Key: lifePrefix + info.Name, Value: encodeLife(incarnation, false)})
	return step, nil
}

// emptied is the end of all that is a node's, but for the node.
func emptied(name string) []SharedChange {
	return []SharedChange{{Key: membersPrefix(name), Prefix: true}, {Key: loadPrefix + name}}
}

// drop plans a node's end, for good.
func (p *replica) planDrop(n *node) plan {
	name := n.info.Name
	return plan{
		transaction: SharedTransaction{
			If: []SharedCondition{asItIs(n), {Key: lifePrefix + name, Revision: p.lives[name].revision}},
			Then: append(emptied(name),
				SharedChange{Key: nodePrefix + name},
				SharedChange{Key: lifePrefix + name, Value: encodeLife(n.info.Incarnation, true)}),
		},
		ends: n.shared.lease,
	}
}

func (p *replica) leave(h *holder, name string, incarnation uint64) (plan, error) {
	if err := CheckName("node", name); err != nil {
		return plan{}, err
	}
	n, err := p.held(h, name, incarnation)
	if err != nil || n == nil {
		return plan{}, err
	}
	return p.planDrop(n), nil
}

func (p *replica) evict(name string, incarnation uint64, force bool) (plan, error) {
	n, err := p.table.evictable(name, incarnation, force)
	if err != nil {
		return plan{}, err
	}
	return p.planDrop(n), nil
}

// add plans the members that are not there yet.
func (p *replica) add(h *holder, incarnation uint64, members []Member) (plan, error) {
	name, err := checkMembers(members)
	if err != nil {
		return plan{}, err
	}
	n, err := p.held(h, name, incarnation)
	if err != nil {
		return plan{}, err
	}
	if n == nil {
		return plan{}, &UnknownNodeError{Name: name}
	}
	if err := p.table.admits(n, members); err != nil {
		return plan{}, err
	}
	return planMembers(n, members, func(m Member) bool { return n.members[m] == nil }, emptyValue), nil
}

// remove plans the end of those members that are there.
func (p *replica) remove(h *holder, incarnation uint64, members []Member) (plan, error) {
	name, err := checkMembers(members)
	if err != nil {
		return plan{}, err
	}
	n, err := p.held(h, name, incarnation)
	if err != nil || n == nil {
		return plan{}, err
	}
	return planMembers(n, members, func(m Member) bool { return n.members[m] != nil }, nil), nil
}

// planMembers sets or removes those members that are due, each once, and as many as a transaction takes.
func planMembers(n *node, members []Member, due func(Member) bool, value []byte) plan {
	pl := plan{transaction: SharedTransaction{If: []SharedCondition{asItIs(n)}}}
	planned := make(map[Member]struct{})
	for _, m := range members {
		if _, twice := planned[m]; twice || !due(m) {
			continue
		}
		if len(planned) == partLen {
			pl.more = true
			break
		}
		planned[m] = struct{}{}
		c := SharedChange{Key: memberKey(m), Value: value}
		if value != nil {
			c.Lease = n.shared.lease
		}
		pl.transaction.Then = append(pl.transaction.Then, c)
	}
	return pl
}

// settle plans the end of what a client did not state of one of its nodes: all of it, if it did not state the node.
func (p *replica) settle(h *holder, name string, stated map[Member]struct{}, whole bool) plan {
	n := p.table.nodes[name]
	switch {
	case n == nil || n.shared.holder != h.id:
		return plan{} // somebody else has it by now
	case whole:
		return p.planDrop(n)
	case !p.joinedBy(n, h):
		return plan{}
	}
	members := slices.SortedFunc(maps.Keys(n.members), Member.Compare)
	return planMembers(n, members, func(m Member) bool { _, there := stated[m]; return !there }, nil)
}

// orphans plans that nodes whose connection to this directory has ended are marked so.
func (p *replica) orphans() plan {
	var pl plan
	for _, n := range p.table.nodes {
		if n.shared.process != p.own || n.shared.connection == 0 || n.live() {
			continue
		}
		if len(pl.transaction.Then) == MaxSharedTransaction {
			pl.more = true
			break
		}
		entry := nodeEntry{info: n.info, holder: n.shared.holder, process: p.own.name}
		pl.transaction.If = append(pl.transaction.If, asItIs(n))
		pl.transaction.Then = append(pl.transaction.Then,
			SharedChange{Key: nodePrefix + n.info.Name, Value: entry.encode(), Lease: n.shared.lease})
	}
	return pl
}

// loads plans what nodes reported, if they are as they were then.
func (p *replica) loads(list []renewal) plan {
	var pl plan
	for _, r := range list {
		n := p.table.nodes[r.name]
		if n == nil || n.info.Incarnation != r.incarnation {
			continue
		}
		pl.transaction.If = append(pl.transaction.If, asItIs(n))
		pl.transaction.Then = append(pl.transaction.Then,
			SharedChange{Key: loadPrefix + r.name, Value: encodeLoad(r.load), Lease: n.shared.lease})
	}
	return pl
}

// forgets plans that the names that went longest ago are remembered no more, if there are too many: half a transaction
// of them, as each has two conditions.
func (p *replica) forgets() plan {
	if len(p.lives)-len(p.table.nodes) <= maxTombs {
		return plan{}
	}
	var gone []life
	for name, l := range p.lives {
		if p.table.nodes[name] == nil {
			gone = append(gone, l)
		}
	}
	slices.SortFunc(gone, func(a, b life) int { return cmp.Compare(a.revision, b.revision) })
	floor := p.table.floor
	pl := plan{transaction: SharedTransaction{If: []SharedCondition{{Key: floorKey, Revision: p.floor}}}}
	for _, l := range gone[:min(len(gone), partLen/2)] {
		floor = max(floor, l.incarnation)
		pl.transaction.If = append(pl.transaction.If,
			SharedCondition{Key: lifePrefix + l.name, Revision: l.revision}, SharedCondition{Key: nodePrefix + l.name})
		pl.transaction.Then = append(pl.transaction.Then, SharedChange{Key: lifePrefix + l.name})
	}
	pl.transaction.Then = append(pl.transaction.Then, SharedChange{Key: floorKey, Value: encodeFloor(floor)})
	return pl
}
