package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memRing is how many bytes one direction of a mem connection holds: a packet of 64 KiB goes in whole while another is
// being read.
const memRing = 128 << 10

// memRings lends out the rings: an idle direction has none.
var memRings = sync.Pool{New: func() any { return new([memRing]byte) }}

// memPath is one direction of a mem connection: a ring with one reading and one writing end.
type memPath struct {
	mu       sync.Mutex
	readable sync.Cond
	writable sync.Cond

	// under mu
	ring         *[memRing]byte // nil while size is 0
	start, size  int            // the bytes on their way
	readerClosed bool
	writerClosed bool
	forReads     memDeadline
	forWrites    memDeadline
}

func newMemPath() *memPath {
	p := &memPath{}
	p.readable.L, p.writable.L = &p.mu, &p.mu
	return p
}

func (p *memPath) read(dst []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		ok, err := p.canRead()
		if err != nil {
			return 0, err
		}
		if ok || len(dst) == 0 {
			return p.take(dst), nil
		}
		p.readable.Wait()
	}
}

// readLent reads into memory that is borrowed once there are bytes. in is the caller's own, so the lock may be held.
func (p *memPath) readLent(in *inbox) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		ok, err := p.canRead()
		if err != nil {
			return 0, err
		}
		if ok {
			return p.take(in.space()), nil
		}
		in.idle()
		p.readable.Wait()
	}
}

func (p *memPath) canRead() (bool, error) {
	switch {
	case p.readerClosed:
		return false, net.ErrClosed
	case p.forReads.passed:
		return false, os.ErrDeadlineExceeded
	case p.size > 0:
		return true, nil
	case p.writerClosed:
		return false, io.EOF
	}
	return false, nil
}

// take moves bytes out of the ring, in at most two pieces.
func (p *memPath) take(dst []byte) int {
	n := 0
	for n < len(dst) && p.size > 0 {
		m := copy(dst[n:], p.ring[p.start:min(p.start+p.size, memRing)])
		n += m
		p.size -= m
		p.start = (p.start + m) % memRing
	}
	if p.size == 0 {
		p.dropRing()
	}
	if n > 0 {
		p.writable.Signal()
	}
	return n
}

// write waits until all of src is in the ring.
func (p *memPath) write(src []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for {
		switch {
		case p.writerClosed:
			return n, net.ErrClosed
		case p.readerClosed:
			return n, syscall.EPIPE
		case p.forWrites.passed:
			return n, os.ErrDeadlineExceeded
		}
		n += p.put(src[n:])
		if n == len(src) {
			return n, nil
		}
		p.writable.Wait()
	}
}

// put moves bytes into the ring, in at most two pieces.
func (p *memPath) put(src []byte) int {
	if p.ring == nil && len(src) > 0 {
		p.ring = memRings.Get().(*[memRing]byte)
	}
	n := 0
	for n < len(src) && p.size < memRing {
		end := (p.start + p.size) % memRing
		stop := memRing
		if end < p.start {
			stop = p.start
		}
		m := copy(p.ring[end:stop], src[n:])
		n += m
		p.size += m
	}
	if n > 0 {
		p.readable.Signal()
	}
	return n
}

func (p *memPath) dropRing() {
	if p.ring != nil {
		memRings.Put(p.ring)
		p.ring = nil
	}
	p.start, p.size = 0, 0
}

// closeReader discards what is on its way.
func (p *memPath) closeReader() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readerClosed = true
	p.dropRing()
	p.forReads.stop()
	p.wakeAll()
}

func (p *memPath) closeWriter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writerClosed = true
	p.forWrites.stop()
	p.wakeAll()
}

func (p *memPath) setReadDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.readerClosed {
		p.forReads.set(p, t)
	}
}

func (p *memPath) setWriteDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.writerClosed {
		p.forWrites.set(p, t)
	}
}

func (p *memPath) wakeAll() {
	p.readable.Broadcast()
	p.writable.Broadcast()
}

// memDeadline is a deadline of one end of a path, under the path's lock.
type memDeadline struct {
	timer  *time.Timer
	passed bool
}

func (d *memDeadline) set(p *memPath, t time.Time) {
	d.stop()
	d.passed = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		p.wakeAll()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if d.timer == timer { // not replaced while it waited for the lock
			d.passed = true
			p.wakeAll()
		}
	})
	d.timer = timer
}

func (d *memDeadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
