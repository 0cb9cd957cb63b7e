package directory

import (
	"fmt"
	"math"
	"sort"
)

// How a session answers one request.

// serve deals with one request. No reply, and no error, means that write answers it.
func (s *session) serve(q *request, envelope [][]byte) (*reply, error) {
	registry := s.server.registry
	ctx := s.server.ctx
	r := &reply{ID: q.ID}
	var err error
	switch q.Op {
	case opPing:
		err = s.status(r)
	case opJoin:
		r.Incarnation, err = registry.join(s.holder, q.info())
		r.Lease = inMilliseconds(registry.table.lease)
	case opRenew:
		r.Unknown, err = registry.renew(s.holder, q.Renewals)
	case opLeave:
		err = registry.leave(s.holder, q.Node, q.Incarnation)
	case opEvict:
		err = registry.Evict(ctx, q.Node, q.Incarnation, q.Force)
	case opAdd:
		err = registry.add(s.holder, q.Incarnation, q.Members)
	case opRemove:
		err = registry.remove(s.holder, q.Incarnation, q.Members)
	case opRestate:
		err = registry.restate(s.holder)
	case opSettle:
		err = registry.settle(s.holder)
		r.Lease = inMilliseconds(registry.table.lease)
	case opNode:
		var e Entry
		e, err = registry.Lookup(ctx, q.Node)
		r.Nodes = wireNodes{e}
	case opNodes:
		r.Nodes, r.More, err = page(s, q, q.After != "",
			func() ([]Entry, error) { return registry.Entries(ctx) },
			func(n Entry) bool { return n.Node.Name > q.After })
	case opChannels:
		r.Channels, r.More, err = page(s, q, q.After != "",
			func() ([]string, error) { return registry.Channels(ctx) },
			func(name string) bool { return name > q.After })
	case opMembers:
		r.Members, r.More, err = page(s, q, len(q.AfterMember) > 0,
			func() ([]Member, error) { return registry.Members(ctx, q.Channel) },
			func(m Member) bool { return m.Compare(q.AfterMember[0]) > 0 })
	case opRoster:
		err = s.roster(q, r)
	case opChoose:
		var c Choice
		c, err = registry.Choose(ctx, Query{
			Channel: q.Channel, Role: q.role(), Policy: q.Policy, Key: q.Key, Zone: q.Zone, Host: q.Host,
		})
		r.setCandidates([]Candidate{c.Candidate})
	case opWatch:
		if err := CheckName("channel", q.Channel); err != nil {
			return nil, err
		}
		return nil, s.watch(q, q.Channel, envelope)
	case opWatchNodes:
		return nil, s.watch(q, "", envelope)
	case opNext:
		return nil, s.next(q, envelope)
	case opUnwatch:
		s.unwatch(q.Watch)
	default:
		r.Error, r.Text = codeUnknownOp, fmt.Sprintf("directory: unknown op %q", q.Op)
	}
	return r, err
}

// roster fills in a page of candidates.
func (s *session) roster(q *request, r *reply) error {
	candidates, more, err := page(s, q, len(q.AfterMember) > 0,
		func() ([]Candidate, error) {
			roster, err := s.server.registry.Roster(s.server.ctx, q.Channel, q.role())
			r.Warming = inMilliseconds(roster.Warming)
			return roster.Candidates, err
		},
		func(c Candidate) bool { return c.Member.Compare(q.AfterMember[0]) > 0 })
	r.setCandidates(candidates)
	r.More = more
	return err
}

// info is the node that a request describes.
func (q *request) info() NodeInfo {
	return NodeInfo{
		Name: q.Node, Incarnation: q.Incarnation, Endpoint: q.Endpoint,
		Weight: uint32(min(q.Weight, math.MaxUint32)), Zone: q.Zone, Host: q.Host, // what does not fit is over MaxWeight
	}
}

// role is valid only if it is one on the wire.
func (q *request) role() Role { return Role(min(q.Role, math.MaxUint8)) }

// status fills in the answer to a ping.
func (s *session) status(r *reply) error {
	status, err := s.server.registry.Status(s.server.ctx)
	r.Epoch, r.Revision = status.Epoch, status.Revision
	r.Lease, r.Warming = inMilliseconds(status.Lease), inMilliseconds(status.Warming)
	r.Counts = &wireCounts{status.Nodes, status.Channels, status.Members}
	return err
}

// listing is a list of which a client has had some pages: it is made once, and the pages are of one moment.
type listing struct {
	op, channel string
	role        Role
	items       any
}

// page gives the first items of a list, or those beyond the ones that the client has had.
func page[T any](s *session, q *request, later bool, list func() ([]T, error), beyond func(T) bool) ([]T, bool, error) {
	items, same := s.listing.items.([]T)
	if !later || !same || s.listing.op != q.Op || s.listing.channel != q.Channel || s.listing.role != q.role() {
		var err error
		if items, err = list(); err != nil {
			return nil, false, err
		}
	}
	from := 0
	if later {
		from = sort.Search(len(items), func(i int) bool { return beyond(items[i]) })
	}
	to := min(from+batchLen, len(items))
	s.listing = listing{}
	if to < len(items) {
		s.listing = listing{op: q.Op, channel: q.Channel, role: q.role(), items: items}
	}
	return items[from:to], to < len(items), nil
}

// watch begins a watch, of a channel or of the nodes, under the number that the client chose.
func (s *session) watch(q *request, channel string, envelope [][]byte) error {
	if err := s.server.registry.fresh(s.server.ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[q.Watch] != nil {
		return invalid("watch %d is in use", q.Watch)
	}
	if len(s.watches) >= maxWatches {
		return &LimitError{What: "watches on one connection", Max: maxWatches}
	}
	feed, err := s.server.registry.open(channel, q.Epoch, q.Revision, func() { signal(s.wake) })
	if err != nil {
		return err
	}
	s.watches[q.Watch] = &watch{feed: feed, asked: &poll{envelope, q.ID, true}}
	signal(s.wake)
	return nil
}

// next asks for the watch's next events.
func (s *session) next(q *request, envelope [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[q.Watch]
	switch {
	case w == nil:
		return errNoWatch
	case w.asked != nil:
		return invalid("watch %d was asked for its next events already", q.Watch)
	}
	w.asked = &poll{envelope, q.ID, false}
	signal(s.wake)
	return nil
}

// unwatch ends a watch; a request that waits for its events stays without an answer.
func (s *session) unwatch(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.watches[number]; w != nil {
		s.server.registry.release(w.feed)
		delete(s.watches, number)
	}
}
