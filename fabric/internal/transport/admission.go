package transport

import (
	"context"
	"sync"
	"time"
)

// patienceShare is the part of the handshake timeout that a handshake may idle in its place while others wait for one.
// With the defaults, 1,000 silent connections delay a good peer by 2 s at most, and not by 40.
const patienceShare = 20

// admission bounds the handshakes under way. A place is taken before a connection is accepted and given back when the
// handshake failed or its Conn was taken by Accept. While all places are taken and somebody waits, the oldest handshake
// that is not finished after its patience gives its place up. A burst of good peers is not hurt by that: they finish
// within their patience, and meanwhile the others wait in the kernel's accept queue.
type admission struct {
	patience time.Duration
	freed    chan struct{} // capacity 1: a place may have become free

	mu     sync.Mutex
	free   int
	oldest *place // of those under way, in the order of their beginning
	newest *place
}

// place is one handshake's.
type place struct {
	began      time.Time
	evict      context.CancelCauseFunc
	prev, next *place
	listed     bool
}

func newAdmission(places int, timeout time.Duration) *admission {
	return &admission{
		patience: max(timeout/patienceShare, time.Millisecond),
		freed:    make(chan struct{}, 1),
		free:     places,
	}
}

// wait waits until a place is free and takes it, or until ctx ends.
func (a *admission) wait(ctx context.Context) error {
	for {
		ok, again := a.tryTake()
		if ok {
			return nil
		}
		var due <-chan time.Time
		if again > 0 {
			due = time.After(again)
		}
		select {
		case <-a.freed:
		case <-due:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryTake takes a free place. If there is none, it evicts the oldest handshake if its patience is spent, or says how much
// of it is left; 0: wait until a place is freed.
func (a *admission) tryTake() (ok bool, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.free > 0 {
		a.free--
		return true, 0
	}
	p := a.oldest
	if p == nil { // all finished: only Accept frees a place
		return false, 0
	}
	if left := a.patience - time.Since(p.began); left > 0 {
		return false, left
	}
	a.unlist(p)
	p.evict(ErrCrowded) // which frees its place in a moment
	return false, 0
}

// begin puts a handshake, whose place is taken, last among those under way.
func (a *admission) begin(evict context.CancelCauseFunc) *place {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &place{began: time.Now(), evict: evict, prev: a.newest, listed: true}
	if a.newest == nil {
		a.oldest = p
	} else {
		a.newest.next = p
	}
	a.newest = p
	return p
}

// finished says that the handshake is over, so that it can no longer be evicted. Its place stays taken.
func (a *admission) finished(p *place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unlist(p)
}

// giveBack frees a place.
func (a *admission) giveBack() {
	a.mu.Lock()
	a.free++
	a.mu.Unlock()
	select {
	case a.freed <- struct{}{}:
	default:
	}
}

func (a *admission) unlist(p *place) {
	if !p.listed {
		return
	}
	p.listed = false
	if p.prev == nil {
		a.oldest = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		a.newest = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}
