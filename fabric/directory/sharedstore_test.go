package directory

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memoryShared is a Shared store of this process, with what makes one hard to live with: it can be out of reach, answer
// what it has not done, do what it has not answered, tell late, and forget.
type memoryShared struct {
	mu        sync.Mutex
	revision  uint64
	compacted uint64
	entries   map[string]SharedEntry
	history   []SharedUpdate
	leases    map[int64]*memoryLease
	last      int64
	grown     chan struct{}

	away   bool // it does not answer
	deaf   bool // it does not tell changes
	lossy  int  // so many of the next transactions are made, and not answered
	wrote  int  // transactions made
	broken int  // watches broken so far
}

type memoryLease struct {
	length   time.Duration
	deadline time.Time
}

func newMemoryShared() *memoryShared {
	return &memoryShared{revision: 1, entries: map[string]SharedEntry{}, leases: map[int64]*memoryLease{}, grown: make(chan struct{})}
}

func (s *memoryShared) String() string { return "memory" }

var errAway = errors.New("nobody there")

// lock waits until the store can be reached, or ctx ends.
func (s *memoryShared) lock(ctx context.Context) error {
	for {
		s.mu.Lock()
		if !s.away {
			s.expire()
			return nil
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return errors.Join(errAway, ctx.Err())
		}
	}
}

// set changes how the store behaves.
func (s *memoryShared) set(how func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how()
	s.wake()
}

func (s *memoryShared) wake() {
	close(s.grown)
	s.grown = make(chan struct{})
}

func (s *memoryShared) expire() {
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		if time.Now().After(s.leases[id].deadline) {
			s.end(id)
		}
	}
}

// end ends a lease with all that has it.
func (s *memoryShared) end(id int64) {
	delete(s.leases, id)
	var changes []SharedChange
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if s.entries[key].Lease == id {
			changes = append(changes, SharedChange{Key: key})
		}
	}
	if len(changes) > 0 {
		s.make(changes)
	}
}

// make makes changes at one revision.
func (s *memoryShared) make(changes []SharedChange) {
	u := SharedUpdate{Revision: s.revision + 1}
	for _, c := range changes {
		for _, key := range slices.Sorted(maps.Keys(s.entries)) {
			if c.Value == nil && (key == c.Key || c.Prefix && strings.HasPrefix(key, c.Key)) {
				delete(s.entries, key)
				u.Changes = append(u.Changes, SharedEntry{Key: key, Revision: u.Revision})
			}
		}
		if c.Value != nil {
			e := SharedEntry{c.Key, c.Value, c.Lease, u.Revision}
			s.entries[c.Key] = e
			u.Changes = append(u.Changes, e)
		}
	}
	s.revision++
	s.history = append(s.history, u)
	s.wake()
}

func (s *memoryShared) Read(ctx context.Context, each func(SharedEntry) error) (uint64, error) {
	if err := s.lock(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	for _, e := range s.entries { // in any order
		if err := each(e); err != nil {
			return 0, err
		}
	}
	return s.revision, nil
}

func (s *memoryShared) Watch(ctx context.Context, after uint64, told func(SharedUpdate)) error {
	for broken := -1; ; {
		if err := s.lock(ctx); err != nil {
			return err
		}
		if broken < 0 {
			broken = s.broken
		}
		var due []SharedUpdate
		deaf, compacted, grown, revision := s.deaf, s.compacted, s.grown, s.revision
		if !deaf && s.broken == broken {
			for _, u := range s.history {
				if u.Revision > after {
					due = append(due, u)
				}
			}
		}
		lost := s.broken != broken
		s.mu.Unlock()
		switch {
		case lost:
			return errors.New("broken")
		case !deaf && after < compacted:
			return ErrCompacted
		}
		for _, u := range due {
			told(u)
			after = u.Revision
		}
		if !deaf && after < revision {
			told(SharedUpdate{Revision: revision})
			after = revision
		}
		select {
		case <-grown:
		case <-time.After(5 * time.Millisecond): // leases end
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *memoryShared) Revision(ctx context.Context) (uint64, error) {
	if err := s.lock(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	return s.revision, nil
}

func (s *memoryShared) Commit(ctx context.Context, t SharedTransaction) (uint64, bool, error) {
	if err := s.lock(ctx); err != nil {
		return 0, false, err
	}
	defer s.mu.Unlock()
	if len(t.If) > MaxSharedTransaction || len(t.Then) > MaxSharedTransaction {
		panic("a transaction that is too long")
	}
	for _, c := range t.If {
		if s.entries[c.Key].Revision != c.Revision {
			return s.revision, false, nil
		}
	}
	for _, c := range t.Then {
		if c.Lease != 0 && s.leases[c.Lease] == nil {
			return 0, false, ErrLeaseOver
		}
	}
	s.wrote++
	s.make(t.Then)
	if s.lossy > 0 {
		s.lossy--
		return 0, false, errors.New("lost")
	}
	return s.revision, true, nil
}

func (s *memoryShared) Grant(ctx context.Context, length time.Duration) (int64, error) {
	if err := s.lock(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	s.last++
	s.leases[s.last] = &memoryLease{length, time.Now().Add(length)}
	return s.last, nil
}

func (s *memoryShared) Renew(ctx context.Context, leases []int64) (over []int64, err error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for _, id := range leases {
		if l := s.leases[id]; l != nil {
			l.deadline = time.Now().Add(l.length)
		} else {
			over = append(over, id)
		}
	}
	return over, nil
}

func (s *memoryShared) Revoke(ctx context.Context, lease int64) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.leases[lease] != nil {
		s.end(lease)
	}
	return nil
}

// compact makes the store forget what led to its present state, and breaks the watches.
func (s *memoryShared) compact() {
	s.set(func() {
		s.compacted, s.history = s.revision, nil
		s.broken++
	})
}

// leasesLeft counts the leases that are not over.
func (s *memoryShared) leasesLeft() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return len(s.leases)
}

// mustShare opens a registry that shares a store.
func mustShare(t *testing.T, s Shared) *Registry {
	t.Helper()
	r, err := OpenRegistry(RegistryConfig{Shared: s, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}
