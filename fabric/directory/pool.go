package directory

import "slices"

// pool is the members of a channel with one role, or with any, in order, and whose turn it is among them. It is made
// when somebody asks for it, and made again when that happens after a change.
type pool struct {
	stale   bool
	list    []Candidate // never changed once made, but for the loads
	nodes   []*node     // theirs
	chooser Chooser
}

// pool returns the pool of a role; 0 is any.
func (c *channel) pool(role Role) *pool {
	p := c.pools[role]
	if p == nil {
		p = &pool{stale: true}
		c.pools[role] = p
	}
	if !p.stale {
		return p
	}
	p.stale = false
	p.list = make([]Candidate, 0, len(c.members))
	for m, r := range c.members {
		if role == 0 || m.Role == role {
			p.list = append(p.list, Candidate{Member: m, Node: r.node.info})
		}
	}
	slices.SortFunc(p.list, func(a, b Candidate) int { return a.Member.Compare(b.Member) })
	p.chooser.know(p.list)
	p.nodes = make([]*node, len(p.list))
	for i := range p.list {
		p.nodes[i] = c.members[p.list[i].Member].node
	}
	return p
}

// outdate is due after a change of the members with the role.
func (c *channel) outdate(role Role) {
	for _, p := range [...]*pool{c.pools[0], c.pools[role]} {
		if p != nil {
			p.stale, p.list, p.nodes = true, nil, nil
		}
	}
}

// weigh notes the loads as they are now.
func (p *pool) weigh() {
	for i, n := range p.nodes {
		p.list[i].Load = n.load
	}
}

// roster lists the candidates of a channel, or the nodes if it has no name.
func (t *table) roster(channel string, role Role) (Roster, error) {
	if err := checkPool(channel, role); err != nil {
		return Roster{}, err
	}
	r := Roster{Warming: t.warming()}
	if c := t.known(channel); c != nil {
		p := c.pool(role)
		p.weigh()
		r.Candidates = slices.Clone(p.list)
	}
	return r, nil
}

// choose chooses one. By key it does so only once the list is whole: else it would name an owner that is none.
func (t *table) choose(q Query, draw uint64) (Choice, error) {
	if err := checkQuery(q); err != nil {
		return Choice{}, err
	}
	c := t.known(q.Channel)
	if c == nil || t.warming() > 0 && q.Policy == ByKey {
		return Choice{}, t.nobody(q)
	}
	p := c.pool(q.Role)
	if q.Policy == LeastLoaded {
		p.weigh()
	}
	i := p.chooser.choose(p.list, q, draw)
	if i < 0 {
		return Choice{}, t.nobody(q)
	}
	choice := Choice{Candidate: p.list[i]}
	choice.Load = p.nodes[i].load
	return choice, nil
}

// nobody is the answer when there is nobody to choose, or not yet.
func (t *table) nobody(q Query) error {
	e := NobodyError{Channel: q.Channel, Role: q.Role}
	if d := t.warming(); d > 0 {
		return &WarmingError{What: e.who(), Remaining: d}
	}
	return &e
}
