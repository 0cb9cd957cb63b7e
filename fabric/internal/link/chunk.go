package link

import (
	"math/bits"
	"sync"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// What a chunk holds.
const (
	packed = iota // messages, coded as a data record's array holds them
	single        // the body of one message
	finish        // nothing: the place where a producer finished
)

const (
	// singleMin is the size in bytes from which a message gets a chunk of its
	// own: it is copied outside the lock then, and written without another copy.
	singleMin = 8 << 10

	minClass  = 9  // 512 B, the smallest chunk
	packClass = 16 // 64 KiB, the largest that packs messages: one full record
	maxClass  = 26 // 64 MiB, the largest that is pooled
)

// chunk is a piece of the memory in which streams hold messages: at the
// producer's end until they are acknowledged, at the consumer's end until they
// are handled. It belongs to whoever holds a reference.
type chunk struct {
	buf   []byte
	runs  []run  // packed: whose messages these are
	first uint64 // position of the first message
	bytes int    // of bodies
	count int32  // messages
	refs  int32  // under the link's mu, or the inbox's own
	kind  uint8
	class uint8
}

// run says that the messages of a chunk before end, counted in the chunk, and
// behind the run before, are producer's.
type run struct {
	producer uint32
	end      int32
}

var chunkPools [maxClass + 1]sync.Pool

// classOf is the smallest class whose chunks hold n bytes.
func classOf(n int) uint8 {
	return uint8(max(bits.Len(uint(max(n, 1)-1)), minClass))
}

// newChunk returns an empty chunk with room for 1<<class bytes and one
// reference.
func newChunk(kind, class uint8) *chunk {
	var c *chunk
	if class <= maxClass {
		c, _ = chunkPools[class].Get().(*chunk)
	}
	if c == nil {
		c = &chunk{buf: make([]byte, 0, 1<<class), class: class}
	}
	c.kind, c.refs = kind, 1
	return c
}

// newSingle returns a chunk that holds a copy of body.
func newSingle(body []byte) *chunk {
	c := newChunk(single, classOf(len(body)))
	c.buf = append(c.buf, body...)
	return c
}

// own makes producer the owner of one message more, of n bytes.
func (c *chunk) own(producer uint32, n int) {
	if last := len(c.runs) - 1; last >= 0 && c.runs[last].producer == producer {
		c.runs[last].end++
	} else {
		c.runs = append(c.runs, run{producer, c.count + 1})
	}
	c.count++
	c.bytes += n
}

// pack appends a message if there is room for it.
func (c *chunk) pack(producer uint32, body []byte) bool {
	if cap(c.buf)-len(c.buf) < wire.MessageHeaderSize(len(body))+len(body) || c.count == wire.MaxRun {
		return false
	}
	c.buf = wire.AppendMessage(c.buf, body)
	c.own(producer, len(body))
	return true
}

// join is pack for a message of the producer that the last one is of, where there
// is room for any header.
func (c *chunk) join(producer uint32, body []byte) bool {
	last := len(c.runs) - 1
	if c.kind != packed || last < 0 || c.runs[last].producer != producer || c.count == wire.MaxRun ||
		cap(c.buf)-len(c.buf) < wire.MessageHeaderMax+len(body) {
		return false
	}
	c.buf = wire.AppendMessage(c.buf, body)
	c.runs[last].end++
	c.count++
	c.bytes += len(body)
	return true
}

// grown is a single with room for n bytes more: c, or a larger one that has
// taken c's place.
func (c *chunk) grown(n int) *chunk {
	if len(c.buf)+n <= cap(c.buf) {
		return c
	}
	g := newChunk(c.kind, classOf(max(len(c.buf)+n, 2*cap(c.buf))))
	g.buf = append(g.buf, c.buf...)
	g.runs = append(g.runs, c.runs...)
	g.first, g.bytes, g.count = c.first, c.bytes, c.count
	c.release()
	return g
}

// Release is release, for who has lent the chunk to a circuit. Under the lock of
// the circuit's link.
func (c *chunk) Release() { c.release() }

// release drops a reference, and with the last one gives the memory back.
func (c *chunk) release() {
	if c.refs--; c.refs > 0 {
		return
	}
	if c.refs < 0 {
		panic("link: chunk released twice")
	}
	c.buf, c.runs, c.bytes, c.count, c.first = c.buf[:0], c.runs[:0], 0, 0, 0
	if c.class <= maxClass {
		chunkPools[c.class].Put(c)
	}
}
