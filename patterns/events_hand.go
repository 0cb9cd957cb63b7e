package patterns

import (
	"slices"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// eventHands are the events that a member's program has and has not acknowledged.
type eventHands struct {
	channel string // of acknowledgements

	mu     sync.Mutex
	byKey  map[handKey]*eventHand
	held   map[fabric.Address]chan struct{} // publishers whose events are not to be begun, until it is closed
	count  int
	fewer  bell
	closed bool
}

func newEventHands(channel string) eventHands {
	return eventHands{
		channel: upToChannel(channel), byKey: make(map[handKey]*eventHand), held: make(map[fabric.Address]chan struct{}),
	}
}

// handKey is a partition of one publisher, which is known by its consumer of
// acknowledgements.
type handKey struct {
	publisher fabric.Address
	partition uint64
}

// eventHand is the events of one partition in one epoch. Its fields are under the
// hands' mu, but for those that do not change.
type eventHand struct {
	hands *eventHands
	key   handKey
	to    *fabric.Target
	epoch uint64

	events []heldEvent // in order; the first one is not acknowledged
	over   bool        // they are somebody else's now, or the publisher is lost
	lost   bool        // which it is
}

type heldEvent struct {
	sequence uint64
	acked    bool
}

// take takes an event, and returns its hand; nil if there are as many as room.
func (h *eventHands) take(key handKey, to *fabric.Target, epoch, sequence uint64, room int) *eventHand {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.byKey[key]
	if e == nil || e.epoch != epoch {
		h.end(e, false)
		e = &eventHand{hands: h, key: key, to: to, epoch: epoch}
		h.byKey[key] = e
	}
	if len(e.events) >= room {
		return nil
	}
	e.events = append(e.events, heldEvent{sequence: sequence})
	h.count++
	return e
}

// end gives up what is in a hand: none of it can be acknowledged any more. Under mu.
func (h *eventHands) end(e *eventHand, lost bool) {
	if e == nil || e.over {
		return
	}
	e.over, e.lost = true, lost
	h.count -= len(e.events)
	e.events = nil
	h.fewer.ring()
}

// lose gives up the hands of all publishers at a node, and takes holds back: nothing
// more comes from them.
func (h *eventHands) lose(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.giveUp(true, func(publisher fabric.Address) bool { return publisher.Node == node })
	for publisher := range h.held {
		if publisher.Node == node {
			h.lift(publisher)
		}
	}
}

// letGo gives up the hands of a publisher, which has given them to others.
func (h *eventHands) letGo(publisher fabric.Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.giveUp(false, func(p fabric.Address) bool { return p == publisher })
	h.lift(publisher)
}

// partWith gives up the hands of a publisher that is gone, and who waits for them. If
// there is a hold it stays, for what is still to be received.
func (h *eventHands) partWith(publisher fabric.Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.giveUp(true, func(p fabric.Address) bool { return p == publisher })
	if held := h.held[publisher]; held != nil {
		close(held)
		h.held[publisher] = make(chan struct{})
	}
}

// giveUp ends the hands of some publishers. Under mu.
func (h *eventHands) giveUp(lost bool, of func(publisher fabric.Address) bool) {
	for key, e := range h.byKey {
		if of(key.publisher) {
			h.end(e, lost)
			delete(h.byKey, key)
		}
	}
}

// hold lets no event of a publisher be begun until it is lifted.
func (h *eventHands) hold(publisher fabric.Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[publisher] == nil {
		h.held[publisher] = make(chan struct{})
	}
}

// goOn takes hold back.
func (h *eventHands) goOn(publisher fabric.Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lift(publisher)
}

// lift takes hold back. Under mu.
func (h *eventHands) lift(publisher fabric.Address) {
	if held := h.held[publisher]; held != nil {
		close(held)
		delete(h.held, publisher)
	}
}

// held is nil unless the events are not to be begun now, and is closed when that is
// over. Those that are given up are held no more.
func (e *eventHand) held() <-chan struct{} {
	e.hands.mu.Lock()
	defer e.hands.mu.Unlock()
	if e.over {
		return nil
	}
	return e.hands.held[e.key.publisher]
}

// ack acknowledges an event. If all before it are, its publisher is told, and of those
// behind it that are, too.
func (e *eventHand) ack(sequence uint64) error {
	h := e.hands
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return fabric.ErrClosed
	case e.over && e.lost:
		return &fabric.PeerLostError{
			Node: e.key.publisher.Node, Channel: h.channel, Consumer: e.key.publisher.Index, Reason: "it was lost before the event was acknowledged",
		}
	case e.over:
		return ErrMoved
	}
	i, found := slices.BinarySearchFunc(e.events, sequence, func(held heldEvent, s uint64) int {
		switch {
		case held.sequence < s:
			return -1
		case held.sequence > s:
			return 1
		}
		return 0
	})
	if !found || e.events[i].acked {
		return nil
	}
	e.events[i].acked = true
	n := 0
	for n < len(e.events) && e.events[n].acked {
		n++
	}
	if n == 0 {
		return nil
	}
	last := e.events[n-1].sequence
	e.events = slices.Delete(e.events, 0, n)
	h.count -= n
	h.fewer.ring()
	var mem [headRoom]byte
	return e.to.TrySend(appendRecord(mem[:0], kindUpTo, e.key.partition, e.epoch, last))
}

// isOver reports whether the events are somebody else's by now.
func (e *eventHand) isOver() bool {
	e.hands.mu.Lock()
	defer e.hands.mu.Unlock()
	return e.over
}

// busy is how many events there are, and what is closed when there are fewer.
func (h *eventHands) busy() (int, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, h.fewer.next()
}

func (h *eventHands) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}
