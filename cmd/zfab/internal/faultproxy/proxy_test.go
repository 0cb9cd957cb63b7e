package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = 20 * time.Second

// ends returns the two ends of a connection from a to b through a proxy, and
// the link it goes through.
func ends(t *testing.T) (l *Link, a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pair := Pair{"a", "b"}
	p, err := Listen("127.0.0.1", []Pair{pair, pair}, func(_ context.Context, node string) (string, error) {
		if node != "b" {
			return "", errors.New("only b listens")
		}
		return "tcp://" + ln.Addr().String(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close(); p.Close() })
	a = dial(t, p.Endpoints("a")["b"])
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b = conn.(*net.TCPConn)
	t.Cleanup(func() { b.Close() })
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(patience))
	}
	return p.Link(pair), a, b
}

func dial(t *testing.T, endpoint string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// bytesOf are n bytes that differ from place to place.
func bytesOf(n int) []byte {
	random := rand.NewChaCha8([32]byte{byte(n)})
	all := make([]byte, n)
	random.Read(all)
	return all
}

// expect reads exactly want from c.
func expect(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes came, %v; equal: %v", n, len(want), err, bytes.Equal(got, want))
	}
}

// silent reports that nothing comes from c for a moment, and that it is open.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	defer c.SetReadDeadline(time.Now().Add(patience))
	var timeout net.Error
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("%d bytes came, %v; nothing should", n, err)
	}
}

func TestCarriesBothWays(t *testing.T) {
	_, a, b := ends(t)
	there, back := bytesOf(1<<20), bytesOf(1<<19)
	go func() { a.Write(there); a.CloseWrite() }()
	expect(t, b, there)
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v behind the last byte; want the end", n, err)
	}
	go func() { b.Write(back); b.Close() }() // the other half is open still
	expect(t, a, back)
}

func TestCutIsAtItsByte(t *testing.T) {
	for _, cutAt := range []int{1, 2, 1000, 65536, 65537, 200_001} {
		l, a, b := ends(t)
		text := bytesOf(1 << 20)
		came := make(chan []byte, 1)
		go func() {
			got, err := io.ReadAll(b)
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut at %d: %v at the receiver; want a reset", cutAt, err)
			}
			came <- got
		}()
		heal := l.Blackhole(Forward) // until the cut waits for its byte
		go a.Write(text)             // fails in the middle
		go func() {
			for !l.waits() {
				runtime.Gosched()
			}
			heal()
		}()
		called := false
		if !l.Cut(t.Context(), Forward, cutAt, patience, func() { called = true }) || !called {
			t.Error("there was nothing to cut")
		}
		if got := <-came; !bytes.Equal(got, text[:cutAt]) {
			t.Errorf("cut at %d: %d bytes came", cutAt, len(got))
		}
		if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("cut at %d: the sender's end: %d, %v; want a reset", cutAt, n, err)
		}
	}
}

// waits reports whether a cut waits for its byte.
func (l *Link) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.armed != nil
}

// A cut of an idle link does not wait for ever, and one of a link without a
// connection says so.
func TestCutOfAnIdleLink(t *testing.T) {
	l, a, b := ends(t)
	if !l.Cut(t.Context(), Backward, 10, time.Millisecond, func() {}) {
		t.Error("there was nothing to cut")
	}
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
	}
	deadline := time.Now().Add(patience)
	for l.Connected() && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	if l.Cut(t.Context(), Backward, 10, time.Millisecond, func() {}) {
		t.Error("a link without a connection was cut")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l.Cut(ctx, Backward, 10, patience, func() { t.Error("called after the end") }) {
		t.Error("it was cut after the end")
	}
}

// What is sent into a black hole comes when it is gone, and not before; the
// other direction does not notice.
func TestBlackholeOneWay(t *testing.T) {
	l, a, b := ends(t)
	heal := l.Blackhole(Forward)
	text := bytesOf(8 << 20) // more than sockets and pipes hold
	go a.Write(text)
	silent(t, b)
	back := bytesOf(1 << 16)
	go b.Write(back)
	expect(t, a, back)
	heal()
	heal() // again: nothing
	expect(t, b, text)
}

// Nobody is told of an end, and no connection is made, through a black hole.
func TestBlackholeHidesTheEnd(t *testing.T) {
	l, a, b := ends(t)
	heal := l.Blackhole(Forward, Backward)
	a.Write([]byte("last words"))
	a.Close()
	silent(t, b)
	late := dial(t, l.proxy.Endpoints("a")["b"])
	late.SetDeadline(time.Now().Add(patience))
	late.Write([]byte("hello"))
	silent(t, late)
	heal()
	expect(t, b, []byte("last words"))
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("the end did not come")
	}
}

// The receiver of a one-way black hole's other direction has gone: its peer must
// not learn of it through the hole.
func TestBlackholeHidesAReset(t *testing.T) {
	l, a, b := ends(t)
	heal := l.Blackhole(Forward)
	abort(a)
	b.Write(bytesOf(1 << 20)) // nobody takes it
	silent(t, b)
	heal()
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestDelay(t *testing.T) {
	l, a, b := ends(t)
	end := l.Delay(100*time.Millisecond, Forward)
	start := time.Now()
	a.Write([]byte("x"))
	expect(t, b, []byte("x"))
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	text := bytesOf(4 << 20) // on the way all at once
	go a.Write(text)
	expect(t, b, text)
	end()
	if l.delayed(Forward) {
		t.Error("the delay has not ended")
	}
}

func TestLimit(t *testing.T) {
	l, a, b := ends(t)
	l.Limit(64<<20, Forward)
	end := l.Limit(1<<20, Forward) // the least counts
	start := time.Now()
	text := bytesOf(256 << 10)
	go a.Write(text)
	expect(t, b, text)
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("256 KiB at 1 MiB/s took %s", took)
	}
	end()
	go a.Write(text)
	expect(t, b, text)
}

// Where nobody listens the dialler is told so, in the dialling or soon after.
func TestNobodyListens(t *testing.T) {
	l, _, _ := ends(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(l.proxy.Endpoints("b")["a"], "tcp://"))
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}
