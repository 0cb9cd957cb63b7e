package directory

import (
	"context"
	"time"
)

// What a Server does with a Registry on behalf of its clients.

// attach makes a holder live over a connection; lasting says that it will be known by its id to this directory's next
// life.
func (r *Registry) attach(id string, lasting bool) (h *holder, connection uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h = r.table.attach(id, lasting)
	return h, h.connection
}

func (r *Registry) detach(h *holder, connection uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table.detach(h, connection)
}

func (r *Registry) join(h *holder, info NodeInfo) (incarnation uint64, err error) {
	err = r.change(context.Background(), func(t *table) error {
		incarnation, err = t.join(h, info)
		return err
	})
	return incarnation, err
}

func (r *Registry) leave(h *holder, name string, incarnation uint64) error {
	return r.change(context.Background(), func(t *table) error { return t.leave(h, name, incarnation) })
}

func (r *Registry) add(h *holder, incarnation uint64, members []Member) error {
	return r.change(context.Background(), func(t *table) error { return t.add(h, incarnation, members) })
}

func (r *Registry) remove(h *holder, incarnation uint64, members []Member) error {
	return r.change(context.Background(), func(t *table) error { return t.remove(h, incarnation, members) })
}

func (r *Registry) renew(h *holder, list []renewal) (unknown []string, err error) {
	err = r.read(context.Background(), func(t *table) error {
		unknown = t.renew(h, list)
		return nil
	})
	return unknown, err
}

func (r *Registry) restate(h *holder) error {
	return r.read(context.Background(), func(t *table) error {
		t.restate(h)
		return nil
	})
}

func (r *Registry) settle(h *holder) error {
	return r.change(context.Background(), func(t *table) error {
		t.settle(h)
		return nil
	})
}

// open starts a feed of a channel, or of the nodes if it has no name.
func (r *Registry) open(name string, epoch, revision uint64, wake func()) (f *feed, err error) {
	err = r.read(context.Background(), func(t *table) error {
		f = t.open(t.named(name), epoch, revision, wake)
		return nil
	})
	return f, err
}

func (r *Registry) take(f *feed, dst []Event, limit int) (b batch, err error) {
	b.events = dst
	err = r.read(context.Background(), func(*table) error {
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
