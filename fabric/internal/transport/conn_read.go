package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
)

// maxFrames bounds the frames of one message, as empty ones cost MaxMessage nothing. An envelope of a request that
// passed ten brokers has twelve.
const maxFrames = 1024

// ReadPacket waits for a message of exactly one frame. p lies in b and is valid until the next read on c, unless
// b.Retain was called before that. p may be empty: a ROUTER that probes sends such a message.
//
// The wait ends with a message, at the read deadline, with io.EOF when the peer closed between two messages, with
// net.ErrClosed after Close, or with a *ProtocolError, which closes the connection. Every error but the deadline's is
// final. No allocation is made for a packet.
func (c *Conn) ReadPacket() (p []byte, b *Buffer, err error) {
	for {
		flags, body, err := c.readFrame()
		if err != nil {
			return nil, nil, err
		}
		switch {
		case flags&flagCommand != 0:
			if err := c.command(body); err != nil {
				return nil, nil, err
			}
		case flags&flagMore != 0 || len(c.partial) > 0:
			return nil, nil, c.violation("a message of several frames where one was expected")
		default:
			return body, c.in.buf, nil
		}
	}
}

// ReadMessage waits for a message of any number of frames, up to 1024, which the caller then owns. It ends as
// ReadPacket does.
func (c *Conn) ReadMessage() ([][]byte, error) {
	for {
		flags, body, err := c.readFrame()
		if err != nil {
			return nil, err
		}
		if flags&flagCommand != 0 { // libzmq's PING may come even between the frames of a message
			if err := c.command(body); err != nil {
				return nil, err
			}
			continue
		}
		c.total += len(body)
		switch {
		case c.total > c.cfg.MaxMessage:
			return nil, c.violation(fmt.Sprintf("a message of more than %d bytes", c.cfg.MaxMessage))
		case len(c.partial) == maxFrames:
			return nil, c.violation(fmt.Sprintf("a message of more than %d frames", maxFrames))
		}
		c.partial = append(c.partial, append(make([]byte, 0, len(body)), body...))
		if flags&flagMore == 0 {
			message := c.partial
			c.partial, c.total = nil, 0
			return message, nil
		}
	}
}

// readFrame waits for a whole frame. The body is valid until the next call.
func (c *Conn) readFrame() (flags byte, body []byte, err error) {
	if c.readErr != nil {
		return 0, nil, c.readErr
	}
	for {
		have := c.in.unparsed()
		need := shortHeader
		if len(have) >= shortHeader {
			flags = have[0]
			if reason := badFlags(flags); reason != "" {
				return 0, nil, c.violation(reason)
			}
			header, size := shortHeader, uint64(have[1])
			if flags&flagLong != 0 {
				header = LongHeaderSize
				if len(have) < LongHeaderSize {
					size = 0
				} else {
					size = binary.BigEndian.Uint64(have[1:])
				}
			}
			if size > uint64(c.cfg.MaxFrame) || size > math.MaxInt-LongHeaderSize {
				return 0, nil, c.violation(fmt.Sprintf("a frame of %d bytes, at most %d", size, c.cfg.MaxFrame))
			}
			need = header + int(size)
			if len(have) >= need {
				c.in.take(need)
				return flags, have[header:need:need], nil
			}
			if flags&(flagMore|flagCommand) == 0 && len(have) >= header {
				if head, ok, err := c.place(header, int(size)); ok || err != nil {
					return flags, head, err
				}
			}
		}
		if err := c.in.fill(need); err != nil {
			return 0, nil, c.readFailed(err)
		}
	}
}

// readFailed makes an error of the network final, unless it is the deadline's.
func (c *Conn) readFailed(err error) error {
	timeout := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case c.closed.Load():
		err = net.ErrClosed
	case err == io.EOF && len(c.partial) > 0:
		err = io.ErrUnexpectedEOF
	}
	if err != io.EOF {
		err = opError("read", c.remote, err)
	}
	if !timeout {
		c.endReading(err)
	}
	return err
}

// violation is the end of a connection whose peer broke the protocol.
func (c *Conn) violation(reason string) error {
	err := &ProtocolError{Op: "read", Remote: c.remote, Reason: reason}
	c.endReading(err)
	c.Close()
	return err
}

func (c *Conn) endReading(err error) {
	c.readErr = err
	c.partial, c.total = nil, 0
	c.in.drop()
}
