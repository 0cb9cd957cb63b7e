package link

import (
	"sync"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// queue holds the messages of a stream at its producer's end, from the moment
// Send takes them until the consumer's end has stored them. It is there only
// while there are such messages.
//
//	acknowledged          sent                 accepted
//	     |  chunk | chunk | chu|nk | chunk | chunk |
//	  chunks[head]          cur,off           tail
type queue struct {
	chunks []*chunk
	head   int   // chunks before it are gone
	cur    int   // the chunk in which the next message to send lies
	off    int   // its place in that chunk's buf; in a single: bytes already sent
	count  int32 // messages of that chunk already sent
	bytes  int   // of bodies of that chunk already sent
	run    int   // the run in which count lies
	held   int   // bytes of bodies in all chunks
}

var queuePool = sync.Pool{New: func() any { return new(queue) }}

func (q *queue) empty() bool { return q.head == len(q.chunks) }

func (q *queue) tail() *chunk {
	if q.empty() {
		return nil
	}
	return q.chunks[len(q.chunks)-1]
}

func (q *queue) push(c *chunk) {
	if q.head > 32 && q.head*2 > len(q.chunks) {
		n := copy(q.chunks, q.chunks[q.head:])
		clear(q.chunks[n:])
		q.chunks = q.chunks[:n]
		q.cur -= q.head
		q.head = 0
	}
	q.chunks = append(q.chunks, c)
}

// step goes on to the next chunk when the current one is wholly sent and can
// not grow any more, or has a successor.
func (q *queue) step() {
	for q.cur < len(q.chunks)-1 && q.count == q.chunks[q.cur].count {
		q.enter(q.cur + 1)
	}
}

// enter puts the place from which to send at the begin of chunk i.
func (q *queue) enter(i int) {
	q.cur, q.off, q.count, q.bytes, q.run = i, 0, 0, 0, 0
}

// nextSize is the size of the next message to send, in bytes.
func (q *queue) nextSize() int {
	q.step()
	switch c := q.chunks[q.cur]; c.kind {
	case packed:
		body, _ := wire.NextMessage(c.buf[q.off:])
		return len(body)
	case single:
		return len(c.buf)
	default:
		return 0
	}
}

// large reports whether the next message to send, or the rest of one, is of a size
// that takes several fragments.
func (q *queue) large() bool {
	q.step()
	c := q.chunks[q.cur]
	return c.kind == single && len(c.buf) > wire.MaxFragment
}

// acknowledge drops chunks whose messages all lie before next. It reports
// whether nothing is left.
func (q *queue) acknowledge(next uint64) bool {
	for q.head < len(q.chunks) {
		c := q.chunks[q.head]
		if c.first+uint64(c.count) > next {
			break
		}
		if q.cur == q.head {
			q.enter(q.cur + 1)
		}
		q.chunks[q.head] = nil
		q.head++
		q.held -= c.bytes
		c.release()
	}
	return q.empty()
}

// seek puts the place from which to send at offset of the message at next, and
// returns how many bytes of bodies of held messages lie before it. It reports
// false if that place is not held.
func (q *queue) seek(next uint64, offset int) (bytes int, ok bool) {
	for i := q.head; i < len(q.chunks); i++ {
		c := q.chunks[i]
		if next >= c.first+uint64(c.count) && !(i == len(q.chunks)-1 && next == c.first+uint64(c.count)) {
			bytes += c.bytes
			continue
		}
		if next < c.first {
			return 0, false
		}
		q.enter(i)
		if c.kind == single && next == c.first {
			if offset >= len(c.buf) && offset > 0 {
				return 0, false
			}
			q.off, q.bytes = offset, offset
			return bytes + offset, true
		}
		if offset != 0 {
			return 0, false
		}
		for q.count < int32(next-c.first) {
			q.skip(c)
		}
		return bytes + q.bytes, true
	}
	return 0, false
}

// skip passes one message of c, the current chunk.
func (q *queue) skip(c *chunk) {
	switch c.kind {
	case packed:
		body, rest := wire.NextMessage(c.buf[q.off:])
		q.bytes += len(body)
		q.off = len(c.buf) - len(rest)
	case single:
		q.off, q.bytes = len(c.buf), len(c.buf)
	}
	q.count++
	q.settle(c)
}

// settle puts run at the run in which count lies.
func (q *queue) settle(c *chunk) {
	for q.run < len(c.runs)-1 && q.count >= c.runs[q.run].end {
		q.run++
	}
}

// free drops everything and returns the queue to its pool.
func (q *queue) free() {
	for i := q.head; i < len(q.chunks); i++ {
		q.chunks[i].release()
	}
	clear(q.chunks)
	*q = queue{chunks: q.chunks[:0]}
	queuePool.Put(q)
}
