package directory

import (
	"maps"
	"slices"
)

// view turns what a feed gives (here, or in another process) into what a watcher tells: differences only. It knows
// every member told so far, so a second snapshot, after an overrun or a reconnect, tells nothing twice and misses
// nothing.
//
// A directory that lost its table comes back empty and fills up again as the nodes register anew. What its snapshot
// lacks has therefore not gone: it is in doubt, until it is added again (nothing is told) or until expire.
type view struct {
	told   map[Member]NodeInfo // what the queue, once it has been read, amounts to
	doubts map[Member]struct{} // told, but not seen in a new directory yet
	fresh  map[Member]NodeInfo // a snapshot being gathered; nil outside of one
	queue  []Event             // differences not read yet: at most those of one snapshot or one batch, see below
	synced bool
}

// The queue's bound is its user's rule: feed the view again only once the queue is empty.

// begin starts a snapshot; one that was not finished is dropped.
func (v *view) begin() { v.fresh = make(map[Member]NodeInfo) }

// apply takes one event of a feed. Doubt, at Synced, says that the snapshot is the first of another directory life.
func (v *view) apply(e Event, doubt bool) {
	switch e.Kind {
	case Added:
		if v.fresh != nil {
			v.fresh[e.Member] = e.Node
			return
		}
		v.added(e.Revision, e.Member, e.Node)
	case Removed:
		if v.fresh != nil {
			delete(v.fresh, e.Member)
			return
		}
		v.removed(e.Revision, e.Member, e.Expired)
	case Synced:
		v.settle(e, doubt)
	}
}

// settle ends a snapshot: first all that went, then all that came.
func (v *view) settle(synced Event, doubt bool) {
	revision := synced.Revision
	if v.fresh != nil {
		for _, m := range slices.SortedFunc(maps.Keys(v.told), Member.Compare) {
			info, there := v.fresh[m]
			switch _, doubted := v.doubts[m]; {
			case there && info == v.told[m]:
				delete(v.doubts, m)
			case there:
				v.removed(revision, m, false)
			case doubt || doubted:
				v.doubt(m)
			default:
				v.removed(revision, m, false)
			}
		}
		for _, m := range slices.SortedFunc(maps.Keys(v.fresh), Member.Compare) {
			v.added(revision, m, v.fresh[m])
		}
		v.fresh = nil
	}
	if !v.synced {
		v.synced = true
		v.queue = append(v.queue, synced)
	}
}

func (v *view) added(revision uint64, m Member, info NodeInfo) {
	if old, there := v.told[m]; there && old == info {
		delete(v.doubts, m)
		return
	}
	v.removed(revision, m, false)
	// Another life of the node settles the doubts about its earlier one: Removed of the old before Added of the new.
	if len(v.doubts) > 0 {
		for _, d := range slices.SortedFunc(maps.Keys(v.doubts), Member.Compare) {
			if d.Node == m.Node && v.told[d] != info {
				v.removed(revision, d, false)
			}
		}
	}
	if v.told == nil {
		v.told = make(map[Member]NodeInfo)
	}
	v.told[m] = info
	v.queue = append(v.queue, Event{Revision: revision, Kind: Added, Member: m, Node: info})
}

func (v *view) removed(revision uint64, m Member, expired bool) {
	info, there := v.told[m]
	if !there {
		return
	}
	delete(v.told, m)
	delete(v.doubts, m)
	v.queue = append(v.queue, Event{Revision: revision, Kind: Removed, Member: m, Node: info, Expired: expired})
}

func (v *view) doubt(m Member) {
	if v.doubts == nil {
		v.doubts = make(map[Member]struct{})
	}
	v.doubts[m] = struct{}{}
}

// expire ends the doubts: what nobody registered again is gone.
func (v *view) expire(revision uint64) {
	for _, m := range slices.SortedFunc(maps.Keys(v.doubts), Member.Compare) {
		v.removed(revision, m, true)
	}
}

// next takes the oldest difference off the queue.
func (v *view) next() (Event, bool) {
	if len(v.queue) == 0 {
		return Event{}, false
	}
	e := v.queue[0]
	v.queue = v.queue[1:]
	if len(v.queue) == 0 {
		v.queue = nil
	}
	return e, true
}
