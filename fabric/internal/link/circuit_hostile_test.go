package link

import (
	"errors"
	"testing"

	"github.com/zfab/zfab/fabric/internal/circuit"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// A call that is refused, or has no way, says why.
func TestCircuitIsRefused(t *testing.T) {
	r := newRoad(t, false)
	r.refuse.Store(true)
	call := func() error {
		c, err := r.w1.Dial("w1", "w2", "h2")
		if err != nil {
			return err
		}
		return c.Accepted(patient(t))
	}
	var refused *CircuitError
	if err := call(); !errors.As(err, &refused) || refused.Code != wire.CodeRefused || refused.Text != "not now" {
		t.Error(err)
	}
	r.empty()
	r.cut(r.h1h2, r.h2h1)
	if err := call(); !errors.As(err, &refused) || refused.Code != wire.CodeBusy {
		t.Error(err)
	}
	r.cut(r.w1, r.h1w1)
	if err := call(); err != errNoConnection {
		t.Error(err)
	}
	r.empty()
}

// A worker that breaks the rules of circuits loses its connection, and nobody
// else notices.
func TestHostileWorker(t *testing.T) {
	hello := func(label uint32) []byte { return wire.AppendCircuit(nil, label, "w2", "w1", "h1", 1<<20) }
	for name, say := range map[string]func(call uint32) []byte{
		"label of the node's":     func(uint32) []byte { return hello(2) },
		"label beyond the table":  func(uint32) []byte { return hello(1<<30 + 1) },
		"label in use":            func(uint32) []byte { return append(hello(1), hello(1)...) },
		"credit on nothing":       func(uint32) []byte { return wire.AppendCredit(nil, 9, 1) },
		"packet before accept":    func(l uint32) []byte { return append(wire.AppendPacketHeader(nil, l, 1), 1) },
		"packets beyond the room": func(l uint32) []byte { return beyond(l) },
		"accept twice":            func(l uint32) []byte { return wire.AppendAccept(wire.AppendAccept(nil, l, 1), l, 1) },
		"close twice":             func(l uint32) []byte { return wire.AppendClose(wire.AppendClose(nil, l, 0, ""), l, 0, "") },
		"a stream":                func(uint32) []byte { return wire.AppendOpen(nil, 0, "x", 0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(t, true)
			c, err := r.w1.Dial("w1", "w2", "h2")
			if err != nil {
				t.Fatal(err)
			}
			p, _, err := r.raw2.ReadPacket()
			if err != nil {
				t.Fatal(err)
			}
			var rec wire.Record
			if _, err := wire.Next(p, 0, &rec); err != nil || rec.Kind != wire.KindCircuit || string(rec.From) != "w1" {
				t.Fatal(rec, err)
			}
			said := say(rec.Stream)
			for len(said) > 0 { // records in packets of their own
				rest, err := wire.Next(said, 0, &wire.Record{})
				if err != nil {
					t.Fatal(err)
				}
				if r.raw2.WriteMessage(said[:len(said)-len(rest)]) != nil {
					break // refused already
				}
				said = rest
			}
			var fault *ProtocolError
			if err := <-r.down; !errors.As(err, &fault) || fault.Node != "w2" {
				t.Errorf("the node says %v", err)
			}
			if err := c.Accepted(patient(t)); err == nil {
				_, _, err = c.ReadPacket()
				for err == nil {
					_, _, err = c.ReadPacket()
				}
				c.Close()
			}
			if !r.h1h2.Up() || !r.h1w1.Up() {
				t.Error("another link has ended")
			}
			r.empty()
		})
	}
}

// beyond accepts a call, and sends more on it than the way to who called, who does
// not read, has windows.
func beyond(label uint32) []byte {
	p := wire.AppendAccept(nil, label, 1<<20)
	for n := 0; n <= 5*circuit.Window; n += 60_000 {
		p = append(wire.AppendPacketHeader(p, label, 60_000), make([]byte, 60_000)...)
	}
	return p
}

// A worker that asks for circuits and closes them at once makes nobody hold more
// of them than there are labels.
func TestRapidResetOfCircuits(t *testing.T) {
	r := newRoad(t, true)
	r.cut(r.w1, r.h1w1) // so the calls end at h1, which has no way for them
	r.h1h2.cfg.Hooks.Called = func(_ *Link, k *Call) { k.Refuse(wire.CodeUnknown, "no such worker") }
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for {
			if _, _, err := r.raw2.ReadPacket(); err != nil {
				return
			}
		}
	}()
	for i := range uint32(circuit.MaxCalls + 2000) {
		label := 2*(i%circuit.MaxCalls) + 1
		p := wire.AppendClose(wire.AppendCircuit(nil, label, "w2", "w1", "h1", 1<<20), label, wire.CodeDone, "")
		if r.raw2.WriteMessage(p) != nil {
			break // it has used a label again that was not free
		}
		if i%4000 == 0 && len(r.h2w2.CircuitViews()) > circuit.MaxCalls {
			t.Fatal("more circuits than labels")
		}
	}
	r.raw2.Close()
	<-closed
	<-r.down
	r.empty()
}
