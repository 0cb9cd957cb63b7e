package directory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// clientWatcher is a watch that outlives connections. It has no goroutine: whoever is in Next asks the directory for
// the next events once those before have been told, so neither end has more than one batch waiting.
//
//	no connection --watch sent--> begun --reply--> following --next sent, reply--> following
//	     ^                          |                  |
//	     +------ connection lost ---+------------------+
//
// A new connection begins with the position reached: the directory goes on from there, or, when it forgot that far
// back, gives a snapshot, which the view compares with what it told.
type clientWatcher struct {
	// immutable
	client  *Client
	channel string // "": the nodes
	closed  chan struct{}
	once    sync.Once
	turn    chan struct{} // room for one: whose turn it is in Next

	// whose turn it is
	conn     *clientConn // over which the watch stands, or is being begun; nil: none
	number   uint64      // the watch's, over that connection
	asked    *call       // waits for events; nil: none does
	begun    bool        // the directory has answered over that connection
	epoch    uint64      // of the position; 0: there is none
	revision uint64      // of the position
	newLife  bool        // the snapshot under way is the first of another life of the directory
	expiry   time.Time   // when the view's doubts end

	mu   sync.Mutex
	view view
}

func newClientWatcher(c *Client, channel string) *clientWatcher {
	w := &clientWatcher{client: c, channel: channel, closed: make(chan struct{}), turn: make(chan struct{}, 1)}
	c.mu.Lock()
	c.watchers[w] = struct{}{}
	c.mu.Unlock()
	return w
}

// begin waits for the directory's first answer.
func (w *clientWatcher) begin(ctx context.Context) error {
	for !w.begun {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Next implements Watcher.
func (w *clientWatcher) Next(ctx context.Context) (Event, error) {
	if err := take(ctx, w.turn, w.closed); err != nil {
		return Event{}, err
	}
	defer func() { <-w.turn }()
	for {
		w.mu.Lock()
		e, ok := w.view.next()
		w.mu.Unlock()
		if ok {
			return e, nil
		}
		if err := w.step(ctx); err != nil {
			return Event{}, err
		}
	}
}

// Close implements Watcher.
func (w *clientWatcher) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.client.mu.Lock()
		delete(w.client.watchers, w)
		w.client.mu.Unlock()
		w.turn <- struct{}{} // Next ends, as closed is
		defer func() { <-w.turn }()
		if w.asked != nil {
			w.asked.forget()
		}
		if w.conn != nil && !w.conn.isBroken() {
			ctx, cancel := context.WithTimeout(w.client.ctx, w.client.opts.Timeout)
			defer cancel()
			if k, err := w.conn.start(ctx, &request{Op: opUnwatch, Watch: w.number}); err == nil {
				k.forget()
			}
		}
	})
	return nil
}

// step asks for events if nothing was asked yet, and waits for one thing to happen.
func (w *clientWatcher) step(ctx context.Context) error {
	if w.asked == nil {
		if err := w.ask(ctx); err != nil {
			return err
		}
	}
	var expired <-chan time.Time
	if len(w.view.doubts) > 0 && w.begun {
		timer := time.NewTimer(time.Until(w.expiry))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case r := <-w.asked.reply:
		return w.answered(r)
	case <-w.asked.conn.broken:
		w.conn, w.asked, w.begun = nil, nil, false
		return nil
	case <-expired:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.view.expire(w.revision)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closed:
		return ErrClosed
	case <-w.client.ctx.Done():
		return ErrClosed
	}
}

// ask begins the watch over a new connection, or asks for its next events.
func (w *clientWatcher) ask(ctx context.Context) error {
	for {
		if w.conn == nil {
			conn, err := w.client.await(ctx, w.closed)
			if err != nil {
				return err
			}
			w.conn, w.number, w.begun = conn, w.client.nextWatch(), false
		}
		q := &request{Op: opNext, Watch: w.number}
		if !w.begun {
			q = &request{Op: opWatch, Watch: w.number, Channel: w.channel, Epoch: w.epoch, Revision: w.revision}
			if w.channel == "" {
				q.Op = opWatchNodes
			}
		}
		asked, err := w.conn.start(ctx, q)
		if errors.Is(err, errLost) {
			w.conn = nil
			continue
		}
		w.asked = asked
		return err
	}
}

// answered takes a batch of events.
func (w *clientWatcher) answered(r *reply) error {
	asked := w.asked
	w.asked = nil
	if err := asked.result(r); err != nil {
		w.conn = nil // to begin anew, if the caller asks again
		if errors.Is(err, ErrUnavailable) {
			asked.conn.fail(err) // the next one is there once a directory knows how things stand
			return nil
		}
		if errors.Is(err, errLost) || errors.Is(err, errNoWatch) {
			return nil
		}
		return err
	}
	if !w.begun {
		w.begun = true
		w.expiry = time.Now().Add(w.client.grace()) // nobody could register again before
	}
	events := r.events(w.channel)
	w.client.hear(events) // before the lock, which is taken under the client's
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Reset {
		w.newLife = w.epoch != 0 && r.Epoch != w.epoch
		w.view.begin()
	}
	for _, e := range events {
		w.view.apply(e, w.newLife)
	}
	if w.view.fresh == nil && w.view.synced {
		if w.newLife {
			w.expiry = time.Now().Add(w.client.grace())
		}
		w.newLife = false
		w.epoch, w.revision = r.Epoch, r.Revision
	}
	return nil
}

// candidates lists those told of, once there was a whole snapshot.
func (w *clientWatcher) candidates(role Role) ([]Candidate, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.view.synced {
		return nil, false
	}
	list := make([]Candidate, 0, len(w.view.told))
	for m, info := range w.view.told {
		if role == 0 || m.Role == role {
			list = append(list, Candidate{Member: m, Node: info})
		}
	}
	slices.SortFunc(list, func(a, b Candidate) int { return a.Member.Compare(b.Member) })
	return list, true
}

// nextWatch chooses a watch's number, unique over all connections.
func (c *Client) nextWatch() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches++
	return c.watches
}
