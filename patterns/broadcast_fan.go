package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// fan is what a node keeps of a broadcast for its listeners. It owns a goroutine
// that reads the node's copies.
//
// An entry is kept until all listeners have asked for the one behind it:
//
//	             first                   first + len(entries)
//	               v                             v
//	forgotten ... [ the slowest's | ... | newest ]  to come
type fan struct {
	channel  string
	consumer *fabric.Consumer
	bound    fabric.HighWaterMark
	ctx      context.Context // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu      sync.Mutex
	entries []fanEntry
	first   uint64
	bytes   int64
	ears    []ear // by listener
	open    int   // listeners that are not closed
	grown   bell  // there is an entry, or the end
	shrunk  bell  // entries were forgotten, or there is the end
	last    error // behind the last entry; nil if more may come
	stats   ListenersStats

	closing sync.Once
	closeIt error
}

// fanEntry is a value, or an error that all listeners get.
type fanEntry struct {
	body   parcel
	source fabric.Address
	err    error
	left   int // listeners that have not passed it
}

// ear is a listener as its fan knows it.
type ear struct {
	next   uint64 // the entry that it gets next
	holds  bool   // it has not passed the one before that, whose value it may be reading
	closed bool
}

func newFan(channel string, c *fabric.Consumer, listeners int, bound fabric.HighWaterMark) *fan {
	h := &fan{channel: channel, consumer: c, bound: bound, ears: make([]ear, listeners), open: listeners}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.wg.Go(h.read)
	return h
}

// read takes the node's copies, until there are no more or the fan is closed.
func (h *fan) read() {
	for {
		m, err := h.consumer.Receive(context.Background())
		if err != nil && !passing(err) {
			h.end(err)
			return
		}
		e := fanEntry{err: err}
		if err == nil {
			e.source = m.Source()
			if kind, f := readRecord(m.Body); kind == kindBroadcast && f.end() {
				e.body = packed(f.rest)
			} else {
				e.err = &RecordError{Channel: h.channel, From: e.source}
			}
		}
		if !h.put(e) {
			return
		}
	}
}

// put appends an entry when there is room, and reports whether the fan is open.
func (h *fan) put(e fanEntry) bool {
	size := e.size()
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.entries) > 0 && (int64(len(h.entries)) >= h.bound.Messages || h.bytes+size > h.bound.Bytes) {
		shrunk := h.shrunk.next()
		h.mu.Unlock()
		select {
		case <-shrunk:
		case <-h.ctx.Done():
		}
		h.mu.Lock()
		if h.ctx.Err() != nil {
			return false
		}
	}
	switch {
	case e.err == nil:
		h.stats.Values++
		h.stats.Bytes += uint64(size)
	case errors.As(e.err, new(*RecordError)):
		h.stats.Malformed++
	}
	e.left = h.open
	h.entries = append(h.entries, e)
	h.bytes += size
	h.forget() // at once, if nobody listens any more
	h.grown.ring()
	return true
}

func (e *fanEntry) size() int64 {
	if e.err != nil {
		return 0
	}
	return int64(len(e.body.body()))
}

// end says what comes behind the last entry.
func (h *fan) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = err
	h.grown.ring()
	h.shrunk.ring()
}

// next waits for a listener's next entry; the one before is the fan's again. An
// error may be that of an entry.
func (h *fan) next(ctx context.Context, listener int) (fanEntry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &h.ears[listener]
	if l.holds {
		l.holds = false
		h.pass(l.next - 1)
	}
	for {
		switch {
		case l.closed || h.last == fabric.ErrClosed:
			return fanEntry{}, fabric.ErrClosed
		case l.next < h.first+uint64(len(h.entries)):
			e := h.entries[l.next-h.first]
			l.next++
			if e.err != nil {
				h.pass(l.next - 1)
			} else {
				l.holds = true
			}
			return e, e.err
		case h.last != nil:
			return fanEntry{}, h.last
		}
		grown := h.grown.next()
		h.mu.Unlock()
		var err error
		select {
		case <-grown:
		case <-ctx.Done():
			err = ctx.Err()
		}
		h.mu.Lock()
		if err != nil {
			return fanEntry{}, err
		}
	}
}

// pass notes that one listener has passed an entry. Under mu.
func (h *fan) pass(at uint64) {
	if at < h.first { // by the fan's close
		return
	}
	h.entries[at-h.first].left--
	h.forget()
}

// forget gives up what all listeners have passed. Under mu.
func (h *fan) forget() {
	for len(h.entries) > 0 && h.entries[0].left == 0 {
		e := &h.entries[0]
		h.bytes -= e.size()
		e.body.release()
		*e = fanEntry{}
		h.entries = h.entries[1:]
		h.first++
		h.shrunk.ring()
	}
}

// leave ends a listener. Its goroutine may be reading a value: that memory is given
// to it for good.
func (h *fan) leave(listener int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &h.ears[listener]
	if l.closed {
		return
	}
	l.closed = true
	h.open--
	at := max(l.next, h.first)
	if l.holds && at > h.first {
		l.holds = false
		at--
		e := &h.entries[at-h.first]
		e.body = parcel{own: e.body.body()}
	}
	for i := range h.entries[at-h.first:] {
		h.entries[at-h.first+uint64(i)].left--
	}
	h.forget()
	h.grown.ring()
}

// drain lets listeners have what is on its way.
func (h *fan) drain(ctx context.Context) error {
	err := h.consumer.Drain(ctx) // which the reader sees to its end
	for {
		h.mu.Lock()
		left, over, shrunk := len(h.entries), h.last != nil, h.shrunk.next()
		h.mu.Unlock()
		if left == 0 && over {
			break
		}
		select {
		case <-shrunk:
			continue
		case <-ctx.Done():
			err = errors.Join(err, fmt.Errorf("patterns: %d values of %s were not received: %w", left, h.channel, ctx.Err()))
		}
		break
	}
	return errors.Join(err, h.close())
}

func (h *fan) close() error {
	h.closing.Do(func() {
		h.cancel()
		h.closeIt = h.consumer.Close()
		h.wg.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.last == nil || len(h.entries) > 0 {
			h.last = fabric.ErrClosed
		}
		// Who reads one keeps its memory: it is not used again.
		h.first += uint64(len(h.entries))
		h.entries, h.bytes = nil, 0
		h.grown.ring()
		h.shrunk.ring()
	})
	return h.closeIt
}

func (h *fan) statistics() ListenersStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.stats
	st.Queued, st.QueuedBytes, st.Listeners = len(h.entries), h.bytes, h.open
	return st
}
