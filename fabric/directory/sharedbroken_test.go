package directory

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

// A node's directory dies. The node goes on at another one, in the same life, and nobody sees anything.
func TestSharedDirectoryDies(t *testing.T) {
	store := newMemoryShared()
	first, _, addrs := shares(t, store)
	c := mustDial(t, addrs[0]+","+addrs[1], testOptions())
	watching := mustDial(t, addrs[1], testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	own := mustWatch(t, c, "c")
	w := mustWatch(t, watching, "c")
	expect(t, w, "+c/n/0", "synced")
	expect(t, own, "+c/n/0", "synced")
	first.Close() // what asks it has no answer any more
	mustAdd(t, c, incarnation, consumer("c", "n", 1))
	expect(t, own, "+c/n/1")
	expect(t, w, "+c/n/1")
	expectQuiet(t, c, incarnation, consumer("c", "n", 9), w)
	if s, err := c.Status(testContext(t)); err != nil || s.Addr != addrs[1] {
		t.Errorf("%+v, %v", s, err)
	}
	if e, err := watching.Lookup(testContext(t), "n"); err != nil || e.Orphan || e.Lease < DefaultLease/2 {
		t.Errorf("%+v, %v", e, err)
	}
}

// A directory that dies without a word makes orphans of its nodes, once the store has noticed; until then their names
// are taken.
func TestSharedDirectoryDiesWithoutAWord(t *testing.T) {
	store := newMemoryShared()
	first, _, addrs := shares(t, store)
	c, d := mustDial(t, addrs[0], testOptions()), mustDial(t, addrs[1], testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	first.sharing.cancel() // its presence stays
	first.sharing.running.Wait()
	if _, err := d.Join(testContext(t), NodeInfo{Name: "n"}); !errors.Is(err, ErrNameTaken) {
		t.Errorf("its directory may be alive: %v", err)
	}
	store.set(func() { store.end(first.sharing.presence) })
	eventually(t, "the name is free", func() bool {
		later, err := d.Join(testContext(t), NodeInfo{Name: "n", Endpoint: "mem://2"})
		return err == nil && later > incarnation
	})
	if list, err := d.Members(testContext(t), "c"); err != nil || len(list) != 0 {
		t.Errorf("the members of the earlier life: %v, %v", list, err)
	}
	eventually(t, "no lease is left behind", func() bool { return store.leasesLeft() == 2 }) // the other directory's, the node's
}

// Without the store changes and look-ups fail, soon and typed; watches and the memory of clients go on.
func TestSharedStoreIsAway(t *testing.T) {
	store := newMemoryShared()
	_, _, addrs := shares(t, store)
	c := mustDial(t, addrs[0]+","+addrs[1], testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	if _, err := c.Lookup(testContext(t), "n"); err != nil {
		t.Fatal(err)
	}
	w := mustWatch(t, c, "c")
	expect(t, w, "+c/n/0", "synced")
	plain := dialPeer(t, addrs[1], "REQ", "")
	single := mustDial(t, addrs[1], testOptions())
	if _, err := single.Lookup(testContext(t), "n"); err != nil {
		t.Fatal(err)
	}
	single.mu.Lock()
	connected := single.conn
	single.mu.Unlock()
	store.set(func() { store.away = true })

	expectReply(t, plain.ask(fields{"id": 1, "op": "node", "node": "n"}), fields{"id": 1, "error": "unavailable", "nodes": "-"})
	began := time.Now()
	for range 100 {
		expectReply(t, plain.ask(fields{"op": "join", "node": "m"}), fields{"error": "unavailable"})
	}
	if d := time.Since(began); d > sharedPatience {
		t.Errorf("a hundred refusals took %v", d)
	}
	eventually(t, "an answer from memory", func() bool {
		e, err := c.Lookup(testContext(t), "n")
		return err == nil && e.Stale && e.Node.Incarnation == incarnation
	})
	if _, err := c.Node(testContext(t), "n"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "memory is unavailable") {
		t.Errorf("the directory's word: %v", err)
	}
	if e, err := single.Lookup(testContext(t), "n"); err != nil || !e.Stale { // who knows no other directory
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := single.Join(testContext(t), NodeInfo{Name: "m"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a change: %v", err)
	}
	store.set(func() { store.away = false })
	mustAdd(t, c, incarnation, consumer("c", "n", 1))
	expect(t, w, "+c/n/1")
	eventually(t, "an answer over the connection that was there", func() bool {
		e, err := single.Lookup(testContext(t), "n")
		return err == nil && !e.Stale && !connected.isBroken()
	})
	if e, err := c.Lookup(testContext(t), "n"); err != nil || e.Stale || e.Orphan {
		t.Errorf("afterwards: %+v, %v", e, err)
	}
}

// Transactions that were made and not answered are not made twice, and their outcome is found out.
func TestSharedStoreThatDoesNotAnswer(t *testing.T) {
	store := newMemoryShared()
	r, err := OpenRegistry(RegistryConfig{Shared: store, Lease: time.Second, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := mustDial(t, mustServe(t, r, memAddr()).Addr(), testOptions())
	var last uint64
	for i := range 8 {
		store.set(func() { store.lossy = 1 })
		incarnation := mustJoin(t, c, "n")
		if incarnation <= last {
			t.Fatalf("incarnation %d after %d", incarnation, last)
		}
		store.set(func() { store.lossy = 1 })
		mustAdd(t, c, incarnation, consumer("c", "n", i))
		store.set(func() { store.lossy = 1 })
		if err := c.Leave(testContext(t), "n", incarnation); err != nil {
			t.Fatal(err)
		}
		last = incarnation
	}
	eventually(t, "no lease is left behind", func() bool { return store.leasesLeft() == 1 }) // the directory's own
}

// A store that has something else, or something damaged, is refused; one that turns out so ends the registry.
func TestSharedDamage(t *testing.T) {
	kept := newMemoryShared()
	r := mustShare(t, kept)
	h, _ := r.attach("id", true)
	n, err := r.join(h, NodeInfo{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.add(h, n, []Member{consumer("c", "n", 0)}); err != nil {
		t.Fatal(err)
	}
	member := memberKey(consumer("c", "n", 0))
	for name, test := range map[string]struct {
		key, value string
		want       string
	}{
		"another version":     {fabricKey, "\x93\x02\x01\xcd\x3a\x98", "version 2"},
		"no epoch":            {fabricKey, "\x93\x01\x00\xcd\x3a\x98", "epoch 0"},
		"cut":                 {nodePrefix + "n", "\x99\xa1n", `"n/n"`},
		"another node":        {nodePrefix + "m", string(kept.entries[nodePrefix+"n"].Value), `node "n"`},
		"no MessagePack":      {lifePrefix + "n", "\xc1", `"i/n"`},
		"a foreign key":       {"config", "x", "unknown kind"},
		"a foreign directory": {"x/y", "x", "unknown kind"},
		"a bad member":        {memberPrefix + "n/x", "\x90", `"m/n/x"`},
		"another's member":    {strings.Replace(member, "/n/", "/m/", 1), "\x90", "among those of m"},
		"a bad load":          {loadPrefix + "n", "\x90", `"l/n"`},
		"a bad floor":         {floorKey, "x", `"floor"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newMemoryShared()
			maps.Copy(s.entries, kept.entries)
			running := mustShare(t, s)
			s.set(func() { s.make([]SharedChange{{Key: test.key, Value: []byte(test.value)}}) })
			select {
			case <-running.Done():
			case <-testContext(t).Done():
				t.Fatal("the registry lives on")
			}
			if err := running.Err(); !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("ended with %v, want %s", err, test.want)
			}
			if _, err := running.Nodes(testContext(t)); !errors.Is(err, ErrStore) {
				t.Errorf("a later call: %v", err)
			}
			if _, err := OpenRegistry(RegistryConfig{Shared: s, Logger: quiet}); !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("opened with %v, want %s", err, test.want)
			}
		})
	}
	empty := newMemoryShared()
	maps.Copy(empty.entries, kept.entries)
	delete(empty.entries, fabricKey)
	if _, err := OpenRegistry(RegistryConfig{Shared: empty, Logger: quiet}); !errors.Is(err, ErrStore) {
		t.Errorf("without the fabric's mark: %v", err)
	}
	kept.set(func() { kept.revision = 0 })
	if _, err := r.Nodes(testContext(t)); !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), "gone back") {
		t.Errorf("a store that was restored: %v", err)
	}
}
