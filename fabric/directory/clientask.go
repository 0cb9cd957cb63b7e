package directory

import (
	"context"
	"errors"
	"fmt"
)

// A Client's calls that change nothing.

// Members implements Service. While the directory cannot be reached, a channel that is being watched here is still
// known.
func (c *Client) Members(ctx context.Context, channel string) ([]Member, error) {
	if err := CheckName("channel", channel); err != nil {
		return nil, err
	}
	if list, ok := c.watched(channel); ok && !c.connected() {
		return list, nil
	}
	var list []Member
	q := &request{Op: opMembers, Channel: channel}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			if known, ok := c.watched(channel); ok && errors.Is(err, ErrUnavailable) {
				return known, nil
			}
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
			c.remember(infos(list)...)
			return list, nil
		}
		q.After = list[len(list)-1].Node.Name
	}
}

// Node implements Service. While the directory cannot be reached, what was last heard of the node is returned.
func (c *Client) Node(ctx context.Context, name string) (NodeInfo, error) {
	e, err := c.Lookup(ctx, name)
	return e.Node, err
}

// Lookup implements Service, as Node does.
func (c *Client) Lookup(ctx context.Context, name string) (Entry, error) {
	if err := CheckName("node", name); err != nil {
		return Entry{}, err
	}
	if info, ok := c.recall(name); ok && !c.connected() {
		return Entry{Node: info}, nil
	}
	r, err := c.ask(ctx, &request{Op: opNode, Node: name})
	if err == nil && len(r.Nodes) != 1 {
		err = fmt.Errorf("directory: %s answered with %d nodes for one", c.addr, len(r.Nodes))
	}
	if err != nil {
		if info, ok := c.recall(name); ok && errors.Is(err, ErrUnavailable) {
			return Entry{Node: info}, nil
		}
		if errors.Is(err, ErrUnknownNode) {
			c.forget(name)
		}
		return Entry{}, err
	}
	c.remember(r.Nodes[0].Node)
	return r.Nodes[0], nil
}

// Roster implements Service.
func (c *Client) Roster(ctx context.Context, channel string, role Role) (Roster, error) {
	if err := checkPool(channel, role); err != nil {
		return Roster{}, err
	}
	var roster Roster
	q := &request{Op: opRoster, Channel: channel, Role: uint64(role)}
	for {
		r, err := c.ask(ctx, q)
		if err != nil {
			return Roster{}, err
		}
		page, err := r.candidates()
		if err != nil {
			return Roster{}, fmt.Errorf("directory: %s: %w", c.addr, err)
		}
		roster.Candidates = append(roster.Candidates, page...)
		roster.Warming = max(roster.Warming, r.Warming.duration()) // the first page has it
		if !r.More || len(page) == 0 {
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
	if err != nil {
		return Choice{}, err
	}
	list, err := r.candidates()
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%d candidates where one was to be chosen", len(list))
	}
	if err != nil {
		return Choice{}, fmt.Errorf("directory: %s: %w", c.addr, err)
	}
	return Choice{list[0]}, nil
}

// Status implements Service.
func (c *Client) Status(ctx context.Context) (Status, error) {
	r, err := c.ask(ctx, &request{Op: opPing})
	if err != nil {
		return Status{}, err
	}
	s := Status{Epoch: r.Epoch, Revision: r.Revision, Lease: r.Lease.duration(), Warming: r.Warming.duration()}
	if r.Counts != nil {
		s.Nodes, s.Channels, s.Members = r.Counts.nodes, r.Counts.channels, r.Counts.members
	}
	return s, nil
}
