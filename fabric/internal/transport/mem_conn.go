package transport

import (
	"net"
	"time"
)

// memConn is one end of a mem connection: a net.Conn with deadlines, and without goroutines.
type memConn struct {
	name    memAddr
	in, out *memPath
}

// memPipe returns the two ends of a connection.
func memPipe(name memAddr) (near, far *memConn) {
	a, b := newMemPath(), newMemPath()
	return &memConn{name: name, in: a, out: b}, &memConn{name: name, in: b, out: a}
}

func (m *memConn) Read(p []byte) (int, error)  { return m.in.read(p) }
func (m *memConn) Write(p []byte) (int, error) { return m.out.write(p) }

// Close ends both directions. The peer still reads what is on its way, then io.EOF.
func (m *memConn) Close() error {
	m.in.closeReader()
	m.out.closeWriter()
	return nil
}

func (m *memConn) LocalAddr() net.Addr  { return m.name }
func (m *memConn) RemoteAddr() net.Addr { return m.name }

func (m *memConn) SetDeadline(t time.Time) error {
	m.in.setReadDeadline(t)
	m.out.setWriteDeadline(t)
	return nil
}

func (m *memConn) SetReadDeadline(t time.Time) error {
	m.in.setReadDeadline(t)
	return nil
}

func (m *memConn) SetWriteDeadline(t time.Time) error {
	m.out.setWriteDeadline(t)
	return nil
}

// memSource reads a mem connection for a Conn: memory is borrowed only when there are bytes.
type memSource struct{ path *memPath }

func (s memSource) read(in *inbox) (int, error)     { return s.path.readLent(in) }
func (s memSource) readTo(p, _ []byte) (int, error) { return s.path.read(p) }
