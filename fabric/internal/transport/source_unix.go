//go:build unix

package transport

import (
	"io"
	"net"
	"os"
	"syscall"
)

// newSource reads a socket's descriptor directly, so that memory is borrowed after the poller has reported bytes.
func newSource(nc net.Conn) source {
	switch c := nc.(type) {
	case *memConn:
		return memSource{c.in}
	case syscall.Conn:
		if rc, err := c.SyscallConn(); err == nil {
			s := &socketSource{rc: rc}
			s.once = s.readOnce
			return s
		}
	}
	return &probeSource{nc: nc}
}

type socketSource struct {
	rc   syscall.RawConn
	once func(fd uintptr) bool // readOnce, bound a single time: binding allocates

	// for the duration of one read
	in  *inbox
	to  []byte // instead of in's memory
	n   int
	err error
}

func (s *socketSource) readTo(p []byte) (int, error) {
	s.to = p
	n, err := s.read(nil)
	s.to = nil
	return n, err
}

func (s *socketSource) read(in *inbox) (int, error) {
	s.in, s.n, s.err = in, 0, nil
	err := s.rc.Read(s.once)
	if err == nil {
		err = s.err
	}
	return s.n, err
}

// readOnce tries to read; false asks the poller to wait until there is something.
func (s *socketSource) readOnce(fd uintptr) bool {
	for {
		p := s.to
		if p == nil {
			p = s.in.space()
		}
		n, err := readDirect(fd, p)
		switch {
		case n > 0:
			s.n = n
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if s.to == nil {
				s.in.idle()
			}
			return false
		case err != nil:
			s.err = os.NewSyscallError("read", err)
		default:
			s.err = io.EOF
		}
		return true
	}
}
