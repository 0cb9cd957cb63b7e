package patterns

import (
	"bytes"
	"context"
	"time"

	"github.com/zfab/zfab/fabric"
)

// subscription is one subscriber, as a publisher knows it. All of it is under the
// publisher's mu.
type subscription struct {
	outlet   *outlet
	id       uint64 // its hub's
	quality  Quality
	conflate bool
	gone     bool // it is a subscription no more
	replays  int  // that wait in the outlet

	// Of a reliable one: what it was sent and what it has handled, in all, and how
	// much it has room for. One message may go beyond the bytes.
	messages, bytes uint64
	room            fabric.HighWaterMark
	handled         uint64
	handledBytes    uint64
	behind          time.Time // when a message first found no room since there was some; else zero
}

// full reports whether a reliable subscription has no room.
func (s *subscription) full() bool {
	return s.messages-s.handled >= uint64(s.room.Messages) || s.bytes-s.handledBytes >= uint64(s.room.Bytes)
}

// route is where the messages of a topic go. It is not changed: another takes its
// place when subscriptions come or go.
type route struct {
	topic    string
	stops    []*stop
	reliable []*subscription
}

// stop is one node of a route.
type stop struct {
	outlet   *outlet
	subs     []*subscription
	reliable bool // one of them is: the copy must not be dropped
	conflate bool // all of them conflate: it gives way to a newer one of its topic
}

func newRoute(topic string, wanting []*subscription) *route {
	r := &route{topic: topic}
	stops := make(map[*outlet]*stop)
	for _, s := range wanting {
		st := stops[s.outlet]
		if st == nil {
			st = &stop{outlet: s.outlet, conflate: true}
			stops[s.outlet] = st
			r.stops = append(r.stops, st)
		}
		st.subs = append(st.subs, s)
		st.conflate = st.conflate && s.conflate
		if s.quality == Reliable {
			st.reliable = true
			r.reliable = append(r.reliable, s)
		}
	}
	return r
}

// publish sends a message, whose body begins at head in its record, to all who want
// it. It keeps nothing of the record.
func (p *publisher) publish(ctx context.Context, topic string, record []byte, head int) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := len(record) - head
	r, err := p.admit(ctx, topic)
	if err != nil {
		return err
	}
	p.stats.Published++
	if len(r.stops) == 0 {
		p.stats.Unwanted++
	}
	for _, s := range r.reliable {
		s.messages++
		s.bytes += uint64(size)
	}
	var body []byte // a copy that may be kept, once somebody needs it
	if p.history.keeps() {
		body = bytes.Clone(record[head:])
		p.history.add(moment{r.topic, body})
	}
	for _, st := range r.stops {
		o := st.outlet
		if o.idle() {
			sent := o.target.TrySend(record)
			if sent == nil {
				p.sent(o)
				continue
			}
			if sent != fabric.ErrHighWater {
				if refused := p.refused(st, size, sent); refused != nil {
					err = refused
				}
				continue
			}
		}
		if body == nil {
			body = bytes.Clone(record[head:])
		}
		p.put(o, dispatch{kind: kindPublished, stop: st, topic: r.topic, body: body})
	}
	return err
}

// admit finds the route of a topic, and waits until all reliable subscriptions on
// it have room. Under mu, but not while it waits.
func (p *publisher) admit(ctx context.Context, topic string) (*route, error) {
	for {
		if p.closed {
			return nil, fabric.ErrClosed
		}
		r := p.routes.match(topic)
		var slowest *subscription
		for _, s := range r.reliable {
			if !s.full() {
				continue
			}
			if s.behind.IsZero() {
				s.behind = time.Now()
			}
			if slowest == nil || s.behind.Before(slowest.behind) {
				slowest = s
			}
		}
		if slowest == nil {
			return r, nil
		}
		if err := p.waitRoom(ctx, slowest); err != nil {
			return nil, err
		}
	}
}

// waitRoom waits until something has changed, or evicts s, whose time is over.
func (p *publisher) waitRoom(ctx context.Context, s *subscription) error {
	var due <-chan time.Time
	if p.cfg.evictAfter > 0 {
		left := p.cfg.evictAfter - time.Since(s.behind)
		if left <= 0 {
			p.evict(s)
			return nil
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		due = timer.C
	}
	moved := p.moved
	p.stats.Waiting++
	p.mu.Unlock()
	var err error
	select {
	case <-moved:
	case <-due:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	p.stats.Waiting--
	return err
}

// evict ends a subscription that is behind. Its hub hears of it where the messages
// end that it gets.
func (p *publisher) evict(s *subscription) {
	p.stats.Evicted++
	p.drop(s)
	p.say(s.outlet, dispatch{kind: kindEvicted, sub: s})
}

// drop takes a subscription out, and what was to be replayed to it. Under mu.
func (p *publisher) drop(s *subscription) {
	s.gone = true
	delete(s.outlet.subs, s.id)
	p.routes.remove(s)
	p.unplay(s)
	p.moved = signal(p.moved)
}

// forget takes out a hub that is gone, with all its subscriptions. Under mu.
func (p *publisher) forget(o *outlet) {
	if o.gone {
		return
	}
	o.gone = true
	p.outlets.remove(o.token)
	if p.byAddr[o.addr] == o {
		delete(p.byAddr, o.addr)
	}
	for _, s := range o.subs {
		s.gone = true
		p.routes.remove(s)
	}
	o.clear()
	p.moved = signal(p.moved)
	p.progress()
}

// lose forgets a hub that did not say that it goes: if it is there all the same, it
// is greeted again.
func (p *publisher) lose(o *outlet) {
	p.forget(o)
	select {
	case p.greet <- struct{}{}:
	default:
	}
}

// sent counts a copy. Under mu.
func (p *publisher) sent(o *outlet) {
	o.copies++
	p.stats.Copies++
}

// refused deals with a copy that cannot be sent: its node is gone, or takes none so
// large. Only the latter is an error. Under mu.
func (p *publisher) refused(st *stop, size int, err error) error {
	if !tooLarge(err) {
		p.lose(st.outlet)
		return nil
	}
	p.missed(st, size)
	for _, s := range st.subs {
		if !s.gone {
			p.say(st.outlet, dispatch{kind: kindMissed, sub: s, number: 1})
		}
	}
	return err
}

// missed counts a copy that nobody at its stop will get. Under mu.
func (p *publisher) missed(st *stop, size int) {
	for _, s := range st.subs {
		if s.gone {
			continue
		}
		if s.quality == Reliable { // which was to have room for it
			s.messages--
			s.bytes -= uint64(size)
			s.handled, s.handledBytes = min(s.handled, s.messages), min(s.handledBytes, s.bytes)
		}
		st.outlet.dropped++
		p.stats.Dropped++
	}
}
