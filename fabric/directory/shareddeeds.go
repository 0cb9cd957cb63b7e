package directory

import (
	"context"
	"slices"
	"time"
)

// What a Server does with a Registry that shares its table, on behalf of its clients.

// attach makes a holder for a connection. Who is told apart by the connection alone is nobody at another directory.
func (s *sharing) attach(id string, lasting bool) *holder {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if !lasting {
		id = s.replica.own.name + " " + id
	}
	s.connection++
	s.replica.own.connections[s.connection] = struct{}{}
	return &holder{id: id, lasting: lasting, live: true, connection: s.connection}
}

// detach ends the connection: its nodes are orphans here at once, and soon everywhere.
func (s *sharing) detach(connection uint64) {
	s.registry.mu.Lock()
	delete(s.replica.own.connections, connection)
	s.registry.mu.Unlock()
	signal(s.chores)
}

func (s *sharing) join(ctx context.Context, h *holder, info NodeInfo) (uint64, error) {
	if err := checkInfo(info); err != nil {
		return 0, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var chosen uint64
	var lease int64 // granted, and not in use
	defer func() {
		if lease != 0 {
			s.revoke(lease)
		}
	}()
	for fresh := false; ; {
		if err := s.reachable(); err != nil {
			return 0, err
		}
		step, err := planned(s, func(p *replica) (joinPlan, error) { return p.join(h, info, chosen, lease) })
		switch {
		case err != nil && fresh:
			return 0, err
		case err != nil:
			if err := s.fresh(ctx); err != nil {
				return 0, err
			}
			fresh = true
			continue
		case step.grant:
			if lease, err = s.store.Grant(ctx, sharedLease(s.replica.table.lease)); err != nil {
				return 0, s.failed(err)
			}
			continue
		case step.renews != 0:
			over, err := s.store.Renew(ctx, []int64{step.renews})
			if err != nil {
				return 0, s.failed(err)
			}
			if len(over) > 0 { // it is about to go, and then may join again
				pause(ctx, sharedPause)
				if err := s.fresh(ctx); err != nil {
					return 0, err
				}
				continue
			}
			if step.empty() && !fresh {
				if err := s.fresh(ctx); err != nil {
					return 0, err
				}
				fresh = true
				continue
			}
		}
		chosen = step.incarnation
		done := step.empty()
		if !done {
			if done, err = s.commit(ctx, step.plan); err != nil {
				return 0, err
			}
			fresh = true
		}
		if !done {
			continue
		}
		if step.granted || step.renews == lease { // the second, if an attempt was made of which nothing was heard
			lease = 0
		}
		s.renewed(h, []renewal{{name: info.Name, incarnation: step.incarnation}}, nil)
		if h.restating {
			h.state(info.Name)
		}
		return step.incarnation, nil
	}
}

func (s *sharing) leave(ctx context.Context, h *holder, name string, incarnation uint64) error {
	return s.change(ctx, func(p *replica) (plan, error) { return p.leave(h, name, incarnation) })
}

func (s *sharing) evict(ctx context.Context, name string, incarnation uint64, force bool) error {
	return s.change(ctx, func(p *replica) (plan, error) { return p.evict(name, incarnation, force) })
}

func (s *sharing) add(ctx context.Context, h *holder, incarnation uint64, members []Member) error {
	if len(members) == 0 {
		return nil
	}
	err := s.change(ctx, func(p *replica) (plan, error) { return p.add(h, incarnation, members) })
	if err == nil && h.restating {
		stated := h.state(members[0].Node)
		for _, m := range members {
			stated[m] = struct{}{}
		}
	}
	return err
}

func (s *sharing) remove(ctx context.Context, h *holder, incarnation uint64, members []Member) error {
	if len(members) == 0 {
		return nil
	}
	return s.change(ctx, func(p *replica) (plan, error) { return p.remove(h, incarnation, members) })
}

// renewLinger is how long a renewal waits for others to be made with it: a thousand nodes are then ten requests to the
// store, and a node that waits so long has two thirds of its lease left.
const renewLinger = 50 * time.Millisecond

// renewalBatch is renewals that are made together.
type renewalBatch struct {
	leases []int64
	done   chan struct{} // closed when over and err are there
	over   []int64
	err    error
}

// renew has the store begin leases anew. What it returns as unknown was so afterwards, as was what it does not.
func (s *sharing) renew(ctx context.Context, h *holder, list []renewal) (unknown []string, err error) {
	over, err := s.renewLeases(h, list)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	unknown, changed := s.renewed(h, list, over)
	for part := range slices.Chunk(changed, MaxSharedTransaction) {
		pl, err := planned(s, func(p *replica) (plan, error) { return p.loads(part), nil })
		if err != nil || pl.empty() {
			return unknown, err
		}
		if _, err := s.commit(ctx, pl); err != nil { // what is not told now is told with the next renewal
			return unknown, err
		}
	}
	return unknown, nil
}

// renewLeases renews the leases of those of the nodes that are h's. Who comes first waits for others, and makes the request
// for all of them.
func (s *sharing) renewLeases(h *holder, list []renewal) (over []int64, err error) {
	batch, first, err := s.joinBatch(h, list)
	if err != nil {
		return nil, err
	}
	if !first {
		<-batch.done // the first one's request is bounded
		return batch.over, batch.err
	}
	pause(s.ctx, renewLinger)
	s.registry.mu.Lock()
	s.renewing = nil
	s.registry.mu.Unlock()
	ctx, cancel := s.bounded(s.ctx)
	defer cancel()
	if batch.over, batch.err = s.store.Renew(ctx, batch.leases); batch.err != nil {
		batch.err = s.failed(batch.err)
	} else {
		batch.err = s.fresh(ctx)
	}
	close(batch.done)
	return batch.over, batch.err
}

// joinBatch adds to the renewals that are about to be made; the first to come begins them.
func (s *sharing) joinBatch(h *holder, list []renewal) (batch *renewalBatch, first bool, err error) {
	_, err = planned(s, func(p *replica) (struct{}, error) {
		if s.down != nil {
			return struct{}{}, s.down
		}
		if first = s.renewing == nil; first {
			s.renewing = &renewalBatch{done: make(chan struct{})}
		}
		batch = s.renewing
		for _, r := range list {
			if n, err := p.held(h, r.name, r.incarnation); n != nil && err == nil {
				batch.leases = append(batch.leases, n.shared.lease)
			}
		}
		return struct{}{}, nil
	})
	return batch, first, err
}

// renewed notes which leases were begun anew, and returns the nodes that are not h's, and those of which it is worth
// telling the load.
func (s *sharing) renewed(h *holder, list []renewal, over []int64) (unknown []string, changed []renewal) {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	for _, r := range list {
		n, err := s.replica.held(h, r.name, r.incarnation)
		if n == nil || err != nil || slices.Contains(over, n.shared.lease) {
			unknown = append(unknown, r.name)
			continue
		}
		n.shared.deadline = s.replica.table.now + s.replica.table.lease
		if tells(n.load, r.load) {
			changed = append(changed, r)
		}
	}
	return unknown, changed
}

// tells reports whether a load is so different from what was told last that the store is to be written for it: a tenth.
// Renewals alone write nothing.
func tells(told, load uint32) bool {
	difference := max(told, load) - min(told, load)
	return difference > told/10
}

// restate begins a round: what the holder joins and adds from now on is what it holds.
func (s *sharing) restate(h *holder) {
	h.restating, h.stated = true, make(map[string]map[Member]struct{})
}

// state notes that a holder has stated a node, and returns what it has stated of that.
func (h *holder) state(name string) map[Member]struct{} {
	members := h.stated[name]
	if members == nil {
		members = make(map[Member]struct{})
		h.stated[name] = members
	}
	return members
}

// settle ends the round: what the holder did not state is removed. In any case it shows that the store can be reached.
func (s *sharing) settle(ctx context.Context, h *holder) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := s.fresh(ctx); err != nil {
		return err
	}
	if !h.restating {
		return nil
	}
	names, err := planned(s, func(p *replica) ([]string, error) { return p.heldBy(h.id), nil })
	if err != nil {
		return err
	}
	for _, name := range names {
		stated, there := h.stated[name]
		if err := s.change(ctx, func(p *replica) (plan, error) { return p.settle(h, name, stated, !there), nil }); err != nil {
			return err
		}
	}
	h.restating, h.stated = false, nil
	return nil
}
