//go:build linux && !race

package transport

import (
	"net"
	"os"
	"syscall"
	"unsafe"
)

// Reads and writes of a non-blocking socket end as soon as the bytes are copied. So they are made without telling Go's
// scheduler, which would look after a call that might wait: it wakes its monitor's thread for the first call after each
// idle moment, and that takes the processor away from a call of 20 us and starts a thread for it. A process that passes
// on what others send is idle between any two batches, and spent a quarter of its time that way. A direct call holds the
// processor as a computation does, for the time of one batch's copy. pulse_linux.go has what goes with it.
//
// The race detector learns from the ordinary calls which goroutines are in step: so its builds make those.

func readDirect(fd uintptr, p []byte) (int, error) {
	pulse()
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// readBothDirect reads into the first of to, and what comes behind that into the second. Neither may be empty.
func readBothDirect(fd uintptr, to *[2][]byte) (int, error) {
	pulse()
	var pieces [2]syscall.Iovec
	for i, p := range to {
		pieces[i].Base = unsafe.SliceData(p)
		pieces[i].SetLen(len(p))
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READV, fd, uintptr(unsafe.Pointer(&pieces)), uintptr(len(pieces)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func writeDirect(fd uintptr, p []byte) (int, error) {
	pulse()
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// newVectorWriter returns nc's, or nil if it is no socket.
func newVectorWriter(nc net.Conn) vectorWriter {
	rc := rawConn(nc)
	if rc == nil {
		return nil
	}
	s := &socketVectors{rc: rc}
	s.some = s.writeSome
	return s
}

// maxVectors is how many pieces the system takes at once: its UIO_MAXIOV.
const maxVectors = 1024

// socketVectors writes pieces of memory to a socket's descriptor directly.
type socketVectors struct {
	rc   syscall.RawConn
	some func(fd uintptr) bool // writeSome, bound a single time: binding allocates

	// for the duration of one write
	left   []syscall.Iovec // of pieces
	waited bool
	err    error

	pieces []syscall.Iovec
}

func (s *socketVectors) writeAll(bufs [][]byte) (waited bool, err error) {
	s.pieces = s.pieces[:0]
	for _, p := range bufs {
		if len(p) > 0 {
			v := syscall.Iovec{Base: unsafe.SliceData(p)}
			v.SetLen(len(p))
			s.pieces = append(s.pieces, v)
		}
	}
	s.left, s.waited, s.err = s.pieces, false, nil
	err = s.rc.Write(s.some)
	clear(s.pieces)
	if err == nil {
		err = s.err
	}
	return s.waited, err
}

// writeSome writes as much as the socket takes; false asks the poller to wait until it takes more.
func (s *socketVectors) writeSome(fd uintptr) bool {
	pulse()
	for len(s.left) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.left))), uintptr(min(len(s.left), maxVectors)))
		switch errno {
		case 0:
			s.written(int(n))
		case syscall.EINTR:
		case syscall.EAGAIN:
			s.waited = true
			return false
		default:
			s.err = os.NewSyscallError("writev", errno)
			return true
		}
	}
	return true
}

// written steps over n bytes.
func (s *socketVectors) written(n int) {
	for n > 0 {
		v := &s.left[0]
		size := int(v.Len)
		if n < size {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.SetLen(size - n)
			return
		}
		n -= size
		s.left = s.left[1:]
	}
}
