//go:build unix

package transport

import (
	"net"
	"os"
	"syscall"
)

// newNowWriter returns nc's, or nil if it has none.
func newNowWriter(nc net.Conn) nowWriter {
	rc := rawConn(nc)
	if rc == nil {
		return nil
	}
	s := &socketSink{rc: rc}
	s.once = s.writeOnce
	return s
}

// socketSink writes to a socket's descriptor directly.
type socketSink struct {
	rc   syscall.RawConn
	once func(fd uintptr) bool // writeOnce, bound a single time: binding allocates

	// for the duration of one write
	p   []byte
	n   int
	err error
}

func (s *socketSink) writeNow(p []byte) (int, error) {
	s.p, s.n, s.err = p, 0, nil
	err := s.rc.Write(s.once)
	s.p = nil
	if err == nil {
		err = s.err
	}
	return s.n, err
}

// writeOnce tries to write, and never asks to wait.
func (s *socketSink) writeOnce(fd uintptr) bool {
	for {
		n, err := writeDirect(fd, s.p)
		switch {
		case err == nil:
			s.n = n
		case err == syscall.EINTR:
			continue
		case err != syscall.EAGAIN:
			s.err = os.NewSyscallError("write", err)
		}
		return true
	}
}
