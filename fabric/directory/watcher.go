package directory

import (
	"context"
	"sync"
)

// batchLen is how many events pass from a feed to a watcher at once. It bounds one reply to 660 KiB with the longest
// names and endpoints, and a common one to 30 KiB.
const batchLen = 512

// watcher is a watch of a Registry of this process.
type watcher struct {
	registry *Registry
	feed     *feed
	wake     chan struct{} // room for one: the feed has something new
	closed   chan struct{}
	once     sync.Once

	turn    chan struct{} // room for one: whose turn it is in Next; guards the rest
	view    view
	scratch []Event // one batch
}

func newWatcher(r *Registry, channel string) (*watcher, error) {
	w := &watcher{
		registry: r,
		wake:     make(chan struct{}, 1),
		closed:   make(chan struct{}),
		turn:     make(chan struct{}, 1),
	}
	feed, err := r.open(channel, 0, 0, func() { signal(w.wake) })
	if err != nil {
		return nil, err
	}
	w.feed = feed
	return w, nil
}

// Next implements Watcher.
func (w *watcher) Next(ctx context.Context) (Event, error) {
	if err := take(ctx, w.turn, w.closed); err != nil {
		return Event{}, err
	}
	defer func() { <-w.turn }()
	for {
		if e, ok := w.view.next(); ok {
			return e, nil
		}
		batch, err := w.registry.take(w.feed, w.scratch[:0], batchLen)
		if err != nil {
			return Event{}, err
		}
		if batch.reset {
			w.view.begin()
		}
		for _, e := range batch.events {
			w.view.apply(e, false)
		}
		w.scratch = batch.events
		if len(batch.events) > 0 {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-w.closed:
			return Event{}, ErrClosed
		}
	}
}

// Close implements Watcher.
func (w *watcher) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.registry.release(w.feed)
	})
	return nil
}

// take waits for the turn.
func take(ctx context.Context, turn chan<- struct{}, closed <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-closed:
		return ErrClosed
	default:
	}
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return ErrClosed
	}
}

// signal notes, without waiting, that there is something to look at.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
