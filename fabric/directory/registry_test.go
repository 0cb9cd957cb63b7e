package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustJoin(t *testing.T, s Service, name string) uint64 {
	t.Helper()
	incarnation, err := s.Join(testContext(t), NodeInfo{Name: name, Endpoint: "mem://" + name})
	if err != nil {
		t.Fatalf("join %s: %v", name, err)
	}
	return incarnation
}

func mustAdd(t *testing.T, s Service, incarnation uint64, members ...Member) {
	t.Helper()
	if err := s.Add(testContext(t), incarnation, members...); err != nil {
		t.Fatalf("add %v: %v", members, err)
	}
}

func mustRemove(t *testing.T, s Service, incarnation uint64, members ...Member) {
	t.Helper()
	if err := s.Remove(testContext(t), incarnation, members...); err != nil {
		t.Fatalf("remove %v: %v", members, err)
	}
}

func mustWatch(t *testing.T, s Service, channel string) Watcher {
	t.Helper()
	w, err := s.Watch(testContext(t), channel)
	if err != nil {
		t.Fatalf("watch %s: %v", channel, err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func infoOf(name string, incarnation uint64, endpoint string) NodeInfo {
	return NodeInfo{Name: name, Incarnation: incarnation, Endpoint: endpoint}
}

// tableRegistry is a registry whose clock stands still.
func tableRegistry(epoch, last uint64) *Registry {
	return newRegistry(newTable(epoch, last, DefaultLease), func() time.Duration { return 0 })
}

func consumer(channel, node string, index int) Member {
	return Member{Channel: channel, Role: Consumer, Node: node, Index: index}
}

// told renders an event without its revision and incarnation: "+scores/n3/1", "-scores/n3/1",
// "~scores/n3/1" where the lease has ended, "synced".
func told(e Event) string {
	switch e.Kind {
	case Added:
		return "+" + e.Member.String()
	case Removed:
		if e.Expired {
			return "~" + e.Member.String()
		}
		return "-" + e.Member.String()
	}
	return e.Kind.String()
}

func expect(t *testing.T, w Watcher, want ...string) []Event {
	t.Helper()
	var events []Event
	for i, text := range want {
		e, err := w.Next(testContext(t))
		if err != nil {
			t.Fatalf("event %d, want %s: %v", i, text, err)
		}
		if told(e) != text {
			t.Fatalf("event %d: got %s, want %s", i, told(e), text)
		}
		events = append(events, e)
	}
	return events
}

// expectQuiet checks that nothing is told: what is there to be told would be told before the marker.
func expectQuiet(t *testing.T, s Service, incarnation uint64, marker Member, w Watcher) {
	t.Helper()
	mustAdd(t, s, incarnation, marker)
	expect(t, w, "+"+marker.String())
	mustRemove(t, s, incarnation, marker)
	expect(t, w, "-"+marker.String())
}

func TestJoinDecides(t *testing.T) {
	type join struct {
		holder      string // "a" has it, "b" is another, "a again" is a's next connection
		incarnation uint64
		endpoint    string
	}
	tests := []struct {
		name   string
		before func(r *Registry, a *holder, incarnation uint64)
		join   join
		want   string // "ok" (greater), "same", or the error
	}{
		{"a live node's name is taken", nil, join{"b", 0, "mem://b"}, "taken"},
		{"a live node's name is taken for a greater incarnation too", nil, join{"b", 2000, "mem://b"}, "taken"},
		{"its own name is taken for the same client", nil, join{"a", 0, "mem://b"}, "taken"},
		{"the same life is resumed", nil, join{"a", 1001, "mem://a"}, "same"},
		{"the same life is resumed by a new connection", nil, join{"b", 1001, "mem://a"}, "same"},
		{"the same incarnation elsewhere is another node", nil, join{"b", 1001, "mem://b"}, "taken"},
		{"its own name is free for the same client's next connection", nil, join{"a again", 0, "mem://b"}, "ok"},
		{"an older life is refused", nil, join{"b", 1000, "mem://a"}, "stale"},
		{"an orphan's name is free", (*Registry).testOrphan, join{"b", 0, "mem://b"}, "ok"},
		{"an orphan's name is free for a greater incarnation", (*Registry).testOrphan, join{"b", 1002, "mem://b"}, "ok"},
		{"an orphan is not taken over by an older life", (*Registry).testOrphan, join{"b", 1000, "mem://b"}, "stale"},
		{"an orphan is resumed by its own life", (*Registry).testOrphan, join{"b", 1001, "mem://a"}, "same"},
		{"a name that was left is free", (*Registry).testLeave, join{"b", 0, "mem://b"}, "ok"},
		{"a life that left does not come back", (*Registry).testLeave, join{"b", 1001, "mem://a"}, "stale"},
		{"a later life after a leave", (*Registry).testLeave, join{"b", 1002, "mem://a"}, "ok"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := tableRegistry(1, 1000)
			a := r.table.attach("a", false)
			first, err := r.join(a, NodeInfo{Name: "n", Endpoint: "mem://a"})
			if err != nil || first != 1001 {
				t.Fatalf("first join: %d, %v", first, err)
			}
			if err := r.add(a, first, []Member{consumer("c", "n", 0)}); err != nil {
				t.Fatal(err)
			}
			if test.before != nil {
				test.before(r, a, first)
			}
			by := a
			switch test.join.holder {
			case "a again":
				by = r.table.attach("a", false)
			case "b":
				by = r.table.attach("b", false)
			}
			got, err := r.join(by, infoOf("n", test.join.incarnation, test.join.endpoint))
			members, _ := r.Members(testContext(t), "c")
			outcome := ""
			switch {
			case errors.Is(err, ErrNameTaken):
				var e *NameTakenError
				if !errors.As(err, &e) || e.Name != "n" || e.Endpoint != "mem://a" {
					t.Errorf("error says %+v", e)
				}
				outcome = "taken"
			case errors.Is(err, ErrStale):
				var e *StaleError
				if !errors.As(err, &e) || e.Current != 1001 {
					t.Errorf("error says %+v", e)
				}
				outcome = "stale"
			case err != nil:
				t.Fatal(err)
			case got == first:
				outcome = "same"
				if len(members) != 1 {
					t.Errorf("the members were lost: %v", members)
				}
			case got > first:
				outcome = "ok"
				if len(members) != 0 {
					t.Errorf("the old members are still there: %v", members)
				}
			}
			if outcome != test.want {
				t.Errorf("got %s (%d, %v), want %s", outcome, got, err, test.want)
			}
		})
	}
}

func (r *Registry) testOrphan(a *holder, incarnation uint64) { r.detach(a, a.connection) }
func (r *Registry) testLeave(a *holder, incarnation uint64)  { _ = r.leave(a, "n", incarnation) }

func TestChosenIncarnationsPassThoseBroughtAlong(t *testing.T) {
	r := tableRegistry(1, 1000)
	ctx := testContext(t)
	brought := uint64(5_000_000)
	if _, err := r.Join(ctx, NodeInfo{Name: "n", Incarnation: brought}); err != nil {
		t.Fatal(err)
	}
	if other := mustJoin(t, r, "other"); other != 1001 {
		t.Errorf("another name got %d: one node's number should not move the others'", other)
	}
	if err := r.Leave(ctx, "n", brought); err != nil {
		t.Fatal(err)
	}
	if got := mustJoin(t, r, "n"); got <= brought {
		t.Errorf("the later life got %d, not over %d", got, brought)
	}
}

// The memory of names that are gone overflows: incarnations must still grow, chosen ones and brought ones.
func TestIncarnationsGrowWhenNamesAreForgotten(t *testing.T) {
	r := tableRegistry(1, 1000)
	ctx := testContext(t)
	const brought = 1 << 40
	for i := range maxTombs {
		r.table.tombs.put(tomb{name: fmt.Sprint("gone", i), incarnation: brought + uint64(i)})
	}
	if err := r.Leave(ctx, "one-more", mustJoin(t, r, "one-more")); err != nil {
		t.Fatal(err)
	}
	if n := r.table.tombs.oldest.Len(); n != maxTombs || len(r.table.tombs.byName) != n {
		t.Errorf("%d names remembered, bound is %d", n, maxTombs)
	}
	if r.table.tombs.get("gone0") != (tomb{}) || r.table.tombs.get("gone1") == (tomb{}) {
		t.Error("what was forgotten is not the oldest")
	}
	if _, err := r.Join(ctx, NodeInfo{Name: "gone0", Incarnation: brought}); !errors.Is(err, ErrStale) {
		t.Errorf("an incarnation that may have been an earlier life's: %v", err)
	}
	if got := mustJoin(t, r, "gone0"); got <= brought {
		t.Errorf("a forgotten name was joined as %d, not over %d", got, uint64(brought))
	}
	if _, err := r.Join(ctx, NodeInfo{Name: "never-met", Incarnation: brought + 1}); err != nil {
		t.Errorf("an incarnation that is greater than all that were forgotten: %v", err)
	}
}

func TestOnlyTheHolderChangesANode(t *testing.T) {
	ctx := testContext(t)
	r := tableRegistry(1, 1000)
	a, b := r.table.attach("a", false), r.table.attach("b", false)
	incarnation, _ := r.join(a, NodeInfo{Name: "n"})
	m := consumer("c", "n", 0)
	for name, call := range map[string]func() error{
		"add":    func() error { return r.add(b, incarnation, []Member{m}) },
		"remove": func() error { return r.remove(b, incarnation, []Member{m}) },
		"leave":  func() error { return r.leave(b, "n", incarnation) },
		"here":   func() error { return r.Add(ctx, incarnation, m) },
	} {
		if err := call(); !errors.Is(err, ErrNotJoined) {
			t.Errorf("%s by another: %v", name, err)
		}
	}
	for name, call := range map[string]func() error{
		"add":    func() error { return r.add(a, incarnation+1, []Member{m}) },
		"remove": func() error { return r.remove(a, incarnation-1, []Member{m}) },
		"leave":  func() error { return r.leave(a, "n", 0) },
	} {
		if err := call(); !errors.Is(err, ErrStale) {
			t.Errorf("%s with a wrong incarnation: %v", name, err)
		}
	}
	if err := r.add(a, 1, []Member{consumer("c", "nobody", 0)}); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("add for a node that is not there: %v", err)
	}
	if err := r.remove(a, 1, []Member{consumer("c", "nobody", 0)}); err != nil {
		t.Errorf("remove for a node that is not there: %v", err)
	}
	if err := r.leave(a, "nobody", 1); err != nil {
		t.Errorf("leave of a node that is not there: %v", err)
	}
}

func TestAddIsAllOrNothingAndIdempotent(t *testing.T) {
	ctx := testContext(t)
	r := NewRegistry()
	incarnation := mustJoin(t, r, "n")
	good := consumer("c", "n", 0)
	for name, bad := range map[string]Member{
		"another node":   consumer("c", "m", 0),
		"no role":        {Channel: "c", Node: "n"},
		"negative index": consumer("c", "n", -1),
		"channel's name": consumer("a b", "n", 0),
	} {
		if err := r.Add(ctx, incarnation, good, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, _ := r.Members(ctx, "c"); len(list) != 0 {
		t.Fatalf("a refused add left %v", list)
	}
	mustAdd(t, r, incarnation, good)
	revision := r.table.revision
	mustAdd(t, r, incarnation, good, good)
	if r.table.revision != revision {
		t.Errorf("adding again made %d changes", r.table.revision-revision)
	}
	mustAdd(t, r, incarnation) // of nothing
}

func TestListsAreSorted(t *testing.T) {
	ctx := testContext(t)
	r := NewRegistry()
	b, a := mustJoin(t, r, "b"), mustJoin(t, r, "a")
	mustAdd(t, r, b, consumer("y", "b", 10), consumer("y", "b", 9), Member{"y", Producer, "b", 3}, consumer("x", "b", 0))
	mustAdd(t, r, a, consumer("y", "a", 0))
	mustWatch(t, r, "watched-only")

	members, err := r.Members(ctx, "y")
	if got := fmt.Sprint(members, err); got != "[y/b/3 y/a/0 y/b/9 y/b/10] <nil>" {
		t.Errorf("members: %s", got)
	}
	channels, err := r.Channels(ctx)
	if got := fmt.Sprint(channels, err); got != "[x y] <nil>" {
		t.Errorf("channels: %s", got)
	}
	nodes, err := r.Nodes(ctx)
	if err != nil || len(nodes) != 2 || nodes[0] != infoOf("a", a, "mem://a") || nodes[1].Name != "b" {
		t.Errorf("nodes: %v, %v", nodes, err)
	}
	if node, err := r.Node(ctx, "a"); err != nil || node != nodes[0] {
		t.Errorf("node: %v, %v", node, err)
	}
	if _, err := r.Node(ctx, "c"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("unknown node: %v", err)
	}
	if list, err := r.Members(ctx, "nobody-knows"); err != nil || len(list) != 0 {
		t.Errorf("unknown channel: %v, %v", list, err)
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "Node_1.example-2", "0", "..", strings.Repeat("x", MaxName)} {
		if err := CheckName("node", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, offset := range map[string]int{
		"": 0, "a b": 1, "a/b": 1, "\x00": 0, "né": 1, "ab\n": 2, strings.Repeat("x", MaxName+1): MaxName,
	} {
		err := CheckName("channel", bad)
		var e *NameError
		if !errors.As(err, &e) || !errors.Is(err, ErrInvalid) || e.Offset != offset || e.What != "channel" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	r := NewRegistry()
	for _, endpoint := range []string{strings.Repeat("x", MaxEndpoint+1), "tcp://\n", "\xff"} {
		if _, err := r.Join(testContext(t), NodeInfo{Name: "n", Endpoint: endpoint}); !errors.Is(err, ErrInvalid) {
			t.Errorf("endpoint %.20q: %v", endpoint, err)
		}
	}
	if _, err := r.Join(testContext(t), NodeInfo{Name: "n", Incarnation: MaxIncarnation + 1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("incarnation over the bound: %v", err)
	}
}

func TestWatchTellsSnapshotThenChanges(t *testing.T) {
	r := NewRegistry()
	incarnation := mustJoin(t, r, "n")
	mustAdd(t, r, incarnation, consumer("c", "n", 1), consumer("c", "n", 0), consumer("other", "n", 0))
	w := mustWatch(t, r, "c")
	events := expect(t, w, "+c/n/0", "+c/n/1", "synced")
	if want := infoOf("n", incarnation, "mem://n"); events[0].Node != want {
		t.Errorf("node of an event: %+v, want %+v", events[0].Node, want)
	}
	mustRemove(t, r, incarnation, consumer("c", "n", 0))
	mustAdd(t, r, incarnation, consumer("other", "n", 1), consumer("c", "n", 2))
	events = append(events, expect(t, w, "-c/n/0", "+c/n/2")...)
	if err := r.Leave(testContext(t), "n", incarnation); err != nil {
		t.Fatal(err)
	}
	events = append(events, expect(t, w, "-c/n/1", "-c/n/2")...)
	for i := range events[1:] {
		if events[i].Revision > events[i+1].Revision {
			t.Errorf("revisions fall: %v", events)
		}
	}
}

func TestWatchOfAnUnknownChannelIsEmptyThenFollows(t *testing.T) {
	r := NewRegistry()
	w := mustWatch(t, r, "c")
	expect(t, w, "synced")
	incarnation := mustJoin(t, r, "n")
	mustAdd(t, r, incarnation, consumer("c", "n", 0))
	expect(t, w, "+c/n/0")
}

func TestRejoinRemovesBeforeItAdds(t *testing.T) {
	r := NewRegistry()
	a := r.table.attach("a", false)
	first, _ := r.join(a, NodeInfo{Name: "n", Endpoint: "mem://1"})
	_ = r.add(a, first, []Member{consumer("c", "n", 0), consumer("c", "n", 1)})
	w := mustWatch(t, r, "c")
	expect(t, w, "+c/n/0", "+c/n/1", "synced")
	r.detach(a, a.connection)
	second := mustJoin(t, r, "n")
	mustAdd(t, r, second, consumer("c", "n", 0))
	events := expect(t, w, "-c/n/0", "-c/n/1", "+c/n/0")
	if events[0].Node.Incarnation != first || events[2].Node.Incarnation != second {
		t.Errorf("incarnations: %v", events)
	}
}

// A watcher that lags beyond the history tells the differences, and its channel never kept more than its bound.
func TestOverrunWatcherSkipsToThePresent(t *testing.T) {
	r := NewRegistry()
	incarnation := mustJoin(t, r, "n")
	mustAdd(t, r, incarnation, consumer("c", "n", 0), consumer("c", "n", 1))
	w := mustWatch(t, r, "c")
	expect(t, w, "+c/n/0", "+c/n/1", "synced")
	mustRemove(t, r, incarnation, consumer("c", "n", 0))
	for i := range historyLen {
		mustAdd(t, r, incarnation, consumer("c", "n", 1000+i))
		mustRemove(t, r, incarnation, consumer("c", "n", 1000+i))
	}
	mustAdd(t, r, incarnation, consumer("c", "n", 7))
	if n := len(r.table.channels["c"].history); n > historyLen {
		t.Errorf("%d changes kept, bound is %d", n, historyLen)
	}
	expect(t, w, "-c/n/0", "+c/n/7")
	expectQuiet(t, r, incarnation, consumer("c", "n", 99), w)
}

// However a watcher is paced, what it told adds up to the truth, and nothing is told twice.
func TestWatcherAtAnyPaceTellsTheTruth(t *testing.T) {
	ctx := testContext(t)
	for pace := range 7 {
		r := NewRegistry()
		incarnation := mustJoin(t, r, "n")
		w := mustWatch(t, r, "c")
		state := map[Member]bool{}
		read := func() {
			e, err := w.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == Synced {
				return
			}
			if state[e.Member] == (e.Kind == Added) {
				t.Fatalf("pace %d: %s told twice", pace, told(e))
			}
			state[e.Member] = e.Kind == Added
		}
		there := map[Member]bool{}
		for i := range 5000 {
			m := consumer("c", "n", i*i%97)
			if there[m] = !there[m]; there[m] {
				mustAddFast(t, r, incarnation, m)
			} else if err := r.remove(r.table.here, incarnation, []Member{m}); err != nil {
				t.Fatal(err)
			}
			if pace > 0 && i%(pace*pace*pace) == 0 {
				read()
			}
		}
		last := consumer("c", "n", 1_000_000)
		mustAdd(t, r, incarnation, last)
		for !state[last] {
			read()
		}
		for m, want := range there {
			if state[m] != want {
				t.Errorf("pace %d: %v told %v, is %v", pace, m, state[m], want)
			}
		}
	}
}

func mustAddFast(t *testing.T, r *Registry, incarnation uint64, m Member) {
	if err := r.add(r.table.here, incarnation, []Member{m}); err != nil {
		t.Fatal(err)
	}
}

func TestNextEndsWithContextAndClose(t *testing.T) {
	r := NewRegistry()
	w := mustWatch(t, r, "c")
	expect(t, w, "synced")

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		_, err := w.Next(ctx)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	go func() {
		_, err := w.Next(context.Background())
		ended <- err
	}()
	w.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("after the watcher's Close: %v", err)
	}
	if len(r.table.channels) != 0 {
		t.Errorf("a channel without members and watchers is still there")
	}

	w = mustWatch(t, r, "c")
	expect(t, w, "synced")
	go func() {
		_, err := w.Next(context.Background())
		ended <- err
	}()
	r.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("after the registry's Close: %v", err)
	}
	if _, err := r.Join(testContext(t), NodeInfo{Name: "n"}); !errors.Is(err, ErrClosed) {
		t.Errorf("join after Close: %v", err)
	}
	if _, err := r.Watch(testContext(t), "c"); !errors.Is(err, ErrClosed) {
		t.Errorf("watch after Close: %v", err)
	}
	if _, err := r.Nodes(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("nodes after Close: %v", err)
	}
}

func TestSettleRemovesWhatWasNotStated(t *testing.T) {
	r := tableRegistry(1, 1000)
	a := r.table.attach("a", false)
	kept, _ := r.join(a, NodeInfo{Name: "kept"})
	_, _ = r.join(a, NodeInfo{Name: "given-up"})
	_ = r.add(a, kept, []Member{consumer("c", "kept", 0), consumer("c", "kept", 1)})
	w := mustWatch(t, r, "c")
	expect(t, w, "+c/kept/0", "+c/kept/1", "synced")
	r.detach(a, a.connection)

	b := r.table.attach("a", false)
	if err := r.settle(b); err != nil { // without a restatement: nothing
		t.Fatal(err)
	}
	if err := r.restate(b); err != nil {
		t.Fatal(err)
	}
	if got, err := r.join(b, NodeInfo{Name: "kept", Incarnation: kept}); got != kept || err != nil {
		t.Fatalf("rejoin: %d, %v", got, err)
	}
	_ = r.add(b, kept, []Member{consumer("c", "kept", 1), consumer("c", "kept", 2)})
	if err := r.settle(b); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "+c/kept/2", "-c/kept/0")
	if nodes, _ := r.Nodes(testContext(t)); len(nodes) != 1 || nodes[0].Name != "kept" {
		t.Errorf("nodes: %v", nodes)
	}
}

func TestLimits(t *testing.T) {
	r := NewRegistry()
	incarnation := mustJoin(t, r, "n")
	for i := range maxMembersNode {
		mustAddFast(t, r, incarnation, consumer("c", "n", i))
	}
	err := r.Add(testContext(t), incarnation, consumer("c", "n", maxMembersNode))
	var limit *LimitError
	if !errors.As(err, &limit) || !errors.Is(err, ErrLimit) || limit.Max != maxMembersNode {
		t.Errorf("one member too many: %v", err)
	}
	mustAdd(t, r, incarnation, consumer("c", "n", 0)) // again is not one more
	for i := range maxNodes - 2 {
		r.table.nodes[fmt.Sprint("filler", i)] = r.table.nodes["n"]
	}
	mustJoin(t, r, "the-last")
	if _, err := r.Join(testContext(t), NodeInfo{Name: "one-too-many"}); !errors.Is(err, ErrLimit) {
		t.Errorf("one node too many: %v", err)
	}
}
