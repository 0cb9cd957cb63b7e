package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// handshakes that must fail: bytes a peer sends, and a part of the reason in the log.
var badHandshakes = []struct {
	name   string
	bytes  []byte
	reason string
}{
	{"nothing", nil, "closed after 0 bytes"},
	{"HTTP", []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "not ZMTP"},
	{"zeros", make([]byte, 200), "not ZMTP"},
	{"bad signature footer", append([]byte{0xff}, make([]byte, 9)...), "not ZMTP"},
	{"ZMTP 2.0", []byte{0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1}, "ZMTP version 1, want 3"},
	{"half a greeting", goodGreeting[:40], "closed after 40 bytes"},
	{"PLAIN", greetingOf(3, 0, "PLAIN"), `security mechanism \"PLAIN\"`},
	{"CURVE", greetingOf(3, 0, "CURVE"), `security mechanism \"CURVE\"`},
	{"a mechanism of 20 bytes", greetingOf(3, 0, "NULLNULLNULLNULLNULL"), "security mechanism"},
	{"as-server", asServer(), "as-server"},
	{"header bomb, command", shake(0x06, 0x40, 0, 0, 0, 0, 0, 0, 0), "command of 4611686018427387904 bytes"},
	{"header bomb, largest", shake(0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "command of 18446744073709551615 bytes"},
	{"header bomb, message", shake(0x02, 0x40, 0, 0, 0, 0, 0, 0, 0), "a message before READY"},
	{"half a header", shake(0x06, 0, 0), "closed after"},
	{"reserved flag", shake(0x84, 0), "reserved bits"},
	{"command with more", shake(0x05, 0), "announces more frames"},
	{"empty command", shake(0x04, 0), "malformed command"},
	{"command name beyond the frame", shake(0x04, 2, 9, 'R'), "malformed command"},
	{"message first", shake(0x00, 1, 'x'), "a message before READY"},
	{"HELLO", shakeWith(appendCommand(nil, "HELLO", nil)), `command \"HELLO\", want READY`},
	{"ERROR", shakeWith(appendCommand(nil, "ERROR", []byte("\x06go off"))), `the peer reports an error: \"go off\"`},
	{"ERROR, malformed", shakeWith(appendCommand(nil, "ERROR", []byte("\xffgo"))), "malformed reason"},
	{"no properties", shakeWith(readyOf()), "no Socket-Type"},
	{"Socket-Type missing", shakeWith(readyOf(property("Identity", "x"))), "no Socket-Type"},
	{"Socket-Type unknown", shakeWith(readyOf(property("Socket-Type", "BOGUS"))), `unknown Socket-Type \"BOGUS\"`},
	{"Socket-Type empty", shakeWith(readyOf(property("Socket-Type", ""))), "unknown Socket-Type"},
	{"Socket-Type twice", shakeWith(readyOf(property("Socket-Type", "ROUTER"), property("socket-type", "REP"))), "given twice"},
	{"Identity twice", shakeWith(readyOf(property("Socket-Type", "ROUTER"), property("Identity", "a"), property("identity", "b"))), "given twice"},
	{"Identity of 256 bytes", shakeWith(readyOf(property("Socket-Type", "ROUTER"), property("Identity", strings.Repeat("i", 256)))), "Identity of 256 bytes"},
	{"types that may not meet", shakeWith(readyOf(property("Socket-Type", "PUB"))), "not compatible"},
	{"type that is not accepted", shakeWith(readyOf(property("Socket-Type", "REP"))), "accepted are"},
	{"property name with a space", shakeWith(readyOf(property("Socket Type", "ROUTER"))), "bad property name"},
	{"property name empty", shakeWith(readyOf(property("", "ROUTER"))), "cut short"},
	{"property name beyond the end", shakeWith(readyOf("\xffSocket-Type")), "cut short"},
	{"property without a value's length", shakeWith(readyOf("\x0bSocket-Type")), "cut short"},
	{"property value of 4 GiB", shakeWith(readyOf("\x0bSocket-Type\xff\xff\xff\xffROUTER")), "claims 4294967295 bytes"},
	{"property value one too long", shakeWith(readyOf("\x0bSocket-Type\x00\x00\x00\x07ROUTER")), "claims 7 bytes, 6 are left"},
	{"READY over the bound", shakeWith(readyOf(property("Socket-Type", "ROUTER"), property("X-Much", strings.Repeat("m", maxHandshakeFrame)))), "at most 8192"},
	{"READY cut short", shakeWith(readyOf(property("Socket-Type", "ROUTER")))[:greetingSize+12], "closed after"},
}

func asServer() []byte {
	g := bytes.Clone(goodGreeting)
	g[32] = 1
	return g
}

func shake(b ...byte) []byte    { return shakeWith(b) }
func shakeWith(b []byte) []byte { return append(bytes.Clone(goodGreeting), b...) }

// Each is one line in the log, and neither an error of Accept nor a delay for the good peer that comes after it.
func TestBadHandshakesAreRefusedWithTheirReason(t *testing.T) {
	for _, bad := range badHandshakes {
		t.Run(bad.name, func(t *testing.T) {
			ctx, lines := testContext(t), newLogLines()
			l := listen(t, memAddress(), Config{Accepts: []SocketType{Router, Dealer, Pub}, Logger: lines.logger()})
			nc := rawDial(t, l.Addr())
			go func() {
				nc.Write(bad.bytes) // it may be refused before it is read to its end
				nc.(*memConn).out.closeWriter()
			}()
			io.Copy(io.Discard, nc) // until the listener closes
			line := lines.await(t, ctx, "handshake failed", 1)[0]
			if !strings.Contains(line, bad.reason) || !strings.Contains(line, "level=WARN") || !strings.Contains(line, l.Addr()) {
				t.Errorf("want a warning with %q, have %s", bad.reason, line)
			}
			good, err := Dial(ctx, l.Addr(), Config{SocketType: Router})
			if err != nil {
				t.Fatal(err)
			}
			defer good.Close()
			c, err := l.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if n := len(lines.all()); n != 1 {
				t.Errorf("want one line, have %q", lines.all())
			}
		})
	}
}

func TestUnusualButLegalHandshakesPass(t *testing.T) {
	for name, ready := range map[string][]byte{
		"lower case":       readyOf(property("socket-type", "ROUTER"), property("identity", "id")),
		"upper case":       readyOf(property("SOCKET-TYPE", "ROUTER"), property("IDENTITY", "id")),
		"other properties": readyOf(property("X-Rack", ""), property("Socket-Type", "ROUTER"), property("Identity", "id"), property("Resource", "/a")),
		"long form":        append([]byte{0x06, 0, 0, 0, 0, 0, 0, 0, 0}, readyOf(property("Socket-Type", "ROUTER"), property("Identity", "id"))[2:]...),
	} {
		t.Run(name, func(t *testing.T) {
			if ready[0] == 0x06 {
				ready[8] = byte(len(ready) - LongHeaderSize)
			}
			l := listen(t, memAddress(), Config{})
			nc := rawDial(t, l.Addr())
			for _, b := range append(shakeWith(ready), 0, 2, 'h', 'i') { // a byte at a time, and a message at once
				if _, err := nc.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			c, err := l.Accept(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p, _, err := c.ReadPacket()
			if err != nil || string(p) != "hi" || c.PeerIdentity() != "id" || c.PeerType() != Router {
				t.Fatalf("have %q %v from %q, a %s", p, err, c.PeerIdentity(), c.PeerType())
			}
		})
	}
}

// Were the guard to miss something, the library's panic must cost one connection and no more.
func TestPanicsOfTheLibraryBecomeProtocolErrors(t *testing.T) {
	near, far := memPipe("panic")
	defer near.Close()
	defer far.Close()
	g := &guard{Conn: near, remote: "far", state: finished, checked: shakeWith(readyOf())}
	_, err := openZMTP(g, Config{SocketType: Dealer})
	if p := protocolError(t, err); !strings.Contains(p.Reason, "panicked") {
		t.Fatal(err)
	}
}

func TestTheGuardLeavesWhatFollowsTheHandshake(t *testing.T) {
	stream := append(shakeWith(readyOf(property("Socket-Type", "ROUTER"))), "rest"...)
	conn := &bytesConn{in: bytes.NewReader(stream)}
	if _, err := openZMTP(&guard{Conn: conn}, Config{SocketType: Dealer}); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(conn.in); string(rest) != "rest" {
		t.Fatalf("left: %q", rest)
	}
}

// bytesConn is a connection to a peer that has sent everything and reads everything.
type bytesConn struct {
	net.Conn
	in *bytes.Reader
}

func (c *bytesConn) Read(p []byte) (int, error)      { return c.in.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error)     { return len(p), nil }
func (c *bytesConn) SetDeadline(time.Time) error     { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error { return nil }
func (c *bytesConn) Close() error                    { return nil }

// Whatever comes in, the library does not panic behind the guard, and what passes is what the guard promised.
func FuzzGuard(f *testing.F) {
	for _, bad := range badHandshakes {
		f.Add(bad.bytes)
	}
	f.Add(shakeWith(readyOf(property("socket-TYPE", "DEALER"), property("Identity", "x"), property("X-a", "b"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := &guard{Conn: &bytesConn{in: bytes.NewReader(data)}, remote: "fuzz"}
		meta, err := openZMTP(g, Config{SocketType: Dealer})
		var p *ProtocolError
		if errors.As(err, &p) && strings.Contains(p.Reason, "panicked") {
			t.Fatalf("the guard let through: %v", err)
		}
		if err != nil {
			return
		}
		legal := []SocketType{Dealer, Router, Rep}
		if !slices.Contains(legal, SocketType(meta[propertySocketType])) || len(meta[propertyIdentity]) > maxIdentity {
			t.Fatalf("passed: %q", meta)
		}
	})
}
