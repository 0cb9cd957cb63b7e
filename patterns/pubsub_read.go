package patterns

import (
	"bytes"
	"context"

	"github.com/zfab/zfab/fabric"
)

// rouseEvery is after how many messages subscribers are roused that slept when they
// came, and publishers given up: one at a time costs as much as many, and so few take
// no time to speak of.
const rouseEvery = 64

// noWait is the context of a Receive that does not wait.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// read takes what publishers send, until the hub or its node is closed. It waits
// for nobody. Subscribers that sleep are roused when nothing more has come, or some
// has been put into their queues.
func (h *hub) read() {
	for taken := 1; ; taken++ {
		if taken%rouseEvery == 0 {
			h.rouseAll()
			h.giveUp()
		}
		m, err := h.consumer.Receive(noWait)
		if err == context.Canceled {
			h.rouseAll()
			m, err = h.consumer.Receive(h.resting())
		}
		lost := lostPeer(err)
		switch {
		case err == context.Canceled:
			h.giveUp()
		case lost != nil:
			h.lost(lost)
		case err != nil:
			h.end()
			return
		case !h.take(m.Source(), m.Body):
			h.strange(m.Source())
		}
	}
}

// resting is the context in which the reading goroutine waits, until somebody is to be
// given up.
func (h *hub) resting() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sleep
}

// giveUp gives up the publishers that are away for too long, if there are any. Each is
// told, for when it comes back.
func (h *hub) giveUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sleep.Err() == nil {
		return
	}
	h.sleep, h.rise = context.WithCancel(context.Background())
	for s := range h.away {
		if h.sources[s.addr] == s && !s.given {
			h.partWith(s, "it has no connection, and its lease has ended")
		}
	}
	clear(h.away)
}

// partWith gives a publisher up, which may still be there, and is to begin anew. The
// reading goroutine's, under mu.
func (h *hub) partWith(s *source, reason string) {
	s.given = true
	h.sayAnew(s)
	h.part(s, h.loss(s.addr, reason))
}

func (h *hub) rouseAll() {
	for i, s := range h.rouse {
		s.rouse()
		h.rouse[i] = nil
	}
	h.rouse = h.rouse[:0]
}

// end is the hub's end, also if only its node was closed.
func (h *hub) end() {
	hubs.mu.Lock()
	if ref := hubs.open[h.key]; ref != nil && ref.hub == h {
		delete(hubs.open, h.key)
	}
	hubs.mu.Unlock()
	h.cancel()
	h.rouseAll()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.subscribers.all(func(_ uint64, sub *subscriber) { sub.end(fabric.ErrClosed) })
	h.news = signal(h.news)
}

// take takes a record, and reports whether it is one.
func (h *hub) take(from fabric.Address, record []byte) bool {
	kind, f := readRecord(record)
	if kind == kindPublishes {
		answer, token := f.number(), f.number()
		if !f.end() || answer > maxIndex {
			return false
		}
		h.hello(from, fabric.Address{Node: from.Node, Index: int(answer)}, token)
		return true
	}
	s := h.last
	if s == nil || s.addr != from {
		h.mu.Lock()
		s = h.sources[from]
		h.mu.Unlock()
		if s == nil {
			return false // whoever publishes says hello first
		}
		h.last = s
	}
	if !s.given && s.deaf.Load() {
		h.mu.Lock()
		h.partWith(s, "the publisher does not take what is said to it")
		h.mu.Unlock()
	}
	if s.given {
		if kind == kindLastWord && f.end() {
			h.mu.Lock()
			h.dismiss(s, nil) // its subscribers have parted with it
			h.mu.Unlock()
		}
		return true // missed, as its subscribers know
	}
	if kind == kindPublished {
		topic := f.textBytes()
		if !f.end() {
			return false
		}
		return h.published(s, topic, f.rest)
	}
	return h.word(s, kind, f)
}

// published gives the one copy of a message to all who want it.
func (h *hub) published(s *source, topic, body []byte) bool {
	w, ok := s.routes.matchBytes(topic)
	if !ok {
		return false
	}
	if len(w.ties) == 0 {
		h.unwanted.Add(1)
		return true
	}
	body = bytes.Clone(body)
	for _, t := range w.ties {
		t.subscriber.deliver(t, w.topic, body, false)
	}
	return true
}

// word takes a record about one subscription, or the last one.
func (h *hub) word(s *source, kind uint64, f fields) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if kind == kindLastWord {
		if !f.end() {
			return false
		}
		h.finished(s)
		return true
	}
	t := s.ties[f.number()] // nil if it has just ended
	switch kind {
	case kindConfirmed:
		quality := f.number()
		if !f.end() || quality == uint64(PublisherQuality) || quality > uint64(Reliable) {
			return false
		}
		if t == nil || t.confirmed {
			break
		}
		if asked := t.subscriber.cfg.quality; asked != PublisherQuality && uint64(asked) != quality {
			return false
		}
		t.confirmed, t.quality = true, Quality(quality)
		s.routes.add(t, t.subscriber.cfg.filters)
		h.news = signal(h.news)
	case kindReplayed:
		topic := f.text()
		if !f.end() || checkTopic(topic) != nil {
			return false
		}
		if t != nil && t.confirmed {
			t.subscriber.deliver(t, topic, bytes.Clone(f.rest), true)
		}
	case kindMissed:
		messages := f.number()
		if !f.end() {
			return false
		}
		if t != nil && t.confirmed {
			t.subscriber.missed(t, messages)
		}
	case kindEvicted, kindDenied, kindOver:
		if !f.end() {
			return false
		}
		if t == nil {
			break
		}
		h.loosen(t)
		var end error
		switch kind {
		case kindEvicted:
			end = &EvictedError{Channel: h.key.channel, Publisher: s.addr}
		case kindDenied:
			end = &DeniedError{Channel: h.key.channel, Publisher: s.addr}
		default:
			return true
		}
		t.subscriber.end(end)
		h.unsubscribe(t.subscriber) // at all other publishers
	default:
		return false
	}
	return true
}

// hello takes a publisher in. One that was in already has forgotten all that it
// knew of this hub.
func (h *hub) hello(from, answer fabric.Address, token uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil && h.last.addr == from {
		h.last = nil
	}
	if old := h.sources[from]; old != nil {
		if old.token == token {
			return
		}
		h.dismiss(old, h.loss(from, "the publisher begins anew"))
	}
	s := &source{addr: from, answer: answer, token: token, ties: make(map[uint64]*tie)}
	s.routes = newMatcher(func(topic string, ties []*tie) *wanting {
		return &wanting{topic, append([]*tie(nil), ties...)}
	})
	h.sources[from], h.byAnswer[answer] = s, s
	h.reach(s)
	h.news = signal(h.news)
}

// loss is the error for a publisher that is lost although its node is there.
func (h *hub) loss(publisher fabric.Address, reason string) *fabric.PeerLostError {
	return &fabric.PeerLostError{
		Node: publisher.Node, Channel: h.key.channel, Consumer: h.consumer.Address().Index, Reason: reason, Receiving: true,
	}
}

// finished is a publisher's last word. Under mu.
func (h *hub) finished(s *source) {
	s.finished = true
	for _, t := range s.ties {
		if t.confirmed {
			t.subscriber.finished(s.addr)
		}
		h.loosen(t)
	}
	h.news = signal(h.news)
}

// lost takes out the publishers of a node that is lost.
func (h *hub) lost(lost *fabric.PeerLostError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for addr, s := range h.sources {
		if addr.Node == lost.Node {
			h.dismiss(s, lost)
		}
	}
}

// dismiss takes out a publisher that is gone. Its subscribers are told, unless it
// had finished. The reading goroutine's, under mu.
func (h *hub) dismiss(s *source, lost *fabric.PeerLostError) {
	h.remove(s)
	if h.last == s {
		h.last = nil // what it still sends is a stranger's
	}
	h.part(s, lost)
}

// part ends what subscribers have of a publisher, and tells them why, unless it had
// finished. The reading goroutine's, under mu.
func (h *hub) part(s *source, lost *fabric.PeerLostError) {
	for _, t := range s.ties {
		if t.confirmed {
			t.subscriber.lost(lost)
		}
		h.loosen(t)
	}
	h.news = signal(h.news)
}

// remove takes a publisher out that has no ties, or is about to have none. Under
// mu.
func (h *hub) remove(s *source) {
	if h.sources[s.addr] == s {
		delete(h.sources, s.addr)
	}
	if h.byAnswer[s.answer] == s {
		delete(h.byAnswer, s.answer)
	}
}

// strange is a message that is no record of this pattern.
func (h *hub) strange(from fabric.Address) {
	h.malformed.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	err := &RecordError{Channel: h.key.channel, From: from}
	h.subscribers.all(func(_ uint64, sub *subscriber) { sub.strange(err) })
}
