package transport

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
)

const (
	// maxHandshakeFrame bounds the READY command: Socket-Type and Identity need less than 300 bytes, the rest is
	// room for an application's own properties.
	maxHandshakeFrame = 8 << 10

	greetingSize  = 64
	signatureSize = 10

	propertySocketType = "Socket-Type"
	propertyIdentity   = "Identity"
)

// guard is what the library reads from during the handshake. It lets through, whole and checked, a greeting and one READY
// command; anything else is a *ProtocolError. It reads not a byte past them, so that the connection can be read directly
// afterwards. Everything that the library would take on trust is settled here: the announced size before it is allocated,
// the lengths inside READY, and that the properties it will look up are there, under the names it looks for.
type guard struct {
	net.Conn
	remote  string
	state   guardState
	checked []byte // checked and not yet read by the library
	err     error  // final
}

// A guard's states: expectGreeting -> expectReady -> finished. An error stays where it is.
type guardState int

const (
	expectGreeting guardState = iota
	expectReady
	finished
)

// Read gives the library checked bytes only.
func (g *guard) Read(p []byte) (int, error) {
	if len(g.checked) == 0 && g.err == nil {
		g.checked, g.err = g.next()
	}
	if len(g.checked) == 0 {
		return 0, g.err
	}
	n := copy(p, g.checked)
	g.checked = g.checked[n:]
	return n, nil
}

// next reads and checks the next unit of the handshake.
func (g *guard) next() (unit []byte, err error) {
	switch g.state {
	case expectGreeting:
		unit, err = g.greeting()
	case expectReady:
		unit, err = g.ready()
	default:
		err = g.violation("the library reads past the handshake")
	}
	if err == nil {
		g.state++
	}
	return unit, err
}

// greeting reads the 64 bytes of a greeting, refusing as soon as what has come cannot become one: a peer that speaks
// something else may be waiting for us.
func (g *guard) greeting() ([]byte, error) {
	unit := make([]byte, greetingSize)
	for n := 0; n < len(unit); {
		m, err := g.Conn.Read(unit[n:])
		n += m
		if reason := badGreeting(unit[:n]); reason != "" {
			return nil, g.violation(reason)
		}
		if err != nil && n < len(unit) {
			return nil, cutShort(err, n)
		}
	}
	return unit, nil
}

// badGreeting says what is wrong with the first bytes of a greeting, or is empty.
func badGreeting(b []byte) string {
	switch n := len(b); {
	case n > 0 && b[0] != 0xff, n >= signatureSize && b[signatureSize-1] != 0x7f:
		return "not ZMTP: the connection begins with " + quote(b)
	case n > signatureSize && b[signatureSize] < 3:
		return fmt.Sprintf("ZMTP version %d, want 3", b[signatureSize])
	case n < greetingSize:
		return ""
	}
	if mechanism := strings.TrimRight(string(b[12:32]), "\x00"); mechanism != "NULL" {
		return "security mechanism " + quote([]byte(mechanism)) + ", want NULL"
	}
	if b[32] != 0 {
		return "as-server set with mechanism NULL"
	}
	return ""
}

// ready reads one frame and checks that it is a READY command.
func (g *guard) ready() ([]byte, error) {
	var header [LongHeaderSize]byte
	if n, err := io.ReadFull(g.Conn, header[:shortHeader]); err != nil {
		return nil, cutShort(err, greetingSize+n)
	}
	flags, size, head := header[0], uint64(header[1]), shortHeader
	if reason := badFlags(flags); reason != "" {
		return nil, g.violation(reason)
	}
	if flags&flagCommand == 0 {
		return nil, g.violation("a message before READY")
	}
	if flags&flagLong != 0 {
		head = LongHeaderSize
		if _, err := io.ReadFull(g.Conn, header[shortHeader:]); err != nil {
			return nil, cutShort(err, greetingSize+shortHeader)
		}
		size = binary.BigEndian.Uint64(header[1:])
	}
	if size > maxHandshakeFrame {
		return nil, g.violation(fmt.Sprintf("a handshake command of %d bytes, at most %d", size, maxHandshakeFrame))
	}
	unit := make([]byte, head+int(size))
	copy(unit, header[:head])
	if n, err := io.ReadFull(g.Conn, unit[head:]); err != nil {
		return nil, cutShort(err, greetingSize+head+n)
	}
	name, body, ok := splitCommand(unit[head:])
	switch {
	case !ok:
		return nil, g.violation("a malformed command")
	case string(name) == "ERROR":
		return nil, &ProtocolError{Op: "handshake", Remote: g.remote, Reason: errorReason(body), FromPeer: true}
	case string(name) != "READY":
		return nil, g.violation("command " + quote(name) + ", want READY")
	}
	if reason := checkProperties(body); reason != "" {
		return nil, g.violation(reason)
	}
	return unit, nil
}

// checkProperties walks the metadata of READY, and says what is wrong with it:
//
//	metadata = *property
//	property = name-length (1 octet) name value-length (4 octets, BE) value
//
// Names are compared without case, as the specification has it, while the library looks them up in one spelling: that
// spelling is put in.
func checkProperties(b []byte) string {
	var seenType, seenIdentity bool
	for len(b) > 0 {
		n := int(b[0])
		if n == 0 || len(b) < 1+n+4 {
			return "READY: a property cut short"
		}
		name := b[1 : 1+n]
		if !validName(name) {
			return "READY: bad property name " + quote(name)
		}
		size := binary.BigEndian.Uint32(b[1+n:])
		b = b[1+n+4:]
		if uint64(size) > uint64(len(b)) {
			return fmt.Sprintf("READY: property %s claims %d bytes, %d are left", name, size, len(b))
		}
		value := b[:size]
		b = b[size:]
		switch {
		case strings.EqualFold(string(name), propertySocketType):
			if seenType {
				return "READY: Socket-Type given twice"
			}
			if !SocketType(value).known() {
				return "READY: unknown Socket-Type " + quote(value)
			}
			seenType = true
			copy(name, propertySocketType)
		case strings.EqualFold(string(name), propertyIdentity):
			if seenIdentity {
				return "READY: Identity given twice"
			}
			if len(value) > maxIdentity {
				return fmt.Sprintf("READY: an Identity of %d bytes, at most %d", len(value), maxIdentity)
			}
			seenIdentity = true
			copy(name, propertyIdentity)
		}
	}
	if !seenType {
		return "READY: no Socket-Type"
	}
	return ""
}

// validName: name-char = ALPHA / DIGIT / "-" / "_" / "." / "+".
func validName(name []byte) bool {
	for _, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == '+':
		default:
			return false
		}
	}
	return true
}

func (g *guard) violation(reason string) error {
	return &ProtocolError{Op: "handshake", Remote: g.remote, Reason: reason}
}

// cutShort says how far the peer came, if it closed in the middle of the handshake.
func cutShort(err error, n int) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the peer closed after %d bytes of its handshake: %w", n, io.ErrUnexpectedEOF)
	}
	return err
}
