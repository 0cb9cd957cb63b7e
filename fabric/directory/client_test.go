package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

var addresses atomic.Uint64

// memAddr is an address of this process that no other test has.
func memAddr() string { return fmt.Sprintf("mem://directory-test-%d", addresses.Add(1)) }

var quiet = slog.New(slog.DiscardHandler)

func mustServe(t *testing.T, r *Registry, addr string) *Server {
	t.Helper()
	s, err := Serve(testContext(t), r, addr, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// testOptions: signs of life often, so that tests meet them; grace for longer than any test.
func testOptions() Options {
	return Options{Timeout: 5 * time.Second, Heartbeat: 20 * time.Millisecond, Grace: time.Hour, Logger: quiet}
}

func mustDial(t *testing.T, addr string, opts Options) *Client {
	t.Helper()
	c, err := Dial(testContext(t), addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// await waits, by watching the table itself, until a channel has just these members.
func await(t *testing.T, r *Registry, channel string, want ...string) {
	t.Helper()
	w := mustWatch(t, r, channel)
	defer w.Close()
	there := map[string]bool{}
	for {
		e, err := w.Next(testContext(t))
		if err != nil {
			t.Fatalf("waiting for %v: %v, there is %v", want, err, there)
		}
		switch e.Kind {
		case Added:
			there[e.Member.String()] = true
		case Removed:
			delete(there, e.Member.String())
		}
		same := len(there) == len(want)
		for _, m := range want {
			same = same && there[m]
		}
		if same {
			return
		}
	}
}

// awaitGone waits until the client knows that it has no connection.
func awaitGone(t *testing.T, c *Client) {
	t.Helper()
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return
	}
	select {
	case <-conn.broken:
	case <-testContext(t).Done():
		t.Fatal("the connection did not break")
	}
}

// What a Service promises, held against both.
func TestService(t *testing.T) {
	services := map[string]func(t *testing.T) Service{
		"registry": func(t *testing.T) Service { return NewRegistry() },
		"client over mem": func(t *testing.T) Service {
			return mustDial(t, mustServe(t, NewRegistry(), memAddr()).Addr(), testOptions())
		},
		"client over tcp": func(t *testing.T) Service {
			return mustDial(t, mustServe(t, NewRegistry(), "tcp://127.0.0.1:0").Addr(), testOptions())
		},
		"client of a table that is shared": func(t *testing.T) Service {
			return mustDial(t, mustServe(t, mustShare(t, newMemoryShared()), memAddr()).Addr(), testOptions())
		},
	}
	for name, service := range services {
		t.Run(name, func(t *testing.T) { testService(t, service(t)) })
		t.Run(name+", choices", func(t *testing.T) { testChoices(t, service(t)) })
	}
}

func testService(t *testing.T, s Service) {
	ctx := testContext(t)
	w := mustWatch(t, s, "c")
	expect(t, w, "synced")
	a := mustJoin(t, s, "a")
	b := mustJoin(t, s, "b")
	if a == 0 || b == 0 {
		t.Errorf("incarnations %d, %d", a, b)
	}
	if _, err := s.Join(ctx, NodeInfo{Name: "a", Endpoint: "mem://elsewhere"}); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a name that is taken: %v", err)
	} else if e := new(NameTakenError); !errors.As(err, &e) || e.Name != "a" || e.Endpoint != "mem://a" {
		t.Errorf("a name that is taken: %#v", err)
	}
	if again, err := s.Join(ctx, infoOf("a", a, "mem://a")); err != nil || again != a {
		t.Errorf("the same life again: %d, %v", again, err)
	}
	mustAdd(t, s, a, consumer("c", "a", 0), Member{"c", Producer, "a", 0})
	mustAdd(t, s, b, consumer("c", "b", 3), consumer("d", "b", 0))
	events := expect(t, w, "+c/a/0", "+c/a/0", "+c/b/3")
	if events[0].Member.Role != Consumer || events[1].Member.Role != Producer {
		t.Errorf("roles: %v", events)
	}
	if want := infoOf("b", b, "mem://b"); events[2].Node != want {
		t.Errorf("node of an event: %v", events[2].Node)
	}
	late := mustWatch(t, s, "c")
	expect(t, late, "+c/a/0", "+c/a/0", "+c/b/3", "synced")

	members, err := s.Members(ctx, "c")
	if err != nil || fmt.Sprint(members) != "[c/a/0 c/a/0 c/b/3]" || members[0].Role != Producer || members[0].Channel != "c" {
		t.Errorf("members: %v, %v", members, err)
	}
	if list, err := s.Members(ctx, "unknown"); err != nil || len(list) != 0 {
		t.Errorf("members of an unknown channel: %v, %v", list, err)
	}
	if list, err := s.Channels(ctx); err != nil || fmt.Sprint(list) != "[c d]" {
		t.Errorf("channels: %v, %v", list, err)
	}
	if list, err := s.Nodes(ctx); err != nil || len(list) != 2 || list[1] != infoOf("b", b, "mem://b") {
		t.Errorf("nodes: %v, %v", list, err)
	}
	if info, err := s.Node(ctx, "a"); err != nil || info != infoOf("a", a, "mem://a") {
		t.Errorf("node: %v, %v", info, err)
	}
	if _, err := s.Node(ctx, "unknown"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("unknown node: %v", err)
	}
	for what, err := range map[string]error{
		"add with another incarnation":    s.Add(ctx, a+1, consumer("c", "a", 1)),
		"remove with another incarnation": s.Remove(ctx, a-1, consumer("c", "a", 0)),
		"leave with another incarnation":  s.Leave(ctx, "a", a+1),
	} {
		if e := new(StaleError); !errors.Is(err, ErrStale) || !errors.As(err, &e) || e.Current != a || e.Node != "a" || e.Incarnation == a {
			t.Errorf("%s: %#v", what, err)
		}
	}
	if err := s.Add(ctx, a, consumer("c", "unknown", 1)); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("add for an unknown node: %v", err)
	}
	if err := s.Add(ctx, a, consumer("c c", "a", 1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("add to a channel with a bad name: %v", err)
	}
	if _, err := s.Watch(ctx, "c/c"); !errors.Is(err, ErrInvalid) {
		t.Errorf("watch of a channel with a bad name: %v", err)
	}
	mustRemove(t, s, a, consumer("c", "a", 0), consumer("c", "a", 99))
	if err := s.Leave(ctx, "b", b); err != nil {
		t.Fatal(err)
	}
	if err := s.Leave(ctx, "b", b); err != nil {
		t.Errorf("leaving again: %v", err)
	}
	expect(t, w, "-c/a/0", "-c/b/3")
	expect(t, late, "-c/a/0", "-c/b/3")
	if again := mustJoin(t, s, "b"); again <= b {
		t.Errorf("the later life got %d after %d", again, b)
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Nodes(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := w.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("next with an ended context: %v", err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := late.Next(context.Background())
		waiting <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("next when the service closes: %v", err)
	}
	if _, err := s.Nodes(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := s.Join(ctx, NodeInfo{Name: "z"}); !errors.Is(err, ErrClosed) {
		t.Errorf("join after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestListsLongerThanAPageAndManyMembersAtOnce(t *testing.T) {
	r := NewRegistry()
	c := mustDial(t, mustServe(t, r, memAddr()).Addr(), testOptions())
	ctx := testContext(t)
	const n = 3*batchLen + 7
	incarnation := mustJoin(t, c, "n")
	var all []Member
	for i := range n {
		all = append(all, consumer("c", "n", i))
	}
	mustAdd(t, c, incarnation, all...)
	for i := range n {
		name := fmt.Sprintf("other%04d", i)
		inc := mustJoin(t, r, name)
		mustAdd(t, r, inc, consumer(name, name, 0))
	}
	members, err := c.Members(ctx, "c")
	if err != nil || len(members) != n || members[n-1] != all[n-1] || members[batchLen] != all[batchLen] {
		t.Errorf("%d members, %v", len(members), err)
	}
	nodes, err := c.Nodes(ctx)
	if err != nil || len(nodes) != n+1 || nodes[n].Name != fmt.Sprintf("other%04d", n-1) {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
	channels, err := c.Channels(ctx)
	if err != nil || len(channels) != n+1 || channels[0] != "c" {
		t.Errorf("%d channels, %v", len(channels), err)
	}
	w := mustWatch(t, c, "c")
	for i := range n {
		if e, err := w.Next(ctx); err != nil || e.Kind != Added || e.Member != all[i] {
			t.Fatalf("event %d: %v, %v", i, e, err)
		}
	}
	expect(t, w, "synced")
	mustRemove(t, c, incarnation, all[1:]...)
	for i := 1; i < n; i++ {
		if e, err := w.Next(ctx); err != nil || e.Kind != Removed || e.Member != all[i] {
			t.Fatalf("event %d: %v, %v", i, e, err)
		}
	}
	expectQuiet(t, c, incarnation, consumer("c", "n", 0x7fffffff), w)
}

// The client's side of a restart: the directory comes back empty, and nobody notices.
func TestDirectoryComesBackEmpty(t *testing.T) {
	addr := memAddr()
	first := mustServe(t, NewRegistry(), addr)
	a, b := mustDial(t, addr, testOptions()), mustDial(t, addr, testOptions())
	incA, incB := mustJoin(t, a, "a"), mustJoin(t, b, "b")
	mustAdd(t, a, incA, consumer("c", "a", 0), consumer("c", "a", 1))
	mustAdd(t, b, incB, consumer("c", "b", 0))
	w := mustWatch(t, b, "c")
	expect(t, w, "+c/a/0", "+c/a/1", "+c/b/0", "synced")
	first.Close()
	awaitGone(t, a)

	// Meanwhile a member is given up. The call may find no directory, but it holds.
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := a.Remove(short, incA, consumer("c", "a", 1)); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("remove without a directory: %v", err)
	}

	r := NewRegistry()
	mustServe(t, r, addr)
	await(t, r, "c", "c/a/0", "c/b/0")
	if info, err := r.Node(testContext(t), "a"); err != nil || info != infoOf("a", incA, "mem://a") {
		t.Errorf("registered again as %v, %v", info, err)
	}
	expectQuiet(t, b, incB, consumer("c", "b", 99), w) // c/a/1 stays in doubt: grace is long
	mustAdd(t, a, incA, consumer("c", "a", 2))
	expect(t, w, "+c/a/2")
	if list, err := r.Members(testContext(t), "c"); err != nil || fmt.Sprint(list) != "[c/a/0 c/a/2 c/b/0]" {
		t.Errorf("at the directory: %v, %v", list, err)
	}
}

func TestWhatDoesNotRegisterAgainIsToldAfterGrace(t *testing.T) {
	addr := memAddr()
	first := mustServe(t, NewRegistry(), addr)
	opts := testOptions()
	opts.Grace = 300 * time.Millisecond
	gone, b := mustDial(t, addr, opts), mustDial(t, addr, opts)
	mustAdd(t, gone, mustJoin(t, gone, "gone"), consumer("c", "gone", 0))
	incB := mustJoin(t, b, "b")
	mustAdd(t, b, incB, consumer("c", "b", 0))
	w := mustWatch(t, b, "c")
	expect(t, w, "+c/b/0", "+c/gone/0", "synced")
	first.Close()
	gone.Close()
	mustServe(t, NewRegistry(), addr)
	expect(t, w, "~c/gone/0")
	expectQuiet(t, b, incB, consumer("c", "b", 99), w)
}

// A watcher follows over a restart of the server, the table being the same: what changed meanwhile is told, once.
func TestWatchHasNoGapOverAServerRestart(t *testing.T) {
	for name, changes := range map[string]int{"within the history": 10, "beyond the history": historyLen + 10} {
		t.Run(name, func(t *testing.T) {
			addr := memAddr()
			r := NewRegistry()
			first := mustServe(t, r, addr)
			here := mustJoin(t, r, "here")
			mustAdd(t, r, here, consumer("c", "here", 0), consumer("c", "here", 1))
			c := mustDial(t, addr, testOptions())
			w := mustWatch(t, c, "c")
			expect(t, w, "+c/here/0", "+c/here/1", "synced")
			first.Close()
			mustRemove(t, r, here, consumer("c", "here", 0))
			mustAdd(t, r, here, consumer("c", "here", 2))
			for range changes {
				mustAdd(t, r, mustJoin(t, r, "other"), consumer("d", "other", 0)) // must not count
				nodes, _ := r.Node(testContext(t), "other")
				if err := r.Leave(testContext(t), "other", nodes.Incarnation); err != nil {
					t.Fatal(err)
				}
				mustAdd(t, r, here, consumer("c", "here", 1))
				mustRemove(t, r, here, consumer("c", "here", 2))
				mustAdd(t, r, here, consumer("c", "here", 2))
			}
			mustServe(t, r, addr)
			last := consumer("c", "here", 3)
			mustAdd(t, r, here, last)
			state := map[Member]bool{consumer("c", "here", 0): true, consumer("c", "here", 1): true}
			for !state[last] {
				e, err := w.Next(testContext(t))
				if err != nil {
					t.Fatal(err)
				}
				if state[e.Member] == (e.Kind == Added) {
					t.Fatalf("%s told twice", told(e))
				}
				state[e.Member] = e.Kind == Added
			}
			for i, want := range []bool{false, true, true, true} {
				if state[consumer("c", "here", i)] != want {
					t.Errorf("c/here/%d told %v, is %v", i, !want, want)
				}
			}
		})
	}
}

// A connection that breaks, with the directory living on, is seen by nobody.
func TestBrokenConnectionIsSeenByNobody(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	c := mustDial(t, s.Addr(), testOptions())
	watcher := mustWatch(t, r, "c")
	expect(t, watcher, "synced")
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	w := mustWatch(t, c, "c")
	expect(t, w, "+c/n/0", "synced")
	expect(t, watcher, "+c/n/0")
	for i := range 5 {
		s.mu.Lock()
		for session := range s.sessions {
			session.conn.Close()
		}
		s.mu.Unlock()
		mustAdd(t, c, incarnation, consumer("c", "n", i+1))
		expect(t, w, fmt.Sprintf("+c/n/%d", i+1))
		expect(t, watcher, fmt.Sprintf("+c/n/%d", i+1))
	}
	if got, err := r.Node(testContext(t), "n"); err != nil || got.Incarnation != incarnation {
		t.Errorf("node: %v, %v", got, err)
	}
}

func TestOrphanIsTakenOver(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	w := mustWatch(t, r, "c")
	expect(t, w, "synced")
	old := mustDial(t, s.Addr(), testOptions())
	first := mustJoin(t, old, "n")
	mustAdd(t, old, first, consumer("c", "n", 0))
	expect(t, w, "+c/n/0")
	old.Close()

	successor := mustDial(t, s.Addr(), testOptions())
	var second uint64
	for ctx := testContext(t); ; { // until the end of the connection has shown at the server
		var err error
		if second, err = successor.Join(ctx, NodeInfo{Name: "n", Endpoint: "mem://2"}); err == nil {
			break
		} else if !errors.Is(err, ErrNameTaken) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if second <= first {
		t.Errorf("incarnation %d after %d", second, first)
	}
	mustAdd(t, successor, second, consumer("c", "n", 0))
	events := expect(t, w, "-c/n/0", "+c/n/0")
	if events[0].Node.Incarnation != first || events[1].Node != infoOf("n", second, "mem://2") {
		t.Errorf("events: %v", events)
	}
}

// Who was replaced while it could not reach the directory is told, and is not registered again.
func TestReplacedNodeIsLost(t *testing.T) {
	for name, successor := range map[string]uint64{"by a later life": 1 << 50, "by another node": 1} {
		t.Run(name, func(t *testing.T) {
			addr := memAddr()
			first := mustServe(t, NewRegistry(), addr)
			lost := make(chan error, 1)
			opts := testOptions()
			opts.Lost = func(node NodeInfo, err error) { lost <- fmt.Errorf("%s: %w", node.Name, err) }
			c := mustDial(t, addr, opts)
			incarnation := mustJoin(t, c, "n")
			mustAdd(t, c, incarnation, consumer("c", "n", 0))
			kept := mustJoin(t, c, "kept")
			mustAdd(t, c, kept, consumer("c", "kept", 0))
			first.Close()

			r := NewRegistry()
			if _, err := r.Join(testContext(t), infoOf("n", successor, "mem://2")); err != nil {
				t.Fatal(err)
			}
			mustServe(t, r, addr)
			want := ErrNameTaken
			if successor > incarnation {
				want = ErrStale
			}
			select {
			case err := <-lost:
				if !errors.Is(err, want) {
					t.Errorf("lost with %v, want %v", err, want)
				}
			case <-testContext(t).Done():
				t.Fatal("nothing was told")
			}
			await(t, r, "c", "c/kept/0")
			if err := c.Add(testContext(t), incarnation, consumer("c", "n", 1)); !errors.Is(err, ErrStale) {
				t.Errorf("add for the replaced node: %v", err)
			}
		})
	}
}
