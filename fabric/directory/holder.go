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
func (r *Registry) attach(id string) *holder {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.holders[id]
	if h == nil {
		h = &holder{id: id, nodes: make(map[*node]struct{})}
		r.holders[id] = h
	}
	h.live = true
	h.connection++
	return h
}

// detach ends it: the holder's nodes are orphans.
func (r *Registry) detach(h *holder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.live = false
	r.forgetHolder(h)
}

// forgetHolder lets a holder go that has ended and holds nothing.
func (r *Registry) forgetHolder(h *holder) {
	if !h.live && len(h.nodes) == 0 {
		delete(r.holders, h.id)
	}
}

// restate begins a round: what the holder joins and adds from now on is what it holds.
func (r *Registry) restate(h *holder) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.rounds++
	h.round, h.restating = r.rounds, true
	return nil
}

// settle ends the round: what the holder did not state is removed. Without a round there is nothing to do.
func (r *Registry) settle(h *holder) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	if !h.restating {
		return nil
	}
	h.restating = false
	for _, n := range slices.SortedFunc(maps.Keys(h.nodes), func(a, b *node) int { return compareInfo(a.info, b.info) }) {
		if n.round != h.round {
			r.drop(n)
			continue
		}
		var gone []Member
		for m, entry := range n.members {
			if entry.round != h.round {
				gone = append(gone, m)
			}
		}
		r.dropMembers(n, gone)
	}
	return nil
}
