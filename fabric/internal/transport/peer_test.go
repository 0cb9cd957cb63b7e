package transport

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// greetingOf is a greeting of our own making.
func greetingOf(major, minor byte, mechanism string) []byte {
	g := make([]byte, greetingSize)
	g[0], g[9], g[10], g[11] = 0xff, 0x7f, major, minor
	copy(g[12:32], mechanism)
	return g
}

func property(name, value string) string {
	b := append([]byte{byte(len(name))}, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return string(b) + value
}

func readyOf(properties ...string) []byte {
	return appendCommand(nil, "READY", []byte(strings.Join(properties, "")))
}

// goodGreeting is what libzmq 4.3 sends: minor version 1.
var goodGreeting = greetingOf(3, 1, "NULL")

// rawDial opens the connection below ZMTP.
func rawDial(t testing.TB, addr string) net.Conn {
	t.Helper()
	scheme, rest, err := splitAddress(addr)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := dialRaw(testContext(t), scheme, rest)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { nc.Close() })
	return nc
}

// shakeHands makes a raw connection a peer of the given type: the test then writes ZMTP by hand.
func shakeHands(t testing.TB, nc net.Conn, socketType SocketType) {
	t.Helper()
	if _, err := nc.Write(append(goodGreeting[:greetingSize:greetingSize], readyOf(property("Socket-Type", string(socketType)))...)); err != nil {
		t.Fatal(err)
	}
	g := &guard{Conn: nc, remote: "the other end"}
	for range 2 {
		if _, err := g.next(); err != nil {
			t.Fatal(err)
		}
	}
}

// rawPeer returns a Conn, and its peer's end below ZMTP.
func rawPeer(t testing.TB, addr string, cfg Config) (*Conn, net.Conn) {
	t.Helper()
	l := listen(t, addr, cfg)
	nc := rawDial(t, l.Addr())
	shakeHands(t, nc, Router)
	c, err := l.Accept(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	c.SetWriteDeadline(time.Now().Add(patience))
	return c, nc
}

// logLines records what is logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
	grown chan struct{} // capacity 1
}

func newLogLines() *logLines { return &logLines{grown: make(chan struct{}, 1)} }

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.lines = append(l.lines, string(p))
	l.mu.Unlock()
	select {
	case l.grown <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *logLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// await waits until n lines contain want.
func (l *logLines) await(t testing.TB, ctx context.Context, want string, n int) []string {
	t.Helper()
	for {
		var found []string
		for _, line := range l.all() {
			if strings.Contains(line, want) {
				found = append(found, line)
			}
		}
		if len(found) >= n {
			return found
		}
		select {
		case <-l.grown:
		case <-ctx.Done():
			t.Fatalf("want %d lines with %q, have %q", n, want, l.all())
		}
	}
}
