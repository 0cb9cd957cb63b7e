package patterns

import (
	"context"
	"time"

	"github.com/zfab/zfab/fabric"
)

// meet says hello to hubs until the publisher is closed: to those that are new, to
// those that are there again, and to those that were forgotten without their word. It
// gives up those whose lease has ended and who have no connection.
func (p *publisher) meet() {
	tick := time.NewTicker(lookEvery(p.cfg.patience))
	defer tick.Stop()
	for {
		changed := p.producer.Changed()
		there, now := make(map[fabric.Address]bool), time.Now()
		p.mu.Lock()
		for _, addr := range p.producer.Consumers() {
			there[addr] = true
			if t, err := p.producer.To(addr); err == nil {
				p.hello(addr, t)
			}
		}
		for addr, o := range p.byAddr {
			// One with subscriptions may be there all the same.
			gone := o.absence.look(there[addr] || p.node.Connected(addr.Node), now) > p.cfg.patience
			if !there[addr] && (len(o.subs) == 0 || gone) {
				p.forget(o)
			}
		}
		p.mu.Unlock()
		select {
		case <-changed:
		case <-p.greet:
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
	}
}

// hello makes an outlet for a hub, unless there is one on that stream. Under mu.
func (p *publisher) hello(addr fabric.Address, t *fabric.Target) {
	if o := p.byAddr[addr]; o != nil {
		if *o.target == *t {
			return
		}
		p.forget(o) // its stream has ended, and another begun
	}
	o := newOutlet(addr, t)
	o.token = p.outlets.add(o)
	p.byAddr[addr] = o
	p.say(o, dispatch{kind: kindPublishes, number: uint64(p.heard.Address().Index), token: o.token})
	if p.closed {
		p.say(o, dispatch{kind: kindLastWord})
	}
}

// hear takes what hubs say, until the publisher is closed.
func (p *publisher) hear() {
	for {
		m, err := p.heard.Receive(context.Background())
		lost := lostPeer(err)
		if err != nil && lost == nil {
			return
		}
		p.mu.Lock()
		if lost != nil {
			p.nodeLost(lost.Node)
		} else if !p.take(m.Source(), m.Body) {
			p.stats.Malformed++
		}
		p.mu.Unlock()
	}
}

// nodeLost forgets all hubs of a node. Under mu.
func (p *publisher) nodeLost(node string) {
	for addr, o := range p.byAddr {
		if addr.Node == node {
			p.lose(o)
		}
	}
}

// take takes a record, and reports whether it is one. Under mu.
func (p *publisher) take(from fabric.Address, record []byte) bool {
	kind, f := readRecord(record)
	token := f.number()
	o, _ := p.outlets.get(token)
	if o != nil && o.addr.Node != from.Node {
		o = nil // somebody else's
	}
	switch kind {
	case kindSubscribe:
		s, replay, retained, filters := readSubscription(&f)
		if s == nil {
			return false
		}
		if o != nil {
			p.subscribe(o, s, filters, replay, retained)
		}
	case kindUnsubscribe:
		id := f.number()
		if !f.end() {
			return false
		}
		if o != nil {
			p.unsubscribe(o, id)
		}
	case kindHandled:
		id, messages, bytes := f.number(), f.number(), f.number()
		if !f.end() {
			return false
		}
		if o != nil {
			p.handled(o.subs[id], messages, bytes)
		}
	case kindUnhub:
		if !f.end() {
			return false
		}
		if o != nil {
			p.forget(o)
		}
	case kindAnew:
		if !f.end() {
			return false
		}
		if o != nil {
			p.lose(o)
		}
	default:
		return false
	}
	if o == nil {
		p.stats.Late++
	}
	return true
}

// readSubscription reads the rest of a subscribe record, and returns nil if it is
// none.
func readSubscription(f *fields) (s *subscription, replay int, retained bool, filters []Filter) {
	id, quality, conflate := f.number(), f.number(), f.number()
	messages, bytes, last, values := f.number(), f.number(), f.number(), f.number()
	if !f.end() || quality > uint64(Reliable) || conflate > 1 || values > 1 || last > maxHistory ||
		messages == 0 || messages > maxQueue || bytes == 0 || bytes > maxQueueBytes {
		return nil, 0, false, nil
	}
	filters, ok := readFilters(f.rest)
	if !ok {
		return nil, 0, false, nil
	}
	return &subscription{
		id: id, quality: Quality(quality), conflate: conflate == 1,
		room: fabric.HighWaterMark{Messages: int64(messages), Bytes: int64(bytes)},
	}, int(last), values == 1, filters
}

// appendFilters writes filters as records: their kind, and their text.
func appendFilters(b []byte, filters []Filter) []byte {
	for _, f := range filters {
		b = appendTextRecord(b, f.text, uint64(f.kind))
	}
	return b
}

func readFilters(b []byte) (list []Filter, ok bool) {
	for len(b) > 0 && len(list) < maxFilters {
		kind, f := readRecord(b)
		text := f.text()
		filter := Filter{uint8(min(kind, 255)), text}
		if !f.end() || filter.check() != nil {
			return nil, false
		}
		list = append(list, filter)
		b = f.rest
	}
	return list, len(b) == 0 && len(list) > 0
}

// subscribe takes a subscription in. One that is in already is confirmed again: its
// hub could not know. Under mu.
func (p *publisher) subscribe(o *outlet, s *subscription, filters []Filter, replay int, retained bool) {
	s.outlet = o
	if known := o.subs[s.id]; known != nil {
		p.say(o, dispatch{kind: kindConfirmed, sub: known, number: uint64(known.quality)})
		return
	}
	var past []moment
	if replay > 0 {
		past = p.history.lately(filters, replay)
	} else if retained {
		past = p.history.retained(filters)
	}
	if len(o.subs) >= maxNodeSubscriptions || o.replays+len(past) > maxReplays {
		p.stats.Denied++
		p.say(o, dispatch{kind: kindDenied, sub: s})
		return
	}
	if s.quality == PublisherQuality {
		s.quality = p.cfg.quality
	}
	s.conflate = s.conflate && s.quality == Latest
	o.subs[s.id] = s
	p.routes.add(s, filters)
	p.say(o, dispatch{kind: kindConfirmed, sub: s, number: uint64(s.quality)})
	p.stats.Replayed += uint64(len(past))
	for _, m := range past {
		p.put(o, dispatch{kind: kindReplayed, sub: s, topic: m.topic, body: m.body})
	}
	p.came = signal(p.came)
}

// unsubscribe takes a subscription out. Its hub is told where the messages end that
// it gets. Under mu.
func (p *publisher) unsubscribe(o *outlet, id uint64) {
	s := o.subs[id]
	if s == nil {
		s = &subscription{outlet: o, id: id} // it was evicted, or denied
	} else {
		p.drop(s)
	}
	p.say(o, dispatch{kind: kindOver, sub: s})
}

// handled is a hub's word of how much a reliable subscriber has handled in all.
// Under mu.
func (p *publisher) handled(s *subscription, messages, bytes uint64) {
	if s == nil {
		return // it was evicted
	}
	s.handled = max(s.handled, min(messages, s.messages))
	s.handledBytes = max(s.handledBytes, min(bytes, s.bytes))
	if !s.full() && !s.behind.IsZero() {
		s.behind = time.Time{}
		p.moved = signal(p.moved)
	}
}
