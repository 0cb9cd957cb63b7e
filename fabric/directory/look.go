package directory

import "cmp"

// What a table tells of itself, besides its channels.

// look finds a node.
func (t *table) look(name string) (Entry, error) {
	if err := CheckName("node", name); err != nil {
		return Entry{}, err
	}
	if n := t.nodes[name]; n != nil {
		return t.entry(n), nil
	}
	return Entry{}, t.unknown(name)
}

func (t *table) entry(n *node) Entry {
	e := Entry{Node: n.info, Load: n.load, Orphan: !n.live()}
	switch {
	case n.leased:
		e.Lease = n.deadline - t.now
	case n.shared != nil:
		e.Lease = max(0, n.shared.deadline-t.now)
	}
	return e
}

func infos(list []Entry) []NodeInfo {
	infos := make([]NodeInfo, len(list))
	for i, e := range list {
		infos[i] = e.Node
	}
	return infos
}

func (t *table) status() Status {
	s := Status{
		Epoch: t.epoch, Revision: t.revision, Lease: t.lease, Warming: t.warming(),
		Nodes: len(t.nodes), Members: t.members,
	}
	for _, c := range t.channels {
		if len(c.members) > 0 {
			s.Channels++
		}
	}
	return s
}

func compareInfo(a, b NodeInfo) int { return cmp.Compare(a.Name, b.Name) }
