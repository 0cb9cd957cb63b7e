package directory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Client's calls that change nothing.

// Members implements Service.
func (c *Client) Members(ctx context.Context, channel string) ([]Member, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	var list []Member
	q := &request{Op: opMembers, Channel: channel}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			return nil, err
		}
		list = append(list, r.Members...)
		if !r.More || len(list) == 0 {
			return list, nil
		}
		q.AfterMember = wireMembers{list[len(list)-1]}
	}
}

// Channels implements Service.
func (c *Client) Channels(ctx context.Context) ([]string, error) {
	var list []string
	q := &request{Op: opChannels}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			return nil, err
		}
		list = append(list, r.Channels...)
		if !r.More || len(list) == 0 {
			return list, nil
		}
		q.After = list[len(list)-1]
	}
}

// Nodes implements Service.
func (c *Client) Nodes(ctx context.Context) ([]NodeInfo, error) {
	list, err := c.Entries(ctx)
	return infos(list), err
}

// Entries implements Service.
func (c *Client) Entries(ctx context.Context) ([]Entry, error) {
	var list []Entry
	q := &request{Op: opNodes}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			return nil, err
		}
		list = append(list, r.Nodes...)
		if !r.More || len(list) == 0 {
			c.remember(list...)
			return list, nil
		}
		q.After = list[len(list)-1].Node.Name
	}
}

// Node implements Service.
func (c *Client) Node(ctx context.Context, name string) (NodeInfo, error) {
	e, err := c.node(ctx, name)
	return e.Node, err
}

// Lookup implements Service.
func (c *Client) Lookup(ctx context.Context, name string) (Entry, error) {
	e, err := c.node(ctx, name)
	if cannotTell(err) {
		if known, ok := c.recall(name); ok {
			return known, nil
		}
	}
	return e, err
}

// cannotTell reports whether the directory, if there is one, does not know the answer either way.
func cannotTell(err error) bool { return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrWarming) }

func (c *Client) node(ctx context.Context, name string) (Entry, error) {
	if err := CheckName("node", name); err != nil {
		return Entry{}, err
	}
	r, err := c.ask(ctx, &request{Op: opNode, Node: name})
	switch {
	case errors.Is(err, ErrUnknownNode):
		c.forget(name)
		return Entry{}, err
	case err != nil:
		return Entry{}, err
	case len(r.Nodes) != 1:
		return Entry{}, c.nonsense("%d nodes for one", len(r.Nodes))
	}
	c.remember(r.Nodes[0])
	return r.Nodes[0], nil
}

// nonsense is an answer that no directory gives.
func (c *Client) nonsense(format string, args ...any) error {
	return fmt.Errorf("directory: %s answered with %s", c.addr(), fmt.Sprintf(format, args...))
}

// Roster implements Service.
func (c *Client) Roster(ctx context.Context, channel string, role Role) (Roster, error) {
	if err := checkPool(channel, role); err != nil {
		return Roster{}, err
	}
	p := pooled{channel, role}
	roster, err := c.roster(ctx, p)
	if cannotTell(err) {
		if known, ok := c.recallRoster(p); ok {
			return known, nil
		}
	}
	return roster, err
}

func (c *Client) roster(ctx context.Context, p pooled) (Roster, error) {
	var roster Roster
	q := &request{Op: opRoster, Channel: p.channel, Role: uint64(p.role)}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			return Roster{}, err
		}
		page, err := r.candidates()
		if err != nil {
			return Roster{}, c.nonsense("a list of which %v", err)
		}
		roster.Candidates = append(roster.Candidates, page...)
		roster.Warming = max(roster.Warming, r.Warming.duration()) // the first page has it
		if !r.More || len(page) == 0 {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.cache.putCandidates(p, roster.Candidates, time.Now())
			return roster, nil
		}
		q.AfterMember = wireMembers{page[len(page)-1].Member}
	}
}

// Choose implements Service.
func (c *Client) Choose(ctx context.Context, q Query) (Choice, error) {
	if err := checkQuery(q); err != nil {
		return Choice{}, err
	}
	r, err := c.ask(ctx, &request{
		Op: opChoose, Channel: q.Channel, Role: uint64(q.Role), Policy: q.Policy, Key: q.Key, Zone: q.Zone, Host: q.Host,
	})
	if cannotTell(err) {
		if choice, ok := c.recallChoice(q, rand.Uint64()); ok {
			return choice, nil
		}
	}
	if err != nil {
		return Choice{}, err
	}
	list, err := r.candidates()
	if err != nil || len(list) != 1 {
		return Choice{}, c.nonsense("%d candidates where one was to be chosen", len(r.Members))
	}
	return Choice{Candidate: list[0]}, nil
}

// Status implements Service.
func (c *Client) Status(ctx context.Context) (Status, error) {
	r, err := c.ask(ctx, &request{Op: opPing})
	if err != nil {
		return Status{}, err
	}
	s := Status{Addr: r.from, Epoch: r.Epoch, Revision: r.Revision, Lease: r.Lease.duration(), Warming: r.Warming.duration()}
	if r.Counts != nil {
		s.Nodes, s.Channels, s.Members = r.Counts.nodes, r.Counts.channels, r.Counts.members
	}
	return s, nil
}
