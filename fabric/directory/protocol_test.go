package directory

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden bytes in testdata")

var (
	someMembers = wireMembers{{"scores", Producer, "n1", 0}, {"scores", Consumer, "n1", MaxIndex}}
	someNodes   = wireNodes{
		{Node: placed, Load: 17, Lease: 15 * time.Second, Orphan: true},
		{Node: infoOf("n2", MaxIncarnation, "")},
	}
	placed = NodeInfo{
		Name: "n1", Incarnation: 1, Endpoint: "tcp://10.0.0.1:4000", Weight: MaxWeight, Zone: "eu-1", Host: "h1.example",
	}
	someEvents = []Event{
		{Revision: 7, Kind: Added, Member: Member{"", Consumer, "n1", 3}, Node: infoOf("n1", 1<<41, "tcp://10.0.0.1:4000")},
		{Revision: 8, Kind: Added, Member: Member{"", Producer, "n1", 3}, Node: placed},
		{Revision: 8, Kind: Removed, Member: Member{"", Producer, "n2", 0}, Node: infoOf("n2", 1, "")},
		{Revision: 8, Kind: Removed, Member: Member{"", Consumer, "n3", 0}, Node: infoOf("n3", 1, ""), Expired: true},
		{Revision: 8, Kind: Synced},
		{Revision: 9, Kind: Synced, Warming: 1500 * time.Millisecond},
	}
	golden = map[string]any{
		"request-ping":        &request{ID: 1, Op: opPing},
		"request-join":        &request{ID: 2, Op: opJoin, Node: "n1", Endpoint: "tcp://10.0.0.1:4000"},
		"request-join-placed": joinRequest(placed),
		"request-renew":       &request{ID: 3, Op: opRenew, Renewals: wireRenewals{{"n1", 1 << 41, 17}, {"n2", 1, 0}}},
		"request-evict":       &request{ID: 3, Op: opEvict, Node: "n1", Incarnation: 1, Force: true},
		"request-watch-nodes": &request{ID: 5, Op: opWatchNodes, Watch: 2},
		"request-add":         &request{ID: 3, Op: opAdd, Incarnation: 1 << 41, Members: someMembers},
		"request-members":     &request{ID: 4, Op: opMembers, Channel: "scores", AfterMember: someMembers[:1]},
		"request-watch":       &request{ID: 5, Op: opWatch, Watch: 1, Channel: "scores", Epoch: 1<<63 - 1, Revision: 300},
		"request-roster":      &request{ID: 5, Op: opRoster, Channel: "scores", Role: 2},
		"request-choose":      &request{ID: 5, Op: opChoose, Channel: "scores", Role: 2, Policy: ByKey, Key: []byte{0, 255}},
		"request-choose-near": &request{ID: 5, Op: opChoose, Policy: Nearest, Zone: "eu-1", Host: "h1"},
		"reply-choose":        &reply{ID: 5, Members: someMembers[:1], Nodes: someNodes[:1]},
		"reply-nobody":        errorReply(8, &NobodyError{Channel: "scores", Role: Consumer}),
		"reply-join":          &reply{ID: 2, Incarnation: 1 << 41, Lease: 15000},
		"reply-renew":         &reply{ID: 3, Unknown: wireNames{"n2"}},
		"reply-ping":          &reply{ID: 1, Epoch: 5, Revision: 8, Lease: 15000, Warming: 1, Counts: &wireCounts{2, 1, 300}},
		"reply-members":       &reply{ID: 4, Members: someMembers, More: true},
		"reply-nodes":         &reply{ID: 6, Nodes: someNodes},
		"reply-channels":      &reply{ID: 7, Channels: wireNames{"scores", "weights"}},
		"reply-events":        &reply{ID: 5, Epoch: 5, Revision: 8, Reset: true, Events: &wireEvents{list: someEvents}},
		"reply-no-events":     &reply{ID: 5, Epoch: 5, Revision: 8, Events: &wireEvents{list: []Event{}}},
		"reply-warming":       errorReply(8, &WarmingError{What: "node n1", Remaining: 1500 * time.Millisecond}),
		"reply-taken":         errorReply(8, &NameTakenError{Name: "n1", Endpoint: "tcp://10.0.0.1:4000"}),
	}
)

// The bytes are a promise to peers in other languages: testdata holds them.
func TestGoldenBytes(t *testing.T) {
	path := filepath.Join("testdata", "golden.txt")
	if *rewrite {
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(golden)) {
			fmt.Fprintf(&b, "%s %x\n", name, encode(golden[name]))
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(file)) {
		name, bytes, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[name] = bytes
	}
	if len(want) != len(golden) {
		t.Errorf("%d messages in %s, %d here", len(want), path, len(golden))
	}
	for name, v := range golden {
		if got := hex.EncodeToString(encode(v)); got != want[name] {
			t.Errorf("%s: encoded as\n%s, golden is\n%s", name, got, want[name])
		}
		body, _ := hex.DecodeString(want[name])
		back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := decode(body, back); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(back, v) {
			t.Errorf("%s: came back as %+v, was %+v", name, back, v)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	asked := &request{Incarnation: 5, Channel: "c", Role: 2}
	for _, err := range []error{
		&NameTakenError{Name: "n", Endpoint: "tcp://h:1"},
		&StaleError{Node: "n", Incarnation: 5, Current: 6},
		&NotJoinedError{Node: "n"},
		&UnknownNodeError{Name: "n"},
		&WarmingError{What: "node n", Remaining: 1500 * time.Millisecond},
		&NobodyError{Channel: "c", Role: Consumer},
		&LiveError{Name: "n", Endpoint: "tcp://h:1"},
		&LimitError{What: "nodes", Max: maxNodes},
	} {
		var back reply
		if decodeErr := decode(encode(errorReply(1, err)), &back); decodeErr != nil {
			t.Fatal(decodeErr)
		}
		if got := back.err(asked); !reflect.DeepEqual(got, err) {
			t.Errorf("%#v came back as %#v", err, got)
		}
	}
	back := errorReply(1, invalid("something"))
	if err := back.err(asked); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "something") {
		t.Errorf("an invalid argument came back as %v", err)
	}
	back = errorReply(1, &UnavailableError{Addr: "etcd://h:1", Err: errors.New("no leader")})
	k := call{conn: &clientConn{addr: "tcp://d:1"}, asked: asked}
	var away *UnavailableError
	if err := k.result(back); !errors.As(err, &away) || away.Addr != "tcp://d:1" || !strings.Contains(err.Error(), "etcd://h:1 is unavailable: no leader") {
		t.Errorf("a store that is away came back as %v", err)
	}
	if err := (&reply{Error: "of_the_future", Text: "why"}).err(asked); err == nil || !strings.Contains(err.Error(), "of_the_future") {
		t.Errorf("an unknown code came back as %v", err)
	}
}

// The largest messages that can be asked for fit the bounds of a frame.
func TestLargestMessagesFit(t *testing.T) {
	name, endpoint := strings.Repeat("x", MaxName), strings.Repeat("x", MaxEndpoint)
	info := NodeInfo{
		Name: name, Incarnation: MaxIncarnation, Endpoint: endpoint, Weight: math.MaxUint32, Zone: name, Host: name,
	}
	renewing := &request{ID: 1<<64 - 1, Op: opRenew}
	nodes := &reply{ID: 1<<64 - 1, More: true}
	roster := &reply{ID: 1<<64 - 1, More: true, Warming: 1<<64 - 1}
	q := &request{ID: 1<<64 - 1, Op: opAdd, Incarnation: MaxIncarnation}
	r := &reply{ID: 1<<64 - 1, Epoch: 1<<64 - 1, Revision: 1<<64 - 1, More: true, Events: &wireEvents{}}
	for range batchLen {
		m := Member{name, Consumer, name, MaxIndex}
		q.Members = append(q.Members, m)
		r.Events.list = append(r.Events.list, Event{Revision: 1<<64 - 1, Kind: Added, Member: m, Node: info})
		renewing.Renewals = append(renewing.Renewals, renewal{name, MaxIncarnation, math.MaxUint32})
		roster.Members = append(roster.Members, m)
		nodes.Nodes = append(nodes.Nodes, Entry{Node: info, Load: math.MaxUint32, Lease: MaxLease, Orphan: true})
	}
	for _, q := range []*request{q, renewing} {
		if n := len(encode(q)); n > maxRequest {
			t.Errorf("a request %s of %d bytes, bound is %d", q.Op, n, maxRequest)
		}
	}
	roster.Nodes = nodes.Nodes
	for _, r := range []*reply{r, nodes, roster} {
		if n := len(encode(r)); n > maxReply {
			t.Errorf("a reply of %d bytes, bound is %d", n, maxReply)
		}
	}
}

// Whatever bytes come, decoding ends with an error or with something that encodes to the same again.
func FuzzDecode(f *testing.F) {
	for _, v := range golden {
		f.Add(encode(v))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var q request
		if decode(body, &q) == nil {
			var again request
			if err := decode(encode(&q), &again); err != nil || !bytes.Equal(encode(&q), encode(&again)) {
				t.Errorf("%x: request %+v came back as %+v, %v", body, q, again, err)
			}
		}
		var r reply
		if decode(body, &r) == nil {
			_ = r.events("c")
			_ = r.err(&q)
			if list, err := r.candidates(); err == nil && len(list) != len(r.Members) {
				t.Errorf("%x: %d candidates of %d members", body, len(list), len(r.Members))
			}
			var again reply
			if err := decode(encode(&r), &again); err != nil || !bytes.Equal(encode(&r), encode(&again)) {
				t.Errorf("%x: reply %+v came back as %+v, %v", body, r, again, err)
			}
		}
	})
}
