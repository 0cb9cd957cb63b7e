package transport

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a ZMTP connection whose handshake is finished. One goroutine may read, one at a time may write, any may close.
type Conn struct {
	// immutable
	nc            net.Conn
	cfg           Config
	peerType      SocketType
	peerIdentity  string
	local, remote string

	// the reader's
	in      inbox
	partial [][]byte // frames of a message that ReadMessage has not seen the end of
	total   int      // bytes in partial
	readErr error    // final: every later read returns it

	// the writer's
	vec      net.Buffers
	frames   [][]byte
	headers  []byte
	pong     []byte
	now      nowWriter    // nil if the connection cannot
	vectors  vectorWriter // nil: net.Buffers has to do
	atOnce   bool         // the last write found room for all
	writeErr error        // final: every later write returns it

	control control
	placer  Placer // the reader's

	closeOnce sync.Once
	closed    atomic.Bool
	closeErr  error
}

func newConn(nc net.Conn, cfg Config, local, remote string, peerType SocketType, peerIdentity string) *Conn {
	return &Conn{
		nc: nc, cfg: cfg, local: local, remote: remote,
		peerType: peerType, peerIdentity: peerIdentity,
		in: inbox{src: newSource(nc)}, now: newNowWriter(nc), vectors: newVectorWriter(nc),
	}
}

// PeerType is the peer's socket type.
func (c *Conn) PeerType() SocketType { return c.peerType }

// PeerIdentity is the peer's Identity property: any bytes, at most 255, often none.
func (c *Conn) PeerIdentity() string { return c.peerIdentity }

// RemoteAddr is the peer's address with its scheme. A peer over ipc or mem has no address of its own: it is the
// listener's.
func (c *Conn) RemoteAddr() string { return c.remote }

// LocalAddr is this end's address with its scheme, as RemoteAddr.
func (c *Conn) LocalAddr() string { return c.local }

// SetReadDeadline ends a read that waits at t, with an error that is os.ErrDeadlineExceeded; zero: never. What has
// arrived of a message by then is kept: reading can go on after a later deadline is set.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline ends a write that waits at t, with an error that is os.ErrDeadlineExceeded; zero: never. A write that
// failed may have written a part of a message, so the connection is closed by it.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// CloseWrite ends what this end writes: the peer reads all of it, then the end. Reading goes on. Closing at once would
// reset the connection if the peer has sent something that was not read, and the peer could lose what it has not read
// yet. Where a connection has no halves, this is Close, which does not do that there.
func (c *Conn) CloseWrite() error {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// Close closes the connection and ends reads and writes that wait, with an error that is net.ErrClosed. It may be called
// from any goroutine and any number of times. What was written and not yet read by the peer may be lost.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		c.closed.Store(true)
		c.closeErr = c.nc.Close()
	})
	return c.closeErr
}
