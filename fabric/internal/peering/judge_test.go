package peering

import (
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/wire"
)

var start = time.Unix(1_000_000, 0)

func hello(incarnation, connection uint64) *wire.Hello {
	return &wire.Hello{Version: wire.Version, Node: "b", Incarnation: incarnation, Connection: connection}
}

// up makes p have a connection with that life of the peer.
func up(t *testing.T, p *Peering, incarnation uint64) {
	t.Helper()
	v := p.Accept(hello(incarnation, p.connection), Unknown)
	if v.Do != Admit || !p.Up() {
		t.Fatalf("not admitted: %+v", v)
	}
}

// broken makes p have had a connection, which broke.
func broken(t *testing.T, p *Peering, incarnation uint64) {
	t.Helper()
	up(t, p, incarnation)
	if _, lost := p.Ended(start, nil); lost {
		t.Fatal("streams are lost with a connection that only broke")
	}
	p.Free()
}

// What a hello is believed, by what is known of the peer: at the acceptor, and
// at the dialler.
func TestWhoIsBelieved(t *testing.T) {
	nothing := func(*testing.T, *Peering) {}
	listed := func(incarnation uint64) func(*testing.T, *Peering) {
		return func(_ *testing.T, p *Peering) {
			if p.Listed(incarnation, "tcp://b") == Lose {
				p.Free()
			}
		}
	}
	was := func(incarnation uint64) func(*testing.T, *Peering) {
		return func(t *testing.T, p *Peering) { broken(t, p, incarnation) }
	}
	both := func(first, second func(*testing.T, *Peering)) func(*testing.T, *Peering) {
		return func(t *testing.T, p *Peering) { first(t, p); second(t, p) }
	}
	for _, c := range []struct {
		name  string
		known func(*testing.T, *Peering)
		claim uint64
		word  Word
		want  Decision
		code  uint8
		anew  bool
	}{
		{"the registered life", listed(5), 5, NotAsked, Admit, 0, false},
		{"an older life than the registered", listed(5), 4, NotAsked, Refuse, wire.CodeFenced, false},
		{"a greater life than the registered", listed(5), 6, NotAsked, Confirm, 0, false},
		{"a greater life, and the directory stays with its word", listed(5), 6, Known, Refuse, wire.CodeRefused, false},
		{"a greater life, and the directory has forgotten the name", listed(5), 6, Unknown, Refuse, wire.CodeRefused, false},
		{"a greater life, and the directory is silent", listed(5), 6, Silent, Refuse, wire.CodeBusy, false},

		{"the same life again", both(listed(5), was(5)), 5, NotAsked, Admit, 0, false},
		{"the next life, for which all of the one before was lost", both(was(5), listed(6)), 6, NotAsked, Admit, 0, false},
		{"the registered life after a pretender", both(was(99), listed(5)), 5, NotAsked, Admit, 0, true},
		{"the pretender after the registered life was told", both(was(99), listed(5)), 99, NotAsked, Confirm, 0, false},
		{"the pretender, whom the directory does not name", both(was(99), listed(5)), 99, Known, Refuse, wire.CodeRefused, false},
		{"one that was here before, and the directory is silent", both(was(99), listed(5)), 99, Silent, Admit, 0, false},

		{"a stranger", nothing, 5, NotAsked, Confirm, 0, false},
		{"a stranger of whom the directory does not know", nothing, 5, Unknown, Admit, 0, false},
		{"a stranger, and the directory is silent", nothing, 5, Silent, Admit, 0, false},
		{"the same stranger again", was(5), 5, NotAsked, Admit, 0, false},
		{"the next life of a stranger", was(5), 6, NotAsked, Confirm, 0, false},
		{"the next life, of whom the directory does not know", was(5), 6, Unknown, Admit, 0, true},
		{"the next life, and the directory is silent", was(5), 6, Silent, Refuse, wire.CodeBusy, false},
		{"an older life of a stranger", was(5), 4, Unknown, Refuse, wire.CodeFenced, false},
		{"a name that the directory knows otherwise", nothing, 5, Known, Refuse, wire.CodeRefused, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, ask := range map[string]func(*Peering, *wire.Hello, Word) Verdict{
				"accept": (*Peering).Accept, "answered": (*Peering).Answered,
			} {
				p := New("a", "b")
				c.known(t, p)
				v := ask(p, hello(c.claim, p.connection+1), c.word)
				if v.Do != c.want || v.Code != c.code || v.Anew != c.anew {
					t.Errorf("%s: %+v, want %s, code %d, anew %v", name, v, c.want, c.code, c.anew)
				}
				if (v.Do == Refuse) != (v.Reason != "") {
					t.Errorf("%s: %s with reason %q", name, v.Do, v.Reason)
				}
				if p.Taken() != (v.Do == Admit) {
					t.Errorf("%s: %s, and the slot's being taken is %v", name, v.Do, p.Taken())
				}
			}
		})
	}
}

// What becomes of a second connection, by what its dialler knows of the first.
func TestSecondConnection(t *testing.T) {
	for _, c := range []struct {
		name       string
		life       uint64
		connection uint64
		want       Decision
		code       uint8
	}{
		{"the dialler does not know of the first", 5, 0, Refuse, wire.CodeDuplicate},
		{"the dialler has lost the first", 5, 1, Replace, 0},
		{"the dialler knows of one that was not heard of here", 5, 2, Replace, 0},
		{"another life of the peer, which knows of none", 6, 0, Replace, 0},
		{"an older life", 4, 9, Refuse, wire.CodeFenced},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New("a", "b")
			p.Listed(5, "tcp://b")
			up(t, p, 5)
			if c.life > 5 {
				// The word comes with the hello; the connection is cut for it.
				if act := p.Listed(c.life, "tcp://b"); act != Cut {
					t.Fatalf("act %d", act)
				}
			}
			v := p.Accept(hello(c.life, c.connection), NotAsked)
			if v.Do != c.want || v.Code != c.code {
				t.Fatalf("%+v, want %s, code %d", v, c.want, c.code)
			}
			if c.want != Replace {
				return
			}
			loss, lost := p.Ended(start, nil)
			if lost != (c.life > 5) {
				t.Errorf("with the first connection is lost: %v, %+v", lost, loss)
			}
			if v := p.Accept(hello(c.life, c.connection), NotAsked); v.Do != Replace {
				t.Errorf("before the slot is free: %+v", v)
			}
			p.Free()
			v = p.Accept(hello(c.life, c.connection), NotAsked)
			if v.Do != Admit || v.Anew || v.Connection <= max(c.connection, 1) {
				t.Errorf("once the slot is free: %+v", v)
			}
		})
	}
}

// A connection that is to be replaced before it was ready never gets ready.
func TestReplacedBeforeItIsUp(t *testing.T) {
	p := New("a", "b")
	if v := p.Accept(hello(5, 0), Unknown); v.Do != Admit {
		t.Fatal(v)
	}
	if v := p.Accept(hello(5, 1), NotAsked); v.Do != Replace {
		t.Fatal(v)
	}
	if p.Up() {
		t.Error("the first connection is used")
	}
	p.Free()
	if v := p.Accept(hello(5, 1), NotAsked); v.Do != Admit || !p.Up() {
		t.Errorf("the second one is not: %+v", v)
	}
}

// The life of a stranger is protected while it is connected, and only then.
func TestStrangerThatIsConnectedKeepsItsName(t *testing.T) {
	p := New("a", "b")
	up(t, p, 5)
	if v := p.Accept(hello(6, 0), Unknown); v.Do != Refuse || v.Code != wire.CodeBusy {
		t.Errorf("while it is connected: %+v", v)
	}
	p.Ended(start, nil)
	p.Free()
	if v := p.Accept(hello(6, 0), Unknown); v.Do != Admit || !v.Anew {
		t.Errorf("afterwards: %+v", v)
	}
}

// Two nodes that dial each other at once, in every order in which a dial,
// a hello, and its answer can happen at either: one connection is left, and it
// is that of the lesser name if both were under way.
func TestSimultaneousDials(t *testing.T) {
	type side struct {
		p      *Peering
		dialed bool // it has said hello
		over   bool // its dial has been answered
		up     int
	}
	var walk func(sides [2]side, trace string)
	worlds := 0
	clone := func(s [2]side) [2]side {
		for i := range s {
			p := *s[i].p
			s[i].p = &p
		}
		return s
	}
	walk = func(sides [2]side, trace string) {
		done := true
		for i := range sides {
			me, other := i, 1-i
			name := string(rune('a' + i))
			switch {
			case !sides[me].dialed: // dial, say hello
				done = false
				next := clone(sides)
				next[me].dialed = true
				if _, ok := next[me].p.Greet(); !ok {
					next[me].over = true // there is a connection already
				}
				walk(next, trace+" "+name+" dials,")
			case !sides[me].over: // the hello arrives, and its answer
				done = false
				next := clone(sides)
				next[me].over = true
				v := next[other].p.Accept(&wire.Hello{Node: name, Incarnation: 1}, Unknown)
				if v.Do == Admit {
					next[other].p.Up()
					next[other].up++
					v = next[me].p.Answered(&wire.Hello{Node: "x", Incarnation: 1, Connection: v.Connection}, Unknown)
					if v.Do != Admit || !next[me].p.Up() {
						t.Errorf("%s %s is answered, and takes its own connection not: %+v", trace, name, v)
					}
					next[me].up++
				} else if v.Code != wire.CodeDuplicate {
					t.Errorf("%s %s is refused: %+v", trace, name, v)
				}
				next[me].p.GreetingOver()
				walk(next, trace+" "+name+" is answered,")
			}
		}
		if done {
			worlds++
			for i := range sides {
				if sides[i].up != 1 || !sides[i].p.Taken() {
					t.Errorf("%s %c has %d connections", trace, 'a'+i, sides[i].up)
				}
			}
		}
	}
	walk([2]side{{p: New("a", "b")}, {p: New("b", "a")}}, "")
	if worlds < 6 {
		t.Errorf("only %d orders", worlds)
	}
}

// While the one with the lesser name says hello, the other's connection is
// refused; the one with the greater name takes it.
func TestWhoYields(t *testing.T) {
	for _, c := range []struct {
		own, peer string
		want      Decision
	}{{"a", "b", Refuse}, {"b", "a", Admit}} {
		p := New(c.own, c.peer)
		p.Greet()
		if v := p.Accept(hello(1, 0), Unknown); v.Do != c.want {
			t.Errorf("%s: %+v, want %s", c.own, v, c.want)
		}
		if p.Taken() {
			if v := p.Answered(hello(1, 2), Unknown); v.Do != Refuse || v.Code != wire.CodeDuplicate {
				t.Errorf("%s: its own dial: %+v", c.own, v)
			}
		}
		p.GreetingOver()
	}
}

// An answer that took its time, as the directory had to confirm it, is no link any
// more if others have come and gone since: the peer has lost that connection, and
// what is under way on it says where streams were then.
func TestAnswerOlderThanTheConnectionsSince(t *testing.T) {
	p := New("b", "a")
	if _, ok := p.Greet(); !ok {
		t.Fatal("no greeting")
	}
	answer := hello(5, 1)
	if v := p.Answered(answer, NotAsked); v.Do != Confirm {
		t.Fatalf("%+v", v)
	}
	for range 2 { // the peer dials, and each connection breaks
		if v := p.Accept(hello(5, p.connection), Unknown); v.Do != Admit || !p.Up() {
			t.Fatalf("%+v", v)
		}
		p.Ended(start, nil)
		p.Free()
	}
	p.Listed(5, "tcp://a")
	if v := p.Answered(answer, Known); v.Do != Refuse || v.Code != wire.CodeDuplicate {
		t.Errorf("the old one: %+v", v)
	}
	if v := p.Answered(hello(5, p.connection+1), NotAsked); v.Do != Admit || !p.Up() {
		t.Errorf("a new one: %+v", v)
	}
	p.Ended(start, nil)
	p.Free()
	if p.Listed(6, "tcp://a") == Lose {
		p.Free()
	}
	if v := p.Answered(hello(6, 1), NotAsked); v.Do != Admit {
		t.Errorf("one of another life, which counts anew: %+v", v)
	}
}
