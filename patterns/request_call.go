package patterns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// call is one call, held by the goroutine that waits for it.
type call struct {
	r       *requester
	ctx     context.Context
	opts    CallOptions
	request parcel
	items   *items // nil unless a stream is asked for

	results chan outcome // of its attempts; see outcomes
	under   []*attempt   // under way, the first one first
	tried   []*server    // that had it
	last    error        // why the last attempt came to nothing
	over    bool         // a stream has ended, but for items that were not taken
	failure error        // with which it has
	timer   *time.Timer  // of the hedge; nil if there is none
}

// attempt is a call's request at one server. Its fields are under the
// requester's mu.
type attempt struct {
	id         uint64
	server     *server
	results    chan outcome
	items      *items
	prev, next *attempt // of the server's
	over       bool     // its outcome is known, or nobody wants it
}

// outcomes is how many attempts of a call may have an outcome that it has not
// taken yet: the first and its hedge.
const outcomes = 2

// outcome is how an attempt ended.
type outcome struct {
	of   *attempt
	kind outcomeKind
	body parcel // of a reply
	err  error
}

type outcomeKind uint8

const (
	replied outcomeKind = iota
	ended               // a stream, whose items have come
	failed              // the server's answer is an error
	refused             // not started
	lost                // the server is
	beaten              // another attempt has begun to send the stream
)

var callPool = sync.Pool{New: func() any { return &call{results: make(chan outcome, outcomes)} }}

// admit waits until there may be another call, which dismiss must follow.
func (r *requester) admit(ctx context.Context) error {
	select {
	case r.free <- struct{}{}:
	default:
		select {
		case r.free <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ctx.Done():
			return fabric.ErrClosed
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		<-r.free
		return fabric.ErrClosed
	}
	r.calls++
	r.stats.Calls++
	return nil
}

// dismiss ends what admit has begun.
func (r *requester) dismiss() {
	r.mu.Lock()
	if r.calls--; r.calls == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
	r.mu.Unlock()
	<-r.free
}

// begin begins a call: its first request is sent. The caller then waits, and ends
// it; the request is released by end.
func (r *requester) begin(ctx context.Context, request parcel, opts CallOptions, window int) (*call, error) {
	if err := r.admit(ctx); err != nil {
		return nil, err
	}
	c := callPool.Get().(*call)
	c.r, c.ctx, c.opts, c.request = r, ctx, opts, request
	if window > 0 {
		c.items = newItems(window)
	}
	if err := c.try(nil); err != nil {
		c.request = parcel{} // the caller's
		c.end()
		return nil, err
	}
	if opts.Hedge > 0 && len(opts.Key) == 0 {
		c.timer = time.NewTimer(opts.Hedge)
	}
	return c, nil
}

// try sends the request to a server that has not had it. count is what counts it.
func (c *call) try(count *uint64) error {
	for {
		a, err := c.choose(count)
		if err != nil {
			return err
		}
		if err = c.send(a); err == nil {
			c.under = append(c.under, a)
			return nil
		}
		c.r.mu.Lock()
		if !a.over {
			c.r.remove(a)
		} else if o, ok := c.take(a); ok {
			o.body.release()
		}
		moves := c.ctx.Err() == nil && c.r.ctx.Err() == nil && !tooLarge(err)
		if moves { // its consumer is gone: not started
			c.r.servers.retire(a.server)
			c.last = fmt.Errorf("server %s: %w", a.server.addr, err)
		}
		c.r.stats.Requests--
		c.r.mu.Unlock()
		if !moves {
			return err
		}
	}
}

// take takes an attempt's outcome out of the call's, if it is there.
func (c *call) take(a *attempt) (outcome, bool) {
	for range len(c.results) {
		o := <-c.results
		if o.of == a {
			return o, true
		}
		c.results <- o
	}
	return outcome{}, false
}

// choose finds a server and makes an attempt for it.
func (c *call) choose(count *uint64) (*attempt, error) {
	r := c.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, fabric.ErrClosed
	}
	m := c.pick()
	if m == nil {
		if c.last != nil {
			return nil, fmt.Errorf("patterns: call on %s: %w: %w", r.cfg.channel, ErrNoServer, c.last)
		}
		return nil, fmt.Errorf("patterns: call on %s: %w", r.cfg.channel, ErrNoServer)
	}
	if count != nil {
		*count++
	}
	c.tried = append(c.tried, m)
	return r.attempt(m, c.results, c.items), nil
}

// attempt makes an attempt for a server that was taken by its seat. Under mu.
func (r *requester) attempt(m *server, results chan outcome, items *items) *attempt {
	r.stats.Requests++
	a := &attempt{server: m, results: results, items: items}
	a.id = r.attempts.add(a)
	if a.next = m.who.first; a.next != nil {
		a.next.prev = a
	}
	m.who.first = a
	return a
}

// pick is the server that the call goes to next. Under the requester's mu.
func (c *call) pick() *server {
	b := &c.r.servers.balance
	if len(c.opts.Key) > 0 {
		m := c.r.servers.owner(c.opts.Key)
		if m == nil || m.away || !m.met || slices.Contains(c.tried, m) {
			return nil
		}
		b.take(m.seat)
		return m
	}
	s := b.pick
	if len(c.tried) > 0 {
		s = func() *seat[*server] { return b.pickOther(func(m *server) bool { return slices.Contains(c.tried, m) }) }
	}
	if chosen := s(); chosen != nil {
		return chosen.who
	}
	return nil
}

// send sends the request, with the time that is left.
func (c *call) send(a *attempt) error {
	left, err := timeLeft(c.ctx)
	if err != nil {
		return err
	}
	window := uint64(0)
	if c.items != nil {
		window = uint64(c.items.window)
	}
	var mem [headRoom]byte
	return c.request.send(c.ctx, a.server.target, appendRecord(mem[:0], kindRequest, c.r.index(), a.id, left, window))
}

// timeLeft is the time until ctx's deadline as a request says it: in microseconds,
// 0 if there is none.
func timeLeft(ctx context.Context) (uint64, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0, nil
	}
	d := time.Until(deadline)
	if d <= 0 {
		return 0, context.DeadlineExceeded
	}
	return uint64(max(d.Microseconds(), 1)), nil
}

// wait waits for the call's outcome: a reply or, of a stream, items or the end.
func (c *call) wait() (outcome, error) {
	for {
		var o outcome
		ended := c.ctx.Done()
		if ended == nil && c.items == nil && c.timer == nil {
			o = <-c.results // which is quicker than to select
		} else {
			select {
			case o = <-c.results:
			case <-c.itemsReady():
				return outcome{}, nil
			case <-c.hedge():
				c.timer = nil
				if err := c.try(&c.r.stats.Hedged); err != nil && !errors.Is(err, ErrNoServer) {
					c.last = err // the first attempt goes on
				}
				continue
			case <-ended:
				return outcome{}, fmt.Errorf("patterns: call on %s: %w", c.r.cfg.channel, c.ctx.Err())
			}
		}
		if done, err := c.took(o); done || err != nil {
			return o, err
		}
	}
}

// hedge is nil if there is none, or it was sent.
func (c *call) hedge() <-chan time.Time {
	if c.timer == nil {
		return nil
	}
	return c.timer.C
}

// took takes an attempt's outcome, and reports whether it is the call's.
func (c *call) took(o outcome) (done bool, err error) {
	c.under = slices.DeleteFunc(c.under, func(a *attempt) bool { return a == o.of })
	var e *ReplyError
	if errors.As(o.err, &e) && e.Code == CodeExpired {
		return true, fmt.Errorf("patterns: call on %s: %w: %w", c.r.cfg.channel, context.DeadlineExceeded, e)
	}
	switch o.kind {
	case replied, ended:
		return true, nil
	case beaten:
		return false, nil
	case failed:
		if !c.opts.idempotent() || e == nil || e.Code != CodeClosing {
			return true, o.err
		}
	case lost:
		if !c.opts.idempotent() {
			return true, o.err
		}
	case refused:
	}
	if c.items != nil {
		if c.items.yielded {
			return true, o.err
		}
		c.items.reset()
	}
	c.last = o.err
	if len(c.under) > 0 {
		return false, nil
	}
	return false, c.try(&c.r.stats.Moved)
}

func (o CallOptions) idempotent() bool { return o.Idempotent || o.Hedge > 0 }

// end gives back what the call has, and tells the servers that still work on it.
func (c *call) end() {
	r := c.r
	if c.timer != nil {
		c.timer.Stop()
	}
	r.mu.Lock()
	for _, a := range c.under {
		if !a.over {
			r.remove(a)
			r.stats.Cancelled++
			r.tellCancel(a)
		}
	}
	for len(c.results) > 0 {
		o := <-c.results
		r.stats.LateReplies++
		o.body.release()
	}
	r.mu.Unlock()
	r.dismiss()
	c.request.release()
	results, under, tried := c.results, c.under, c.tried
	clear(under)
	clear(tried)
	*c = call{results: results, under: under[:0], tried: tried[:0]}
	callPool.Put(c)
}

// tellCancel tells a's server that nobody waits any more, or that it is to be told.
// Under mu.
func (r *requester) tellCancel(a *attempt) {
	m := a.server
	var mem [headRoom]byte
	err := fabric.ErrHighWater
	if len(m.who.owed) == 0 {
		err = m.target.TrySend(appendRecord(mem[:0], kindCancel, r.index(), a.id))
	}
	if err == fabric.ErrHighWater && len(m.who.owed) < maxOwed {
		m.who.owed = append(m.who.owed, a.id)
	}
}

// remove takes an attempt out: its server no longer has to answer it. Under mu.
func (r *requester) remove(a *attempt) {
	a.over = true
	r.attempts.remove(a.id)
	if a.prev == nil {
		a.server.who.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	a.prev, a.next = nil, nil
	r.servers.balance.done(a.server.seat)
}
