package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// With every directory gone, what was heard before is told as such, at once; and what was not heard is refused at once.
func TestLookUpsWithoutADirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, addr := t.Context(), memAddr()
		r := NewRegistry()
		s := mustServe(t, r, addr)
		c, err := Dial(ctx, addr, Options{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustPlace(t, r)
		w, err := c.Watch(ctx, "c")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, w, "+c/n0/0", "+c/n1/0", "+c/n2/0", "+c/n0/0", "+c/n1/0", "+c/n2/0", "synced")
		if e, err := c.Lookup(ctx, "n1"); err != nil || e.Stale || e.Age != 0 || e.Load != 10 {
			t.Errorf("with a directory: %+v, %v", e, err)
		}
		if all, err := c.Roster(ctx, "", 0); err != nil || len(all.Candidates) != 3 {
			t.Errorf("all nodes: %+v, %v", all, err)
		}
		time.Sleep(time.Second)
		s.Close()
		synctest.Wait() // until the client knows
		time.Sleep(time.Minute)
		began := time.Now()

		e, err := c.Lookup(ctx, "n1")
		if err != nil || !e.Stale || e.Age < 61*time.Second || e.Age > 62*time.Second || e.Load != 10 || e.Node.Zone != "eu" {
			t.Errorf("a node: %+v, %v", e, err)
		}
		roster, err := c.Roster(ctx, "c", Consumer) // of a channel that is watched
		if err != nil || !roster.Stale || roster.Age != time.Minute || len(roster.Candidates) != 3 || roster.Candidates[2].Load != 20 {
			t.Errorf("a watched channel: %+v, %v", roster, err)
		}
		if all, err := c.Roster(ctx, "", 0); err != nil || !all.Stale || len(all.Candidates) != 3 {
			t.Errorf("all nodes: %+v, %v", all, err)
		}
		got := ""
		for range 4 {
			choice, err := c.Choose(ctx, Query{Channel: "c", Role: Producer})
			if err != nil || !choice.Stale || choice.Age != time.Minute {
				t.Errorf("a choice: %+v, %v", choice, err)
			}
			got += choice.Node.Name + " "
		}
		if got != "n0 n1 n2 n0 " {
			t.Errorf("chosen %s", got)
		}
		if choice, err := c.Choose(ctx, Query{Channel: "c", Role: Consumer, Policy: Nearest, Zone: "us"}); err != nil || choice.Node.Name != "n2" {
			t.Errorf("the nearest: %+v, %v", choice, err)
		}
		for name, call := range map[string]func() error{
			"a node's present state": func() error { _, err := c.Node(ctx, "n1"); return err },
			"a node never heard of":  func() error { _, err := c.Lookup(ctx, "other"); return err },
			"another channel":        func() error { _, err := c.Roster(ctx, "d", 0); return err },
			"a choice there":         func() error { _, err := c.Choose(ctx, Query{Channel: "d"}); return err },
			"members":                func() error { _, err := c.Members(ctx, "c"); return err },
			"status":                 func() error { _, err := c.Status(ctx); return err },
		} {
			var e *UnavailableError
			if err := call(); !errors.As(err, &e) || e.Addr != addr || e.Err == nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("all that took %v", d)
		}
		if _, err := c.Join(ctx, NodeInfo{Name: "late"}); !errors.Is(err, ErrUnavailable) || time.Since(began) != 5*time.Second {
			t.Errorf("a change: %v after %v", err, time.Since(began))
		}

		again := mustServe(t, r, addr)
		defer again.Close()
		time.Sleep(2 * maxBackoff)
		if e, err := c.Lookup(ctx, "n1"); err != nil || e.Stale {
			t.Errorf("with a directory again: %+v, %v", e, err)
		}
	})
}

// A node that left is not told from memory.
func TestWhoHasGoneIsForgotten(t *testing.T) {
	r, addr := NewRegistry(), memAddr()
	s := mustServe(t, r, addr)
	c := mustDial(t, addr, testOptions())
	nodes, err := c.WatchNodes(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer nodes.Close()
	a, b := mustJoin(t, r, "a"), mustJoin(t, r, "b")
	expect(t, nodes, "synced", "+/a/0", "+/b/0")
	if _, err := c.Lookup(testContext(t), "b"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Leave(testContext(t), "a", a), r.Leave(testContext(t), "b", b)); err != nil {
		t.Fatal(err)
	}
	expect(t, nodes, "-/a/0")
	if _, err := c.Lookup(testContext(t), "b"); !errors.Is(err, ErrUnknownNode) { // before the watcher says so
		t.Errorf("b: %v", err)
	}
	s.Close()
	awaitGone(t, c)
	for _, name := range []string{"a", "b"} {
		if e, err := c.Lookup(testContext(t), name); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// A directory that has lost its table knows less than its clients remember.
func TestMemoryOutlivesTheTable(t *testing.T) {
	addr, r := memAddr(), NewRegistry()
	first := mustServe(t, r, addr)
	c := mustDial(t, addr, testOptions())
	mustPlace(t, r)
	byKey := Query{Channel: "c", Role: Consumer, Policy: ByKey, Key: []byte("k")}
	before, err := c.Choose(testContext(t), byKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Roster(testContext(t), "c", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lookup(testContext(t), "n0"); err != nil {
		t.Fatal(err)
	}
	first.Close()
	awaitGone(t, c)
	empty, err := OpenRegistry(RegistryConfig{WarmUp: true})
	if err != nil {
		t.Fatal(err)
	}
	mustServe(t, empty, addr)
	if _, err := c.Join(testContext(t), NodeInfo{Name: "here"}); err != nil { // waits for the directory
		t.Fatal(err)
	}
	if _, err := c.Node(testContext(t), "n0"); !errors.Is(err, ErrWarming) {
		t.Errorf("the directory's word: %v", err)
	}
	if e, err := c.Lookup(testContext(t), "n0"); err != nil || !e.Stale || e.Node.Name != "n0" {
		t.Errorf("a node: %+v, %v", e, err)
	}
	if choice, err := c.Choose(testContext(t), byKey); err != nil || !choice.Stale || choice.Member != before.Member {
		t.Errorf("by key: %+v, %v; before it was %v", choice, err, before.Member)
	}
	if _, err := c.Lookup(testContext(t), "never-met"); !errors.Is(err, ErrWarming) {
		t.Errorf("who was never met: %v", err)
	}
}

// Two directories that share their registrations: a client moves on when one ends, and nobody notices.
func TestSeveralDirectories(t *testing.T) {
	r := NewRegistry()
	addrs := []string{memAddr(), memAddr(), memAddr()}
	servers := []*Server{nil, mustServe(t, r, addrs[1]), mustServe(t, r, addrs[2])}
	c := mustDial(t, strings.Join(addrs, ", "), testOptions())
	at := func() string {
		t.Helper()
		s, err := c.Status(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return s.Addr
	}
	if got := at(); got != addrs[1] {
		t.Errorf("connected to %s, the first one that is there is %s", got, addrs[1])
	}
	incarnation := mustJoin(t, c, "n")
	w := mustWatch(t, c, "c")
	expect(t, w, "synced")
	watching := mustWatch(t, r, "c")
	expect(t, watching, "synced")
	for round := range 6 {
		from, to := 1+round%2, 1+(round+1)%2
		servers[from].Close()
		mustAdd(t, c, incarnation, consumer("c", "n", round))
		expect(t, w, fmt.Sprintf("+c/n/%d", round))
		expect(t, watching, fmt.Sprintf("+c/n/%d", round))
		if got := at(); got != addrs[to] {
			t.Errorf("moved to %s, %s is there", got, addrs[to])
		}
		servers[from] = mustServe(t, r, addrs[from])
	}
	if e, err := r.Lookup(testContext(t), "n"); err != nil || e.Node.Incarnation != incarnation || e.Orphan {
		t.Errorf("in the end: %+v, %v", e, err)
	}
}

// One that accepts connections and says nothing does not hide those behind it.
func TestADirectoryThatHangsIsPassedBy(t *testing.T) {
	hangs := mute(t, func(int, *request) *reply { return nil })
	good := mustServe(t, NewRegistry(), memAddr()).Addr()
	opts := testOptions()
	opts.Timeout = 500 * time.Millisecond
	c := mustDial(t, hangs+","+good, opts)
	if s, err := c.Status(testContext(t)); err != nil || s.Addr != good {
		t.Errorf("connected to %q, %v", s.Addr, err)
	}
}

func TestAllDirectoriesAreNamedWhenNoneAnswers(t *testing.T) {
	a, b := memAddr(), memAddr()
	opts := testOptions()
	opts.Timeout = 50 * time.Millisecond
	_, err := Dial(testContext(t), a+","+b, opts)
	if !errors.Is(err, ErrUnavailable) || strings.Count(err.Error(), a) < 2 || strings.Count(err.Error(), b) < 2 {
		t.Errorf("dial: %v", err)
	}
	for _, bad := range []string{"", ",", "mem://a,", "somewhere", "udp://127.0.0.1:1", "mem://a,tcp://127.0.0.1:65536", strings.Repeat("mem://a,", maxAddrs) + "mem://a"} {
		if _, err := Dial(testContext(t), bad, opts); !errors.Is(err, ErrInvalid) {
			t.Errorf("dial %q: %v", bad, err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	c := newCache()
	now := time.Now()
	for i := range maxCache + 10 {
		c.putNode(Entry{Node: NodeInfo{Name: fmt.Sprint(i)}}, now)
	}
	if len(c.nodes) != maxCache {
		t.Errorf("%d nodes, bound is %d", len(c.nodes), maxCache)
	}
	for i := range 100 {
		c.putRoster(pooled{channel: fmt.Sprint(i % 50)}, make([]Candidate, maxCacheRoster/10), now)
	}
	sum := 0
	for _, r := range c.rosters {
		sum += len(r.list)
	}
	if sum > maxCacheRoster || sum < maxCacheRoster*8/10 || sum != c.rostered {
		t.Errorf("%d candidates, counted %d, bound is %d", sum, c.rostered, maxCacheRoster)
	}
	c.putRoster(pooled{channel: "large"}, make([]Candidate, maxCacheRoster+1), now)
	if c.rosters[pooled{channel: "large"}] != nil {
		t.Error("one that is too large is remembered")
	}
}

// The context's end is told as such, also without a directory.
func TestContextEndsBeforeTheDirectoryIsBack(t *testing.T) {
	addr := memAddr()
	s := mustServe(t, NewRegistry(), addr)
	c := mustDial(t, addr, testOptions())
	s.Close()
	awaitGone(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Lookup(ctx, "n"); !errors.Is(err, context.Canceled) {
		t.Errorf("a look-up: %v", err)
	}
}

// A directory that comes back with nothing knows everybody again within a third of a lease, however long it was away and
// whatever the lease.
func TestNodesRegisterAgainWithinAThirdOfALease(t *testing.T) {
	for _, lease := range []time.Duration{DefaultLease, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ctx, addr := t.Context(), memAddr()
			start := func() (*Registry, *Server) {
				r, err := OpenRegistry(RegistryConfig{Lease: lease, WarmUp: true})
				if err != nil {
					t.Fatal(err)
				}
				return r, mustServe(t, r, addr)
			}
			_, s := start()
			const clients = 20
			for i := range clients {
				c, err := Dial(ctx, addr, Options{Logger: quiet})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				name := fmt.Sprint("n", i)
				incarnation, err := c.Join(ctx, NodeInfo{Name: name})
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Add(ctx, incarnation, consumer("c", name, 0)); err != nil {
					t.Fatal(err)
				}
			}
			for _, away := range []time.Duration{0, 100 * time.Millisecond, time.Minute} {
				s.Close()
				time.Sleep(away)
				r, again := start()
				s = again
				time.Sleep(lease / 3)
				if list, err := r.Members(ctx, "c"); err != nil || len(list) != clients {
					t.Errorf("a third of %v after %v: %d members, %v", lease, away, len(list), err)
				}
				if _, err := r.Node(ctx, "nobody"); !errors.Is(err, ErrWarming) { // until the lease is over
					t.Errorf("somebody who is not there: %v", err)
				}
				time.Sleep(lease - lease/3)
				if _, err := r.Node(ctx, "nobody"); !errors.Is(err, ErrUnknownNode) {
					t.Errorf("a lease later: %v", err)
				}
			}
			s.Close()
		})
	}
}
