package directory

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A lease of 10 s ticks every second, and no step counts for more than two of them.
const testLease = 10 * time.Second

// pass lets time go by in steps that all count.
func (t *table) pass(d time.Duration) {
	for d > 0 {
		step := min(d, t.lease/ticks)
		t.advance(t.clock + step)
		d -= step
	}
}

func tableWith(t *testing.T, names ...string) (*table, *holder, []uint64) {
	t.Helper()
	table := newTable(1, 1000, testLease)
	h := table.attach("a", false)
	var incarnations []uint64
	for _, name := range names {
		incarnation, err := table.join(h, infoOf(name, 0, "mem://"+name))
		if err != nil {
			t.Fatal(err)
		}
		incarnations = append(incarnations, incarnation)
	}
	return table, h, incarnations
}

func (t *table) names() (names []string) {
	for name := range t.nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestALeaseThatIsNotRenewedEnds(t *testing.T) {
	table, h, incarnations := tableWith(t, "n")
	n := incarnations[0]
	if err := table.add(h, n, []Member{consumer("c", "n", 0), consumer("c", "n", 1)}); err != nil {
		t.Fatal(err)
	}
	woken := 0
	f := table.open(table.channels["c"], 0, 0, func() { woken++ })
	f.take(nil, batchLen)

	table.pass(testLease - 1)
	if e, err := table.look("n"); err != nil || e.Lease != 1 || e.Orphan {
		t.Fatalf("just before the end: %+v, %v", e, err)
	}
	if unknown := table.renew(h, []renewal{{"n", n, 7}}); len(unknown) > 0 {
		t.Fatalf("renewal: %v are not known", unknown)
	}
	if e, _ := table.look("n"); e.Lease != testLease || e.Load != 7 {
		t.Errorf("renewed: %+v", e)
	}
	table.pass(testLease)
	if _, err := table.look("n"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("after the end: %v", err)
	}
	if unknown := table.renew(h, []renewal{{"n", n, 7}}); fmt.Sprint(unknown) != "[n]" {
		t.Errorf("a renewal that comes too late: %v are not known", unknown)
	}
	if table.members != 0 || woken == 0 {
		t.Errorf("%d members, %d times woken", table.members, woken)
	}
	var got []string
	for _, e := range f.take(nil, batchLen).events {
		got = append(got, told(e))
	}
	if fmt.Sprint(got) != "[~c/n/0 ~c/n/1]" {
		t.Errorf("told %v", got)
	}
}

// A lease that ended is not a farewell: the same life may come back, with its number, if no later one came.
func TestTheSameLifeMayComeBackAfterItsLease(t *testing.T) {
	table, h, incarnations := tableWith(t, "n")
	n := incarnations[0]
	table.pass(testLease)
	if _, err := table.join(h, infoOf("n", n-1, "mem://n")); !errors.Is(err, ErrStale) {
		t.Errorf("an older life: %v", err)
	}
	if got, err := table.join(h, infoOf("n", n, "mem://n")); got != n || err != nil {
		t.Errorf("the same life: %d, %v", got, err)
	}
	table.pass(testLease)
	if got, err := table.join(table.attach("b", false), infoOf("n", 0, "mem://n")); got <= n || err != nil {
		t.Errorf("a later life: %d, %v", got, err)
	}
	if _, err := table.join(h, infoOf("n", n, "mem://n")); !errors.Is(err, ErrStale) {
		t.Errorf("the first one after it: %v", err)
	}
}

func TestOnlyWhatOthersHoldHasALease(t *testing.T) {
	table, h, _ := tableWith(t, "remote")
	if _, err := table.join(table.here, infoOf("local", 0, "")); err != nil {
		t.Fatal(err)
	}
	if e, _ := table.look("local"); e.Lease != 0 {
		t.Errorf("the lease of a node of this process: %v", e.Lease)
	}
	table.detach(h, h.connection)
	if e, _ := table.look("remote"); e.Lease != testLease || !e.Orphan {
		t.Errorf("an orphan: %+v", e)
	}
	table.pass(testLease)
	if got := fmt.Sprint(table.names()); got != "[local]" {
		t.Errorf("left are %s", got)
	}
}

func TestLeasesEndInTheOrderOfTheirRenewals(t *testing.T) {
	table, h, incarnations := tableWith(t, "a", "b", "c", "d")
	for i, name := range []string{"c", "a", "d"} {
		table.pass(time.Second)
		at := map[string]int{"a": 0, "c": 2, "d": 3}[name]
		if unknown := table.renew(h, []renewal{{name, incarnations[at], uint32(i)}}); len(unknown) > 0 {
			t.Fatalf("%v are not known", unknown)
		}
	}
	if err := table.leave(h, "a", incarnations[0]); err != nil { // out of the middle
		t.Fatal(err)
	}
	for _, want := range []string{"[c d]", "[d]", "[d]", "[]"} {
		if d := table.patience(); d <= 0 || d > testLease/ticks {
			t.Errorf("patience of %v", d)
		}
		if table.now < testLease {
			table.pass(testLease - table.now)
		} else {
			table.pass(time.Second)
		}
		if got := fmt.Sprint(table.names()); got != want {
			t.Errorf("at %v: %s are there, want %s", table.now, got, want)
		}
	}
	if table.leases.first != nil || table.leases.last != nil {
		t.Error("leases are left over")
	}
}

// Who stopped the directory's process for an hour did not end any node.
func TestTimeInWhichTheDirectoryStoodStillDoesNotCount(t *testing.T) {
	table, h, incarnations := tableWith(t, "n")
	table.pass(time.Second)
	table.advance(table.clock + time.Hour)
	if e, err := table.look("n"); err != nil || e.Lease != testLease-3*time.Second {
		t.Errorf("after a standstill: %+v, %v", e, err)
	}
	table.advance(table.clock) // time may stand still
	if unknown := table.renew(h, []renewal{{"n", incarnations[0], 0}}); len(unknown) > 0 {
		t.Errorf("%v are not known", unknown)
	}
	table.pass(testLease)
	if len(table.nodes) != 0 {
		t.Error("the lease did not end")
	}
}

func TestWhileWarmingUpNobodyIsUnknown(t *testing.T) {
	table := newTable(1, 1000, testLease)
	table.warm = testLease
	table.pass(time.Second)
	for what, err := range map[string]error{
		"look":  func() error { _, err := table.look("n"); return err }(),
		"evict": table.evict("n", 0, false),
	} {
		var e *WarmingError
		if !errors.As(err, &e) || !errors.Is(err, ErrWarming) || errors.Is(err, ErrUnknownNode) || e.What != "node n" || e.Remaining != 9*time.Second {
			t.Errorf("%s: %v", what, err)
		}
	}
	f := table.open(table.channel("c"), 0, 0, func() {})
	if events := f.take(nil, batchLen).events; len(events) != 1 || events[0].Kind != Synced || events[0].Warming != 9*time.Second {
		t.Errorf("a watch begins with %+v", events)
	}
	if d := table.status().Warming; d != 9*time.Second {
		t.Errorf("status says %v", d)
	}
	if _, err := table.join(table.attach("a", false), infoOf("n", 500, "")); err != nil {
		t.Errorf("registering again: %v", err)
	}
	if _, err := table.look("n"); err != nil {
		t.Errorf("who has registered again: %v", err)
	}
	table.pass(9 * time.Second)
	if _, err := table.look("m"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestEvict(t *testing.T) {
	table, h, incarnations := tableWith(t, "n")
	n := incarnations[0]
	if err := table.evict("n", n, false); !errors.Is(err, ErrLive) {
		t.Errorf("a live node: %v", err)
	}
	if err := table.evict("n", n+1, true); !errors.Is(err, ErrStale) {
		t.Errorf("another incarnation: %v", err)
	}
	if err := table.evict("m", 0, true); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("nobody: %v", err)
	}
	if err := table.evict("a b", 0, true); !errors.Is(err, ErrInvalid) {
		t.Errorf("no name: %v", err)
	}
	if err := table.evict("n", 0, true); err != nil || len(table.nodes) != 0 {
		t.Errorf("by force: %v", err)
	}
	if _, err := table.join(h, infoOf("n", n, "mem://n")); !errors.Is(err, ErrStale) {
		t.Errorf("the evicted life comes back: %v", err)
	}
	if _, err := table.join(h, infoOf("o", 0, "")); err != nil {
		t.Fatal(err)
	}
	table.detach(h, h.connection)
	if err := table.evict("o", 0, false); err != nil || len(table.nodes) != 0 {
		t.Errorf("an orphan: %v", err)
	}
}

func TestRegistryConfig(t *testing.T) {
	for _, lease := range []time.Duration{-1, MinLease - 1, MaxLease + 1} {
		if _, err := OpenRegistry(RegistryConfig{Lease: lease}); !errors.Is(err, ErrInvalid) {
			t.Errorf("lease %v: %v", lease, err)
		}
	}
	r, err := OpenRegistry(RegistryConfig{Lease: MinLease, WarmUp: true})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := r.Status(testContext(t)); err != nil || s.Lease != MinLease || s.Warming == 0 || s.Warming > MinLease {
		t.Errorf("status %+v, %v", s, err)
	}
}

// A client renews what it holds for as long as it likes, and reports loads on the way; when it stops, the lease ends
// and watchers are told, although nobody asks the directory for anything.
func TestClientRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := OpenRegistry(RegistryConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s := mustServe(t, r, memAddr())
		c, err := Dial(t.Context(), s.Addr(), Options{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		incarnation, err := c.Join(t.Context(), NodeInfo{Name: "n"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Report(t.Context(), "n", incarnation, 42); err != nil {
			t.Fatal(err)
		}
		nodes, err := r.WatchNodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		expect(t, nodes, "+/n/0", "synced")
		time.Sleep(20 * DefaultLease)
		if e, err := r.Lookup(t.Context(), "n"); err != nil || e.Load != 42 || e.Lease < DefaultLease*6/10 || e.Orphan {
			t.Errorf("after twenty leases: %+v, %v", e, err)
		}
		c.Close()
		began := time.Now()
		if e, err := nodes.Next(t.Context()); err != nil || told(e) != "~/n/0" {
			t.Errorf("told %v, %v", e, err)
		}
		if d := time.Since(began); d < DefaultLease*6/10 || d > DefaultLease {
			t.Errorf("the lease ended %v after the connection", d)
		}
		s.Close()
	})
}

// What the directory let go while its client was away is registered again, in the same life.
func TestClientRegistersAgainAfterItsLease(t *testing.T) {
	var hand atomic.Int64
	r := newRegistry(newTable(1, 1000, 300*time.Millisecond), func() time.Duration { return time.Duration(hand.Load()) })
	c := mustDial(t, mustServe(t, r, memAddr()).Addr(), testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	w := mustWatch(t, r, "c")
	expect(t, w, "+c/n/0", "synced")
	for ctx := testContext(t); ; { // faster than it renews, at some point
		hand.Add(int64(30 * time.Millisecond))
		if _, err := r.Node(ctx, "n"); errors.Is(err, ErrUnknownNode) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	events := expect(t, w, "~c/n/0", "+c/n/0")
	if events[1].Node.Incarnation != incarnation {
		t.Errorf("came back as %v", events[1].Node)
	}
	mustAdd(t, c, incarnation, consumer("c", "n", 1))
	expect(t, w, "+c/n/1")
}

// An evicted node is told at its next renewal, and not registered again.
func TestEvictedNodeIsLost(t *testing.T) {
	r := NewRegistry()
	lost := make(chan error, 1)
	opts := testOptions()
	opts.Lost = func(node NodeInfo, err error) { lost <- err }
	c := mustDial(t, mustServe(t, r, memAddr()).Addr(), opts)
	operator := mustDial(t, mustServe(t, r, memAddr()).Addr(), testOptions())
	mustJoin(t, c, "n")
	if err := operator.Evict(testContext(t), "n", 0, false); !errors.Is(err, ErrLive) {
		t.Errorf("a live node: %v", err)
	}
	if err := operator.Evict(testContext(t), "n", 0, true); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-lost:
		if !errors.Is(err, ErrStale) {
			t.Errorf("lost with %v", err)
		}
	case <-testContext(t).Done():
		t.Fatal("nothing was told")
	}
	if _, err := r.Node(testContext(t), "n"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("afterwards: %v", err)
	}
}
