package directory

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// sharedPatience is how long a request waits for the store: about as long as an etcd cluster takes to choose another
	// leader, and shorter than a client waits for its answer. Once one has waited in vain none waits any more.
	sharedPatience = 2 * time.Second
	// openPatience is the same at the start.
	openPatience = 5 * time.Second
	// sharedPause is the time between two attempts at what the store could not do.
	sharedPause = 50 * time.Millisecond
	// presenceLease is how long the store believes that a directory is there which says nothing: until then a name that
	// was joined through it is not given to another.
	presenceLease = 3 * time.Second
)

// sharing is what makes a Registry one of several with a Shared store. A change's way:
//
//  1. a session has the replica plan it (replicaplan.go): a refusal, nothing to do, or a transaction;
//  2. if it is no transaction, the replica may be late: confirm asks the store what its revision is, waits until the
//     replica has it, and the plan is made again, now for good;
//  3. the store decides on the transaction. If something was not as the replica had it, the replica catches up with
//     what is, and the plan is made again;
//  4. follow hears of the change, as do all the others, and puts it into the replica; then the caller is answered.
//
// A look-up waits for confirm, once, and is answered by the replica. So every answer is true for some moment between
// question and answer, whichever directory gives it.
type sharing struct {
	// immutable
	registry *Registry
	store    Shared
	log      *slog.Logger
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup // follow, confirm, tend
	asked    chan struct{}  // room for one: somebody waits for confirm
	chores   chan struct{}  // room for one: something for tend to do
	closing  sync.Once

	// tend's, and close's after it
	presence int64 // the lease of this directory's own entry; 0: none

	// under the registry's mu
	replica    *replica
	grown      chan struct{} // closed when the replica's revision grows
	waiting    chan struct{} // closed when the round ends that confirm is asked for
	confirmed  error         // how the last round ended
	down       error         // why the store cannot be reached; nil: it can
	connection uint64        // counts the sessions' connections
	renewing   *renewalBatch // that is about to be made; nil: none
}

// share makes the registry one of those that have the store. It begins with what is there, or begins the store.
func (r *Registry) share(cfg RegistryConfig, given time.Duration) error {
	var key [8]byte
	if _, err := crand.Read(key[:]); err != nil {
		return fmt.Errorf("directory: name: %w", err)
	}
	s := &sharing{
		registry: r,
		store:    cfg.Shared,
		log:      cfg.Logger,
		asked:    make(chan struct{}, 1),
		chores:   make(chan struct{}, 1),
		replica:  newReplica(fmt.Sprintf("%x", key), uint64(time.Now().UnixMilli()), cfg.Lease),
		grown:    make(chan struct{}),
		waiting:  make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	ctx, cancel := context.WithTimeout(s.ctx, openPatience)
	defer cancel()
	if err := s.begin(ctx, cfg, given); err != nil {
		s.cancel()
		return err
	}
	r.table, r.sharing = s.replica.table, s
	s.running.Add(3)
	go s.follow()
	go s.confirm()
	go s.tend()
	return nil
}

// begin reads all that is there.
func (s *sharing) begin(ctx context.Context, cfg RegistryConfig, given time.Duration) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	if s.replica.fabric.epoch == 0 {
		if len(s.replica.table.nodes)+len(s.replica.lives) > 0 {
			return &StoreError{errors.New("there are entries, and nothing that says of which fabric")}
		}
		if err := s.insist(ctx, func() error { return s.create(ctx, cfg) }); err != nil {
			return err
		}
		if err := s.read(ctx); err != nil { // of several that begin it one has
			return err
		}
	}
	mark := s.replica.fabric
	switch {
	case mark.epoch == 0:
		return &StoreError{errors.New("it was begun, and is empty")}
	case given != 0 && given != mark.lease:
		return invalid("a lease of %v: the directories that share %v have one of %v, all of them", given, s.store, mark.lease)
	}
	return s.insist(ctx, func() error { return s.announce(ctx) })
}

// insist does something that may be done twice, until it is done or ctx ends.
func (s *sharing) insist(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		if pause(ctx, sharedPause); ctx.Err() != nil {
			return s.unavailable(err)
		}
	}
}

// create makes the store's first entries, unless somebody else just has.
func (s *sharing) create(ctx context.Context, cfg RegistryConfig) error {
	t := SharedTransaction{
		If:   []SharedCondition{{Key: fabricKey}},
		Then: []SharedChange{{Key: fabricKey, Value: fabricMark{rand.Uint64()>>1 | 1, cfg.Lease}.encode()}},
	}
	if cfg.WarmUp {
		lease, err := s.store.Grant(ctx, sharedLease(cfg.Lease))
		if err != nil {
			return err
		}
		t.Then = append(t.Then, SharedChange{Key: warmKey, Value: emptyValue, Lease: lease})
	}
	_, _, err := s.store.Commit(ctx, t)
	return err
}

// read begins the replica anew.
func (s *sharing) read(ctx context.Context) error {
	var entries []SharedEntry
	revision, err := s.store.Read(ctx, func(e SharedEntry) error {
		e.Value = append([]byte(nil), e.Value...)
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return s.unavailable(err)
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if revision < s.replica.revision {
		return &StoreError{errBackwards}
	}
	if err := s.replica.load(entries, revision); err != nil {
		return &StoreError{err}
	}
	s.grow()
	return nil
}

var errBackwards = errors.New("its revision has gone back: it is another one, or was restored")

// grow wakes those who wait for a revision. Under the registry's mu.
func (s *sharing) grow() {
	close(s.grown)
	s.grown = make(chan struct{})
}

// unavailable says that the store did not answer.
func (s *sharing) unavailable(err error) error {
	if errors.Is(err, ErrStore) || errors.Is(err, ErrClosed) {
		return err
	}
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	return &UnavailableError{Addr: s.store.String(), Err: err}
}

// failed is the same during a request; then confirm finds out whether anybody is there.
func (s *sharing) failed(err error) error {
	signal(s.asked)
	return s.unavailable(err)
}

// reachable tells at once if the store is known not to answer.
func (s *sharing) reachable() error {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return s.down
}

// follow puts what the store tells into the replica.
func (s *sharing) follow() {
	defer s.running.Done()
	for s.ctx.Err() == nil {
		s.registry.mu.Lock()
		after := s.replica.revision
		s.registry.mu.Unlock()
		err := s.store.Watch(s.ctx, after, s.told)
		if errors.Is(err, ErrCompacted) {
			s.log.Warn("directory: the store has forgotten what this directory has not heard; it is read anew", "store", s.store)
			ctx, cancel := context.WithTimeout(s.ctx, openPatience)
			err = s.read(ctx)
			cancel()
		}
		if errors.Is(err, ErrStore) {
			s.registry.end(err)
			return
		}
		if err != nil {
			s.log.Debug("directory: the store tells no changes", "store", s.store, "error", err)
			pause(s.ctx, sharedPause)
		}
	}
}

// told takes one update.
func (s *sharing) told(u SharedUpdate) {
	s.registry.mu.Lock()
	s.replica.table.advance(s.registry.clock())
	err := s.replica.apply(u)
	s.grow()
	s.registry.mu.Unlock()
	if err != nil {
		s.registry.end(&StoreError{err}) // a replica that is not what the store has is of no use
	}
}

// confirm finds out what the store's revision is and waits until the replica has it, for all who have asked before it
// began. While the store cannot be reached it goes on trying, and who asks is told so at once.
func (s *sharing) confirm() {
	defer s.running.Done()
	for {
		select {
		case <-s.asked:
		case <-s.ctx.Done():
			return
		}
		for s.confirmOnce() != nil && s.ctx.Err() == nil && s.registry.isOpen() {
			pause(s.ctx, sharedPause)
		}
	}
}

// confirmOnce is one round, and answers those who wait for it.
func (s *sharing) confirmOnce() error {
	s.registry.mu.Lock()
	waiting, before := s.waiting, s.replica.revision
	s.waiting = make(chan struct{})
	s.registry.mu.Unlock()
	err := s.round(before)
	s.registry.mu.Lock()
	was := s.down
	s.confirmed, s.down = err, err
	s.registry.mu.Unlock()
	close(waiting)
	switch {
	case errors.Is(err, ErrStore):
		s.registry.end(err)
	case err != nil && was == nil && s.ctx.Err() == nil:
		s.log.Warn("directory: the store cannot be reached", "store", s.store, "error", err)
	case err == nil && was != nil:
		s.log.Info("directory: the store can be reached again", "store", s.store)
	}
	return err
}

// round asks for the revision, and waits for it.
func (s *sharing) round(before uint64) error {
	ctx, cancel := context.WithTimeout(s.ctx, sharedPatience)
	defer cancel()
	revision, err := s.store.Revision(ctx)
	switch {
	case err != nil:
		return s.unavailable(err)
	case revision < before:
		return &StoreError{errBackwards}
	}
	return s.reach(ctx, revision)
}

// reach waits until the replica has a revision.
func (s *sharing) reach(ctx context.Context, revision uint64) error {
	for {
		s.registry.mu.Lock()
		there, grown := s.replica.revision, s.grown
		s.registry.mu.Unlock()
		if there >= revision {
			return nil
		}
		select {
		case <-grown:
		case <-s.registry.done:
			return s.registry.ended()
		case <-ctx.Done():
			return s.unavailable(fmt.Errorf("it does not tell what has changed: %w", ctx.Err()))
		}
	}
}

// fresh waits until the replica has all that was decided before the call.
func (s *sharing) fresh(ctx context.Context) error {
	s.registry.mu.Lock()
	waiting, down := s.waiting, s.down
	s.registry.mu.Unlock()
	if down != nil {
		return down
	}
	signal(s.asked)
	select {
	case <-waiting:
	case <-s.registry.done:
		return s.registry.ended()
	case <-s.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return s.unavailable(ctx.Err())
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return s.confirmed
}

// bounded is a context for one request.
func (s *sharing) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, sharedPatience)
}

// change has the replica plan something and the store decide, until it is done or refused.
func (s *sharing) change(ctx context.Context, propose func(*replica) (plan, error)) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for fresh := false; ; {
		pl, err := planned(s, propose)
		if err != nil || pl.empty() {
			if fresh || errors.Is(err, ErrInvalid) || errors.Is(err, ErrClosed) || errors.Is(err, ErrStore) {
				return err
			}
			if err := s.fresh(ctx); err != nil {
				return err
			}
			fresh = true
			continue
		}
		done, err := s.commit(ctx, pl)
		if err != nil {
			return err
		}
		if done && !pl.more {
			return nil
		}
		fresh = true
	}
}

// planned makes a plan of the replica as it is.
func planned[P any](s *sharing, propose func(*replica) (P, error)) (pl P, err error) {
	_, err = s.registry.locked(context.Background(), func(*table) error {
		pl, err = propose(s.replica)
		return err
	})
	return pl, err
}

// commit has the store decide on a plan, and waits until the replica has what the store has then. An attempt that the
// store does not answer may have been made, or may be made yet: the plan is made again of what the replica has once the
// store answers, and cannot be carried out twice, as its conditions do not hold after it.
func (s *sharing) commit(ctx context.Context, pl plan) (done bool, err error) {
	if err := s.reachable(); err != nil {
		return false, err
	}
	revision, done, err := s.store.Commit(ctx, pl.transaction)
	switch {
	case err == nil:
		err = s.reach(ctx, revision)
	case ctx.Err() != nil:
		return false, s.failed(err)
	default:
		pause(ctx, sharedPause)
		err = s.fresh(ctx)
	}
	if done && pl.ends != 0 {
		s.revoke(pl.ends)
	}
	return done && err == nil, err
}

// revoke ends a lease that is of no use; if the store does not do it now, it ends by itself.
func (s *sharing) revoke(lease int64) {
	ctx, cancel := context.WithTimeout(s.ctx, sharedPatience)
	defer cancel()
	if err := s.store.Revoke(ctx, lease); err != nil {
		s.log.Debug("directory: a lease is left to end by itself", "store", s.store, "error", err)
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// tend keeps this directory's own entry, marks the nodes whose connections have ended, and has names forgotten.
func (s *sharing) tend() {
	defer s.running.Done()
	for {
		timer := time.NewTimer(presenceLease / renewals)
		select {
		case <-timer.C:
		case <-s.chores:
		case <-s.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
		ctx, cancel := context.WithTimeout(s.ctx, sharedPatience)
		err := errors.Join(s.announce(ctx), s.chore(ctx, (*replica).orphans), s.chore(ctx, (*replica).forgets))
		cancel()
		if err != nil {
			s.log.Debug("directory: tending the store", "store", s.store, "error", err)
			pause(s.ctx, sharedPause)
			signal(s.chores)
		}
	}
}

// announce says that this directory is there.
func (s *sharing) announce(ctx context.Context) error {
	if s.presence != 0 {
		over, err := s.store.Renew(ctx, []int64{s.presence})
		if err != nil {
			return err
		}
		if len(over) == 0 {
			return nil
		}
	}
	lease, err := s.store.Grant(ctx, presenceLease)
	if err != nil {
		return err
	}
	_, _, err = s.store.Commit(ctx, SharedTransaction{
		Then: []SharedChange{{Key: processPrefix + s.replica.own.name, Value: emptyValue, Lease: lease}},
	})
	if err == nil {
		s.presence = lease
	}
	return err
}

// chore does what a plan says, until there is nothing to do.
func (s *sharing) chore(ctx context.Context, propose func(*replica) plan) error {
	for {
		pl, err := planned(s, func(p *replica) (plan, error) { return propose(p), nil })
		if err != nil || pl.empty() {
			return err
		}
		if _, err := s.commit(ctx, pl); err != nil {
			return err
		}
	}
}

// close ends the goroutines, and tells the others that this directory is gone.
func (s *sharing) close() {
	s.cancel()
	s.running.Wait()
	s.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.store.Revoke(ctx, s.presence); err != nil {
			s.log.Debug("directory: leaving the store", "store", s.store, "error", err)
		}
	})
}
