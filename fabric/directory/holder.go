package directory

import (
	"maps"
	"slices"
)

// What a Server does with a Registry on behalf of its clients. A client that reconnects states anew all that it
// holds, between restate and settle; what it did not state is then removed. So nothing that it gave up while it was
// away, and no call of which it does not know the outcome, leaves anything behind; and what it states again was
// never away for anybody who watches.

// attach makes the client's holder live: at a connection's beginning. Nodes that it joined over an earlier one are
// orphans until it joins them again.
func (t *table) attach(id string, lasting bool) *holder {
	h := t.holders[id]
	if h == nil {
		h = &holder{id: id, lasting: lasting, nodes: make(map[*node]struct{})}
		t.holders[id] = h
	}
	h.live = true
	h.connection++
	return h
}

// detach ends a connection: the holder's nodes are orphans, and live on for what is left of their leases. An earlier
// connection may end after a later one has begun, if they were made to two servers; that changes nothing.
func (t *table) detach(h *holder, connection uint64) {
	if h.connection == connection {
		h.live = false
		t.forgetHolder(h)
	}
}

// forgetHolder lets a holder go that has ended and holds nothing.
func (t *table) forgetHolder(h *holder) {
	if !h.live && len(h.nodes) == 0 {
		delete(t.holders, h.id)
	}
}

// restate begins a round: what the holder joins and adds from now on is what it holds.
func (t *table) restate(h *holder) {
	t.rounds++
	h.round, h.restating = t.rounds, true
}

// settle ends the round: what the holder did not state is removed. Without a round there is nothing to do.
func (t *table) settle(h *holder) {
	if !h.restating {
		return
	}
	h.restating = false
	for _, n := range slices.SortedFunc(maps.Keys(h.nodes), func(a, b *node) int { return compareInfo(a.info, b.info) }) {
		if n.round != h.round {
			t.drop(n, true)
			continue
		}
		var gone []Member
		for m, entry := range n.members {
			if entry.round != h.round {
				gone = append(gone, m)
			}
		}
		t.dropMembers(n, gone, false)
	}
}
