package directory

import (
	"context"
	"time"
)

// What a Server does with a Registry on behalf of its clients.

// attach makes a holder live over a connection; lasting says that it will be known by its id to this directory's next
// life.
func (r *Registry) attach(id string, lasting bool) (h *holder, connection uint64) {
	if r.sharing != nil {
		h = r.sharing.attach(id, lasting)
		return h, h.connection
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h = r.table.attach(id, lasting)
	return h, h.connection
}

func (r *Registry) detach(h *holder, connection uint64) {
	if r.sharing != nil {
		r.sharing.detach(connection)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table.detach(h, connection)
}

func (r *Registry) join(h *holder, info NodeInfo) (incarnation uint64, err error) {
	if r.sharing != nil {
		return r.sharing.join(context.Background(), h, info)
	}
	err = r.change(context.Background(), func(t *table) error {
		incarnation, err = t.join(h, info)
		return err
	})
	return incarnation, err
}

func (r *Registry) leave(h *holder, name string, incarnation uint64) error {
	if r.sharing != nil {
		return r.sharing.leave(context.Background(), h, name, incarnation)
	}
	return r.change(context.Background(), func(t *table) error { return t.leave(h, name, incarnation) })
}

func (r *Registry) add(h *holder, incarnation uint64, members []Member) error {
	if r.sharing != nil {
		return r.sharing.add(context.Background(), h, incarnation, members)
	}
	return r.change(context.Background(), func(t *table) error { return t.add(h, incarnation, members) })
}

func (r *Registry) remove(h *holder, incarnation uint64, members []Member) error {
	if r.sharing != nil {
		return r.sharing.remove(context.Background(), h, incarnation, members)
	}
	return r.change(context.Background(), func(t *table) error { return t.remove(h, incarnation, members) })
}

func (r *Registry) renew(h *holder, list []renewal) (unknown []string, err error) {
	if r.sharing != nil {
		return r.sharing.renew(context.Background(), h, list)
	}
	err = r.read(context.Background(), func(t *table) error {
		unknown = t.renew(h, list)
		return nil
	})
	return unknown, err
}

func (r *Registry) restate(h *holder) error {
	if r.sharing != nil {
		r.sharing.restate(h)
		return nil
	}
	return r.read(context.Background(), func(t *table) error {
		t.restate(h)
		return nil
	})
}

func (r *Registry) settle(h *holder) error {
	if r.sharing != nil {
		return r.sharing.settle(context.Background(), h)
	}
	return r.change(context.Background(), func(t *table) error {
		t.settle(h)
		return nil
	})
}

// open starts a feed of a channel, or of the nodes if it has no name. Call fresh before: else a position that another
// directory gave might be one that this table has not reached.
func (r *Registry) open(name string, epoch, revision uint64, wake func()) (f *feed, err error) {
	_, err = r.locked(context.Background(), func(t *table) error {
		f = t.open(t.named(name), epoch, revision, wake)
		return nil
	})
	return f, err
}

func (r *Registry) take(f *feed, dst []Event, limit int) (b batch, err error) {
	b.events = dst
	_, err = r.locked(context.Background(), func(*table) error {
		if f.released {
			return ErrClosed
		}
		b = f.take(dst, limit)
		return nil
	})
	return b, err
}

func (r *Registry) release(f *feed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.release()
}

// pass tells the table what time it is, and returns when to do so next.
func (r *Registry) pass() (patience time.Duration, err error) {
	err = r.change(context.Background(), func(t *table) error {
		patience = t.patience()
		return nil
	})
	return patience, err
}
