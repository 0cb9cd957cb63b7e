package link

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// lostItem is the kind of an item that says a stream has ended with an error;
// the others are a chunk's kinds.
const lostItem = finish + 1

const (
	// pinMax is how much received memory an inbox keeps in place, in bytes. A
	// consumer that falls behind further gets copies, so that it cannot pin
	// read buffers of which it holds but a part.
	pinMax = 512 << 10
	// settleEvery is after how many bytes handled within one record the
	// stream is told: a quarter of the first window.
	settleEvery = 16 << 10
	// keepItems is how many items an inbox keeps room for.
	keepItems = 1 << 10
)

// item is a run of messages of one stream, or a producer's end, or an error.
type item struct {
	stream   *RecvStream
	from     Retainer // whose memory run is, or
	own      *chunk   // the copy that run is
	run      []byte
	err      error
	producer uint32
	count    int32
	kind     uint8
}

// tail is where the last item of a stream lies in its inbox, so that copied
// messages can join it. It counts while gen is the inbox's.
type tail struct {
	gen uint32
	at  int32
}

// Inbox is the gate between the readers of all links and one consumer. The
// readers never wait for it: what they put in was lent room before.
type Inbox struct {
	flow  *Flow
	index uint32
	owner any

	mu      sync.Mutex
	items   []item // arrived since the consumer last took them
	gen     uint32 // counts the takings
	waiting bool
	closed  bool

	ended  atomic.Bool // closed, for the consumer's goroutine
	wake   chan struct{}
	pinned atomic.Int64

	// The consumer's goroutine's.
	taken    []item
	pos      int
	cur      item // what it handles now
	size     int  // of the message handed out, -1 if none is
	messages int  // handled, not told yet
	bytes    int
}

// NewInbox returns the inbox of a consumer: the index-th of its node on the
// flow's channel. Owner is what RecvStream.Owner returns.
func NewInbox(f *Flow, index int, owner any) *Inbox {
	return &Inbox{flow: f, index: uint32(index), owner: owner, wake: make(chan struct{}, 1), gen: 1, size: -1}
}

// put takes a delivery for this inbox, and reports whether its consumer is to be
// woken, by rouse, before whoever puts waits for anything.
func (in *Inbox) put(r *RecvStream, it item) (asleep bool) {
	it.stream = r
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		it.free()
		return false
	}
	in.add(r, it)
	asleep = in.waiting
	in.waiting = false
	in.mu.Unlock()
	return asleep
}

// rouse wakes the consumer, or makes its next wait end at once. Either way it
// looks again.
func (in *Inbox) rouse() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

func (in *Inbox) add(r *RecvStream, it item) {
	if it.from != nil {
		// A part of a buffer that others share, or one too many: copied.
		if capacity := it.from.Cap(); len(it.run)*5 < capacity || in.pinned.Load() >= pinMax {
			if r.tail.gen == in.gen && in.join(&in.items[r.tail.at], &it) {
				return
			}
			it.copy(r.tail.gen == in.gen)
			r.tail = tail{in.gen, int32(len(in.items))}
		} else {
			if !planted.Is(planted.BufferNotHeld) {
				it.from.Retain()
			}
			in.pinned.Add(int64(capacity))
			r.tail.gen = in.gen - 1
		}
	} else {
		r.tail.gen = in.gen - 1
	}
	in.items = append(in.items, it)
}

// join adds a run to the last one of its stream, if that was copied and has
// room.
func (in *Inbox) join(last, it *item) bool {
	c := last.own
	if c == nil || last.kind != packed || last.producer != it.producer || cap(c.buf)-len(c.buf) < len(it.run) {
		return false
	}
	c.buf = append(c.buf, it.run...)
	last.run = c.buf
	last.count += it.count
	return true
}

// copy puts the run into memory of its own, with room for more if the stream
// is known to bring more.
func (it *item) copy(more bool) {
	class := classOf(len(it.run))
	if more && class < packClass {
		class = min(class+3, packClass)
	}
	it.own = newChunk(packed, class)
	it.own.buf = append(it.own.buf, it.run...)
	it.run, it.from = it.own.buf, nil
}

// free gives an item's memory back.
func (it *item) free() {
	if it.own != nil {
		it.own.release()
		it.own = nil
	}
}

// Kind is what Next has returned.
type Kind uint8

// The kinds of deliveries.
const (
	Body     Kind = iota // a message
	Finished             // a producer has finished; its body is empty
	Lost                 // a stream has ended; with an error if something is missing
)

// Source is where the last delivery came from.
func (in *Inbox) Source() (stream *RecvStream, producer uint32) {
	return in.cur.stream, in.cur.producer
}

// More is Next where the next delivery is another message of the same run, so of
// the same stream and producer, and needs no wait. Else it reports false, with
// nothing done.
func (in *Inbox) More() (body []byte, ok bool) {
	if in.cur.count <= 0 || in.cur.kind != packed || in.size < 0 || in.ended.Load() {
		return nil, false
	}
	in.messages++
	if in.bytes += in.size; in.bytes >= settleEvery {
		in.settle()
	}
	in.cur.count--
	body, in.cur.run = wire.NextMessage(in.cur.run)
	in.size = len(body)
	return body, true
}

// Next waits for the next delivery. What it returned before is handled with
// this call, and its body no longer valid. An error is ctx's, ErrClosed, or, if
// the kind is Lost, what is missing. One goroutine at a time may call it.
func (in *Inbox) Next(ctx context.Context) (body []byte, kind Kind, err error) {
	if body, ok := in.More(); ok {
		return body, Body, nil
	}
	if in.size >= 0 {
		in.messages++
		in.bytes += in.size
		in.size = -1
	}
	in.finishItem()
	if in.ended.Load() {
		for ; in.pos < len(in.taken); in.pos++ {
			in.cur = in.taken[in.pos]
			in.finishItem()
		}
		return nil, Body, ErrClosed
	}
	if in.pos == len(in.taken) {
		if err := in.take(ctx); err != nil {
			return nil, Body, err
		}
	}
	in.cur = in.taken[in.pos]
	in.taken[in.pos] = item{}
	in.pos++
	in.cur.count--
	switch in.cur.kind {
	case lostItem:
		err, in.cur.err = in.cur.err, nil
		return nil, Lost, err
	case finish:
		in.size = 0
		return nil, Finished, nil
	case single:
		body = in.cur.run
	default:
		body, in.cur.run = wire.NextMessage(in.cur.run)
	}
	in.size = len(body)
	return body, Body, nil
}

// finishItem ends the current item: its memory goes back, its credit too.
func (in *Inbox) finishItem() {
	if in.cur.stream == nil {
		return
	}
	in.settle()
	if in.cur.from != nil {
		in.pinned.Add(-int64(in.cur.from.Cap()))
		in.cur.from.Release()
	}
	in.cur.free()
	in.cur = item{}
}

// settle tells the stream what was handled.
func (in *Inbox) settle() {
	if in.messages == 0 {
		return
	}
	r := in.cur.stream
	r.link.consumed(r, in.messages, in.bytes)
	in.messages, in.bytes = 0, 0
}

// take swaps what has arrived for what is handled, and waits until there is
// something.
func (in *Inbox) take(ctx context.Context) error {
	for {
		in.mu.Lock()
		switch {
		case in.closed:
			in.mu.Unlock()
			return ErrClosed
		case len(in.items) > 0:
			in.taken, in.items = in.items, in.taken[:0]
			if cap(in.items) > keepItems {
				in.items = nil
			}
			in.pos = 0
			in.gen++
			in.waiting = false
			in.mu.Unlock()
			return nil
		}
		in.waiting = true
		in.mu.Unlock()
		select {
		case <-in.wake:
		case <-ctx.Done():
			in.mu.Lock()
			in.waiting = false
			in.mu.Unlock()
			return ctx.Err()
		}
	}
}

// Nudge makes Next return, with kind Lost and nothing else.
func (in *Inbox) Nudge() {
	if in.put(&RecvStream{}, item{kind: lostItem}) {
		in.rouse()
	}
}

// Close ends Next with ErrClosed, now and later. Messages not handled are
// dropped; the caller cancels the streams.
func (in *Inbox) Close() {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	in.closed = true
	in.ended.Store(true)
	items := in.items
	in.items = nil
	in.waiting = false
	in.mu.Unlock()
	for i := range items {
		if items[i].from != nil {
			items[i].from.Release()
		}
		items[i].free()
	}
	in.rouse()
}
