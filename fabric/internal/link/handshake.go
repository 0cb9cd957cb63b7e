package link

import (
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// A new connection begins with hellos:
//
//  1. The node that dialled says hello.
//  2. The node that accepted answers hello, and the link is up for it; or it
//     says bye with the reason, and closes.
//  3. With the answer the link is up for the one that dialled.
//
// Both packets fit the smallest buffers, so writing them waits for nobody.

// Greet is the dialler's part. It returns what the peer said of itself, a
// *ByeError if it refused, or what went wrong.
func Greet(conn Conn, own wire.Hello, patience time.Duration) (wire.Hello, error) {
	if err := SayHello(conn, own, patience); err != nil {
		return wire.Hello{}, err
	}
	return AwaitHello(conn, patience)
}

// AwaitHello is the acceptor's first part, or the second half of Greet.
func AwaitHello(conn Conn, patience time.Duration) (wire.Hello, error) {
	return readHello(conn, time.Now().Add(patience))
}

// SayHello is the acceptor's second part, to be followed by Attach; or the first
// half of Greet, for who has something to do between the halves.
func SayHello(conn Conn, own wire.Hello, patience time.Duration) error {
	return sendPacket(conn, wire.AppendHello(nil, &own), time.Now().Add(patience))
}

// Refuse says bye and closes the connection.
func Refuse(conn Conn, code uint8, text string, patience time.Duration) {
	_ = sendPacket(conn, wire.AppendBye(nil, code, text), time.Now().Add(patience))
	conn.Close()
}

func sendPacket(conn Conn, p []byte, deadline time.Time) error {
	if err := conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if err := conn.WriteMessage(p); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

func readHello(conn Conn, deadline time.Time) (wire.Hello, error) {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return wire.Hello{}, err
	}
	p, _, err := conn.ReadPacket()
	if err == nil && len(p) == 0 {
		p, _, err = conn.ReadPacket() // a libzmq ROUTER may probe with an empty message first
	}
	if err != nil {
		return wire.Hello{}, fmt.Errorf("waiting for the hello of %s: %w", conn.RemoteAddr(), err)
	}
	var rec wire.Record
	rest, err := wire.Next(p, 0, &rec)
	switch {
	case err != nil:
		return wire.Hello{}, fault(conn, err.Error())
	case rec.Kind == wire.KindBye:
		return wire.Hello{}, &ByeError{Node: conn.RemoteAddr(), Code: rec.Code, Text: string(rec.Text)}
	case rec.Kind != wire.KindHello || len(rest) > 0:
		return wire.Hello{}, fault(conn, fmt.Sprintf("a %s record, or more than one, instead of a hello", rec.Kind))
	case rec.Hello.Version != wire.Version:
		return wire.Hello{}, fault(conn, fmt.Sprintf("hello of version %d, this node speaks %d", rec.Hello.Version, wire.Version))
	case len(rec.Hello.Node) == 0 || rec.Hello.Incarnation == 0:
		return wire.Hello{}, fault(conn, "hello without a name or incarnation")
	case rec.Hello.Connection > maxConnection:
		return wire.Hello{}, fault(conn, "hello with a connection number that is out of range")
	}
	return wire.Hello{
		Version: rec.Hello.Version, Node: string(rec.Hello.Node),
		Incarnation: rec.Hello.Incarnation, MaxMessage: rec.Hello.MaxMessage,
		Connection: rec.Hello.Connection,
	}, conn.SetReadDeadline(time.Time{})
}

// maxConnection bounds connection numbers: one more can always be counted.
const maxConnection = 1 << 53

// fault tells the peer what was wrong with its hello, closes the connection
// and returns it as an error.
func fault(conn Conn, reason string) error {
	Refuse(conn, wire.CodeProtocol, reason, partingPatience)
	return &ProtocolError{Node: conn.RemoteAddr(), Reason: reason}
}
