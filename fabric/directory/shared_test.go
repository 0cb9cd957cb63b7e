package directory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shares serves two directories that share a store.
func shares(t *testing.T, store Shared) (first, second *Registry, addrs [2]string) {
	t.Helper()
	first, second = mustShare(t, store), mustShare(t, store)
	return first, second, [2]string{mustServe(t, first, memAddr()).Addr(), mustServe(t, second, memAddr()).Addr()}
}

// What one directory was told all of them know, at once, and whoever asks.
func TestSharedTableIsOne(t *testing.T) {
	first, second, addrs := shares(t, newMemoryShared())
	a, b := mustDial(t, addrs[0], testOptions()), mustDial(t, addrs[1], testOptions())
	w := mustWatch(t, b, "c")
	expect(t, w, "synced")
	for i := range 50 { // any of these would meet a directory that is late
		name := fmt.Sprint("n", i)
		incarnation := mustJoin(t, a, name)
		if info, err := b.Node(testContext(t), name); err != nil || info.Incarnation != incarnation {
			t.Fatalf("at the other directory: %v, %v", info, err)
		}
		if _, err := b.Join(testContext(t), NodeInfo{Name: name}); !errors.Is(err, ErrNameTaken) {
			t.Fatalf("a name taken at the other directory: %v", err)
		}
		mustAdd(t, a, incarnation, consumer("c", name, 0))
		expect(t, w, "+c/"+name+"/0")
		if err := a.Leave(testContext(t), name, incarnation); err != nil {
			t.Fatal(err)
		}
		expect(t, w, "-c/"+name+"/0")
		if _, err := b.Node(testContext(t), name); !errors.Is(err, ErrUnknownNode) {
			t.Fatalf("after it left: %v", err)
		}
		if _, err := b.Join(testContext(t), infoOf(name, incarnation, "mem://"+name)); !errors.Is(err, ErrStale) {
			t.Fatalf("a life that left comes back at the other directory: %v", err)
		}
		if again := mustJoin(t, b, name); again <= incarnation {
			t.Fatalf("the later life got %d after %d", again, incarnation)
		}
	}
	one, err1 := first.Status(testContext(t))
	two, err2 := second.Status(testContext(t))
	if err := errors.Join(err1, err2); err != nil || one != two || one.Nodes != 50 || one.Members != 0 {
		t.Errorf("%+v and %+v, %v", one, two, err)
	}
}

// A watcher that goes from one directory to another goes on where it was, if the other was there.
func TestSharedPositions(t *testing.T) {
	store := newMemoryShared()
	first, second, addrs := shares(t, store)
	c := mustDial(t, addrs[0], testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0), consumer("c", "n", 1), consumer("c", "n", 2))
	wake := func() {}
	at, err := first.open("c", 0, 0, wake)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.fresh(testContext(t)); err != nil {
		t.Fatal(err)
	}
	keep, err := second.open("c", 0, 0, wake)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = second.take(keep, nil, batchLen)
	b, err := first.take(at, nil, batchLen)
	if err != nil || len(b.events) != 4 || !b.reset {
		t.Fatalf("%+v, %v", b, err)
	}
	mustAdd(t, c, incarnation, consumer("c", "n", 3), consumer("c", "n", 4), consumer("c", "n", 5)) // at one revision
	for i := range 3 {
		if b, err = first.take(at, nil, 1); err != nil || len(b.events) != 1 || b.reset {
			t.Fatalf("%+v, %v", b, err)
		}
		if err := second.fresh(testContext(t)); err != nil {
			t.Fatal(err)
		}
		on, err := second.open("c", first.table.epoch, b.revision, wake)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := second.take(on, nil, batchLen)
		if err != nil || rest.reset || len(rest.events) != 2-i {
			t.Errorf("after %d of three at one revision: %+v, %v", i+1, rest, err)
		}
	}
	// One that was not there before knows no changes, and says so.
	third := mustShare(t, store)
	on, err := third.open("c", first.table.epoch, b.revision-1, wake)
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := third.take(on, nil, batchLen); err != nil || !rest.reset || len(rest.events) != 7 {
		t.Errorf("at a directory that was not there: %+v, %v", rest, err)
	}
}

// What a directory could not hear, because the store has forgotten it, is told as such: with a snapshot, and no gap.
func TestSharedCompaction(t *testing.T) {
	store := newMemoryShared()
	_, second, addrs := shares(t, store)
	c := mustDial(t, addrs[0], testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0), consumer("c", "n", 1))
	w := mustWatch(t, second, "c")
	expect(t, w, "+c/n/0", "+c/n/1", "synced")
	if err := second.fresh(testContext(t)); err != nil {
		t.Fatal(err)
	}
	f, err := second.open("c", 0, 0, func() {})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = second.take(f, nil, batchLen)
	store.set(func() { store.deaf = true })
	done := make(chan error, 1)
	go func() { done <- c.Remove(context.Background(), incarnation, consumer("c", "n", 0)) }() // its own directory is deaf, too
	for ctx := testContext(t); ; {
		revision, _ := store.Revision(ctx)
		first := second.sharing.replica
		second.mu.Lock()
		late := first.revision < revision
		second.mu.Unlock()
		if late {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("nothing was changed")
		}
	}
	store.compact()
	store.set(func() { store.deaf = false })
	if err := <-done; err != nil {
		t.Error(err)
	}
	expect(t, w, "-c/n/0")
	if b, err := second.take(f, nil, batchLen); err != nil || !b.reset || len(b.events) != 2 {
		t.Errorf("a position from before: %+v, %v", b, err)
	}
	mustAdd(t, c, incarnation, consumer("c", "n", 2))
	expect(t, w, "+c/n/2")
}

// A lease that nobody renews ends, and every directory hears of it; the same life may come back then, an older one not.
func TestSharedLeaseEnds(t *testing.T) {
	store := newMemoryShared()
	first, second, addrs := shares(t, store)
	c := mustDial(t, addrs[0], testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	ws := []Watcher{mustWatch(t, first, "c"), mustWatch(t, second, "c")}
	for _, w := range ws {
		expect(t, w, "+c/n/0", "synced")
	}
	c.Close()
	eventually(t, "an orphan everywhere", func() bool {
		e, err := second.Lookup(testContext(t), "n")
		return err == nil && e.Orphan
	})
	store.set(func() { store.end(second.table.nodes["n"].shared.lease) })
	for _, w := range ws {
		expect(t, w, "~c/n/0")
	}
	d := mustDial(t, addrs[1], testOptions())
	if _, err := d.Join(testContext(t), infoOf("n", incarnation-1, "mem://n")); !errors.Is(err, ErrStale) {
		t.Errorf("an older life: %v", err)
	}
	if again, err := d.Join(testContext(t), infoOf("n", incarnation, "mem://n")); err != nil || again != incarnation {
		t.Errorf("the same life: %d, %v", again, err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for ctx := testContext(t); !holds(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("%s: not yet", what)
		}
	}
}

// Only differences of load by more than a tenth are written, and renewals alone are not.
func TestSharedLoads(t *testing.T) {
	store := newMemoryShared()
	_, second, addrs := shares(t, store)
	c := mustDial(t, addrs[0], testOptions())
	incarnation := mustJoin(t, c, "n")
	told := func(load uint32) func() bool {
		return func() bool {
			e, err := second.Lookup(testContext(t), "n")
			return err == nil && e.Load == load
		}
	}
	for _, load := range []uint32{1000, 2000} {
		if err := c.Report(testContext(t), "n", incarnation, load); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the load at the other directory", told(load))
	}
	for _, c := range []struct {
		told, load uint32
		want       bool
	}{{0, 0, false}, {0, 1, true}, {1, 0, true}, {10, 11, false}, {10, 12, true}, {100, 90, false}, {100, 89, true}, {1 << 31, 0, true}} {
		if got := tells(c.told, c.load); got != c.want {
			t.Errorf("from %d to %d is told: %v", c.told, c.load, got)
		}
	}
	store.mu.Lock()
	wrote := store.wrote
	store.mu.Unlock()
	before, err := second.Lookup(testContext(t), "n")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Report(testContext(t), "n", incarnation, 2001); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * testOptions().Heartbeat) // some renewals, which are to write nothing
	store.mu.Lock()
	defer store.mu.Unlock()
	if store.wrote != wrote || before.Load != 2000 {
		t.Errorf("%d transactions for renewals", store.wrote-wrote)
	}
}

// What a client does not state again, after it came back to another directory, is gone.
func TestSharedSettle(t *testing.T) {
	store := newMemoryShared()
	first, second, _ := shares(t, store)
	ctx := context.Background()
	h, _ := first.attach("id", true)
	infos := []NodeInfo{{Name: "kept", Endpoint: "mem://kept"}, {Name: "gone"}}
	for i := range infos {
		var err error
		if infos[i].Incarnation, err = first.join(h, infos[i]); err != nil {
			t.Fatal(err)
		}
		var members []Member
		for m := range 250 { // some transactions
			members = append(members, consumer("c", infos[i].Name, m))
		}
		if err := first.add(h, infos[i].Incarnation, members); err != nil {
			t.Fatal(err)
		}
	}
	again, _ := second.attach("id", true)
	if err := errors.Join(second.restate(again), func() error { _, err := second.join(again, infos[0]); return err }(),
		second.add(again, infos[0].Incarnation, []Member{consumer("c", "kept", 7), consumer("c", "kept", 300)}), second.settle(again)); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Registry{first, second} {
		if list, err := r.Members(ctx, "c"); err != nil || fmt.Sprint(list) != "[c/kept/7 c/kept/300]" {
			t.Errorf("%v, %v", list, err)
		}
		if list, err := r.Nodes(ctx); err != nil || len(list) != 1 {
			t.Errorf("%v, %v", list, err)
		}
	}
	if err := first.add(h, infos[0].Incarnation, []Member{consumer("c", "kept", 8)}); !errors.Is(err, ErrNotJoined) {
		t.Errorf("a change over the connection before: %v", err)
	}
	if unknown, err := first.renew(h, []renewal{{"kept", infos[0].Incarnation, 0}}); err != nil || len(unknown) != 1 {
		t.Errorf("a renewal there: %v, %v", unknown, err)
	}
}

// Of many who claim a name at several directories at once one gets it, and incarnations only grow.
func TestSharedNamesAreGivenOnce(t *testing.T) {
	store := newMemoryShared()
	registries := []*Registry{mustShare(t, store), mustShare(t, store), mustShare(t, store)}
	var mu sync.Mutex
	var given []uint64
	var running sync.WaitGroup
	for i := range 9 {
		r := registries[i%3]
		h, _ := r.attach(fmt.Sprint(i), true)
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		running.Go(func() {
			for range 40 {
				incarnation, err := r.join(h, NodeInfo{Name: "n", Endpoint: fmt.Sprint("mem://", i)})
				switch {
				case errors.Is(err, ErrNameTaken):
					continue
				case err != nil:
					t.Error(err)
					return
				}
				mu.Lock()
				if len(given) > 0 && incarnation <= given[len(given)-1] {
					t.Errorf("incarnation %d after %d", incarnation, given[len(given)-1])
				}
				given = append(given, incarnation)
				mu.Unlock()
				if rng.IntN(2) == 0 {
					if err := r.add(h, incarnation, []Member{consumer("c", "n", i)}); err != nil {
						t.Error(err)
					}
				}
				if err := r.leave(h, "n", incarnation); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	if len(given) < 9 {
		t.Errorf("the name was given %d times", len(given))
	}
}

// Names are forgotten beyond a bound, and what may be older than they were is refused then.
func TestSharedNamesAreForgotten(t *testing.T) {
	store := newMemoryShared()
	r := mustShare(t, store)
	h, _ := r.attach("id", true)
	var oldest uint64
	if err := r.leave(h, "n0", func() uint64 { oldest, _ = r.join(h, NodeInfo{Name: "n0"}); return oldest }()); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	for i := range maxTombs {
		name := fmt.Sprint("x", i)
		r.sharing.replica.lives[name] = life{tomb{name, 5, true}, 1 << 40} // as if so many had gone since
	}
	pl := r.sharing.replica.forgets()
	r.mu.Unlock()
	if n := len(pl.transaction.Then); n != partLen/2+1 || pl.transaction.Then[0].Key != lifePrefix+"n0" {
		t.Fatalf("planned %d changes: %+v", n, pl.transaction.Then[0])
	}
	if _, done, err := store.Commit(testContext(t), SharedTransaction{If: pl.transaction.If[:3],
		Then: append(pl.transaction.Then[:1:1], pl.transaction.Then[partLen/2])}); err != nil || !done {
		t.Fatal(done, err)
	}
	if _, err := r.join(h, NodeInfo{Name: "n0", Incarnation: oldest}); !errors.Is(err, ErrStale) {
		t.Errorf("a life whose name is forgotten: %v", err)
	}
	if _, err := r.join(h, NodeInfo{Name: "never", Incarnation: oldest}); !errors.Is(err, ErrStale) {
		t.Errorf("one that may be older: %v", err)
	}
	if _, err := r.join(h, NodeInfo{Name: "never", Incarnation: oldest + 1}); err != nil {
		t.Errorf("one that is not: %v", err)
	}
}

func TestSharedOpening(t *testing.T) {
	store := newMemoryShared()
	store.lossy = 2 // it is a bad moment
	r, err := OpenRegistry(RegistryConfig{Shared: store, Lease: time.Minute, WarmUp: true, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Node(testContext(t), "n"); !errors.Is(err, ErrWarming) {
		t.Errorf("of an empty store: %v", err)
	}
	other := mustShare(t, store) // who comes later is told
	if _, err := other.Node(testContext(t), "n"); !errors.Is(err, ErrWarming) {
		t.Errorf("at another directory: %v", err)
	}
	if s, err := other.Status(testContext(t)); err != nil || s.Lease != time.Minute || s.Warming == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	store.set(func() { store.end(store.entries[warmKey].Lease) })
	for _, r := range []*Registry{r, other} {
		if _, err := r.Node(testContext(t), "n"); !errors.Is(err, ErrUnknownNode) {
			t.Errorf("a lease later: %v", err)
		}
	}
	if _, err := OpenRegistry(RegistryConfig{Shared: store, Lease: time.Hour}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "1m0s") {
		t.Errorf("another lease: %v", err)
	}
	if _, err := OpenRegistry(RegistryConfig{Shared: store, Store: newMemoryStore()}); !errors.Is(err, ErrInvalid) {
		t.Errorf("two stores: %v", err)
	}
	for what, err := range map[string]error{
		"join":   func() error { _, err := r.Join(testContext(t), NodeInfo{Name: "n"}); return err }(),
		"leave":  r.Leave(testContext(t), "n", 1),
		"add":    r.Add(testContext(t), 1, consumer("c", "n", 0)),
		"remove": r.Remove(testContext(t), 1, consumer("c", "n", 0)),
		"report": r.Report(testContext(t), "n", 1, 0),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s without a client: %v", what, err)
		}
	}
}

// Whatever is done through three directories, and whatever the store does meanwhile, all of them have in the end what the
// store has, and so have those who watch.
func TestSharedReplicasAgree(t *testing.T) {
	store := newMemoryShared()
	var registries []*Registry
	var addrs []string
	for range 3 {
		r := mustShare(t, store)
		registries, addrs = append(registries, r), append(addrs, mustServe(t, r, memAddr()).Addr())
	}
	var running sync.WaitGroup
	stop := make(chan struct{})
	running.Go(func() { // trouble
		rng := rand.New(rand.NewPCG(7, 7))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond):
			}
			switch rng.IntN(4) {
			case 0:
				store.compact()
			case 1:
				store.set(func() { store.lossy = 2 })
			case 2:
				store.set(func() { store.broken++ })
			case 3:
				store.set(func() { store.deaf = !store.deaf })
			}
		}
	})
	var clients sync.WaitGroup
	held := make([]map[Member]bool, 6)
	for i := range held {
		at := i % 3
		c := mustDial(t, addrs[at]+","+addrs[(at+1)%3], testOptions())
		held[i] = map[Member]bool{}
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			name := fmt.Sprint("n", i)
			ctx := testContext(t)
			incarnation, err := c.Join(ctx, NodeInfo{Name: name, Endpoint: "mem://" + name})
			if err != nil {
				t.Error(err)
				return
			}
			for range 60 {
				m := consumer("c", name, rng.IntN(10))
				if rng.IntN(2) == 0 {
					held[i][m] = true
					err = c.Add(ctx, incarnation, m)
				} else {
					delete(held[i], m)
					err = c.Remove(ctx, incarnation, m)
				}
				if err != nil && !errors.Is(err, ErrUnavailable) {
					t.Errorf("%v: %v", m, err)
					return
				}
				if err != nil && held[i][m] { // an Add that failed leaves nothing behind
					delete(held[i], m)
				}
			}
		})
	}
	w := mustWatch(t, mustDial(t, addrs[2]+","+addrs[0], testOptions()), "c")
	clients.Wait()
	close(stop)
	running.Wait()
	store.set(func() { store.deaf, store.lossy = false, 0 })

	want := map[string]bool{}
	for _, members := range held {
		for m := range members {
			want[m.String()] = true
		}
	}
	for i, r := range registries {
		eventually(t, fmt.Sprintf("what is there, at directory %d", i), func() bool {
			list, err := r.Members(testContext(t), "c")
			got := map[string]bool{}
			for _, m := range list {
				got[m.String()] = true
			}
			return err == nil && maps.Equal(got, want)
		})
	}
	got := map[string]bool{}
	for !maps.Equal(got, want) {
		e, err := w.Next(testContext(t))
		if err != nil {
			t.Fatalf("%v: told %v, there is %v", err, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
		switch e.Kind {
		case Added:
			got[e.Member.String()] = true
		case Removed:
			delete(got, e.Member.String())
		}
	}
}
