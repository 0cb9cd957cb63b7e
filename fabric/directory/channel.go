package directory

import (
	"slices"
	"sort"
)

// historyLen bounds the changes that a channel keeps for its watchers: some 100 bytes each, and enough for every
// node of a large fabric to come or go within one of a watcher's round trips. Who lags further gets a snapshot.
const historyLen = 1024

// channel is one channel's members and its recent changes.
//
// Watchers have no queues: they are positions (revisions) in the one history. A position older than base is overrun.
// A snapshot made once serves as long as the history still reaches back to it, so that many watchers who begin at the
// same time, while members come and go, cost one sort per historyLen changes and not one each.
type channel struct {
	name    string
	members map[Member]*registration
	feeds   map[*feed]struct{}

	pools [Consumer + 1]*pool // by role, 0 for any; nil: not asked for

	history []Event // every change with a revision over base, in order
	base    uint64

	snapshot         []Event // Added, sorted, never changed once made; nil: none
	snapshotRevision uint64
}

func newChannel(name string, base uint64) *channel {
	return &channel{
		name:    name,
		members: make(map[Member]*registration),
		feeds:   make(map[*feed]struct{}),
		base:    base,
	}
}

// record appends a change and forgets the oldest one beyond the bound.
func (c *channel) record(e Event) {
	c.outdate(e.Member.Role)
	if len(c.history) == historyLen {
		c.base = c.history[0].Revision
		c.history[0] = Event{}
		c.history = c.history[1:]
		if c.snapshotRevision < c.base {
			c.snapshot = nil
		}
	}
	c.history = append(c.history, e)
}

// after returns the changes later than revision, which must not be older than base.
func (c *channel) after(revision uint64) []Event {
	i := sort.Search(len(c.history), func(i int) bool { return c.history[i].Revision > revision })
	return c.history[i:]
}

// take returns a snapshot, with the revision it stands for, from which the history leads to the present.
func (c *channel) take(now uint64) ([]Event, uint64) {
	if c.snapshot == nil {
		c.snapshot = make([]Event, 0, len(c.members))
		for m, r := range c.members {
			c.snapshot = append(c.snapshot, Event{Revision: now, Kind: Added, Member: m, Node: r.node.info})
		}
		slices.SortFunc(c.snapshot, func(a, b Event) int { return a.Member.Compare(b.Member) })
		c.snapshotRevision = now
	}
	return c.snapshot, c.snapshotRevision
}

// announce wakes everybody who watches.
func (c *channel) announce() {
	for f := range c.feeds {
		f.wake()
	}
}
