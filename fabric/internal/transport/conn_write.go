package transport

import (
	"errors"
	"net"
)

// vectorWriter writes all of bufs, waits for as long as that takes, and reports whether it did.
type vectorWriter interface {
	writeAll(bufs [][]byte) (waited bool, err error)
}

// errNoFrames: a ZMTP message has at least one frame.
var errNoFrames = errors.New("a message without frames")

// WriteBuffers writes what is pending of control, then the bytes of bufs, which hold whole messages framed by the caller
// (see AppendFrameHeader and PutLongHeader). Nil bufs write just what is pending. On a socket it is one system call for
// up to 1024 buffers. Everything is written, or the error is final and the connection closed. bufs and its elements are
// overwritten; the bytes are not, and may be used again on return.
//
// It waits for as long as the peer does not read, until the write deadline or Close.
func (c *Conn) WriteBuffers(bufs [][]byte) error {
	c.atOnce = false
	if c.writeErr != nil {
		return c.writeErr
	}
	if c.control.pending.Load() {
		c.pong = c.control.appendPong(c.pong[:0])
		if _, err := c.nc.Write(c.pong); err != nil {
			return c.writeFailed(err)
		}
	}
	var err error
	switch {
	case len(bufs) == 0:
	case c.vectors != nil:
		var waited bool
		waited, err = c.vectors.writeAll(bufs)
		c.atOnce = !waited && err == nil
	case len(bufs) == 1:
		_, err = c.nc.Write(bufs[0])
	default:
		c.vec = bufs // a field, as WriteTo would move a variable to the heap
		_, err = c.vec.WriteTo(c.nc)
		c.vec = nil
	}
	if err != nil {
		return c.writeFailed(err)
	}
	return nil
}

// AtOnce reports whether the last WriteBuffers found room for all its bytes in the socket, without a wait: the connection
// is faster than who writes. It belongs to the writer. Where it cannot be known it is false.
func (c *Conn) AtOnce() bool { return c.atOnce }

// WriteMessage writes one message of the given frames, as WriteBuffers does. The frames are only read.
func (c *Conn) WriteMessage(frames ...[]byte) error {
	if len(frames) == 0 {
		return opError("write", c.remote, errNoFrames)
	}
	// The headers must not move once frames point into them.
	if room := len(frames) * LongHeaderSize; cap(c.headers) < room {
		c.headers = make([]byte, 0, room)
	}
	headers, bufs := c.headers[:0], c.frames[:0]
	for i, frame := range frames {
		start := len(headers)
		headers = AppendFrameHeader(headers, len(frame), i < len(frames)-1)
		bufs = append(bufs, headers[start:], frame)
	}
	err := c.WriteBuffers(bufs)
	clear(bufs) // the caller's memory is not to be kept alive from here
	c.frames = bufs[:0]
	return err
}

// writeFailed ends the connection: a part of a message may be on its way, and nothing can follow it.
func (c *Conn) writeFailed(err error) error {
	if c.closed.Load() {
		err = net.ErrClosed
	}
	c.writeErr = opError("write", c.remote, err)
	c.Close()
	return c.writeErr
}
