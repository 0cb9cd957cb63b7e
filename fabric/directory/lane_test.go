package directory

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/internal/lanes"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// relayPeer is a peer with lanes.
type relayPeer struct{ *peer }

func dialRelay(t *testing.T, addr string) relayPeer {
	return relayPeer{dialPeer(t, addr, transport.Dealer, lanes.Identity+t.Name())}
}

func (p relayPeer) open(number uint64, identity string) {
	p.t.Helper()
	p.sendFrames(lanes.Append(nil, lanes.Open, number), []byte(identity))
}

func (p relayPeer) end(number uint64) {
	p.t.Helper()
	p.sendFrames(lanes.Append(nil, lanes.End, number))
}

func (p relayPeer) tell(number uint64, q fields) {
	p.t.Helper()
	body, err := msgpack.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	p.sendFrames(lanes.Append(nil, lanes.Message, number), body)
}

func (p relayPeer) hear(want uint64) fields {
	p.t.Helper()
	kind, number, rest, err := lanes.Parse(p.receiveFrames())
	if err != nil || kind != lanes.Message || number != want || len(rest) != 1 {
		p.t.Fatalf("want a reply on lane %d, have %c on %d, %q, %v", want, kind, number, rest, err)
	}
	return p.parse(rest[0])
}

func (p relayPeer) hearEnd(want uint64) {
	p.t.Helper()
	if kind, number, _, err := lanes.Parse(p.receiveFrames()); err != nil || kind != lanes.End || number != want {
		p.t.Fatalf("want the end of lane %d, have %c of %d, %v", want, kind, number, err)
	}
}

func (p relayPeer) asks(number uint64, q fields) fields {
	p.t.Helper()
	p.tell(number, q)
	return p.hear(number)
}

// orphan reports whether a node has lost its connection.
func orphan(t *testing.T, r *Registry, name string) bool {
	t.Helper()
	e, err := r.Lookup(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return e.Orphan
}

// Each lane is a client of its own: its numbers, its nodes, its end.
func TestLanesAreClientsOfTheirOwn(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, "tcp://127.0.0.1:0")
	relay := dialRelay(t, s.Addr())
	relay.open(1, "first")
	relay.open(2, "second")
	for number, name := range map[uint64]string{1: "a", 2: "b"} {
		reply := relay.asks(number, fields{"id": 7, "op": "join", "node": name, "endpoint": "mem://" + name})
		if reply["error"] != nil || reply["id"] != int64(7) {
			t.Fatalf("%s joins: %v", name, reply)
		}
		if reply := relay.asks(number, fields{"id": 8, "op": "watch", "watch": 1, "channel": name}); reply["error"] != nil {
			t.Fatalf("%s watches: %v", name, reply)
		}
	}
	if reply := relay.asks(2, fields{"op": "leave", "node": "a", "incarnation": 1}); reply["error"] == nil {
		t.Error("a lane takes away another one's node")
	}
	// What the one does not state anew is its own.
	relay.asks(2, fields{"op": "restate"})
	relay.asks(2, fields{"op": "settle"})
	if _, err := r.Node(testContext(t), "b"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("what was not stated is there: %v", err)
	}
	if orphan(t, r, "a") {
		t.Error("what another lane has stated is an orphan")
	}
	relay.asks(2, fields{"op": "join", "node": "b", "endpoint": "mem://b"})
	relay.end(1)
	relay.hearEnd(1)
	if !orphan(t, r, "a") || orphan(t, r, "b") {
		t.Error("the end of a lane is not the end of its client alone")
	}
	// A client that comes back, over another lane, has its nodes; the older lane ends.
	relay.open(3, "second")
	relay.hearEnd(2)
	if reply := relay.asks(3, fields{"op": "ping"}); reply["error"] != nil {
		t.Fatal(reply)
	}
	if !orphan(t, r, "b") {
		t.Error("a node of a lane that was replaced is held still")
	}
	relay.tell(1, fields{"op": "ping"}) // late: nobody answers
	relay.tell(2, fields{"op": "ping"})
	if reply := relay.asks(3, fields{"op": "join", "node": "c", "endpoint": "mem://c"}); reply["error"] != nil {
		t.Fatal(reply)
	}
	relay.conn.Close()
	for !orphan(t, r, "c") { // ends with the test's patience
		time.Sleep(time.Millisecond)
	}
	if s.Close(); len(s.sessions) != 0 || len(s.relays) != 0 {
		t.Errorf("%d sessions and %d relays are left", len(s.sessions), len(s.relays))
	}
}

// A relay that breaks the protocol has its connection ended, and nothing of it is left.
func TestHostileRelays(t *testing.T) {
	s := mustServe(t, NewRegistry(), memAddr())
	for name, spoil := range map[string]func(relayPeer){
		"no header":         func(p relayPeer) { p.send(fields{"op": "ping"}) },
		"lane opened twice": func(p relayPeer) { p.open(1, "x"); p.open(1, "y") },
		"long identity":     func(p relayPeer) { p.open(1, string(make([]byte, 256))) },
		"unknown kind":      func(p relayPeer) { p.sendFrames(lanes.Append(nil, 'z', 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			relay := dialRelay(t, s.Addr())
			relay.open(9, "bystander")
			relay.asks(9, fields{"op": "ping"})
			spoil(relay)
			for {
				if _, err := relay.conn.ReadMessage(); err != nil {
					if err != io.EOF {
						t.Fatal(err)
					}
					break
				}
			}
		})
	}
	// A client's fault ends its lane alone.
	relay := dialRelay(t, s.Addr())
	relay.open(1, "")
	relay.open(2, "")
	relay.sendFrames(lanes.Append(nil, lanes.Message, 1), []byte("no empty frame"), []byte("body"))
	relay.hearEnd(1)
	if reply := relay.asks(2, fields{"op": "ping"}); reply["error"] != nil {
		t.Fatal(reply)
	}
}
