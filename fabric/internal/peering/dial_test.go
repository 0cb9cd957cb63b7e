package peering

import (
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/wire"
)

func TestStartDialing(t *testing.T) {
	for _, c := range []struct {
		name      string
		own, peer string
		known     func(t *testing.T, p *Peering)
		unwanted  bool
		wait      time.Duration
		ok        bool
	}{
		{"at first", "a", "b", func(*testing.T, *Peering) {}, false, 0, true},
		{"nobody wants it", "a", "b", func(*testing.T, *Peering) {}, true, 0, false},
		{"the other may dial too, and has the greater name", "a", "b", func(_ *testing.T, p *Peering) { p.Expect() }, false, 0, true},
		{"the other may dial too, and has the lesser name", "b", "a", func(_ *testing.T, p *Peering) { p.Expect() }, false, Deference, true},
		{"somebody dials", "a", "b", func(_ *testing.T, p *Peering) { p.StartDialing(true, 0) }, false, 0, false},
		{"there is a connection", "a", "b", func(t *testing.T, p *Peering) { up(t, p, 1) }, false, 0, false},
		{"a link that broke", "b", "a", func(t *testing.T, p *Peering) { p.Expect(); broken(t, p, 1) }, false, RedialMin / 2, true},
		{"it has said bye", "a", "b", func(t *testing.T, p *Peering) { parted(t, p, 1) }, false, 0, false},
		{"another life follows one that has said bye", "a", "b", func(t *testing.T, p *Peering) { parted(t, p, 1); p.Listed(2, "tcp://c") }, false, RedialMin / 2, true},
		{"it was given up", "a", "b", func(t *testing.T, p *Peering) {
			broken(t, p, 1)
			p.Expired(start.Add(time.Hour), time.Minute)
			p.Free()
		}, false, RedialMin / 2, true},
		{"the endpoint is that of an older life", "a", "b", func(_ *testing.T, p *Peering) { p.Listed(2, "") }, false, 0, false},
	} {
		p := New(c.own, c.peer)
		p.Listed(1, "tcp://b")
		c.known(t, p)
		if wait, ok := p.StartDialing(!c.unwanted, 0.5); wait != c.wait || ok != c.ok {
			t.Errorf("%s: %v, %v", c.name, wait, ok)
		}
	}
}

// parted is a connection that has come and ended with a bye.
func parted(t *testing.T, p *Peering, incarnation uint64) {
	t.Helper()
	up(t, p, incarnation)
	if _, lost := p.Ended(start, &Bye{Code: wire.CodeDone}); !lost {
		t.Fatal("nothing is lost with a bye")
	}
	p.Free()
}

// Who has said bye is closed, and who was given up is not: it may come back. One
// that comes back after all is not closed.
func TestClosed(t *testing.T) {
	p := New("a", "b")
	p.Listed(5, "tcp://b")
	if p.Closed() {
		t.Error("closed before it came")
	}
	broken(t, p, 5)
	if p.Closed() {
		t.Error("closed while its streams wait")
	}
	p.Expired(start.Add(time.Hour), time.Minute)
	p.Free()
	if p.Closed() || !p.Gone() {
		t.Error("closed, or not gone, though it was given up")
	}
	parted(t, p, 5)
	if !p.Closed() {
		t.Error("not closed after its bye")
	}
	p.Listed(5, "tcp://b") // the directory is late
	if _, ok := p.NextDial(true); ok || !p.Closed() {
		t.Error("dialled, or not closed, because of a late word")
	}
	up(t, p, 5)
	if p.Closed() {
		t.Error("closed though it is connected")
	}
	p.Ended(start, &Bye{Code: wire.CodeLost})
	p.Free()
	p.Listed(6, "tcp://b")
	if p.Closed() {
		t.Error("closed, though the next life is known of")
	}
}

// The wait is random up to a bound that doubles from 50 ms to 5 s, and begins
// anew with a connection.
func TestWaitBetweenDials(t *testing.T) {
	p := New("a", "b")
	p.Listed(1, "tcp://b")
	if _, ok := p.StartDialing(true, 0); !ok {
		t.Fatal("does not dial")
	}
	for i, want := range []time.Duration{50, 100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		if endpoint, ok := p.NextDial(true); !ok || endpoint != "tcp://b" {
			t.Fatal(endpoint, ok)
		}
		q := *p
		if wait := q.DialFailed(0); wait != 0 {
			t.Errorf("failure %d: at least %v", i+1, wait)
		}
		if wait := p.DialFailed(0.5); wait != want*time.Millisecond/2 {
			t.Errorf("failure %d: %v, want half of %d ms", i+1, wait, want)
		}
	}
	for range 100 {
		p.DialFailed(0)
	}
	if wait := p.DialFailed(0.999); wait >= RedialMax || wait < RedialMax*99/100 {
		t.Errorf("after many failures: %v", wait)
	}
	if v := p.Answered(hello(1, 1), NotAsked); v.Do != Admit || !p.Up() {
		t.Fatal(v)
	}
	if _, ok := p.NextDial(true); ok {
		t.Error("dials although there is a connection")
	}
	p.Ended(start, nil)
	p.Free()
	if wait, ok := p.StartDialing(true, 0.5); !ok || wait != RedialMin/2 {
		t.Errorf("after the connection: %v, %v", wait, ok)
	}
	if _, ok := p.NextDial(false); ok {
		t.Error("dials although nobody wants it")
	}
	if _, ok := p.StartDialing(true, 0); !ok {
		t.Error("does not dial once somebody wants it again")
	}
}
