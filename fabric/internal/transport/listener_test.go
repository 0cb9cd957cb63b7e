package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dialAndAccept is a good peer getting in.
func dialAndAccept(t testing.TB, l *Listener) {
	t.Helper()
	ctx := testContext(t)
	r, err := Dial(ctx, l.Addr(), Config{SocketType: Router})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

func TestASilentConnectionDelaysNobody(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			lines := newLogLines()
			l := listen(t, addr, Config{HandshakeTimeout: time.Hour, Logger: lines.logger()})
			rawDial(t, l.Addr())
			rawDial(t, l.Addr()).Write(goodGreeting[:11])
			rawDial(t, l.Addr()).Write(goodGreeting)
			dialAndAccept(t, l)
			if len(lines.all()) > 0 { // they are still waited for
				t.Fatalf("%q", lines.all())
			}
		})
	}
}

func TestHalfOpenConnectionsDoNotKeepAGoodPeerOut(t *testing.T) {
	lines := newLogLines()
	// Silent ones give way after a twentieth of this.
	l := listen(t, "tcp://127.0.0.1:0", Config{HandshakeTimeout: 2 * time.Second, MaxHandshakes: 400, Logger: lines.logger()})
	for range 1000 {
		rawDial(t, l.Addr())
	}
	dialAndAccept(t, l)
	if got := lines.await(t, testContext(t), ErrCrowded.Error(), 1); !strings.Contains(got[0], "level=WARN") {
		t.Fatalf("%q", got)
	}
}

// A finished handshake is no longer among those that can be evicted, and its place comes back.
func TestFinishedHandshakesLeaveNothingBehind(t *testing.T) {
	l := listen(t, memAddress(), Config{MaxHandshakes: 2})
	for range 5 {
		dialAndAccept(t, l)
	}
	l.Close()
	if l.adm.oldest != nil || l.adm.newest != nil || l.adm.free < 1 { // the accept loop may have ended with one
		t.Fatalf("%+v", l.adm)
	}
}

func TestASlowHandshakeEndsAtItsTimeout(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			lines := newLogLines()
			l := listen(t, addr, Config{HandshakeTimeout: 30 * time.Millisecond, Logger: lines.logger()})
			nc := rawDial(t, l.Addr())
			nc.Write(goodGreeting)
			io.Copy(io.Discard, nc) // until it is closed
			if got := lines.await(t, testContext(t), "handshake failed", 1); !strings.Contains(got[0], ErrHandshakeTimeout.Error()) {
				t.Fatalf("%q", got)
			}
		})
	}
}

// A peer that lets every byte wait does not make the deadline move.
func TestDialEndsAtItsTimeout(t *testing.T) {
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	addr := "tcp://" + nl.Addr().String()
	if _, err := Dial(testContext(t), addr, Config{SocketType: Router, HandshakeTimeout: 30 * time.Millisecond}); !errors.Is(err, ErrHandshakeTimeout) || !strings.Contains(err.Error(), addr) {
		t.Fatalf("have %v", err)
	}
	cause := errors.New("given up")
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := Dial(ctx, addr, Config{SocketType: Router, HandshakeTimeout: time.Hour})
		ended <- err
	}()
	for range 2 { // the first Dial's connection, and this one's
		nc, err := nl.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	cancel(cause)
	if err := <-ended; !errors.Is(err, cause) {
		t.Fatalf("have %v", err)
	}
}

func TestCloseDuringHandshakes(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			lines := newLogLines()
			l := listen(t, addr, Config{HandshakeTimeout: time.Hour, Logger: lines.logger()})
			silent := rawDial(t, l.Addr())
			if _, err := io.ReadFull(silent, make([]byte, greetingSize)); err != nil { // its handshake is under way
				t.Fatal(err)
			}
			notTaken, err := Dial(testContext(t), l.Addr(), Config{SocketType: Router})
			if err != nil {
				t.Fatal(err)
			}
			defer notTaken.Close()
			accepted := make(chan error, 1)
			accept := func() {
				c, err := l.Accept(context.Background())
				if err == nil {
					c.Close()
					c, err = l.Accept(context.Background())
				}
				if err == nil {
					c.Close()
				}
				accepted <- err
			}
			if scheme != "mem" { // in one case nobody takes the finished connection
				go accept()
			}
			for range 2 {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if scheme == "mem" {
				go accept()
			}
			if err := <-accepted; !errors.Is(err, net.ErrClosed) {
				t.Fatalf("want net.ErrClosed, have %v", err)
			}
			if _, err := silent.Read(make([]byte, 1)); err == nil {
				t.Fatal("the silent connection lives")
			}
			if _, _, err := notTaken.ReadPacket(); err == nil {
				t.Fatal("the connection that nobody took lives")
			}
			if _, err := Dial(testContext(t), l.Addr(), Config{SocketType: Router}); err == nil {
				t.Fatal("it still listens")
			}
			if len(lines.all()) > 0 {
				t.Fatalf("our own Close is logged as a failure: %q", lines.all())
			}
		})
	}
}

func TestAcceptEndsWithItsContext(t *testing.T) {
	l := listen(t, memAddress(), Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestAddressesThatCannotWork(t *testing.T) {
	for addr, want := range map[string]error{
		"":                          ErrInvalidAddress,
		"127.0.0.1:80":              ErrInvalidAddress,
		"tcp://":                    ErrInvalidAddress,
		"tcp://127.0.0.1":           ErrInvalidAddress,
		"tcp://127.0.0.1:65536":     ErrInvalidAddress,
		"tcp://127.0.0.1:many":      ErrInvalidAddress,
		"mem://":                    ErrInvalidAddress,
		"udp://127.0.0.1:80":        ErrUnknownScheme,
		"mem://nobody-listens":      ErrNotListening,
		"tcp://127.0.0.1:1":         syscall.ECONNREFUSED,
		"ipc:///nonexistent/socket": syscall.ENOENT,
	} {
		if _, err := Dial(testContext(t), addr, Config{SocketType: Router}); !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), addr) {
			t.Errorf("dial %q: %v", addr, err)
		}
	}
	for _, cfg := range []Config{{}, {SocketType: "BOGUS"}, {SocketType: Dealer, Accepts: []SocketType{"X"}}, {SocketType: Dealer, Identity: strings.Repeat("i", 256)}} {
		if _, err := Listen(memAddress(), cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestAnAddressHasOneListener(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			l := listen(t, addr, Config{})
			_, err := Listen(l.Addr(), Config{SocketType: Dealer})
			if !errors.Is(err, ErrAddressInUse) || !strings.Contains(err.Error(), "address in use") {
				t.Fatalf("have %v", err)
			}
			dialAndAccept(t, l) // the first one is unharmed
			l.Close()
			again := listen(t, l.Addr(), Config{})
			dialAndAccept(t, again)
		})
	}
}

func TestAddressesOfConnections(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			d, r := connect(t, addr, Config{}, Config{})
			if d.RemoteAddr() != r.LocalAddr() || d.LocalAddr() != r.RemoteAddr() || !strings.HasPrefix(d.RemoteAddr(), scheme+"://") {
				t.Fatalf("%s -> %s, %s -> %s", d.LocalAddr(), d.RemoteAddr(), r.LocalAddr(), r.RemoteAddr())
			}
		})
	}
	l := listen(t, "tcp://*:0", Config{})
	dialAndAccept(t, l)
}
