package directory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memoryStore is a Store that can be made to fail, and to take its time.
type memoryStore struct {
	mu      sync.Mutex
	entries map[string]string
	saves   int
	fail    error         // of the next Save
	hold    chan struct{} // while it is open Save waits
	held    chan struct{} // told that one does
}

func newMemoryStore() *memoryStore {
	hold := make(chan struct{})
	close(hold)
	return &memoryStore{entries: map[string]string{}, hold: hold, held: make(chan struct{}, 1)}
}

func (s *memoryStore) Load(each func(key, value []byte) error) error {
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if err := each([]byte(key), []byte(s.entries[key])); err != nil {
			return err
		}
	}
	return nil
}

func (s *memoryStore) Save(changes []Change) error {
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	signal(s.held)
	<-hold
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saves++
	if s.fail != nil {
		return s.fail
	}
	for _, c := range changes {
		if c.Value == nil {
			delete(s.entries, string(c.Key))
		} else {
			s.entries[string(c.Key)] = string(c.Value)
		}
	}
	return nil
}

// pause makes Save wait until resume is called.
func (s *memoryStore) pause() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hold := make(chan struct{})
	s.hold, s.held = hold, make(chan struct{}, 1)
	return func() { close(hold) }
}

func (s *memoryStore) awaitSave(t *testing.T) {
	t.Helper()
	select {
	case <-s.held:
	case <-testContext(t).Done():
		t.Fatal("nothing is saved")
	}
}

func mustOpen(t *testing.T, s Store) *Registry {
	t.Helper()
	r, err := OpenRegistry(RegistryConfig{Store: s, WarmUp: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Nobody notices a restart of a directory that keeps its table: neither who is registered nor who watches, and what
// was given up meanwhile is gone.
func TestRestartWithAStore(t *testing.T) {
	addr, store := memAddr(), newMemoryStore()
	r := mustOpen(t, store)
	first := mustServe(t, r, addr)
	c, watching := mustDial(t, addr, testOptions()), mustDial(t, addr, testOptions())
	node := NodeInfo{Name: "n", Endpoint: "mem://n", Weight: 3, Zone: "z", Host: "h"}
	var err error
	if node.Incarnation, err = c.Join(testContext(t), node); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, c, node.Incarnation, consumer("c", "n", 0), consumer("c", "n", 1))
	gone := mustJoin(t, c, "gone")
	mustAdd(t, c, gone, consumer("c", "gone", 0))
	w := mustWatch(t, watching, "c")
	expect(t, w, "+c/gone/0", "+c/n/0", "+c/n/1", "synced")
	first.Close()
	r.Close()
	awaitGone(t, c)

	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := c.Leave(short, "gone", gone); !errors.Is(err, ErrUnavailable) {
		t.Errorf("leave without a directory: %v", err)
	}

	again := mustOpen(t, store)
	if s, err := again.Status(testContext(t)); err != nil || s.Epoch != r.table.epoch || s.Nodes != 2 || s.Members != 3 || s.Warming != 0 || s.Revision <= r.table.revision {
		t.Errorf("status %+v, %v", s, err)
	}
	if e, err := again.Lookup(testContext(t), "n"); err != nil || e.Node != node || !e.Orphan || e.Lease > DefaultLease || e.Lease < DefaultLease-testLease {
		t.Errorf("after the restart: %+v, %v", e, err)
	}
	mustServe(t, again, addr)
	expect(t, w, "-c/gone/0") // told as such, and no doubt about it
	expectQuiet(t, c, node.Incarnation, consumer("c", "n", 99), w)
	if e, err := again.Lookup(testContext(t), "n"); err != nil || e.Orphan {
		t.Errorf("after its client came back: %+v, %v", e, err)
	}
	if _, err := c.Join(testContext(t), NodeInfo{Name: "gone", Incarnation: gone}); !errors.Is(err, ErrStale) {
		t.Errorf("a life that left comes back: %v", err)
	}
	if later := mustJoin(t, c, "gone"); later <= gone {
		t.Errorf("the later life got %d after %d", later, gone)
	}
}

// What lost its name while it was away finds out, also after a restart.
func TestIncarnationsAreKept(t *testing.T) {
	store := newMemoryStore()
	r := newRegistry(newTable(1, 1000, DefaultLease), func() time.Duration { return 0 })
	if _, err := r.keep(store); err != nil {
		t.Fatal(err)
	}
	n := mustJoin(t, r, "n")
	if err := r.Leave(testContext(t), "n", n); err != nil {
		t.Fatal(err)
	}
	again := newRegistry(newTable(2, 0, DefaultLease), func() time.Duration { return 0 }) // its clock went back to 1970
	if known, err := again.keep(store); err != nil || !known {
		t.Fatalf("kept: %v, %v", known, err)
	}
	if later := mustJoin(t, again, "other"); later <= n+incarnationGap-1 {
		t.Errorf("a node got %d; %d and the next ones may have been given", later, n)
	}
	if _, err := again.Join(testContext(t), NodeInfo{Name: "n", Incarnation: n}); !errors.Is(err, ErrStale) {
		t.Errorf("an old life: %v", err)
	}
}

// A change is answered once the store has it; a look-up does not wait; and who waits is served together.
func TestChangesWaitForTheStore(t *testing.T) {
	store := newMemoryStore()
	r := mustOpen(t, store)
	incarnation := mustJoin(t, r, "n")
	before := store.saves
	resume := store.pause()
	const callers = 20
	done := make(chan error, callers+1)
	go func() { done <- r.Add(context.Background(), incarnation, consumer("c", "n", 0)) }()
	store.awaitSave(t)
	for i := range callers {
		go func() { done <- r.Add(context.Background(), incarnation, consumer("c", "n", i)) }() // 0 is there, but not kept
	}
	for ctx := testContext(t); ; {
		if list, err := r.Members(ctx, "c"); err != nil {
			t.Fatal(err)
		} else if len(list) == callers {
			break
		}
	}
	cancelled, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := r.Add(cancelled, incarnation, consumer("c", "n", 0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that does not wait so long: %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("a change was answered before it was kept: %v", err)
	default:
	}
	resume()
	for range callers + 1 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := store.saves - before; n > 3 { // a goroutine may have looked before the others had changed anything
		t.Errorf("%d saves for %d callers", n, callers)
	}
	if n := strings.Count(fmt.Sprint(slices.Collect(maps.Keys(store.entries))), "m\x94"); n != callers {
		t.Errorf("%d members are kept", n)
	}
}

// A registry whose store fails is of no use: it says so and ends.
func TestStoreThatFailsEndsTheRegistry(t *testing.T) {
	store := newMemoryStore()
	r := mustOpen(t, store)
	w := mustWatch(t, r, "c")
	expect(t, w, "synced")
	incarnation := mustJoin(t, r, "n")
	full := errors.New("disk full")
	store.fail = full
	if err := r.Add(testContext(t), incarnation, consumer("d", "n", 0)); !errors.Is(err, ErrStore) || !errors.Is(err, full) {
		t.Errorf("the change: %v", err)
	}
	select {
	case <-r.Done():
	case <-testContext(t).Done():
		t.Fatal("the registry lives on")
	}
	if err := r.Err(); !errors.Is(err, full) {
		t.Errorf("why: %v", err)
	}
	if _, err := r.Nodes(testContext(t)); !errors.Is(err, ErrStore) {
		t.Errorf("a later call: %v", err)
	}
	if _, err := w.Next(testContext(t)); !errors.Is(err, ErrStore) {
		t.Errorf("a watcher: %v", err)
	}
	store.fail = nil
	again := mustOpen(t, store)
	if list, err := again.Members(testContext(t), "d"); err != nil || len(list) != 0 {
		t.Errorf("what was not kept: %v, %v", list, err)
	}
	if _, err := again.Node(testContext(t), "n"); err != nil {
		t.Errorf("what was kept: %v", err)
	}
	store.fail = full
	if _, err := OpenRegistry(RegistryConfig{Store: store}); !errors.Is(err, full) || !errors.Is(err, ErrStore) {
		t.Errorf("opening with a store that takes nothing: %v", err)
	}
	if err := NewRegistry().Err(); err != nil {
		t.Errorf("an open registry: %v", err)
	}
}

// An empty store is an empty start; one with an empty table is not.
func TestOnlyAnEmptyStoreWarmsUp(t *testing.T) {
	store := newMemoryStore()
	if _, err := mustOpen(t, store).Node(testContext(t), "n"); !errors.Is(err, ErrWarming) {
		t.Errorf("at first: %v", err)
	}
	if _, err := mustOpen(t, store).Node(testContext(t), "n"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("the second time: %v", err)
	}
}

func TestDamagedStoresAreRefused(t *testing.T) {
	kept := newMemoryStore()
	r := mustOpen(t, kept)
	n := mustJoin(t, r, "n")
	mustAdd(t, r, n, consumer("c", "n", 0))
	if err := r.Leave(testContext(t), "gone", mustJoin(t, r, "gone")); err != nil {
		t.Fatal(err)
	}
	member := ""
	for key := range kept.entries {
		if key[0] == memberKind && key != markKey {
			member = key
		}
	}
	for name, test := range map[string]struct {
		damage func(entries map[string]string)
		want   string
	}{
		"no mark":              {func(e map[string]string) { delete(e, markKey) }, "no mark"},
		"a node is missing":    {func(e map[string]string) { delete(e, "nn") }, "0 nodes"},
		"a member is missing":  {func(e map[string]string) { delete(e, member) }, "0 members"},
		"a tomb is missing":    {func(e map[string]string) { delete(e, "tgone") }, "0 names"},
		"one too many":         {func(e map[string]string) { e["nm"] = strings.Replace(e["nn"], "\xa1n", "\xa1m", 1) }, "2 nodes"},
		"a node twice":         {func(e map[string]string) { e["nm"] = e["nn"]; delete(e, "tgone") }, "there"},
		"no MessagePack":       {func(e map[string]string) { e["nn"] = "\xc1" }, `"nn"`},
		"cut":                  {func(e map[string]string) { e["nn"] = e["nn"][:3] }, `"nn"`},
		"empty":                {func(e map[string]string) { e["tgone"] = "" }, `"tgone"`},
		"another kind":         {func(e map[string]string) { e["xyz"] = "\x90" }, "unknown kind"},
		"no key":               {func(e map[string]string) { e[""] = "\x90" }, "unknown kind"},
		"a bad name":           {func(e map[string]string) { e["ta b"] = e["tgone"] }, "' '"},
		"a bad mark":           {func(e map[string]string) { e[markKey] = "\x91\x01" }, "mark"},
		"a mark of no numbers": {func(e map[string]string) { e[markKey] = "\x97\xc0\xc0\xc0\xc0\xc0\xc0\xa1x" }, "mark"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newMemoryStore()
			maps.Copy(s.entries, kept.entries)
			test.damage(s.entries)
			_, err := OpenRegistry(RegistryConfig{Store: s})
			if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("opened with %v, want %s", err, test.want)
			}
		})
	}
}

// Whatever a store gives, it is refused or makes a table that is whole.
func FuzzSaved(f *testing.F) {
	table := newTable(1, 1000, testLease)
	table.keeps = true
	h := table.attach("a", true)
	n, _ := table.join(h, NodeInfo{Name: "n", Weight: 3, Zone: "z"})
	_ = table.add(h, n, []Member{consumer("c", "n", 0)})
	for _, c := range table.noted() {
		e := c.encode()
		f.Add(e.Key, e.Value)
	}
	b := change{kind: tombKind, tomb: tomb{name: "t", incarnation: 7, left: true}}
	f.Add(b.encode().Key, b.encode().Value)
	m := table.mark().encode()
	f.Add(m.Key, m.Value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		var s saved
		if s.take(key, value) != nil {
			return
		}
		again := newTable(2, 0, testLease)
		s.marked, s.mark.nodes, s.mark.members, s.mark.tombs = true, len(s.nodes), len(s.members), len(s.tombs)
		if err := again.restore(&s); err != nil && len(s.members) == 0 {
			t.Errorf("%q %x: taken, and not restored: %v", key, value, err)
		}
	})
}
