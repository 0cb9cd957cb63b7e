package transport

import (
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

// SocketType is a ZMTP socket type, as the READY command names it.
type SocketType string

// The socket types of ZMTP 3.0. Which of them may meet is the table of https://rfc.zeromq.org/spec/23/.
const (
	Pair   SocketType = "PAIR"
	Pub    SocketType = "PUB"
	Sub    SocketType = "SUB"
	Req    SocketType = "REQ"
	Rep    SocketType = "REP"
	Dealer SocketType = "DEALER"
	Router SocketType = "ROUTER"
	Pull   SocketType = "PULL"
	Push   SocketType = "PUSH"
	XPub   SocketType = "XPUB"
	XSub   SocketType = "XSUB"
)

// known reports whether ZMTP 3.0 has this socket type.
func (t SocketType) known() bool {
	switch t {
	case Pair, Pub, Sub, Req, Rep, Dealer, Router, Pull, Push, XPub, XSub:
		return true
	}
	return false
}

const (
	defaultHandshakeTimeout = 5 * time.Second
	defaultMaxHandshakes    = 128
	defaultMaxFrame         = 1 << 20
	defaultMaxMessage       = 4 << 20
	defaultUserTimeout      = 30 * time.Second

	maxIdentity = 255 // ZMTP: identity = 0*255OCTET
)

// Config is what both ends of a connection can be told. The zero value, with a SocketType, is ready to use.
type Config struct {
	// SocketType is what this end is. There is no default.
	SocketType SocketType
	// Accepts narrows what the peer may be. Default: every peer that ZMTP allows opposite SocketType.
	Accepts []SocketType
	// Identity is sent to the peer as the Identity property, at most 255 bytes. Default: none.
	Identity string
	// HandshakeTimeout is the time from accept, or from the call of Dial, to a finished handshake. Default: 5 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes is how many handshakes one listener runs at a time, including finished ones that Accept has not
	// taken yet. Further connections wait in the kernel's accept queue. Default: 128.
	MaxHandshakes int
	// MaxFrame is the largest frame, in bytes, that the peer may send; a larger one ends the connection with a
	// *ProtocolError. Default: 1 MiB.
	MaxFrame int
	// MaxMessage is the largest message, in bytes over all its frames, that ReadMessage accepts. Default: 4 MiB.
	MaxMessage int
	// UserTimeout is how long what was written may wait for the peer's system to acknowledge it, or to have room for it,
	// until the connection ends, and with it a write that waits. For TCP, where the system can do it (Linux). Rounded up
	// to milliseconds. Default: 30 s.
	UserTimeout time.Duration
	// Mode is the permissions of the socket file that a listener over ipc makes: who may not write it cannot connect.
	// Default: what the process's umask leaves.
	Mode fs.FileMode
	// AdmitUser is asked about each connection that a listener over ipc accepts, before its handshake, with the user of
	// the process that connected. Known is false where the system does not tell. An error refuses it, and is logged.
	// Default: everybody who may connect.
	AdmitUser func(uid uint32, known bool) error
	// Logger takes one line (Warn) for each failed handshake of a listener, and one (Debug) for each unknown command.
	// Default: slog.Default().
	Logger *slog.Logger
}

// withDefaults returns the configuration with every default filled in, or says what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if !c.SocketType.known() {
		return c, fmt.Errorf("%w: unknown socket type %q", ErrConfig, string(c.SocketType))
	}
	for _, t := range c.Accepts {
		if !t.known() {
			return c, fmt.Errorf("%w: unknown socket type %q to accept", ErrConfig, string(t))
		}
	}
	if len(c.Identity) > maxIdentity {
		return c, fmt.Errorf("%w: identity of %d bytes, at most %d", ErrConfig, len(c.Identity), maxIdentity)
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = defaultHandshakeTimeout
	}
	if c.MaxHandshakes <= 0 {
		c.MaxHandshakes = defaultMaxHandshakes
	}
	if c.MaxFrame <= 0 {
		c.MaxFrame = defaultMaxFrame
	}
	if c.MaxMessage <= 0 {
		c.MaxMessage = max(defaultMaxMessage, c.MaxFrame)
	}
	if c.UserTimeout <= 0 {
		c.UserTimeout = defaultUserTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
