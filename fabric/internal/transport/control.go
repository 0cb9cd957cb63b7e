package transport

import (
	"sync"
	"sync/atomic"
)

// maxPingContext bounds the context of a PING, as https://rfc.zeromq.org/spec/37/ does.
const maxPingContext = 16

// control is what the reader leaves for the writer to send: the answer to the latest PING. However many PINGs arrive
// while the writer waits, there is one answer to send, so a peer that only pings fills nothing.
type control struct {
	pending atomic.Bool // an answer is due; a hint that spares the writer the lock

	mu      sync.Mutex
	wake    func()
	context [maxPingContext]byte
	size    int // of context
}

// SetControlWake sets what the reader calls when a control command waits for the writer: the writer should then call
// WriteBuffers, with nil if it has nothing else. wake is called on the reading goroutine and must neither block nor
// write. It is called at once if something is waiting already.
func (c *Conn) SetControlWake(wake func()) {
	c.control.mu.Lock()
	c.control.wake = wake
	c.control.mu.Unlock()
	if wake != nil && c.ControlPending() {
		wake()
	}
}

// ControlPending reports that a control command waits to be written.
func (c *Conn) ControlPending() bool { return c.control.pending.Load() }

// command deals with a command that arrived after the handshake. The reader calls it; it never writes.
func (c *Conn) command(frame []byte) error {
	name, body, ok := splitCommand(frame)
	if !ok {
		return c.violation("a malformed command")
	}
	switch string(name) {
	case "PING":
		// body = ttl (2 octets, tenths of a second) context. The ttl is a hint at when to give the peer up; the owner
		// of the connection has its own heartbeats for that.
		if len(body) < 2 {
			return c.violation("a PING without its TTL")
		}
		context := body[2:]
		if len(context) > maxPingContext {
			return c.violation("a PING with a context of more than 16 bytes")
		}
		c.control.ping(context)
	case "PONG":
	case "ERROR":
		err := &ProtocolError{Op: "read", Remote: c.remote, Reason: errorReason(body), FromPeer: true}
		c.endReading(err)
		c.Close()
		return err
	default:
		c.cfg.Logger.Debug("transport: unknown command ignored", "remote", c.remote, "command", quote(name), "bytes", len(body))
	}
	return nil
}

// ping notes that a PONG with this context is due, in the place of any earlier one.
func (ctl *control) ping(context []byte) {
	ctl.mu.Lock()
	ctl.size = copy(ctl.context[:], context)
	ctl.pending.Store(true)
	wake := ctl.wake
	ctl.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// appendPong appends the PONG that is due and takes the note back.
func (ctl *control) appendPong(dst []byte) []byte {
	ctl.mu.Lock()
	defer ctl.mu.Unlock()
	ctl.pending.Store(false)
	return appendCommand(dst, "PONG", ctl.context[:ctl.size])
}

// errorReason quotes what an ERROR command says: reason = OCTET 0*255VCHAR.
func errorReason(body []byte) string {
	if len(body) == 0 || int(body[0]) > len(body)-1 {
		return "malformed reason " + quote(body)
	}
	return quote(body[1 : 1+int(body[0])])
}
