package peering

import (
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/wire"
)

func TestEnded(t *testing.T) {
	for _, c := range []struct {
		name   string
		bye    *Bye
		listed uint64 // while the connection was up
		lost   bool
		want   Loss
	}{
		{"it broke", nil, 0, false, Loss{}},
		{"the peer was told that it broke the protocol", &Bye{wire.CodeProtocol, "x"}, 0, false, Loss{}},
		{"the peer has finished and left", &Bye{wire.CodeDone, "closed"}, 0, true, Loss{"closed", true, true}},
		{"the peer has left in the middle", &Bye{wire.CodeLost, "closed"}, 0, true, Loss{"closed", false, true}},
		{"the next life is there", nil, 6, true, Loss{"node b was started anew", false, false}},
		{"it finished before the next life came", &Bye{wire.CodeDone, "closed"}, 6, true, Loss{"closed", true, true}},
	} {
		p := New("a", "b")
		up(t, p, 5)
		if c.listed > 0 {
			if act := p.Listed(c.listed, "tcp://b"); act != Cut {
				t.Errorf("%s: act %d", c.name, act)
			}
		}
		if loss, lost := p.Ended(start, c.bye); lost != c.lost || loss != c.want {
			t.Errorf("%s: %v, %+v", c.name, lost, loss)
		}
		if !p.Taken() {
			t.Errorf("%s: the slot is free before losses are told", c.name)
		}
		p.Free()
		_, expired := p.Expired(start.Add(time.Hour), time.Minute)
		if expired != !c.lost {
			t.Errorf("%s: streams wait for another connection: %v", c.name, expired)
		}
	}
}

// The window runs from the last connection's end; attempts that came to nothing
// do not stretch it.
func TestResumeWindow(t *testing.T) {
	const window = time.Minute
	p := New("a", "b")
	if _, over := p.Expired(start, window); over {
		t.Fatal("over before there was a connection")
	}
	broken(t, p, 5)
	if _, over := p.Expired(start.Add(window), window); over {
		t.Error("over at its last moment")
	}
	if v := p.Accept(hello(5, 1), NotAsked); v.Do != Admit {
		t.Fatal(v)
	}
	if _, over := p.Expired(start.Add(2*window), window); over {
		t.Error("over while a connection is being made")
	}
	p.Free() // it came to nothing
	loss, over := p.Expired(start.Add(window+1), window)
	if !over || loss.Reason == "" || loss.Orderly || loss.Stated || !p.Taken() {
		t.Fatalf("%v, %+v", over, loss)
	}
	p.Free()
	if _, over := p.Expired(start.Add(3*window), window); over {
		t.Error("over twice")
	}
	up(t, p, 5)
	p.Ended(start.Add(4*window), nil)
	p.Free()
	up(t, p, 5)
	if _, over := p.Expired(start.Add(9*window), window); over {
		t.Error("over while connected")
	}
}

// Streams are lost once with the life that they belong to: those that were
// made since wait for the next one.
func TestLostOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(*Peering) bool
	}{
		{"the directory tells of the next life", func(p *Peering) bool {
			p.Ended(start, nil)
			p.Free()
			return p.Listed(6, "tcp://b") == Lose
		}},
		{"the same while connected", func(p *Peering) bool {
			if p.Listed(6, "tcp://b") != Cut {
				return false
			}
			_, lost := p.Ended(start, nil)
			return lost
		}},
		{"the peer says that it closes", func(p *Peering) bool {
			_, lost := p.Ended(start, &Bye{Code: wire.CodeLost})
			p.Listed(6, "tcp://b")
			return lost
		}},
		{"the resume window is over", func(p *Peering) bool {
			p.Ended(start, nil)
			p.Free()
			_, lost := p.Expired(start.Add(time.Hour), time.Minute)
			p.Listed(6, "tcp://b")
			return lost
		}},
	} {
		p := New("a", "b")
		p.Listed(5, "tcp://b")
		up(t, p, 5)
		if !c.lose(p) || !p.Taken() {
			t.Errorf("%s: not lost", c.name)
		}
		p.Free()
		if v := p.Accept(hello(6, 0), NotAsked); v.Do != Admit || v.Anew {
			t.Errorf("%s: the next life: %+v", c.name, v)
		}
	}
}

func TestDirectorysWord(t *testing.T) {
	p := New("a", "b")
	p.Listed(5, "tcp://five")
	if act := p.Listed(4, "tcp://four"); act != Nothing || p.endpoint != "tcp://five" {
		t.Errorf("a late word counts: act %d, endpoint %s", act, p.endpoint)
	}
	p.Listed(5, "")
	if p.endpoint != "tcp://five" {
		t.Errorf("a word without an endpoint takes it away: %q", p.endpoint)
	}
	p.Listed(6, "")
	if p.endpoint != "" {
		t.Errorf("the endpoint of an older life is dialled: %q", p.endpoint)
	}
	p.Listed(6, "tcp://six")
	if p.endpoint != "tcp://six" {
		t.Errorf("endpoint %q", p.endpoint)
	}

	// One that came before the directory told of the name has to say hello again.
	p = New("a", "b")
	up(t, p, 99)
	if act := p.Listed(5, "tcp://b"); act != Cut {
		t.Errorf("act %d", act)
	}
	if _, lost := p.Ended(start, nil); lost {
		t.Error("its streams are lost, though its claim may be true")
	}
	p.Free()
	p.Listed(99, "tcp://b")
	if v := p.Accept(hello(99, 1), NotAsked); v.Do != Admit || v.Anew {
		t.Errorf("the claim was true: %+v", v)
	}
}

// A peer that is closing says so to whoever dials it, if its bye was not heard.
func TestDismissed(t *testing.T) {
	p := New("a", "b")
	p.Listed(5, "tcp://b")
	broken(t, p, 5)
	if _, over := p.Dismissed(nil); over {
		t.Error("over without a bye")
	}
	if _, over := p.Dismissed(&Bye{Code: wire.CodeDuplicate}); over {
		t.Error("over because of another connection")
	}
	if p.Gone() {
		t.Error("gone, though its streams wait")
	}
	want := Loss{"closed", true, true}
	if loss, over := p.Dismissed(&Bye{wire.CodeDone, "closed"}); !over || loss != want || !p.Taken() {
		t.Errorf("%v, %+v", over, loss)
	}
	if _, over := p.Dismissed(&Bye{wire.CodeDone, "closed"}); over {
		t.Error("over twice")
	}
	p.Free()
	if !p.Gone() {
		t.Error("not gone")
	}
	if _, over := p.Expired(start.Add(time.Hour), time.Minute); over {
		t.Error("lost once more when the resume window is over")
	}
	p.Listed(6, "tcp://b")
	if p.Gone() {
		t.Error("gone, though the next life is known of")
	}

	// One that was never connected: there is nobody to come back.
	p = New("a", "b")
	p.Listed(5, "tcp://b")
	if p.Gone() {
		t.Error("gone before it came")
	}
	if _, ok := p.NextDial(true); !ok {
		t.Error("not dialled")
	}
	if _, over := p.Dismissed(&Bye{Code: wire.CodeLost}); !over {
		t.Error("not over")
	}
	p.Free()
	if !p.Gone() {
		t.Error("not gone")
	}
}

func TestForgettable(t *testing.T) {
	p := New("a", "b")
	up(t, p, 5)
	if p.Forgettable() {
		t.Error("while connected")
	}
	p.Ended(start, nil)
	p.Free()
	if !p.Forgettable() {
		t.Error("not after a visit")
	}
	p.Listed(5, "")
	if !p.Forgettable() {
		t.Error("not although the directory was only asked")
	}
	p.Listed(5, "tcp://b")
	if p.Forgettable() {
		t.Error("although it can be dialled")
	}
}

// The bye of a process that was dialled is its own: the life that has followed it
// meanwhile is not over.
func TestDismissedByTheLifeBefore(t *testing.T) {
	p := New("a", "b")
	p.Listed(5, "tcp://b")
	if _, ok := p.NextDial(true); !ok {
		t.Fatal("not dialled")
	}
	p.Listed(6, "tcp://b")
	if _, over := p.Dismissed(&Bye{Code: wire.CodeDone}); !over {
		t.Error("the life before is not over")
	}
	p.Free()
	if p.Closed() || p.Gone() {
		t.Errorf("closed %v, gone %v, though the next life has said nothing", p.Closed(), p.Gone())
	}
	if endpoint, ok := p.NextDial(true); !ok || endpoint != "tcp://b" {
		t.Errorf("the next life is not dialled: %q, %v", endpoint, ok)
	}
}
