package directory

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Bounds of a lease. The default lets a node miss one renewal and be late with the next.
const (
	DefaultLease = 15 * time.Second
	MinLease     = 100 * time.Millisecond
	MaxLease     = 24 * time.Hour
)

// RegistryConfig is what a Registry can be told. The zero value is ready to use.
type RegistryConfig struct {
	// Lease is how long a node of another process stays registered without renewal, MinLease to MaxLease. A Client
	// renews at a third of it. Default: DefaultLease.
	Lease time.Duration
	// WarmUp says that nodes may be about which an earlier directory knew and this one does not. For one lease, in
	// which they register again, a name that is not known is then answered with *WarmingError rather than
	// *UnknownNodeError. Default: a registry that is empty knows that there are no nodes.
	WarmUp bool
	// Shared has the registry be one of several with the same table, any of which may die. Nodes register through its
	// Server: the Registry's own Join, Leave, Add, Remove and Report are refused. The lease is that of whoever begins the
	// store, and another one is refused. Whoever made it closes it, after the registry. Default: the table is this
	// registry's alone.
	Shared Shared
	// Logger takes a line when a Shared store cannot be reached, and when it can again. Default: slog.Default().
	Logger *slog.Logger
	// Store keeps the table over restarts; the registry then begins with what it has, and every change waits until the
	// store has it, too. Whoever made it closes it, after the registry. With a table in it there is nothing to warm up.
	// Default: nothing is kept.
	Store Store
}

// Registry is a directory's table, for this process and, through Serve, for others. It starts no goroutine; every call
// is short and none waits, but for a Store if there is one. Make one with NewRegistry or OpenRegistry.
//
// With a Shared store the table is a replica of what the store has, which a few goroutines keep until Close. Changes wait
// for the store and look-ups for its word that nothing was changed since; *UnavailableError if it does not answer.
//
// What this process joins stays until it leaves: the registration ends with the process, so there is nothing to renew.
// What a client joins has a lease, and leases run while a Server is there.
type Registry struct {
	// immutable
	clock   func() time.Duration // monotonic
	journal *journal             // nil: nothing is kept
	sharing *sharing             // nil: the table is this registry's alone
	done    chan struct{}        // closed with the registry

	mu     sync.Mutex
	table  *table
	closed bool
	err    error // why it is closed, if that was not Close
}

// NewRegistry returns an empty registry with the default lease. It reads the clock, once, so that incarnations chosen
// by a directory that lost its table are greater than those that it chose in its earlier life; a clock that went back
// costs only this.
func NewRegistry() *Registry {
	r, err := OpenRegistry(RegistryConfig{})
	if err != nil {
		panic(err) // the zero configuration is valid
	}
	return r
}

// OpenRegistry returns a registry with a configuration. The error matches ErrInvalid, ErrStore or ErrUnavailable.
func OpenRegistry(cfg RegistryConfig) (*Registry, error) {
	given := cfg.Lease
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Lease < MinLease || cfg.Lease > MaxLease {
		return nil, invalid("a lease of %v is not within %v and %v", cfg.Lease, MinLease, MaxLease)
	}
	t := newTable(rand.Uint64()>>1|1, uint64(time.Now().UnixMilli()), cfg.Lease)
	begun := time.Now()
	r := newRegistry(t, func() time.Duration { return time.Since(begun) })
	if cfg.Shared != nil {
		if cfg.Store != nil {
			return nil, invalid("a table is either kept in a Store or in a Shared one")
		}
		if err := r.share(cfg, given); err != nil {
			return nil, err
		}
		return r, nil
	}
	known, err := r.keep(cfg.Store)
	if err != nil {
		return nil, err
	}
	if cfg.WarmUp && !known {
		t.warm = cfg.Lease
	}
	return r, nil
}

func newRegistry(t *table, clock func() time.Duration) *Registry {
	return &Registry{table: t, clock: clock, done: make(chan struct{})}
}

// keep takes over what a store has, and reports whether that was a table. The store then has a mark, which shows that
// it takes changes, and keeps the numbers of this life apart from those of earlier ones.
func (r *Registry) keep(store Store) (known bool, err error) {
	if store == nil {
		return false, nil
	}
	var s saved
	if err := store.Load(s.take); err != nil {
		return false, &StoreError{err}
	}
	if err := r.table.restore(&s); err != nil {
		return false, &StoreError{err}
	}
	if err := store.Save([]Change{r.table.mark().encode()}); err != nil {
		return false, &StoreError{err}
	}
	r.table.keeps, r.journal = true, newJournal(store)
	return s.marked, nil
}

// Join implements Service for nodes of this process.
func (r *Registry) Join(ctx context.Context, info NodeInfo) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if r.sharing != nil {
		return 0, errNotHere
	}
	return r.join(r.table.here, info)
}

// errNotHere: nobody would renew the lease of what is registered without a Client.
var errNotHere = invalid("a directory that shares its table takes registrations through its Server only")

// Leave implements Service.
func (r *Registry) Leave(ctx context.Context, node string, incarnation uint64) error {
	if r.sharing != nil {
		return errNotHere
	}
	return r.change(ctx, func(t *table) error { return t.leave(t.here, node, incarnation) })
}

// Evict implements Service.
func (r *Registry) Evict(ctx context.Context, node string, incarnation uint64, force bool) error {
	if r.sharing != nil {
		return r.sharing.evict(ctx, node, incarnation, force)
	}
	return r.change(ctx, func(t *table) error { return t.evict(node, incarnation, force) })
}

// Add implements Service.
func (r *Registry) Add(ctx context.Context, incarnation uint64, members ...Member) error {
	if r.sharing != nil {
		return errNotHere
	}
	return r.change(ctx, func(t *table) error { return t.add(t.here, incarnation, members) })
}

// Remove implements Service.
func (r *Registry) Remove(ctx context.Context, incarnation uint64, members ...Member) error {
	if r.sharing != nil {
		return errNotHere
	}
	return r.change(ctx, func(t *table) error { return t.remove(t.here, incarnation, members) })
}

// Report implements Service; it holds at once.
func (r *Registry) Report(ctx context.Context, node string, incarnation uint64, load uint32) error {
	if r.sharing != nil {
		return errNotHere
	}
	return r.read(ctx, func(t *table) error { return t.report(t.here, node, incarnation, load) })
}

// Members implements Service.
func (r *Registry) Members(ctx context.Context, channel string) ([]Member, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	list, err := query(ctx, r, func(t *table) []Member {
		c := t.channels[channel]
		if c == nil {
			return nil
		}
		list := make([]Member, 0, len(c.members))
		for m := range c.members {
			list = append(list, m)
		}
		return list
	})
	slices.SortFunc(list, Member.Compare) // nobody waits for it
	return list, err
}

// Channels implements Service.
func (r *Registry) Channels(ctx context.Context) ([]string, error) {
	list, err := query(ctx, r, func(t *table) []string {
		list := make([]string, 0, len(t.channels))
		for name, c := range t.channels {
			if len(c.members) > 0 {
				list = append(list, name)
			}
		}
		return list
	})
	slices.Sort(list)
	return list, err
}

// Nodes implements Service.
func (r *Registry) Nodes(ctx context.Context) ([]NodeInfo, error) {
	list, err := r.Entries(ctx)
	return infos(list), err
}

// Entries implements Service.
func (r *Registry) Entries(ctx context.Context) ([]Entry, error) {
	list, err := query(ctx, r, func(t *table) []Entry {
		list := make([]Entry, 0, len(t.nodes))
		for _, n := range t.nodes {
			list = append(list, t.entry(n))
		}
		return list
	})
	slices.SortFunc(list, func(a, b Entry) int { return compareInfo(a.Node, b.Node) })
	return list, err
}

// Node implements Service.
func (r *Registry) Node(ctx context.Context, name string) (NodeInfo, error) {
	e, err := r.Lookup(ctx, name)
	return e.Node, err
}

// Lookup implements Service.
func (r *Registry) Lookup(ctx context.Context, name string) (e Entry, err error) {
	err = r.read(ctx, func(t *table) error {
		e, err = t.look(name)
		return err
	})
	return e, err
}

// Roster implements Service.
func (r *Registry) Roster(ctx context.Context, channel string, role Role) (roster Roster, err error) {
	err = r.read(ctx, func(t *table) error {
		roster, err = t.roster(channel, role)
		return err
	})
	return roster, err
}

// Choose implements Service.
func (r *Registry) Choose(ctx context.Context, q Query) (choice Choice, err error) {
	draw := rand.Uint64()
	err = r.read(ctx, func(t *table) error {
		choice, err = t.choose(q, draw)
		return err
	})
	return choice, err
}

// Watch implements Service.
func (r *Registry) Watch(ctx context.Context, channel string) (Watcher, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	return r.watch(ctx, channel)
}

// WatchNodes implements Service.
func (r *Registry) WatchNodes(ctx context.Context) (Watcher, error) { return r.watch(ctx, "") }

func (r *Registry) watch(ctx context.Context, channel string) (Watcher, error) {
	if err := r.fresh(ctx); err != nil {
		return nil, err
	}
	return newWatcher(r, channel)
}

// Status implements Service.
func (r *Registry) Status(ctx context.Context) (Status, error) {
	return query(ctx, r, (*table).status)
}

// Close implements Service: it ends all watchers and refuses all later calls.
func (r *Registry) Close() error {
	r.end(nil)
	if r.sharing != nil {
		r.sharing.close()
	}
	return nil
}

// Done is closed when the registry is: by Close, or because its store failed or has what no Registry saved.
func (r *Registry) Done() <-chan struct{} { return r.done }

// Err tells why the registry is closed: *StoreError if its store failed, nil otherwise.
func (r *Registry) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *Registry) isOpen() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// ended is why a call under way ends.
func (r *Registry) ended() error {
	if err := r.Err(); err != nil {
		return err
	}
	return ErrClosed
}

func (r *Registry) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed, r.err = true, err
	close(r.done)
	r.table.roll.announce()
	for _, c := range r.table.channels {
		c.announce()
	}
}

// change does something that changes the table, at the present time, and waits until the store has it.
func (r *Registry) change(ctx context.Context, do func(*table) error) error {
	ticket, err := r.locked(ctx, do)
	if err == nil && r.journal != nil {
		err = r.await(ctx, ticket)
	}
	return err
}

// await waits for the store. A table that is ahead of its store for good is of no use.
func (r *Registry) await(ctx context.Context, ticket uint64) error {
	err := r.journal.wait(ctx, ticket)
	if errors.Is(err, ErrStore) {
		r.end(err)
	}
	return err
}

// read does something that changes nothing but whose turn it is, with a table that has all that was decided before.
func (r *Registry) read(ctx context.Context, do func(*table) error) error {
	if err := r.fresh(ctx); err != nil {
		return err
	}
	_, err := r.locked(ctx, do)
	return err
}

// fresh waits until the table has all that was decided before: at once, if it is this registry's alone.
func (r *Registry) fresh(ctx context.Context) error {
	if err := ctx.Err(); err != nil || r.sharing == nil {
		return err
	}
	return r.sharing.fresh(ctx)
}

// locked does something with the table, at the present time. The ticket stands for all that was changed so far: also
// by others, as do may have found that it is as it should be.
func (r *Registry) locked(ctx context.Context, do func(*table) error) (ticket uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return 0, r.err
	case r.closed:
		return 0, ErrClosed
	}
	r.table.advance(r.clock())
	err = do(r.table)
	if r.journal != nil {
		ticket = r.journal.append(r.table.noted(), r.table.mark())
	}
	return ticket, err
}

// query reads the table.
func query[T any](ctx context.Context, r *Registry, read func(*table) T) (result T, err error) {
	err = r.read(ctx, func(t *table) error {
		result = read(t)
		return nil
	})
	return result, err
}
