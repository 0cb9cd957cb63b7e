package directory

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// What a table looks like in a Shared store. A value is a MessagePack array.
//
//	fabric             [version, epoch, lease in ms]     what all directories have in common; made once
//	warm               []                                the store was begun less than a lease ago; with a lease of its own
//	floor              [incarnation]                     the greatest one of a name that is remembered no more
//	d/PROCESS          []                                a directory is there; with a lease of its own
//	i/NAME             [incarnation, left]               the last life of a name, whether or not it is there; left: not again
//	n/NAME             [name, incarnation, endpoint, weight, zone, host, holder, process, connection]
//	l/NAME             [load]
//	m/NAME/MEMBER      []                                the key has the member's array
//
// All that is a node's, but for i/NAME, has the node's lease, and goes with it at one revision. Names have no slash, so
// that what begins with m/NAME/ is that node's. The node's entry says who joined it, through which directory and over
// which of its connections; connection 0: that has ended. Every change of a node or of its members is under the
// condition that its entry is the one that was looked at.
const (
	fabricKey     = "fabric"
	warmKey       = "warm"
	floorKey      = "floor"
	processPrefix = "d/"
	lifePrefix    = "i/"
	nodePrefix    = "n/"
	loadPrefix    = "l/"
	memberPrefix  = "m/"

	sharedVersion = 1
)

var errUnknownKind = errors.New("unknown kind")

// splitKey parts a key into its kind and what it is of.
func splitKey(key string) (kind, rest string) {
	if i := strings.IndexByte(key, '/'); i >= 0 {
		return key[:i+1], key[i+1:]
	}
	return key, ""
}

func memberKey(m Member) string {
	return membersPrefix(m.Node) + string(array(4, func(e *msgpack.Encoder) error { return encodeMember(e, m) }))
}

// membersPrefix is how the keys of a node's members begin.
func membersPrefix(node string) string { return memberPrefix + node + "/" }

func decodeMemberKey(rest string) (Member, error) {
	name, tuple, _ := strings.Cut(rest, "/")
	r, err := open([]byte(tuple), 4)
	if err != nil {
		return Member{}, err
	}
	m := r.member()
	if r.err != nil {
		return Member{}, r.err
	}
	if m.Node != name {
		return Member{}, fmt.Errorf("member %v is among those of %s", m, name)
	}
	_, err = checkMembers([]Member{m})
	return m, err
}

var emptyValue = array(0, func(*msgpack.Encoder) error { return nil })

func (f fabricMark) encode() []byte {
	return array(3, func(e *msgpack.Encoder) error {
		return errors.Join(e.EncodeUint(sharedVersion), e.EncodeUint(f.epoch), e.EncodeUint(uint64(inMilliseconds(f.lease))))
	})
}

func decodeFabric(value []byte) (fabricMark, error) {
	r, err := open(value, 3)
	if err != nil {
		return fabricMark{}, err
	}
	version := r.number(math.MaxUint64)
	f := fabricMark{epoch: r.number(math.MaxUint64), lease: milliseconds(r.number(math.MaxUint64)).duration()}
	switch {
	case r.err != nil:
		return fabricMark{}, r.err
	case version != sharedVersion:
		return fabricMark{}, fmt.Errorf("is of version %d, and this directory reads and writes version %d", version, sharedVersion)
	case f.epoch == 0 || f.lease < MinLease || f.lease > MaxLease:
		return fabricMark{}, fmt.Errorf("epoch %d, lease %v", f.epoch, f.lease)
	}
	return f, nil
}

func encodeFloor(incarnation uint64) []byte {
	return array(1, func(e *msgpack.Encoder) error { return e.EncodeUint(incarnation) })
}

func decodeFloor(value []byte) (uint64, error) { return decodeNumber(value, MaxIncarnation) }

func encodeLoad(load uint32) []byte {
	return array(1, func(e *msgpack.Encoder) error { return e.EncodeUint(uint64(load)) })
}

func decodeLoad(value []byte) (uint32, error) {
	load, err := decodeNumber(value, math.MaxUint32)
	return uint32(load), err
}

func decodeNumber(value []byte, most uint64) (uint64, error) {
	r, err := open(value, 1)
	if err != nil {
		return 0, err
	}
	n := r.number(most)
	return n, r.err
}

func encodeLife(incarnation uint64, left bool) []byte {
	return array(2, func(e *msgpack.Encoder) error {
		return errors.Join(e.EncodeUint(incarnation), e.EncodeBool(left))
	})
}

func decodeLife(name string, value []byte) (tomb, error) {
	var s saved
	if err := s.takeTomb(name, value); err != nil {
		return tomb{}, err
	}
	return s.tombs[0], nil
}

// nodeEntry is a node in a Shared store.
type nodeEntry struct {
	info       NodeInfo
	holder     string
	process    string
	connection uint64
}

func (n nodeEntry) encode() []byte {
	return array(9, func(e *msgpack.Encoder) error {
		return errors.Join(encodeInfo(e, n.info), e.EncodeString(n.holder), e.EncodeString(n.process), e.EncodeUint(n.connection))
	})
}

func decodeNode(name string, value []byte) (nodeEntry, error) {
	r, err := open(value, 9)
	if err != nil {
		return nodeEntry{}, err
	}
	n := nodeEntry{info: r.info(), holder: r.text(), process: r.text(), connection: r.number(math.MaxUint64)}
	switch {
	case r.err != nil:
		return nodeEntry{}, r.err
	case n.info.Name != name || n.info.Incarnation == 0:
		return nodeEntry{}, fmt.Errorf("it is node %q, incarnation %d", n.info.Name, n.info.Incarnation)
	}
	return n, checkInfo(n.info)
}

// sharedLease is what a store is asked for: it may count in seconds.
func sharedLease(lease time.Duration) time.Duration { return max(lease, time.Second) }
