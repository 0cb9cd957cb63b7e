package faultproxy

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// A Direction is one of a link's two, from the first node of its pair to the
// second or back.
type Direction int

const (
	Forward  Direction = 0
	Backward Direction = 1
)

// A Link is what goes between two nodes. Its methods may be called by several
// goroutines; faults of one kind add up.
type Link struct {
	proxy     *Proxy
	pair      Pair
	listeners [2]net.Listener // by the direction of the dialling
	cutting   chan struct{}   // holds one word while a cut is under way

	mu      sync.Mutex
	conns   map[*conn]struct{}
	ways    [2]way
	armed   *cut          // the cut that waits for its byte; nil: none does
	held    bool          // a cut is being made: nothing passes
	changed chan struct{} // closed, and another one made, when any of these changes
}

// A way is what is wrong with one direction.
type way struct {
	holes int           // black holes at present
	delay time.Duration // of all delays together
	rates []int64       // bytes per second of each limit; the least counts
	free  time.Time     // when the least limit admits the next bytes
}

// A cut waits until so many bytes have passed in its direction.
type cut struct {
	direction Direction
	left      int
	reached   chan struct{} // closed when they are written
}

func newLink(p *Proxy, pair Pair) *Link {
	return &Link{
		proxy: p, pair: pair, cutting: make(chan struct{}, 1),
		conns: make(map[*conn]struct{}), changed: make(chan struct{}),
	}
}

// change wakes the pipes that wait. Under mu.
func (l *Link) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Cut lets bytes more bytes pass in direction d, at least 1, then stops both
// directions, calls before, and resets every connection of the link at both
// ends: the last of these bytes is the last that arrives. If they have not passed
// after patience, or are not taken for sendPatience, it cuts where it is. A second
// cut waits for the first.
//
// It reports whether there was a connection to cut; if ctx ended first, there
// was not.
func (l *Link) Cut(ctx context.Context, d Direction, bytes int, patience time.Duration, before func()) bool {
	select {
	case l.cutting <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-l.cutting }()
	c := &cut{direction: d, left: max(bytes, 1), reached: make(chan struct{})}
	l.set(func() { l.armed = c })
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.reached:
	case <-timer.C:
	case <-ctx.Done():
	}
	l.set(func() { l.armed, l.held = nil, true })
	defer l.set(func() { l.held = false })
	if ctx.Err() != nil {
		return false
	}
	l.awaitSent(d)
	before()
	return l.reset()
}

// sendPatience is how long a cut waits for the kernel to deliver the bytes before
// it. It is short, since a link that is full has others behind them.
const sendPatience = 20 * time.Millisecond

// awaitSent waits until what was written in direction d has been taken.
func (l *Link) awaitSent(d Direction) {
	l.mu.Lock()
	conns := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, c := range conns {
		awaitSent(c.ends[1-d], sendPatience)
	}
}

// set changes the link's state and wakes the pipes.
func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.change()
}

// reset ends all connections as a crashed host does: with RST.
func (l *Link) reset() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.reset()
	}
	return len(l.conns) > 0
}

// Connected reports whether a connection goes through the link.
func (l *Link) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) > 0
}

// Blackhole lets nothing pass in the given directions until heal is called.
func (l *Link) Blackhole(directions ...Direction) (heal func()) {
	return l.fault(directions, func(w *way) { w.holes++ }, func(w *way) { w.holes-- })
}

// Delay makes everything take d longer in the given directions until end is
// called.
func (l *Link) Delay(d time.Duration, directions ...Direction) (end func()) {
	return l.fault(directions, func(w *way) { w.delay += d }, func(w *way) { w.delay -= d })
}

// Limit lets only so many bytes per second pass in each of the given directions
// until end is called.
func (l *Link) Limit(bytesPerSecond int64, directions ...Direction) (end func()) {
	return l.fault(directions,
		func(w *way) { w.rates = append(w.rates, bytesPerSecond) },
		func(w *way) {
			i := slices.Index(w.rates, bytesPerSecond)
			w.rates = slices.Delete(w.rates, i, i+1)
		})
}

func (l *Link) fault(directions []Direction, begin, end func(*way)) func() {
	each := func(do func(*way)) {
		l.set(func() {
			for _, d := range directions {
				do(&l.ways[d])
			}
		})
	}
	each(begin)
	return sync.OnceFunc(func() { each(end) })
}

// A permit is how many bytes may be written now.
type permit struct {
	bytes int
	last  *cut // of which these are the last bytes
}

// admit decides about bytes that were sent at a time: how many may pass now. If
// none may, it says for how long to wait at the most, 0 if for a change only.
func (l *Link) admit(d Direction, bytes int, sent, now time.Time) (p permit, ok bool, wait time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &l.ways[d]
	switch {
	case l.held || w.holes > 0:
		return p, false, 0, l.changed
	case now.Before(sent.Add(w.delay)):
		return p, false, sent.Add(w.delay).Sub(now), l.changed
	case len(w.rates) > 0 && now.Before(w.free):
		return p, false, w.free.Sub(now), l.changed
	}
	p.bytes = w.pace(bytes, now)
	if c := l.armed; c != nil && c.direction == d {
		p.bytes = min(p.bytes, c.left)
		if c.left -= p.bytes; c.left == 0 {
			p.last, l.armed, l.held = c, nil, true
			l.change()
		}
	}
	return p, true, 0, nil
}

// burst is how much time's worth of bytes a limited direction writes at once, and
// how far it may be behind its limit and still make up for it.
const burst = 10 * time.Millisecond

// pace cuts bytes down to what the limits admit in a burst.
func (w *way) pace(bytes int, now time.Time) int {
	if len(w.rates) == 0 {
		return bytes
	}
	rate := slices.Min(w.rates)
	bytes = min(bytes, max(1, int(rate*int64(burst)/int64(time.Second))))
	if behind := now.Add(-burst); w.free.Before(behind) {
		w.free = behind
	}
	w.free = w.free.Add(time.Duration(int64(bytes) * int64(time.Second) / rate))
	return bytes
}

// open waits until packets pass both ways, as a new connection needs it; false
// if the proxy closes.
func (l *Link) open() bool {
	for {
		l.mu.Lock()
		closed := l.held || l.ways[Forward].holes+l.ways[Backward].holes > 0
		changed := l.changed
		l.mu.Unlock()
		if !closed {
			return l.proxy.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-l.proxy.ctx.Done():
			return false
		}
	}
}
