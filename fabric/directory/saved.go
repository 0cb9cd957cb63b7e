package directory

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/internal/mpcheck"
)

// What a table looks like in a Store. An entry's key begins with its kind; its value is a MessagePack array.
//
//	"mark"             [epoch, revision, last, floor, nodes, members, tombs]
//	"n" name           [name, incarnation, endpoint, weight, zone, host, holder]
//	"m" member         []                                the key has the member's array
//	"t" name           [incarnation, left]
//
// The numbers of nodes, members and tombs tell whether a store has lost some. Leases and loads are not kept: after a
// restart every lease begins anew.
const (
	markKey    = "mark"
	nodeKind   = 'n'
	memberKind = 'm'
	tombKind   = 't'
)

// change is one difference between two states of a table.
type change struct {
	kind   byte
	gone   bool
	node   NodeInfo // by name alone if it is gone, and for a tomb
	holder string
	member Member
	tomb   tomb
}

// mark is what a table is besides its entries.
type mark struct {
	epoch, revision, last, floor uint64
	nodes, members, tombs        int
}

func (t *table) mark() mark {
	return mark{t.epoch, t.revision, t.last, t.floor, len(t.nodes), t.members, len(t.tombs.byName)}
}

// note records a change for the journal.
func (t *table) note(c change) {
	if t.keeps {
		t.changes = append(t.changes, c)
	}
}

// noted returns the changes since it was called last.
func (t *table) noted() []change {
	changes := t.changes
	t.changes = nil
	return changes
}

func (m mark) encode() Change {
	return Change{[]byte(markKey), array(7, func(e *msgpack.Encoder) error {
		return errors.Join(e.EncodeUint(m.epoch), e.EncodeUint(m.revision), e.EncodeUint(m.last), e.EncodeUint(m.floor),
			e.EncodeInt(int64(m.nodes)), e.EncodeInt(int64(m.members)), e.EncodeInt(int64(m.tombs)))
	})}
}

func (c *change) encode() Change {
	var out Change
	switch c.kind {
	case nodeKind:
		out.Key = append([]byte{nodeKind}, c.node.Name...)
		if !c.gone {
			out.Value = array(7, func(e *msgpack.Encoder) error {
				return errors.Join(encodeInfo(e, c.node), e.EncodeString(c.holder))
			})
		}
	case memberKind:
		out.Key = append([]byte{memberKind}, array(4, func(e *msgpack.Encoder) error { return encodeMember(e, c.member) })...)
		if !c.gone {
			out.Value = array(0, func(*msgpack.Encoder) error { return nil })
		}
	case tombKind:
		out.Key = append([]byte{tombKind}, c.tomb.name...)
		if !c.gone {
			out.Value = array(2, func(e *msgpack.Encoder) error {
				return errors.Join(e.EncodeUint(c.tomb.incarnation), e.EncodeBool(c.tomb.left))
			})
		}
	}
	return out
}

// array encodes n elements. Ours are always encodable.
func array(n int, elements func(*msgpack.Encoder) error) []byte {
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	e.UseCompactInts(true)
	if err := errors.Join(e.EncodeArrayLen(n), elements(e)); err != nil {
		panic(fmt.Sprintf("directory: encoding what is saved: %v", err))
	}
	return b.Bytes()
}

// saved is what a store has given so far.
type saved struct {
	marked  bool
	mark    mark
	nodes   []savedNode
	members []Member
	tombs   []tomb
}

type savedNode struct {
	info   NodeInfo
	holder string
}

// take adds an entry.
func (s *saved) take(key, value []byte) error {
	if string(key) == markKey {
		r, err := open(value, 7)
		if err != nil {
			return fmt.Errorf("the mark: %w", err)
		}
		s.marked = true
		s.mark = mark{
			epoch: r.number(math.MaxUint64), revision: r.number(math.MaxUint64),
			last: r.number(MaxIncarnation), floor: r.number(MaxIncarnation),
			nodes: int(r.number(math.MaxInt32)), members: int(r.number(math.MaxInt32)), tombs: int(r.number(math.MaxInt32)),
		}
		if r.err != nil {
			return fmt.Errorf("the mark: %w", r.err)
		}
		return nil
	}
	err := errors.New("unknown kind")
	if len(key) > 0 {
		switch key[0] {
		case nodeKind:
			err = s.takeNode(value)
		case memberKind:
			err = s.takeMember(key[1:])
		case tombKind:
			err = s.takeTomb(string(key[1:]), value)
		}
	}
	if err != nil {
		return fmt.Errorf("entry %q: %w", key, err)
	}
	return nil
}

func (s *saved) takeNode(value []byte) error {
	r, err := open(value, 7)
	if err != nil {
		return err
	}
	n := savedNode{info: r.info(), holder: r.text()}
	if r.err != nil {
		return r.err
	}
	s.nodes = append(s.nodes, n)
	return checkInfo(n.info)
}

func (s *saved) takeMember(key []byte) error {
	r, err := open(key, 4)
	if err != nil {
		return err
	}
	m := r.member()
	if r.err != nil {
		return r.err
	}
	s.members = append(s.members, m)
	_, err = checkMembers([]Member{m})
	return err
}

func (s *saved) takeTomb(name string, value []byte) error {
	r, err := open(value, 2)
	if err != nil {
		return err
	}
	b := tomb{name: name, incarnation: r.number(MaxIncarnation), left: r.truth()}
	if r.err != nil {
		return r.err
	}
	s.tombs = append(s.tombs, b)
	return CheckName("node", name)
}

// open begins to read an array of so many elements.
func open(b []byte, elements int) (*reader, error) {
	if err := mpcheck.Check(b, maxDepth); err != nil {
		return nil, err
	}
	r := &reader{d: msgpack.NewDecoder(bytes.NewReader(b))}
	r.tuple(elements)
	return r, r.err
}

// A restart leaves room behind the numbers that were saved last, for those that were told or given and not saved any
// more: a later change never has the number of one that was lost, and no incarnation is given twice.
const (
	revisionGap    = 1 << 32 // every connection's request of batchLen members, many times over
	incarnationGap = 1 << 16 // one for every connection
)

// restore fills an empty table with what was saved. All nodes are orphans, with a lease that begins now.
func (t *table) restore(s *saved) error {
	if !s.marked {
		if len(s.nodes)+len(s.members)+len(s.tombs) > 0 {
			return errors.New("there are entries, and no mark")
		}
		return nil
	}
	if len(s.nodes) != s.mark.nodes || len(s.members) != s.mark.members || len(s.tombs) != s.mark.tombs {
		return fmt.Errorf("there are %d nodes, %d members and %d names that are gone; there should be %d, %d and %d",
			len(s.nodes), len(s.members), len(s.tombs), s.mark.nodes, s.mark.members, s.mark.tombs)
	}
	t.epoch, t.revision = s.mark.epoch, s.mark.revision+revisionGap
	t.last, t.floor = max(t.last, s.mark.last+incarnationGap), s.mark.floor
	t.roll = newChannel("", t.revision)
	for _, b := range s.tombs {
		t.tombs.put(b)
	}
	for _, n := range s.nodes {
		if t.nodes[n.info.Name] != nil {
			return fmt.Errorf("node %s is there twice", n.info.Name)
		}
		t.revive(n)
	}
	for _, m := range s.members {
		n := t.nodes[m.Node]
		if n == nil {
			return fmt.Errorf("member %v is there without its node", m)
		}
		c := t.channel(m.Channel)
		m.Channel, m.Node = c.name, n.info.Name
		entry := &registration{node: n}
		n.members[m], c.members[m] = entry, entry
		t.members++
	}
	return nil
}

// revive makes a node as it is when its holder's connection has just ended.
func (t *table) revive(saved savedNode) {
	h := t.absent
	if saved.holder != "" {
		if h = t.holders[saved.holder]; h == nil {
			h = &holder{id: saved.holder, lasting: true, nodes: make(map[*node]struct{})}
			t.holders[saved.holder] = h
		}
	}
	n := &node{info: saved.info, holder: h, connection: h.connection, members: make(map[Member]*registration)}
	h.nodes[n] = struct{}{}
	t.nodes[n.info.Name] = n
	t.roll.members[Member{Node: n.info.Name}] = &registration{node: n}
	t.leases.renew(n, t.now+t.lease)
}
