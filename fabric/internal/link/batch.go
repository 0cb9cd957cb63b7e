package link

import (
	"sync"

	"github.com/zfab/zfab/fabric/internal/circuit"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

const (
	// scratchSize holds headers, control records and small messages of one
	// batch.
	scratchSize = 32 << 10
	// copyMax is the size in bytes up to which messages are copied into the
	// scratch: below it one slice more costs the kernel more than the copy.
	copyMax = 1 << 10
	// fullPacket is the size in bytes from which a packet is closed; one more
	// full record still fits below wire.MaxPacket.
	fullPacket = 48 << 10
	// fullBatch is the size in bytes from which a batch is written: large
	// enough that the system call does not count, small enough that control
	// does not wait long behind it.
	fullBatch = 256 << 10
	// wideBatch is the same for a message that is larger than a fragment, while
	// no other stream waits for its turn and the connection takes at once what it
	// is given. The system sends what it gets in one call in larger parts, and
	// wakes the peer less often: a quarter of the time that 1 MiB takes. Others
	// that come meanwhile wait behind it, but for no longer than for the copy.
	wideBatch = 1 << 20
	// maxVectors stays below the 1,024 that writev takes.
	maxVectors = 512
	// recordSlack is the most a control record, or a data record's header
	// with a copied run, takes of the scratch.
	recordSlack = copyMax + 640

	frameHeaderSize = 9
)

// batch is what one write carries: packets, as slices of scratch and of the
// chunks that it holds a reference to while it is written.
type batch struct {
	vec     [][]byte
	pins    []*chunk
	loans   []circuit.Lender // of packets of circuits, that vec has in it
	passes  []passage        // what to tell after the write
	scratch []byte
	from    int  // scratch before it is in vec already
	size    int  // bytes of all packets closed
	header  int  // where the open packet's frame header lies, -1 if none is open
	packet  int  // bytes of the open packet
	wide    bool // it is full at wideBatch
	out     [][]byte
}

var batchPool = sync.Pool{New: func() any {
	return &batch{scratch: make([]byte, 0, scratchSize), header: -1}
}}

// full reports whether no further record may be added.
func (b *batch) full() bool {
	size := b.size + b.packet
	return size >= fullBatch && !b.wide || size >= wideBatch || len(b.vec) >= maxVectors ||
		scratchSize-len(b.scratch) < recordSlack+frameHeaderSize
}

// record makes room for a record of n bytes: it opens a packet if none is, or
// if n does not fit.
func (b *batch) record(n int) {
	if b.header >= 0 && (b.packet >= fullPacket || b.packet+n > wire.MaxPacket) {
		b.close()
	}
	if b.header < 0 {
		b.header = len(b.scratch)
		b.scratch = b.scratch[:b.header+frameHeaderSize]
	}
	b.packet += n
}

// close ends the open packet.
func (b *batch) close() {
	if b.header < 0 {
		return
	}
	transport.PutLongHeader(b.scratch[b.header:], b.packet)
	b.size += b.packet + frameHeaderSize
	b.header, b.packet = -1, 0
}

// refer adds p, a part of c, without copying it.
func (b *batch) refer(c *chunk, p []byte) {
	b.cut()
	c.refs++
	b.pins = append(b.pins, c)
	b.vec = append(b.vec, p)
}

// cut puts what scratch has gained into vec.
func (b *batch) cut() {
	if b.from < len(b.scratch) {
		b.vec = append(b.vec, b.scratch[b.from:len(b.scratch):len(b.scratch)])
		b.from = len(b.scratch)
	}
}

// seal ends the batch and returns its slices, to be written. Headers are
// patched in place before, so slices of the scratch may be taken earlier.
func (b *batch) seal() [][]byte {
	b.close()
	b.cut()
	b.out = append(b.out[:0], b.vec...)
	return b.out
}

// reset empties the batch after the write. Under the link's mu.
func (b *batch) reset() {
	for _, c := range b.pins {
		c.release()
	}
	for _, from := range b.loans {
		from.Release()
	}
	clear(b.loans)
	clear(b.passes)
	b.loans, b.passes = b.loans[:0], b.passes[:0]
	clear(b.pins)
	clear(b.vec)
	clear(b.out)
	b.vec, b.pins, b.out = b.vec[:0], b.pins[:0], b.out[:0]
	b.wide = false
	b.scratch, b.from, b.size, b.header, b.packet = b.scratch[:0], 0, 0, -1, 0
}
