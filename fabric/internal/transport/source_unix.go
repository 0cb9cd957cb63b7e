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
	if c, ok := nc.(*memConn); ok {
		return memSource{c.in}
	}
	rc := rawConn(nc)
	if rc == nil {
		return &probeSource{nc: nc}
	}
	s := &socketSource{rc: rc}
	s.once = s.readOnce
	return s
}

// rawConn is the way to nc's descriptor, nil if it has none.
func rawConn(nc net.Conn) syscall.RawConn {
	c, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

type socketSource struct {
	rc   syscall.RawConn
	once func(fd uintptr) bool // readOnce, bound a single time: binding allocates

	// for the duration of one read
	in  *inbox
	to  [2][]byte // instead of in's memory
	n   int
	err error
}

func (s *socketSource) readTo(p, more []byte) (int, error) {
	s.to = [2][]byte{p, more}
	n, err := s.read(nil)
	s.to = [2][]byte{}
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
		var n int
		var err error
		switch {
		case s.to[0] == nil:
			n, err = readDirect(fd, s.in.space())
		case len(s.to[1]) == 0:
			n, err = readDirect(fd, s.to[0])
		default:
			n, err = readBothDirect(fd, &s.to)
		}
		switch {
		case n > 0:
			s.n = n
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if s.to[0] == nil {
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
