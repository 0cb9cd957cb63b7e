package directory

import (
	"errors"
	"fmt"
	"math"

	"github.com/vmihailenco/msgpack/v5"
)

// The tuples of which the protocol's messages consist, as bytes and back.

func (l wireMembers) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(len(l)); err != nil {
		return err
	}
	for _, m := range l {
		if err := errors.Join(e.EncodeArrayLen(4), encodeMember(e, m)); err != nil {
			return err
		}
	}
	return nil
}

// encodeMember writes a member's 4 elements, and reader.member reads them.
func encodeMember(e *msgpack.Encoder, m Member) error {
	return errors.Join(e.EncodeString(m.Channel), e.EncodeUint(uint64(m.Role)), e.EncodeString(m.Node), e.EncodeInt(int64(m.Index)))
}

func (r *reader) member() Member {
	return Member{Channel: r.text(), Role: Role(r.number(math.MaxUint8)), Node: r.text(), Index: int(r.number(MaxIndex))}
}

func (l *wireMembers) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := listLen(d)
	if err != nil {
		return err
	}
	*l = make(wireMembers, n)
	for i := range *l {
		r := reader{d: d}
		r.tuple(4)
		(*l)[i] = r.member()
		if r.err != nil {
			return fmt.Errorf("member %d: %w", i, r.err)
		}
	}
	return nil
}

func (l wireNodes) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(len(l)); err != nil {
		return err
	}
	for _, n := range l {
		if err := errors.Join(e.EncodeArrayLen(9), encodeInfo(e, n.Node), e.EncodeUint(uint64(n.Load)),
			e.EncodeUint(uint64(inMilliseconds(n.Lease))), e.EncodeBool(n.Orphan)); err != nil {
			return err
		}
	}
	return nil
}

// encodeInfo writes a node's 6 elements of a tuple, and reader.info reads them.
func encodeInfo(e *msgpack.Encoder, n NodeInfo) error {
	return errors.Join(e.EncodeString(n.Name), e.EncodeUint(n.Incarnation), e.EncodeString(n.Endpoint),
		e.EncodeUint(uint64(n.Weight)), e.EncodeString(n.Zone), e.EncodeString(n.Host))
}

func (r *reader) info() NodeInfo {
	return NodeInfo{
		Name: r.text(), Incarnation: r.number(MaxIncarnation), Endpoint: r.text(),
		Weight: uint32(r.number(math.MaxUint32)), Zone: r.text(), Host: r.text(),
	}
}

func (l *wireNodes) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := listLen(d)
	if err != nil {
		return err
	}
	*l = make(wireNodes, n)
	for i := range *l {
		r := reader{d: d}
		r.tuple(9)
		(*l)[i] = Entry{
			Node: r.info(), Load: uint32(r.number(math.MaxUint32)),
			Lease: milliseconds(r.number(math.MaxUint64)).duration(), Orphan: r.truth(),
		}
		if r.err != nil {
			return fmt.Errorf("node %d: %w", i, r.err)
		}
	}
	return nil
}

func (l wireRenewals) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(len(l)); err != nil {
		return err
	}
	for _, r := range l {
		if err := errors.Join(e.EncodeArrayLen(3), e.EncodeString(r.name), e.EncodeUint(r.incarnation),
			e.EncodeUint(uint64(r.load))); err != nil {
			return err
		}
	}
	return nil
}

func (l *wireRenewals) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := listLen(d)
	if err != nil {
		return err
	}
	*l = make(wireRenewals, n)
	for i := range *l {
		r := reader{d: d}
		r.tuple(3)
		(*l)[i] = renewal{name: r.text(), incarnation: r.number(MaxIncarnation), load: uint32(r.number(math.MaxUint32))}
		if r.err != nil {
			return fmt.Errorf("renewal %d: %w", i, r.err)
		}
	}
	return nil
}

func (l *wireNames) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := listLen(d)
	if err != nil {
		return err
	}
	*l = make(wireNames, n)
	r := reader{d: d}
	for i := range *l {
		(*l)[i] = r.text()
	}
	return r.err
}

func (c *wireCounts) EncodeMsgpack(e *msgpack.Encoder) error {
	return errors.Join(e.EncodeArrayLen(3),
		e.EncodeInt(int64(c.nodes)), e.EncodeInt(int64(c.channels)), e.EncodeInt(int64(c.members)))
}

func (c *wireCounts) DecodeMsgpack(d *msgpack.Decoder) error {
	r := reader{d: d}
	r.tuple(3)
	c.nodes, c.channels, c.members = int(r.number(math.MaxInt32)), int(r.number(math.MaxInt32)), int(r.number(math.MaxInt32))
	return r.err
}

func (l *wireEvents) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(len(l.list)); err != nil {
		return err
	}
	for _, event := range l.list {
		if err := encodeEvent(e, event); err != nil {
			return err
		}
	}
	return nil
}

// wireExpired is how an Event that is Expired says its kind, Removed, in a message.
const wireExpired EventKind = 4

func encodeEvent(e *msgpack.Encoder, event Event) error {
	if event.Kind == Synced {
		return errors.Join(e.EncodeArrayLen(3), e.EncodeUint(uint64(event.Kind)), e.EncodeUint(event.Revision),
			e.EncodeUint(uint64(inMilliseconds(event.Warming))))
	}
	kind := event.Kind
	if event.Expired {
		kind = wireExpired
	}
	return errors.Join(e.EncodeArrayLen(10), e.EncodeUint(uint64(kind)), e.EncodeUint(event.Revision),
		e.EncodeUint(uint64(event.Member.Role)), e.EncodeInt(int64(event.Member.Index)), encodeInfo(e, event.Node))
}

func (l *wireEvents) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := listLen(d)
	if err != nil {
		return err
	}
	l.list = make([]Event, n)
	for i := range l.list {
		r := reader{d: d}
		size := r.length()
		event := Event{Kind: EventKind(r.number(255)), Revision: r.number(math.MaxUint64)}
		if event.Kind == wireExpired {
			event.Kind, event.Expired = Removed, true
		}
		switch {
		case r.err != nil:
		case event.Kind == Synced && size == 3:
			event.Warming = milliseconds(r.number(math.MaxUint64)).duration()
		case (event.Kind == Added || event.Kind == Removed) && size == 10:
			event.Member.Role = Role(r.number(255))
			event.Member.Index = int(r.number(MaxIndex))
			event.Node = r.info()
			event.Member.Node = event.Node.Name
		default:
			r.err = fmt.Errorf("%d elements, kind %d", size, event.Kind)
		}
		if r.err != nil {
			return fmt.Errorf("event %d: %w", i, r.err)
		}
		l.list[i] = event
	}
	return nil
}

// setCandidates fills in a list of candidates: the members, and each of their nodes once.
func (r *reply) setCandidates(list []Candidate) {
	told := make(map[string]struct{})
	for _, c := range list {
		r.Members = append(r.Members, c.Member)
		if _, again := told[c.Node.Name]; !again {
			told[c.Node.Name] = struct{}{}
			r.Nodes = append(r.Nodes, Entry{Node: c.Node, Load: c.Load})
		}
	}
}

// candidates is the list again.
func (r *reply) candidates() ([]Candidate, error) {
	nodes := make(map[string]Entry, len(r.Nodes))
	for _, e := range r.Nodes {
		nodes[e.Node.Name] = e
	}
	list := make([]Candidate, len(r.Members))
	for i, m := range r.Members {
		e, there := nodes[m.Node]
		if !there {
			return nil, fmt.Errorf("member %v comes without its node", m)
		}
		list[i] = Candidate{Member: m, Node: e.Node, Load: e.Load}
	}
	return list, nil
}

// events gives the batch its channel back.
func (r *reply) events(channel string) []Event {
	if r.Events == nil {
		return nil
	}
	for i := range r.Events.list {
		if r.Events.list[i].Kind != Synced {
			r.Events.list[i].Member.Channel = channel
		}
	}
	return r.Events.list
}

// listLen reads a list's length; nil is an empty list.
func listLen(d *msgpack.Decoder) (int, error) {
	n, err := d.DecodeArrayLen()
	if err != nil {
		return 0, err
	}
	if n > batchLen {
		return 0, fmt.Errorf("list of %d, more than %d", n, batchLen)
	}
	return max(n, 0), nil
}

// reader reads a tuple's elements and keeps the first error.
type reader struct {
	d   *msgpack.Decoder
	err error
}

func (r *reader) length() int {
	n, err := r.d.DecodeArrayLen()
	r.note(err)
	return n
}

func (r *reader) tuple(size int) {
	if n := r.length(); n != size {
		r.note(fmt.Errorf("%d elements, not %d", n, size))
	}
}

func (r *reader) text() string {
	if r.err != nil {
		return ""
	}
	s, err := r.d.DecodeString()
	r.note(err)
	return s
}

func (r *reader) number(most uint64) uint64 {
	if r.err != nil {
		return 0
	}
	n, err := r.d.DecodeUint64() // a negative number comes out as a huge one
	r.note(err)
	if n > most {
		r.note(fmt.Errorf("number %d is over %d or negative", n, most))
		return 0
	}
	return n
}

func (r *reader) truth() bool {
	if r.err != nil {
		return false
	}
	b, err := r.d.DecodeBool()
	r.note(err)
	return b
}

func (r *reader) note(err error) {
	if r.err == nil {
		r.err = err
	}
}
