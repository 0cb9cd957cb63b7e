package directory

import (
	"slices"
	"time"
)

// Bounds of what a Client remembers for when no directory answers.
const (
	maxCache       = 1 << 16 // nodes
	maxCacheRoster = 1 << 16 // candidates of all rosters together
)

// cache is what a Client heard; under its mu.
type cache struct {
	nodes    map[string]cachedEntry
	rosters  map[pooled]*cachedRoster
	rostered int // candidates in rosters
}

// pooled names a roster.
type pooled struct {
	channel string
	role    Role
}

type cachedEntry struct {
	entry Entry
	heard time.Time
}

type cachedRoster struct {
	list    []Candidate
	heard   time.Time
	chooser Chooser // for choices without a directory
}

func newCache() cache {
	return cache{nodes: make(map[string]cachedEntry), rosters: make(map[pooled]*cachedRoster)}
}

// putNode remembers a node, and forgets any other one if there are too many.
func (c *cache) putNode(e Entry, now time.Time) {
	if _, there := c.nodes[e.Node.Name]; !there && len(c.nodes) >= maxCache {
		for name := range c.nodes {
			delete(c.nodes, name)
			break
		}
	}
	c.nodes[e.Node.Name] = cachedEntry{e, now}
}

// putInfo remembers a node of which no more is known, unless more of it is remembered.
func (c *cache) putInfo(info NodeInfo, now time.Time) {
	e := c.nodes[info.Name].entry
	if e.Node != info {
		e = Entry{Node: info}
	}
	c.putNode(e, now)
}

// putCandidates remembers a roster that the directory gave, and the loads in it.
func (c *cache) putCandidates(p pooled, list []Candidate, now time.Time) {
	for _, candidate := range list {
		c.putInfo(candidate.Node, now)
		cached := c.nodes[candidate.Node.Name]
		cached.entry.Load = candidate.Load
		c.nodes[candidate.Node.Name] = cached
	}
	c.putRoster(p, slices.Clone(list), now)
}

// putRoster remembers a roster, and forgets others as long as there are too many candidates. One that is too large by
// itself is not remembered.
func (c *cache) putRoster(p pooled, list []Candidate, now time.Time) {
	old := c.rosters[p]
	if old != nil {
		c.drop(p)
	}
	if len(list) > maxCacheRoster {
		return
	}
	for other := range c.rosters {
		if c.rostered+len(list) <= maxCacheRoster {
			break
		}
		c.drop(other)
	}
	next := &cachedRoster{list: list, heard: now}
	if old != nil {
		next.chooser = old.chooser // whose turn it is stays
	}
	c.rosters[p] = next
	c.rostered += len(list)
}

func (c *cache) drop(p pooled) {
	c.rostered -= len(c.rosters[p].list)
	delete(c.rosters, p)
}

// roster finds the roster of a role: as it was heard, or out of that of all roles.
func (c *cache) roster(p pooled) *cachedRoster {
	r, all := c.rosters[p], c.rosters[pooled{channel: p.channel}]
	if r == nil && all != nil {
		r = &cachedRoster{heard: all.heard}
		for _, candidate := range all.list {
			if candidate.Member.Role == p.role {
				r.list = append(r.list, candidate)
			}
		}
		c.putRoster(p, r.list, r.heard)
		r = c.rosters[p]
	}
	return r
}

// stale is the mark of what was heard then.
func stale(heard time.Time) Freshness { return Freshness{Stale: true, Age: time.Since(heard)} }

// remember keeps what the directory told of nodes.
func (c *Client) remember(entries ...Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, e := range entries {
		c.cache.putNode(e, now)
	}
}

// hear keeps what a watcher told of nodes: all but what changes during their lives.
func (c *Client) hear(events []Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, e := range events {
		switch {
		case e.Kind == Added:
			c.cache.putInfo(e.Node, now)
		case e.Kind == Removed && e.Member.Channel == "": // the node itself
			delete(c.cache.nodes, e.Node.Name)
		}
	}
}

func (c *Client) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cache.nodes, name)
}

// recall is what was last heard of a node.
func (c *Client) recall(name string) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cached, ok := c.cache.nodes[name]
	cached.entry.Freshness = stale(cached.heard)
	return cached.entry, ok
}

// recallRoster is what was last heard of a channel's members: by a watcher, who knew all until the connection was lost,
// or in answer to Roster.
func (c *Client) recallRoster(p pooled) (Roster, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.cached(p)
	if r == nil {
		return Roster{}, false
	}
	return Roster{Candidates: slices.Clone(r.list), Freshness: stale(r.heard)}, true
}

// recallChoice chooses from that.
func (c *Client) recallChoice(q Query, draw uint64) (Choice, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.cached(pooled{q.Channel, q.Role})
	if r == nil {
		return Choice{}, false
	}
	i := r.chooser.Choose(r.list, q, draw)
	if i < 0 {
		return Choice{}, false
	}
	return Choice{Candidate: r.list[i], Freshness: stale(r.heard)}, true
}

// cached finds a roster, and brings it up to what a watcher of the channel knows; under mu.
func (c *Client) cached(p pooled) *cachedRoster {
	heard := time.Now()
	if c.conn == nil {
		heard = c.lostAt
		if r := c.cache.rosters[p]; r != nil && r.heard.Equal(heard) {
			return r // nobody has heard anything since
		}
	}
	for w := range c.watchers {
		if w.channel != p.channel {
			continue
		}
		if list, ok := w.candidates(p.role); ok {
			for i := range list {
				list[i].Load = c.cache.nodes[list[i].Node.Name].entry.Load
			}
			c.cache.putRoster(p, list, heard)
			break
		}
	}
	return c.cache.roster(p)
}
