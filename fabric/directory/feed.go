package directory

// feed reads one channel at its reader's pace. What it gives, in order:
//
//	reset, a snapshot, what changed since the snapshot, Synced, changes ...   and again from reset when overrun
//
// A reader that resumes where it ended starts with changes at once, if the history still reaches back that far.
type feed struct {
	registry *Registry
	channel  *channel
	wake     func() // called under Registry.mu whenever take has something new; must not block

	// under Registry.mu
	reset    bool    // a snapshot begins; not yet told
	rest     []Event // of the snapshot
	cursor   uint64  // everything up to here was given, once rest is empty
	syncing  bool    // Synced is due when the cursor reaches target
	target   uint64
	released bool
}

// open starts a feed. A position, that is this registry's epoch and a revision that an earlier feed gave, resumes there.
func (r *Registry) open(name string, epoch, revision uint64, wake func()) (*feed, error) {
	if err := CheckName("channel", name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	f := &feed{registry: r, channel: r.channel(name), wake: wake, cursor: revision}
	f.channel.feeds[f] = struct{}{}
	if epoch != r.epoch || revision < f.channel.base || revision > r.revision {
		f.restart()
	}
	return f, nil
}

func (f *feed) restart() {
	f.reset = true
	f.rest, f.cursor = f.channel.take(f.registry.revision)
	f.syncing, f.target = true, f.registry.revision
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
func (f *feed) take(dst []Event, limit int) (batch, error) {
	f.registry.mu.Lock()
	defer f.registry.mu.Unlock()
	if f.registry.closed || f.released {
		return batch{events: dst}, ErrClosed
	}
	if f.cursor < f.channel.base {
		f.restart()
	}
	b := batch{reset: f.reset}
	f.reset = false
	b.events = f.fill(dst, len(dst)+limit)
	b.revision = f.cursor
	return b, nil
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
			dst = append(dst, Event{Revision: f.target, Kind: Synced})
			f.cursor, f.syncing = f.target, false
		case len(changes) > 0:
			dst = append(dst, changes[0])
			f.cursor, changes = changes[0].Revision, changes[1:]
		default:
			f.cursor = f.registry.revision // what changed in other channels is behind us as well
			return dst
		}
	}
	return dst
}

// release ends the feed; any number of times.
func (f *feed) release() {
	f.registry.mu.Lock()
	defer f.registry.mu.Unlock()
	if f.released {
		return
	}
	f.released = true
	delete(f.channel.feeds, f)
	f.registry.forget(f.channel)
}
