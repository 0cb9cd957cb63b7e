package directory

import (
	"errors"
	"io"
	"strings"
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

// The end of a lane is told once, whoever ends it, or both do: and nothing after it.
func TestTheEndOfALaneIsToldOnce(t *testing.T) {
	relay := dialRelay(t, mustServe(t, NewRegistry(), memAddr()).Addr())
	fault := func(number uint64) {
		relay.sendFrames(lanes.Append(nil, lanes.Message, number), []byte("no empty frame"), []byte("body"))
	}
	for number := range uint64(300) {
		relay.open(number, "")
		if number%3 > 0 {
			fault(number)
		}
		if number%3 < 2 {
			relay.end(number)
		}
		relay.tell(number, fields{"op": "dance"})
	}
	told := map[uint64]bool{}
	for range 300 {
		kind, number, _, err := lanes.Parse(relay.receiveFrames())
		if err != nil || kind != lanes.End || number >= 300 || told[number] {
			t.Fatalf("%c of lane %d, %v", kind, number, err)
		}
		told[number] = true
	}
	relay.open(300, "")
	relay.asks(300, fields{"op": "ping"}) // nothing came before
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
		"too many lanes": func(p relayPeer) {
			for i := range uint64(lanes.MaxLanes) {
				p.open(100+i, "")
			}
		},
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

// A lane whose requests take long holds up no other one, and none of them is lost.
func TestASlowLaneHoldsNobodyUp(t *testing.T) {
	r := NewRegistry()
	relay := dialRelay(t, mustServe(t, r, memAddr()).Addr())
	for number := range uint64(2) {
		relay.open(number, "")
		relay.asks(number, fields{"op": "ping"})
	}
	const asked = 100
	func() {
		r.mu.Lock() // all that asks for what is registered waits
		defer r.mu.Unlock()
		for i := range asked {
			relay.tell(0, fields{"id": i, "op": "ping"})
		}
		expectReply(t, relay.asks(1, fields{"op": "dance"}), fields{"error": "unknown_op"})
	}()
	for i := range asked {
		expectReply(t, relay.hear(0), fields{"id": i, "error": "-"})
	}
}

// A lane for which too much waits is ended, in number or in bytes, and no other one.
func TestALaneThatAsksTooMuchEndsAlone(t *testing.T) {
	for name, tt := range map[string]struct {
		request fields
		waits   int // of those: as many as may
	}{
		"requests": {fields{"op": "ping"}, maxLaneRequests},
		"bytes":    {fields{"op": "ping", "host": strings.Repeat("x", maxRequest-64)}, maxLaneBytes / maxRequest},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRegistry()
			relay := dialRelay(t, mustServe(t, r, memAddr()).Addr())
			for number := range uint64(3) {
				relay.open(number, "")
				relay.asks(number, fields{"op": "ping"})
			}
			func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				for range tt.waits {
					relay.tell(0, tt.request)
					relay.tell(1, tt.request)
				}
				for range 2 { // the first is not waiting, but served
					relay.tell(1, tt.request)
				}
				expectReply(t, relay.asks(2, fields{"op": "dance"}), fields{"error": "unknown_op"})
			}()
			// Lane 0 has all its replies, lane 1 has its end.
			for replies, ended := 0, false; replies < tt.waits || !ended; {
				kind, number, _, err := lanes.Parse(relay.receiveFrames())
				switch {
				case err == nil && kind == lanes.End && number == 1 && !ended:
					ended = true
				case err == nil && kind == lanes.Message && number == 0:
					replies++
				default:
					t.Fatalf("%c on lane %d, %v", kind, number, err)
				}
			}
			relay.asks(2, fields{"op": "ping"})
		})
	}
}

// A client that comes back another way is served at once, though the relay of its old lane reads nothing.
func TestALaneIsReplacedThoughItsRelayDoesNotRead(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	stuck := dialRelay(t, s.Addr())
	stuck.open(1, "me")
	stuck.asks(1, fields{"op": "join", "node": "n"})
	stuck.open(2, "other")
	for _, number := range []uint64{1, 2, 1, 2, 1, 2} {
		stuck.tell(number, fields{"op": strings.Repeat("x", 250<<10)}) // comes back in the error's text
	}
	waits := func() (sessions int) { // with replies
		s.mu.Lock()
		defer s.mu.Unlock()
		for session := range s.sessions {
			if len(session.replies) > 0 {
				sessions++
			}
		}
		return sessions
	}
	for waits() < 2 { // ends with the test's patience
		time.Sleep(time.Millisecond)
	}
	next := dialPeer(t, s.Addr(), transport.Req, "me")
	expectReply(t, next.ask(fields{"op": "join", "node": "n"}), fields{"error": "-"})
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.relays) != 1 {
		t.Error("the connection of the relay that does not read had to end first")
	}
}

// A relay has so many lanes at once, and more one after the other. One whose end was not told is still there: who opens and
// ends lanes faster than the directory can tell is ended, too.
func TestLanesOfARelayAreBounded(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	relay := dialRelay(t, s.Addr())
	for i := range uint64(lanes.MaxLanes) {
		relay.open(i, "")
	}
	for i := range uint64(100) {
		relay.asks(i, fields{"op": "ping"})
		relay.end(i)
		relay.hearEnd(i)
		relay.open(lanes.MaxLanes+i, "")
	}
	relay.asks(lanes.MaxLanes+99, fields{"op": "ping"})

	hasty := dialRelay(t, s.Addr())
	r.mu.Lock() // no session ends
	defer r.mu.Unlock()
	for i := range uint64(lanes.MaxLanes) {
		hasty.open(i, "")
		hasty.end(i)
	}
	hasty.open(lanes.MaxLanes, "")
	hasty.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if frames, err := hasty.conn.ReadMessage(); err != io.EOF {
		t.Errorf("%q, %v", frames, err)
	}
}
