package transport

import (
	"sync"
	"sync/atomic"
)

const (
	// smallBuffer is what a connection with little traffic reads into, and what it may keep while it is idle.
	smallBuffer = 2 << 10
	// bigBuffer is what a busy connection reads into: four packets of 64 KiB, few enough system calls, and still
	// within the second level cache.
	bigBuffer = 256 << 10
)

// Buffer is memory that received packets lie in. It is counted: the connection holds one reference while it reads into
// the memory, and each Retain adds one. Its memory is used again when the last reference is gone.
type Buffer struct {
	refs atomic.Int32
	mem  []byte
	pool *sync.Pool // nil: memory of an unusual size, left to the garbage collector
}

var smallBuffers, bigBuffers sync.Pool

// newBuffer returns a buffer of at least size bytes with one reference.
func newBuffer(size int) *Buffer {
	pool := &bigBuffers
	switch {
	case size <= smallBuffer:
		pool, size = &smallBuffers, smallBuffer
	case size <= bigBuffer:
		size = bigBuffer
	default:
		pool = nil
	}
	if pool != nil {
		if b, _ := pool.Get().(*Buffer); b != nil {
			b.refs.Store(1)
			return b
		}
	}
	b := &Buffer{mem: make([]byte, size), pool: pool}
	b.refs.Store(1)
	return b
}

// Retain keeps the packets in b valid until as many calls of Release. The caller must hold b already: call it before
// the next read on the connection, or while another Retain is in force. It may be called from any goroutine.
func (b *Buffer) Retain() {
	if b.refs.Add(1) <= 1 {
		panic("transport: Retain of a buffer that nobody holds")
	}
}

// Release ends one Retain. It may be called from any goroutine.
func (b *Buffer) Release() {
	switch n := b.refs.Add(-1); {
	case n == 0 && b.pool != nil:
		b.pool.Put(b)
	case n < 0:
		panic("transport: Release of a buffer that nobody holds")
	}
}

// Cap is the memory, in bytes, that a retained packet keeps from being used again, whatever the packet's own size.
func (b *Buffer) Cap() int { return len(b.mem) }

// sole reports that the connection is the only holder, so that it may overwrite what it has handed out. Only the
// connection may ask: while it holds the one reference, nobody else can add another.
func (b *Buffer) sole() bool { return b.refs.Load() == 1 }
