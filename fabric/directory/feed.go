package directory

// feed reads one channel at its reader's pace. What it gives, in order:
//
//	reset, a snapshot, what changed since the snapshot, Synced, changes ...   and again from reset when overrun
//
// A reader that resumes where it ended starts with changes at once, if the history still reaches back that far.
type feed struct {
	table   *table
	channel *channel
	wake    func() // called, with the table locked, whenever take has something new; must not block

	reset    bool    // a snapshot begins; not yet told
	rest     []Event // of the snapshot
	cursor   uint64  // everything up to here was given, once rest is empty
	syncing  bool    // Synced is due when the cursor reaches target
	target   uint64
	released bool
}

// open starts a feed. A position, that is this table's epoch and a revision that an earlier feed gave, resumes there.
func (t *table) open(c *channel, epoch, revision uint64, wake func()) *feed {
	f := &feed{table: t, channel: c, wake: wake, cursor: revision}
	c.feeds[f] = struct{}{}
	if epoch != t.epoch || revision > t.revision {
		f.restart()
	}
	return f
}

func (f *feed) restart() {
	f.reset = true
	f.rest, f.cursor = f.channel.take(f.table.revision)
	f.syncing, f.target = true, f.table.revision
}

// batch is what a feed gives at once.
type batch struct {
	events []Event
	reset  bool // the first event begins a new snapshot; what was told before counts only as what to compare it with
	// revision is where to resume after these events, provided no snapshot is under way.
	revision uint64
}

// take appends up to limit events to dst, which becomes the batch. It gives none when there is nothing new; wake
// tells when to ask again.
func (f *feed) take(dst []Event, limit int) batch {
	if f.cursor < f.channel.base {
		f.restart()
	}
	b := batch{reset: f.reset}
	f.reset = false
	b.events = f.fill(dst, len(dst)+limit)
	b.revision = f.cursor
	return b
}

// fill appends events until dst has full or there are no more.
func (f *feed) fill(dst []Event, full int) []Event {
	n := min(full-len(dst), len(f.rest))
	dst, f.rest = append(dst, f.rest[:n]...), f.rest[n:]
	if len(f.rest) > 0 {
		return dst
	}
	f.rest = nil // lets an outdated snapshot go

	changes := f.channel.after(f.cursor)
	for len(dst) < full {
		switch {
		case f.syncing && (len(changes) == 0 || changes[0].Revision > f.target):
			dst = append(dst, Event{Revision: f.target, Kind: Synced, Warming: f.table.warming()})
			f.cursor, f.syncing = f.target, false
		case len(changes) > 0:
			dst = append(dst, changes[0])
			f.cursor, changes = changes[0].Revision, changes[1:]
		default:
			f.cursor = f.table.revision // what changed in other channels is behind us as well
			return dst
		}
	}
	return dst
}

// release ends the feed; any number of times.
func (f *feed) release() {
	f.released = true
	delete(f.channel.feeds, f)
	f.table.forget(f.channel)
}
