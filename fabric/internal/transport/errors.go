package transport

import (
	"errors"
	"fmt"
)

// Errors to branch on. Each is wrapped with the operation and the address.
var (
	// ErrConfig: a Config that cannot work.
	ErrConfig = errors.New("invalid configuration")
	// ErrInvalidAddress: not of the form scheme://rest, or the rest is not what the scheme asks for.
	ErrInvalidAddress = errors.New("invalid address")
	// ErrUnknownScheme: a scheme other than tcp, ipc and mem.
	ErrUnknownScheme = errors.New("unknown scheme")
	// ErrAddressInUse: another listener, here or in another process, has the address.
	ErrAddressInUse = errors.New("address in use")
	// ErrNotListening: nobody listens on a mem address.
	ErrNotListening = errors.New("nobody is listening")
	// ErrHandshakeTimeout: the peer did not finish the handshake within Config.HandshakeTimeout.
	ErrHandshakeTimeout = errors.New("handshake timed out")
	// ErrCrowded: the handshake idled while others waited for its place (see Config.MaxHandshakes).
	ErrCrowded = errors.New("handshake idled while others waited for its place")
)

// ProtocolError says that the peer broke ZMTP or one of our bounds. It ends the connection that it came from.
type ProtocolError struct {
	Op       string // "handshake" or "read"
	Remote   string // the peer's address
	Reason   string
	FromPeer bool // the peer raised it, with an ERROR command; Reason quotes what it said
}

func (e *ProtocolError) Error() string {
	if e.FromPeer {
		return fmt.Sprintf("transport: %s %s: the peer reports an error: %s", e.Op, e.Remote, e.Reason)
	}
	return fmt.Sprintf("transport: %s %s: protocol error: %s", e.Op, e.Remote, e.Reason)
}

// opError wraps err with the operation and the address, unless it is a ProtocolError, which has both.
func opError(op, addr string, err error) error {
	var p *ProtocolError
	if errors.As(err, &p) {
		return err
	}
	return fmt.Errorf("transport: %s %s: %w", op, addr, err)
}

// maxQuoted bounds what a log line or an error repeats of a peer's bytes.
const maxQuoted = 128

// quote makes a peer's bytes fit for a log line: quoted, and cut to a bound.
func quote(b []byte) string {
	if len(b) > maxQuoted {
		return fmt.Sprintf("%q (first %d of %d bytes)", b[:maxQuoted], maxQuoted, len(b))
	}
	return fmt.Sprintf("%q", b)
}
