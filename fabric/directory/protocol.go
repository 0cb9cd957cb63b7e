package directory

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/internal/mpcheck"
)

// The protocol's messages. PROTOCOL.md says what they mean; a change here is a change there.

// Bounds of what passes between a Client and a Server.
const (
	maxRequest  = 320 << 10 // bytes of a request's body: batchLen members with the longest names take 261 KiB
	maxReply    = 1 << 20   // bytes of a reply's body: batchLen events with the longest names take 660 KiB
	maxDepth    = 6         // of a body's nesting; 3 are in use
	maxEnvelope = 16        // frames before a body: what devices on the way put there
)

// The verbs of a request.
const (
	opPing     = "ping"
	opJoin     = "join"
	opLeave    = "leave"
	opAdd      = "add"
	opRemove   = "remove"
	opMembers  = "members"
	opChannels = "channels"
	opNodes    = "nodes"
	opNode     = "node"
	opWatch    = "watch"
	opNext     = "next"
	opUnwatch  = "unwatch"
	opRestate  = "restate"
	opSettle   = "settle"
)

// The codes of an error.
const (
	codeMalformed   = "malformed"
	codeUnknownOp   = "unknown_op"
	codeInvalid     = "invalid"
	codeNameTaken   = "name_taken"
	codeStale       = "stale"
	codeNotJoined   = "not_joined"
	codeUnknownNode = "unknown_node"
	codeLimit       = "limit"
	codeWatch       = "no_watch"
	codeClosed      = "closed"
)

// request is what a client asks.
type request struct {
	ID          uint64      `msgpack:"id"`
	Op          string      `msgpack:"op"`
	Node        string      `msgpack:"node,omitempty"`
	Incarnation uint64      `msgpack:"incarnation,omitempty"`
	Endpoint    string      `msgpack:"endpoint,omitempty"`
	Channel     string      `msgpack:"channel,omitempty"`
	Members     wireMembers `msgpack:"members,omitempty"`
	After       string      `msgpack:"after,omitempty"`
	AfterMember wireMembers `msgpack:"after_member,omitempty"` // none or one
	Watch       uint64      `msgpack:"watch,omitempty"`
	Epoch       uint64      `msgpack:"epoch,omitempty"`
	Revision    uint64      `msgpack:"revision,omitempty"`
}

// reply is what the directory answers; one per request.
type reply struct {
	ID          uint64      `msgpack:"id"`
	Error       string      `msgpack:"error,omitempty"`
	Text        string      `msgpack:"text,omitempty"`
	Node        string      `msgpack:"node,omitempty"`
	Incarnation uint64      `msgpack:"incarnation,omitempty"`
	Endpoint    string      `msgpack:"endpoint,omitempty"`
	What        string      `msgpack:"what,omitempty"`
	Max         int64       `msgpack:"max,omitempty"`
	Epoch       uint64      `msgpack:"epoch,omitempty"`
	Revision    uint64      `msgpack:"revision,omitempty"`
	Channels    []string    `msgpack:"channels,omitempty"`
	Nodes       wireNodes   `msgpack:"nodes,omitempty"`
	Members     wireMembers `msgpack:"members,omitempty"`
	More        bool        `msgpack:"more,omitempty"`
	Reset       bool        `msgpack:"reset,omitempty"`
	Events      *wireEvents `msgpack:"events,omitempty"`
}

type (
	wireMembers []Member   // each [channel, role, node, index]
	wireNodes   []NodeInfo // each [name, incarnation, endpoint]
	// wireEvents are one batch; each is [kind, revision, role, index, name, incarnation, endpoint] or [3, revision].
	wireEvents struct {
		list []Event // all of one channel, which is not on the wire: the asker knows it
	}
)

// encode turns a request or a reply into a body. Ours are always encodable.
func encode(v any) []byte {
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	e.UseCompactInts(true)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("directory: encoding %T: %v", v, err))
	}
	return b.Bytes()
}

// decode reads a body that a peer sent into v.
func decode(body []byte, v any) error {
	if err := mpcheck.Check(body, maxDepth); err != nil {
		return err
	}
	// A value that is not a map would be taken as its fields in order.
	if c := body[0]; c&0xf0 != 0x80 && c != 0xde && c != 0xdf {
		return errors.New("body is not a map")
	}
	return msgpack.Unmarshal(body, v)
}

func (l wireMembers) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(len(l)); err != nil {
		return err
	}
	for _, m := range l {
		if err := errors.Join(e.EncodeArrayLen(4), e.EncodeString(m.Channel), e.EncodeUint(uint64(m.Role)),
			e.EncodeString(m.Node), e.EncodeInt(int64(m.Index))); err != nil {
			return err
		}
	}
	return nil
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
		(*l)[i] = Member{Channel: r.text(), Role: Role(r.number(255)), Node: r.text(), Index: int(r.number(MaxIndex))}
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
		if err := errors.Join(e.EncodeArrayLen(3), e.EncodeString(n.Name), e.EncodeUint(n.Incarnation),
			e.EncodeString(n.Endpoint)); err != nil {
			return err
		}
	}
	return nil
}

func (l *wireNodes) DecodeMsgpack(d *msgpack.Decoder) error {
	n, err := listLen(d)
	if err != nil {
		return err
	}
	*l = make(wireNodes, n)
	for i := range *l {
		r := reader{d: d}
		r.tuple(3)
		(*l)[i] = NodeInfo{Name: r.text(), Incarnation: r.number(MaxIncarnation), Endpoint: r.text()}
		if r.err != nil {
			return fmt.Errorf("node %d: %w", i, r.err)
		}
	}
	return nil
}

func (l *wireEvents) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(len(l.list)); err != nil {
		return err
	}
	for _, event := range l.list {
		size := 7
		if event.Kind == Synced {
			size = 2
		}
		if err := errors.Join(e.EncodeArrayLen(size), e.EncodeUint(uint64(event.Kind)), e.EncodeUint(event.Revision)); err != nil {
			return err
		}
		if event.Kind == Synced {
			continue
		}
		if err := errors.Join(e.EncodeUint(uint64(event.Member.Role)), e.EncodeInt(int64(event.Member.Index)),
			e.EncodeString(event.Node.Name), e.EncodeUint(event.Node.Incarnation), e.EncodeString(event.Node.Endpoint)); err != nil {
			return err
		}
	}
	return nil
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
		event := Event{Kind: EventKind(r.number(255)), Revision: r.number(1<<64 - 1)}
		switch {
		case r.err != nil:
		case event.Kind == Synced && size == 2:
		case (event.Kind == Added || event.Kind == Removed) && size == 7:
			event.Member.Role = Role(r.number(255))
			event.Member.Index = int(r.number(MaxIndex))
			event.Node = NodeInfo{Name: r.text(), Incarnation: r.number(MaxIncarnation), Endpoint: r.text()}
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

func (r *reader) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

// errMalformed wraps what is wrong with a body.
var errMalformed = errors.New("malformed")

var errNoWatch = errors.New("directory: no such watch on this connection")

// errorReply makes the reply that tells a client err.
func errorReply(id uint64, err error) *reply {
	r := &reply{ID: id, Text: err.Error()}
	var (
		taken   *NameTakenError
		stale   *StaleError
		joined  *NotJoinedError
		unknown *UnknownNodeError
		limit   *LimitError
	)
	switch {
	case errors.As(err, &taken):
		r.Error, r.Node, r.Endpoint = codeNameTaken, taken.Name, taken.Endpoint
	case errors.As(err, &stale):
		r.Error, r.Node, r.Incarnation = codeStale, stale.Node, stale.Current
	case errors.As(err, &joined):
		r.Error, r.Node = codeNotJoined, joined.Node
	case errors.As(err, &unknown):
		r.Error, r.Node = codeUnknownNode, unknown.Name
	case errors.As(err, &limit):
		r.Error, r.What, r.Max = codeLimit, limit.What, limit.Max
	case errors.Is(err, ErrInvalid):
		r.Error = codeInvalid
	case errors.Is(err, errMalformed):
		r.Error = codeMalformed
	case errors.Is(err, errNoWatch):
		r.Error = codeWatch
	default: // the registry is closed
		r.Error = codeClosed
	}
	return r
}

// err turns a reply's error, if any, back into what the registry said of the request.
func (r *reply) err(asked *request) error {
	switch r.Error {
	case "":
		return nil
	case codeNameTaken:
		return &NameTakenError{Name: r.Node, Endpoint: r.Endpoint}
	case codeStale:
		return &StaleError{Node: r.Node, Incarnation: asked.Incarnation, Current: r.Incarnation}
	case codeNotJoined:
		return &NotJoinedError{Node: r.Node}
	case codeUnknownNode:
		return &UnknownNodeError{Name: r.Node}
	case codeLimit:
		return &LimitError{What: r.What, Max: r.Max}
	case codeWatch:
		return errNoWatch
	case codeInvalid:
		return fmt.Errorf("%w: %s", ErrInvalid, r.Text)
	}
	return fmt.Errorf("directory: %s: %s", r.Error, r.Text)
}
