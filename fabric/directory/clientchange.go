package directory

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// A Client's calls that change what is registered.

// Join implements Service.
func (c *Client) Join(ctx context.Context, info NodeInfo) (uint64, error) {
	if err := checkInfo(info); err != nil {
		return 0, err
	}
	q := joinRequest(info)
	err := c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		r, err := conn.call(ctx, q)
		if err != nil {
			return err
		}
		info.Incarnation = r.Incarnation
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[info.Name]; h == nil || h.info != info {
			c.held[info.Name] = &holding{info: info, members: make(map[Member]struct{})}
		}
		c.cache.putInfo(info, time.Now())
		return nil
	})
	if err != nil {
		return 0, err
	}
	return info.Incarnation, nil
}

func joinRequest(n NodeInfo) *request {
	return &request{
		Op: opJoin, Node: n.Name, Incarnation: n.Incarnation, Endpoint: n.Endpoint,
		Weight: uint64(n.Weight), Zone: n.Zone, Host: n.Host,
	}
}

// Leave implements Service.
func (c *Client) Leave(ctx context.Context, node string, incarnation uint64) error {
	if err := CheckName("node", node); err != nil {
		return err
	}
	drop := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[node]; h != nil && h.info.Incarnation == incarnation {
			delete(c.held, node)
		}
	}
	drop() // at once, whatever becomes of the call; and in turn, after a Join that was under way
	return c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		drop()
		_, err := conn.call(ctx, &request{Op: opLeave, Node: node, Incarnation: incarnation})
		return err
	})
}

// Add implements Service.
func (c *Client) Add(ctx context.Context, incarnation uint64, members ...Member) error {
	if len(members) == 0 {
		return nil
	}
	node, err := checkMembers(members)
	if err != nil {
		return err
	}
	return c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		for part := range slices.Chunk(members, batchLen) {
			if _, err := conn.call(ctx, &request{Op: opAdd, Incarnation: incarnation, Members: part}); err != nil {
				if len(members) > batchLen {
					c.unsettle() // all or none
				}
				return err
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[node]; h != nil && h.info.Incarnation == incarnation {
			for _, m := range members {
				h.members[m] = struct{}{}
			}
		}
		return nil
	})
}

// Remove implements Service.
func (c *Client) Remove(ctx context.Context, incarnation uint64, members ...Member) error {
	if len(members) == 0 {
		return nil
	}
	node, err := checkMembers(members)
	if err != nil {
		return err
	}
	drop := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if h := c.held[node]; h != nil && h.info.Incarnation == incarnation {
			for _, m := range members {
				delete(h.members, m)
			}
		}
	}
	drop() // at once, whatever becomes of the call; and in turn, after an Add that was under way
	return c.change(ctx, func(ctx context.Context, conn *clientConn) error {
		drop()
		for part := range slices.Chunk(members, batchLen) {
			if _, err := conn.call(ctx, &request{Op: opRemove, Incarnation: incarnation, Members: part}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Report implements Service. The load goes with the next renewal.
func (c *Client) Report(ctx context.Context, node string, incarnation uint64, load uint32) error {
	if err := cmp.Or(ctx.Err(), CheckName("node", node)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[node]
	switch {
	case c.ctx.Err() != nil:
		return ErrClosed
	case h == nil:
		return &NotJoinedError{Node: node}
	case h.info.Incarnation != incarnation:
		return &StaleError{Node: node, Incarnation: incarnation, Current: h.info.Incarnation}
	}
	h.load = load
	return nil
}

// Evict implements Service.
func (c *Client) Evict(ctx context.Context, node string, incarnation uint64, force bool) error {
	if err := CheckName("node", node); err != nil {
		return err
	}
	_, err := c.ask(ctx, &request{Op: opEvict, Node: node, Incarnation: incarnation, Force: force})
	return err
}
