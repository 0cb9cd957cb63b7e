package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// attacher is what attaches to a node and is no worker: it says what the test wants.
type attacher struct {
	*intruder
	rest []byte // of the packet that was read last
}

// attach says hello on a node's attach socket, and returns the node's answer.
func (c *cluster) attach(host, name string, incarnation uint64) (*attacher, wire.Record) {
	c.t.Helper()
	conn, err := transport.Dial(testContext(c.t), c.socket(host), transport.Config{SocketType: transport.Router, Identity: name})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	a := &attacher{intruder: &intruder{c.t, name, conn}}
	a.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: name, Incarnation: incarnation, MaxMessage: 1 << 20}))
	return a, a.read()
}

// refused waits for the close of a circuit, and returns its code.
func (a *attacher) refused(label uint32) uint8 {
	a.t.Helper()
	for {
		if rec := a.next(); rec.Kind == wire.KindClose {
			if rec.Stream != label {
				a.t.Fatalf("close of circuit %d, want %d", rec.Stream, label)
			}
			return rec.Code
		} else if rec.Kind != wire.KindPong {
			a.t.Fatalf("a %s record instead of close", rec.Kind)
		}
	}
}

// next returns the next record: a packet can hold several.
func (a *attacher) next() wire.Record {
	a.t.Helper()
	if len(a.rest) == 0 {
		p, _, err := a.ReadPacket()
		if err != nil {
			a.t.Fatal(err)
		}
		a.rest = bytes.Clone(p)
	}
	var rec wire.Record
	var err error
	if a.rest, err = wire.Next(a.rest, 0, &rec); err != nil {
		a.t.Fatal(err)
	}
	return rec
}

// closes waits until so many circuits are closed.
func (a *attacher) closes(count int) {
	a.t.Helper()
	for count > 0 {
		if a.next().Kind == wire.KindClose {
			count--
		}
	}
}

// What a worker may not call, and what nobody can be called by.
func TestCallsThatANodeRefuses(t *testing.T) {
	c := newCluster(t)
	h1, h2 := c.host("h1"), c.host("h2")
	good, other := c.worker("h1", "good"), c.worker("h2", "other")
	others := startTraffic(t, good, other, "others")
	evil, hello := c.attach("h1", "evil", 7)
	if hello.Kind != wire.KindHello || string(hello.Hello.Node) != "h1" {
		t.Fatal(hello)
	}
	// "evil" is less than "h1": its labels are even.
	for i, call := range []struct {
		from, to, via string
		code          uint8
	}{
		{"good", "other", "h2", wire.CodeRefused},
		{"evil", "nobody", "h1", wire.CodeBusy},
		{"evil", "nobody", "h2", wire.CodeBusy},
		{"evil", "nobody", "h3", wire.CodeBusy},
		{"evil", "no name!", "h1", wire.CodeRefused},
		{"evil", "good", "no name!", wire.CodeRefused},
	} {
		label := uint32(2 * i)
		evil.send(wire.AppendCircuit(nil, label, call.from, call.to, call.via, 1<<20))
		if code := evil.refused(label); code != call.code {
			t.Errorf("%s calls %s via %s: code %d, want %d", call.from, call.to, call.via, code, call.code)
		}
	}
	// A node does not pass on for other nodes.
	peer := &attacher{intruder: newIntruder(t, h1, "apeer")}
	peer.greet(3)
	peer.send(wire.AppendCircuit(nil, 0, "w", "other", "h2", 1<<20))
	if code := peer.refused(0); code != wire.CodeRefused {
		t.Errorf("a node calls by way of another: code %d", code)
	}
	peer.send(wire.AppendCircuit(nil, 2, "w", "nobody", "h1", 1<<20))
	if code := peer.refused(2); code != wire.CodeBusy {
		t.Errorf("a node calls a worker that is not there: code %d", code)
	}
	others.goesOn(t, testContext(t), 1000)
	for _, n := range []*Node{h1, h2} {
		for _, s := range n.Stats().Circuits {
			if s.From == "evil" || s.From == "w" {
				// It was refused, and waits for the caller's close.
				if s.Sent != 0 || s.Open {
					t.Errorf("%+v", s)
				}
			}
		}
	}
}

// A worker that calls by way of nodes which are not there makes its node remember
// no more of them than of other strangers.
func TestCallsByWayOfMadeUpNodes(t *testing.T) {
	c := newCluster(t)
	h1 := c.host("h1")
	evil, _ := c.attach("h1", "evil", 7)
	const names = maxStrangers + 200
	for i := range uint32(names) {
		evil.send(wire.AppendCircuit(nil, 2*i, "evil", "nobody", fmt.Sprintf("made-up-%d", i), 1<<20))
		if i%100 == 99 { // the others wait for their answers meanwhile
			evil.closes(100)
		}
	}
	evil.closes(names % 100)
	h1.mu.Lock()
	defer h1.mu.Unlock()
	if len(h1.peers) > maxStrangers+1 {
		t.Errorf("%d peers are remembered", len(h1.peers))
	}
}

// Who attaches under a name that is attached: a later life takes its place, an
// earlier one is refused.
func TestAttachingUnderANameThatIsAttached(t *testing.T) {
	c := newCluster(t)
	h1 := c.host("h1")
	first, hello := c.attach("h1", "w", 5)
	if hello.Kind != wire.KindHello {
		t.Fatal(hello.Kind)
	}
	if _, rec := c.attach("h1", "w", 4); rec.Kind != wire.KindBye || rec.Code != wire.CodeFenced {
		t.Errorf("an older life: %s, code %d", rec.Kind, rec.Code)
	}
	for _, name := range []string{"h1", "no name!"} {
		if _, rec := c.attach("h1", name, 4); rec.Kind != wire.KindBye || rec.Code != wire.CodeRefused {
			t.Errorf("%s: %s, code %d", name, rec.Kind, rec.Code)
		}
	}
	if _, rec := c.attach("h1", "w", 6); rec.Kind != wire.KindHello {
		t.Errorf("a later life: %s", rec.Kind)
	}
	for {
		if _, _, err := first.ReadPacket(); err != nil {
			break // its place is another's
		}
	}
	waitFor(t, testContext(t), "one worker is attached", func() bool {
		w := h1.Stats().Workers
		return len(w) == 1 && w[0].Incarnation == 6
	})
}

// An attach socket that a dead node has left behind is replaced, and one of a
// living node is not.
func TestAttachSocketThatIsThereAlready(t *testing.T) {
	c := newCluster(t)
	h1 := c.host("h1")
	dir, err := directory.Dial(testContext(t), c.directory, directory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	_, err = Open(testContext(t), Config{Name: "h2", Directory: dir, Workers: Workers{Listen: c.socket("h1")}})
	if !errors.Is(err, transport.ErrAddressInUse) {
		t.Errorf("a second node on the socket: %v", err)
	}
	if _, err := dir.Node(testContext(t), "h2"); !errors.Is(err, directory.ErrUnknownNode) {
		t.Errorf("it is in the directory: %v", err)
	}
	w := c.worker("h1", "w")
	if w.Endpoint() != "via:"+h1.Name() {
		t.Error(w.Endpoint())
	}
}

func TestAttachSaysWhatIsWrong(t *testing.T) {
	c := newCluster(t)
	c.host("h1")
	c.worker("h1", "taken")
	if _, err := Attach(testContext(t), c.socket("h1"), AttachConfig{Name: "taken"}); !errors.Is(err, directory.ErrNameTaken) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err := Attach(testContext(t), c.socket("h1"), AttachConfig{Name: "h1"}); !errors.Is(err, directory.ErrNameTaken) {
		t.Errorf("the node's own name: %v", err)
	}
	if _, err := Attach(testContext(t), c.socket("h1"), AttachConfig{MaxMessage: -1}); !errors.Is(err, ErrConfig) {
		t.Errorf("a bad configuration: %v", err)
	}
	if _, err := Attach(testContext(t), c.directory, AttachConfig{}); err == nil {
		t.Error("attached to a directory")
	}
	for _, w := range []Workers{{Listen: "tcp://127.0.0.1:0"}, {Listen: c.socket("h2"), Mode: 0o7777}} {
		if _, err := Open(testContext(t), Config{Workers: w}); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", w, err)
		}
	}
	n, err := Attach(testContext(t), c.socket("h1"), AttachConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if len(n.Name()) != len("h1-")+8 || n.Name()[:3] != "h1-" {
		t.Errorf("the default name is %q", n.Name())
	}
	if n.Directory() == nil {
		t.Error("no directory")
	}
}
