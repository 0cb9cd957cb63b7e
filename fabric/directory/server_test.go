package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/internal/transport"
)

// peer is somebody who speaks ZMTP and MessagePack, and knows nothing of this package's code.
type peer struct {
	t    *testing.T
	conn *transport.Conn
}

type fields = map[string]any

func dialPeer(t *testing.T, addr string, kind transport.SocketType, identity string) *peer {
	t.Helper()
	conn, err := transport.Dial(testContext(t), addr, transport.Config{SocketType: kind, Identity: identity, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &peer{t, conn}
}

// send puts a delimiter before the body, as a REQ socket does.
func (p *peer) send(q fields) {
	p.t.Helper()
	body, err := msgpack.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	p.sendFrames(nil, body)
}

func (p *peer) sendFrames(frames ...[]byte) {
	p.t.Helper()
	if err := p.conn.WriteMessage(frames...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) receive() fields {
	p.t.Helper()
	frames := p.receiveFrames()
	if len(frames) != 2 || len(frames[0]) != 0 {
		p.t.Fatalf("reply of %d frames: %q", len(frames), frames)
	}
	return p.parse(frames[1])
}

func (p *peer) receiveFrames() [][]byte {
	p.t.Helper()
	if deadline, ok := testContext(p.t).Deadline(); ok {
		_ = p.conn.SetReadDeadline(deadline)
	}
	frames, err := p.conn.ReadMessage()
	if err != nil {
		p.t.Fatal(err)
	}
	return frames
}

func (p *peer) parse(body []byte) fields {
	p.t.Helper()
	d := msgpack.NewDecoder(bytes.NewReader(body))
	d.UseLooseInterfaceDecoding(true) // numbers come as int64 and uint64
	v, err := d.DecodeMap()
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p *peer) ask(q fields) fields {
	p.t.Helper()
	p.send(q)
	return p.receive()
}

// expectReply compares a reply's fields as text, those that are given; "-" says that a field is not there.
func expectReply(t *testing.T, got, want fields) {
	t.Helper()
	for key, value := range want {
		if v, there := got[key]; value == "-" && there || value != "-" && fmt.Sprint(v) != fmt.Sprint(value) {
			t.Errorf("%s: got %v, want %v; reply %v", key, v, value, got)
		}
	}
}

func TestPlainREQAsks(t *testing.T) {
	for _, addr := range []string{memAddr(), "tcp://127.0.0.1:0"} {
		r := tableRegistry(7, 1000)
		p := dialPeer(t, mustServe(t, r, addr).Addr(), transport.Req, "")
		expectReply(t, p.ask(fields{"op": "ping"}), fields{"id": 0, "epoch": 7, "error": "-"})
		expectReply(t, p.ask(fields{"op": "join", "id": 5, "node": "n", "endpoint": "tcp://h:1"}), fields{"id": 5, "incarnation": 1001, "error": "-"})
		expectReply(t, p.ask(fields{"op": "join", "node": "n"}), fields{"error": "name_taken", "node": "n", "endpoint": "tcp://h:1"})
		members := []any{[]any{"c", 2, "n", 0}, []any{"c", 1, "n", 0}}
		expectReply(t, p.ask(fields{"op": "add", "incarnation": 1001, "members": members}), fields{"error": "-"})
		expectReply(t, p.ask(fields{"op": "add", "incarnation": 1000, "members": members}), fields{"error": "stale", "node": "n", "incarnation": 1001})
		expectReply(t, p.ask(fields{"op": "members", "channel": "c"}), fields{"members": "[[c 1 n 0] [c 2 n 0]]", "more": "-"})
		expectReply(t, p.ask(fields{"op": "channels"}), fields{"channels": "[c]"})
		expectReply(t, p.ask(fields{"op": "nodes"}), fields{"nodes": "[[n 1001 tcp://h:1 0   0 15000 false]]"})
		expectReply(t, p.ask(fields{"op": "node", "node": "n"}), fields{"nodes": "[[n 1001 tcp://h:1 0   0 15000 false]]"})
		expectReply(t, p.ask(fields{"op": "node", "node": "m"}), fields{"error": "unknown_node", "node": "m", "nodes": "-"})
		expectReply(t, p.ask(fields{"op": "node", "node": "a b"}), fields{"error": "invalid"})
		expectReply(t, p.ask(fields{"op": "dance"}), fields{"error": "unknown_op"})

		// Leases, loads and places.
		expectReply(t, p.ask(fields{"op": "renew", "renewals": []any{[]any{"n", 1001, 17}, []any{"n", 1000, 1}, []any{"m", 1, 1}}}), fields{"unknown": "[n m]", "error": "-"})
		expectReply(t, p.ask(fields{"op": "node", "node": "n"}), fields{"nodes": "[[n 1001 tcp://h:1 0   17 15000 false]]"})
		expectReply(t, p.ask(fields{"op": "join", "node": "p", "weight": 3, "zone": "z", "host": "h"}), fields{"incarnation": 1002, "lease": 15000})
		expectReply(t, p.ask(fields{"op": "node", "node": "p"}), fields{"nodes": "[[p 1002  3 z h 0 15000 false]]"})
		expectReply(t, p.ask(fields{"op": "ping"}), fields{"epoch": 7, "lease": 15000, "warming": "-", "counts": "[2 1 2]"})
		expectReply(t, p.ask(fields{"op": "evict", "node": "p"}), fields{"error": "live", "node": "p"})
		expectReply(t, p.ask(fields{"op": "evict", "node": "p", "incarnation": 1001, "force": true}), fields{"error": "stale", "incarnation": 1002})
		expectReply(t, p.ask(fields{"op": "evict", "node": "p", "force": true}), fields{"error": "-"})
		expectReply(t, p.ask(fields{"op": "join", "node": "p", "incarnation": 1002}), fields{"error": "stale"})

		// Choices, and the lists they are from.
		expectReply(t, p.ask(fields{"op": "choose", "channel": "c", "role": 2, "policy": "key", "key": []byte("k")}),
			fields{"members": "[[c 2 n 0]]", "nodes": "[[n 1001 tcp://h:1 0   17 0 false]]", "error": "-"})
		expectReply(t, p.ask(fields{"op": "choose", "channel": "d", "role": 2}), fields{"error": "nobody", "members": "-"})
		expectReply(t, p.ask(fields{"op": "choose"}), fields{"members": "[[ 0 n 0]]", "error": "-"})
		expectReply(t, p.ask(fields{"op": "roster", "channel": "c"}), fields{"members": "[[c 1 n 0] [c 2 n 0]]",
			"nodes": "[[n 1001 tcp://h:1 0   17 0 false]]", "more": "-", "error": "-"})
		expectReply(t, p.ask(fields{"op": "roster", "channel": "c", "role": 1}), fields{"members": "[[c 1 n 0]]"})

		// A watch of the nodes, and one of a channel, in lockstep.
		got := p.ask(fields{"op": "watch_nodes", "watch": 9})
		expectReply(t, got, fields{"events": fmt.Sprintf("[[1 %v 0 0 n 1001 tcp://h:1 0  ] [3 %v 0]]", got["revision"], got["revision"])})
		got = p.ask(fields{"op": "watch", "watch": 1, "channel": "c"})
		expectReply(t, got, fields{"reset": true, "epoch": 7, "error": "-"})
		revision := got["revision"]
		expectReply(t, got, fields{"events": fmt.Sprintf("[[1 %v 1 0 n 1001 tcp://h:1 0  ] [1 %v 2 0 n 1001 tcp://h:1 0  ] [3 %v 0]]", revision, revision, revision)})
		expectReply(t, p.ask(fields{"op": "remove", "incarnation": 1001, "members": members[:1]}), fields{"error": "-"})
		got = p.ask(fields{"op": "next", "watch": 1})
		expectReply(t, got, fields{"reset": "-", "events": fmt.Sprintf("[[2 %v 2 0 n 1001 tcp://h:1 0  ]]", got["revision"])})
		expectReply(t, p.ask(fields{"op": "unwatch", "watch": 1}), fields{"error": "-"})
		expectReply(t, p.ask(fields{"op": "next", "watch": 1}), fields{"error": "no_watch"})

		// And from where that one ended.
		expectReply(t, p.ask(fields{"op": "watch", "watch": 2, "channel": "c", "epoch": 7, "revision": got["revision"]}), fields{"reset": "-", "events": "[]"})
		expectReply(t, p.ask(fields{"op": "watch", "watch": 2, "channel": "c"}), fields{"error": "invalid"})
		expectReply(t, p.ask(fields{"op": "watch", "watch": 3, "channel": "c", "epoch": 8, "revision": got["revision"]}), fields{"reset": true})

		expectReply(t, p.ask(fields{"op": "leave", "node": "n", "incarnation": 1001}), fields{"error": "-"})
		expectReply(t, p.ask(fields{"op": "nodes"}), fields{"nodes": "-", "error": "-"})
	}
}

func TestPlainPeerPagesALongList(t *testing.T) {
	r := NewRegistry()
	p := dialPeer(t, mustServe(t, r, memAddr()).Addr(), transport.Req, "")
	incarnation := mustJoin(t, r, "n")
	for i := range batchLen + 2 {
		mustAddFast(t, r, incarnation, consumer("c", "n", i))
	}
	first := p.ask(fields{"op": "members", "channel": "c"})
	list := first["members"].([]any)
	expectReply(t, first, fields{"more": true})
	mustAdd(t, r, incarnation, Member{"c", Producer, "n", 0}) // pages are of one moment
	second := p.ask(fields{"op": "members", "channel": "c", "after_member": list[len(list)-1:]})
	expectReply(t, second, fields{"more": "-", "members": fmt.Sprintf("[[c 2 n %d] [c 2 n %d]]", batchLen, batchLen+1)})
	third := p.ask(fields{"op": "roster", "channel": "c", "role": 2, "after_member": list[len(list)-1:]})
	expectReply(t, third, fields{"more": "-", "members": fmt.Sprintf("[[c 2 n %d] [c 2 n %d]]", batchLen, batchLen+1)})
	if nodes := third["nodes"].([]any); len(nodes) != 1 {
		t.Errorf("a node is told %d times", len(nodes))
	}
	// A page without the one before it works too.
	expectReply(t, p.ask(fields{"op": "members", "channel": "c", "after_member": []any{[]any{"c", 2, "n", batchLen}}}),
		fields{"members": fmt.Sprintf("[[c 2 n %d]]", batchLen+1)})
}

func TestEnvelopeComesBack(t *testing.T) {
	p := dialPeer(t, mustServe(t, NewRegistry(), memAddr()).Addr(), transport.Dealer, "")
	body, _ := msgpack.Marshal(fields{"op": "ping", "id": 9})
	for _, envelope := range [][][]byte{{}, {{}}, {[]byte("device"), []byte("asker"), {}}} {
		p.sendFrames(append(envelope, body)...)
		frames := p.receiveFrames()
		last := len(frames) - 1
		if fmt.Sprintf("%q", frames[:last]) != fmt.Sprintf("%q", envelope) {
			t.Errorf("envelope %q came back as %q", envelope, frames[:last])
		}
		expectReply(t, p.parse(frames[last]), fields{"id": 9, "error": "-"})
	}
}

// A DEALER's other requests do not wait for a watch's events.
func TestDealerWatchesAndAsks(t *testing.T) {
	r := NewRegistry()
	p := dialPeer(t, mustServe(t, r, memAddr()).Addr(), transport.Dealer, "")
	expectReply(t, p.ask(fields{"op": "watch", "watch": 1, "channel": "c", "id": 1}), fields{"id": 1})
	p.send(fields{"op": "next", "watch": 1, "id": 2})
	expectReply(t, p.ask(fields{"op": "ping", "id": 3}), fields{"id": 3})
	expectReply(t, p.ask(fields{"op": "next", "watch": 1, "id": 4}), fields{"id": 4, "error": "invalid"}) // one at a time
	mustAdd(t, r, mustJoin(t, r, "n"), consumer("c", "n", 0))
	expectReply(t, p.receive(), fields{"id": 2, "error": "-"})
}

// The same identity again: the client gave its older connection up, which may not have shown here yet.
func TestConnectionWithTheSameIdentityReplacesTheOlder(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	older := dialPeer(t, s.Addr(), transport.Dealer, "me")
	first := older.ask(fields{"op": "join", "node": "n"})
	newer := dialPeer(t, s.Addr(), transport.Dealer, "me")
	second := newer.ask(fields{"op": "join", "node": "n"})
	expectReply(t, second, fields{"error": "-"})
	if fmt.Sprint(second["incarnation"]) <= fmt.Sprint(first["incarnation"]) {
		t.Errorf("joined as %v after %v", second, first)
	}
	if _, err := older.conn.ReadMessage(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the older connection lives on: %v", err)
	}
	if s.mu.Lock(); len(s.sessions) > 2 || s.named["me"] == nil {
		t.Errorf("sessions: %v", s.sessions)
	}
	s.mu.Unlock()
}

func TestHostileRequests(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	p := dialPeer(t, s.Addr(), transport.Req, "")
	good, _ := msgpack.Marshal(fields{"op": "ping"})
	for name, body := range map[string]string{
		"empty":                   "",
		"not MessagePack":         "\xc1",
		"text":                    "GET / HTTP/1.1\r\n",
		"map of 4 G":              "\xdf\xff\xff\xff\xff",
		"op of 4 G":               "\x81\xa2op\xdb\xff\xff\xff\xff",
		"members of 4 G":          "\x81\xa7members\xdd\xff\xff\xff\xff",
		"not a map":               "\x91\xa4ping",
		"a string":                "\xa4ping",
		"nil":                     "\xc0",
		"op a number":             "\x81\xa2op\x05",
		"key a number":            "\x81\x05\x05",
		"incarnation a string":    "\x82\xa2op\xa4join\xabincarnation\xa1x",
		"cut":                     string(good[:len(good)-1]),
		"more than one value":     string(good) + "\xc0",
		"nested too deep":         "\x81\xa1x" + strings.Repeat("\x91", 100) + "\xc0",
		"member of 3 elements":    "\x82\xa2op\xa3add\xa7members\x91\x93\xa1c\x01\xa1n",
		"role over a byte":        "\x82\xa2op\xa3add\xa7members\x91\x94\xa1c\xcd\x01\x01\xa1n\x00",
		"negative index":          "\x82\xa2op\xa3add\xa7members\x91\x94\xa1c\x01\xa1n\xff",
		"renewal of 2 elements":   "\x82\xa2op\xa5renew\xa8renewals\x91\x92\xa1n\x01",
		"load over 32 bits":       "\x82\xa2op\xa5renew\xa8renewals\x91\x93\xa1n\x01\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
		"renewals of 4 G":         "\x81\xa8renewals\xdd\xff\xff\xff\xff",
		"too many members":        "\x82\xa2op\xa3add\xa7members\xdc\x02\x01" + strings.Repeat("\x94\xa1c\x01\xa1n\x00", 513),
		"members that are no map": "\x82\xa2op\xa3add\xa7members\x81\x01\x01",
	} {
		p.sendFrames(nil, []byte(body))
		expectReply(t, p.receive(), fields{"error": "malformed", "id": 0})
		if got := p.ask(fields{"op": "ping"}); got["error"] != nil {
			t.Fatalf("%s: afterwards: %v", name, got)
		}
	}
	for name, q := range map[string]fields{
		"no name":             {"op": "join"},
		"long name":           {"op": "join", "node": strings.Repeat("x", 256)},
		"slash":               {"op": "join", "node": "a/b"},
		"endpoint":            {"op": "join", "node": "a", "endpoint": "\x00"},
		"incarnation":         {"op": "join", "node": "a", "incarnation": uint64(1) << 63},
		"weight":              {"op": "join", "node": "a", "weight": MaxWeight + 1},
		"zone":                {"op": "join", "node": "a", "zone": "a/b"},
		"host":                {"op": "join", "node": "a", "host": strings.Repeat("x", 256)},
		"eviction of nobody":  {"op": "evict"},
		"negative":            {"op": "join", "node": "a", "incarnation": -1},
		"role 0":              {"op": "add", "members": []any{[]any{"c", 0, "n", 0}}},
		"role 3":              {"op": "add", "members": []any{[]any{"c", 3, "n", 0}}},
		"members of two":      {"op": "add", "members": []any{[]any{"c", 1, "n", 0}, []any{"c", 1, "m", 0}}},
		"a weight of 33 bits": {"op": "join", "node": "a", "weight": uint64(1) << 32},
		"a role of 9 bits":    {"op": "roster", "channel": "c", "role": 257},
		"role of the nodes":   {"op": "choose", "role": 1},
		"policy":              {"op": "choose", "policy": "fair"},
		"key":                 {"op": "choose", "policy": "key", "key": make([]byte, MaxKey+1)},
		"watch of no channel": {"op": "watch", "watch": 1},
		"members of none":     {"op": "members"},
		"no op's unknown key": {"op": "members", "colour": "blue"},
	} {
		if got := p.ask(q); got["error"] != "invalid" {
			t.Errorf("%s: %v", name, got)
		}
	}
	if nodes, _ := r.Nodes(testContext(t)); len(nodes) != 0 {
		t.Errorf("something was registered: %v", nodes)
	}

	// What is not even a request ends the connection.
	for name, send := range map[string]func(*peer){
		"frames without a delimiter": func(p *peer) { p.sendFrames(good, good) },
		"too many frames":            func(p *peer) { p.sendFrames(append(make([][]byte, maxEnvelope+1), good)...) },
		"too large a frame":          func(p *peer) { _ = p.conn.WriteMessage(make([]byte, maxRequest+1)) },
	} {
		bad := dialPeer(t, s.Addr(), transport.Dealer, "")
		send(bad)
		if _, err := bad.conn.ReadMessage(); err == nil { // there is no deadline: it ends, or the test does
			t.Errorf("%s: the connection lives on", name)
		}
	}
	expectReply(t, p.ask(fields{"op": "ping"}), fields{"error": "-"})
}

// Who asks and does not read is served no more at some point, and holds nobody up.
func TestPeerThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	incarnation := mustJoin(t, r, "n")
	for i := range batchLen {
		mustAddFast(t, r, incarnation, consumer("c", "n", i))
	}
	deaf := dialPeer(t, s.Addr(), transport.Dealer, "deaf")
	deaf.send(fields{"op": "join", "node": "deaf"})
	deaf.send(fields{"op": "watch", "watch": 1, "channel": "c"})
	body, _ := msgpack.Marshal(fields{"op": "members", "channel": "c"})
	stuck := make(chan struct{})
	go func() { // until nothing more fits between here and there
		defer close(stuck)
		for deaf.conn.WriteMessage(body) == nil {
		}
	}()
	p := dialPeer(t, s.Addr(), transport.Req, "")
	w := mustWatch(t, r, "c")
	for range batchLen {
		if _, err := w.Next(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		expectReply(t, p.ask(fields{"op": "members", "channel": "c"}), fields{"error": "-"})
		mustAdd(t, r, incarnation, consumer("c", "n", 1000+i))
	}
	deaf.conn.Close()
	<-stuck
}

func TestWatchesOfOneConnectionAreBounded(t *testing.T) {
	r := NewRegistry()
	p := dialPeer(t, mustServe(t, r, memAddr()).Addr(), transport.Req, "")
	for i := range maxWatches {
		expectReply(t, p.ask(fields{"op": "watch", "watch": i, "channel": "c"}), fields{"error": "-"})
	}
	expectReply(t, p.ask(fields{"op": "watch", "watch": maxWatches, "channel": "c"}), fields{"error": "limit", "max": maxWatches})
	p.ask(fields{"op": "unwatch", "watch": 0})
	expectReply(t, p.ask(fields{"op": "watch", "watch": maxWatches, "channel": "c"}), fields{"error": "-"})
	p.conn.Close()
	for ctx := testContext(t); ; { // what they took is given back
		r.mu.Lock()
		left := len(r.table.channels)
		r.mu.Unlock()
		if left == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the watches outlive their connection")
		}
	}
}

func TestServerCloseEndsConnectionsAndLeavesOrphans(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, "tcp://127.0.0.1:0")
	p := dialPeer(t, s.Addr(), transport.Dealer, "")
	p.ask(fields{"op": "join", "node": "n"})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.conn.ReadMessage(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection after Close: %v", err)
	}
	if _, err := r.Node(testContext(t), "n"); err != nil {
		t.Errorf("the orphan: %v", err)
	}
	if _, err := r.Join(testContext(t), NodeInfo{Name: "n"}); err != nil {
		t.Errorf("taking the orphan's name: %v", err)
	}
	if len(r.table.holders) != 0 {
		t.Errorf("holders are left: %v", r.table.holders)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Serve(ended, r, memAddr(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("serve with an ended context: %v", err)
	}
	taken := mustServe(t, r, memAddr())
	if _, err := Serve(testContext(t), r, taken.Addr(), quiet); !errors.Is(err, transport.ErrAddressInUse) || !strings.Contains(err.Error(), "another directory") {
		t.Errorf("serve on a taken address: %v", err)
	}
	for _, bad := range []string{"", "somewhere", "udp://127.0.0.1:1", "tcp://127.0.0.1:65536"} {
		if _, err := Serve(testContext(t), r, bad, quiet); !errors.Is(err, ErrInvalid) {
			t.Errorf("serve at %q: %v", bad, err)
		}
	}
}

// The registry closing under the server is, for a client, a directory that is not there.
func TestClosedRegistryIsUnavailable(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	p := dialPeer(t, s.Addr(), transport.Req, "")
	p.ask(fields{"op": "watch", "watch": 1, "channel": "c"})
	p.send(fields{"op": "next", "watch": 1})
	r.Close()
	expectReply(t, p.receive(), fields{"error": "closed"})
	expectReply(t, p.ask(fields{"op": "nodes"}), fields{"error": "closed"})
}
