package transport

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
)

func ping(context string) []byte {
	return appendCommand(nil, "PING", append([]byte{0, 100}, context...))
}

func pong(context string) []byte { return appendCommand(nil, "PONG", []byte(context)) }

func TestPINGIsAnsweredByTheNextWrite(t *testing.T) {
	for _, context := range []string{"", "c", "0123456789abcdef"} {
		t.Run(fmt.Sprintf("%d bytes of context", len(context)), func(t *testing.T) {
			c, nc := rawPeer(t, memAddress(), Config{})
			var woken atomic.Int32
			c.SetControlWake(func() { woken.Add(1) })
			if _, err := nc.Write(append(ping(context), frame(0, []byte("m"))...)); err != nil {
				t.Fatal(err)
			}
			if p, _, err := c.ReadPacket(); err != nil || string(p) != "m" {
				t.Fatalf("%q, %v", p, err)
			}
			if woken.Load() != 1 || !c.ControlPending() {
				t.Fatalf("woken %d times, pending: %v", woken.Load(), c.ControlPending())
			}
			if err := c.WriteMessage([]byte("after")); err != nil {
				t.Fatal(err)
			}
			readExactly(t, nc, append(pong(context), frame(0, []byte("after"))...))
			if c.ControlPending() {
				t.Fatal("still pending")
			}
			if err := c.WriteMessage([]byte("last")); err != nil { // and only once
				t.Fatal(err)
			}
			readExactly(t, nc, frame(0, []byte("last")))
		})
	}
}

func TestANilWriteAnswersPING(t *testing.T) {
	c, nc := rawPeer(t, memAddress(), Config{})
	nc.Write(append(ping("ctx"), frame(0, nil)...))
	if _, _, err := c.ReadPacket(); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteBuffers(nil); err != nil {
		t.Fatal(err)
	}
	readExactly(t, nc, pong("ctx"))
}

func TestAWakeThatComesLateIsCalledAtOnce(t *testing.T) {
	c, nc := rawPeer(t, memAddress(), Config{})
	nc.Write(append(ping(""), frame(0, nil)...))
	if _, _, err := c.ReadPacket(); err != nil {
		t.Fatal(err)
	}
	woken := false
	c.SetControlWake(func() { woken = true })
	if !woken {
		t.Fatal("not woken")
	}
}

// A peer that pings without end and reads nothing neither stops the reader nor fills anything: the latest PING counts.
func TestPINGsDoNotPileUpWhileTheWriterWaits(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			big := make([]byte, 8<<20) // the writer waits with this until the peer reads
			written := make(chan error, 1)
			go func() { written <- c.WriteMessage(big) }()
			readExactly(t, nc, []byte{flagLong}) // it has begun
			const pings = 20_000
			sent := make(chan error, 1)
			go func() {
				var stream []byte
				for i := range pings {
					stream = append(stream, ping(fmt.Sprint(i))...)
				}
				_, err := nc.Write(append(stream, frame(0, []byte("end"))...))
				sent <- err
			}()
			if p, _, err := c.ReadPacket(); err != nil || string(p) != "end" {
				t.Fatalf("%q, %v", p, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-written:
				t.Fatalf("the writer did not wait: %v", err)
			default:
			}
			readExactly(t, nc, append(frame(0, big)[1:LongHeaderSize], big...))
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			if err := c.WriteBuffers(nil); err != nil {
				t.Fatal(err)
			}
			if err := c.WriteMessage([]byte("m")); err != nil {
				t.Fatal(err)
			}
			readExactly(t, nc, append(pong(fmt.Sprint(pings-1)), frame(0, []byte("m"))...))
		})
	}
}

func TestUnknownCommandsAreIgnored(t *testing.T) {
	lines := newLogLines()
	c, nc := rawPeer(t, memAddress(), Config{Logger: lines.logger()})
	stream := appendCommand(nil, "SUBSCRIBE", []byte("topic"))
	stream = append(stream, appendCommand(nil, "PONG", nil)...)
	stream = append(stream, appendCommand(nil, strings.Repeat("\n", 200), nil)...)
	nc.Write(append(stream, frame(0, []byte("m"))...))
	if p, _, err := c.ReadPacket(); err != nil || string(p) != "m" {
		t.Fatalf("%q, %v", p, err)
	}
	got := lines.await(t, testContext(t), "unknown command ignored", 2)
	if !strings.Contains(got[0], `SUBSCRIBE`) || !strings.Contains(got[0], "level=DEBUG") || len(got[1]) > 1000 {
		t.Fatalf("%q", got)
	}
	if c.ControlPending() {
		t.Fatal("an answer is pending")
	}
}
