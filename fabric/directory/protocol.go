package directory

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/internal/lanes"
	"github.com/zfab/zfab/fabric/internal/mpcheck"
)

// The protocol's messages. PROTOCOL.md says what they mean; a change here is a change there.

// Bounds of what passes between a Client and a Server.
const (
	maxRequest  = lanes.MaxFrame      // bytes of a request's body: batchLen members with the longest names take 261 KiB
	maxReply    = 3 << 19             // bytes of a reply's body: batchLen candidates with the longest names take 1.2 MiB
	maxDepth    = 6                   // of a body's nesting; 3 are in use
	maxEnvelope = lanes.MaxFrames - 1 // frames before a body: what devices on the way put there
)

// The verbs of a request.
const (
	opPing       = "ping"
	opJoin       = "join"
	opRenew      = "renew"
	opLeave      = "leave"
	opEvict      = "evict"
	opAdd        = "add"
	opRemove     = "remove"
	opMembers    = "members"
	opChannels   = "channels"
	opNodes      = "nodes"
	opNode       = "node"
	opRoster     = "roster"
	opChoose     = "choose"
	opWatch      = "watch"
	opWatchNodes = "watch_nodes"
	opNext       = "next"
	opUnwatch    = "unwatch"
	opRestate    = "restate"
	opSettle     = "settle"
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
	codeWarming     = "warming"
	codeNobody      = "nobody"
	codeLive        = "live"
	codeLimit       = "limit"
	codeWatch       = "no_watch"
	codeUnavailable = "unavailable"
	codeClosed      = "closed"
)

// request is what a client asks.
type request struct {
	ID          uint64       `msgpack:"id"`
	Op          string       `msgpack:"op"`
	Node        string       `msgpack:"node,omitempty"`
	Incarnation uint64       `msgpack:"incarnation,omitempty"`
	Endpoint    string       `msgpack:"endpoint,omitempty"`
	Weight      uint64       `msgpack:"weight,omitempty"`
	Zone        string       `msgpack:"zone,omitempty"`
	Host        string       `msgpack:"host,omitempty"`
	Force       bool         `msgpack:"force,omitempty"`
	Renewals    wireRenewals `msgpack:"renewals,omitempty"`
	Channel     string       `msgpack:"channel,omitempty"`
	Role        uint64       `msgpack:"role,omitempty"`
	Policy      Policy       `msgpack:"policy,omitempty"`
	Key         []byte       `msgpack:"key,omitempty"`
	Members     wireMembers  `msgpack:"members,omitempty"`
	After       string       `msgpack:"after,omitempty"`
	AfterMember wireMembers  `msgpack:"after_member,omitempty"` // none or one
	Watch       uint64       `msgpack:"watch,omitempty"`
	Epoch       uint64       `msgpack:"epoch,omitempty"`
	Revision    uint64       `msgpack:"revision,omitempty"`
}

// reply is what the directory answers; one per request.
type reply struct {
	from string // not on the wire: the address of the directory that gave it

	ID          uint64       `msgpack:"id"`
	Error       string       `msgpack:"error,omitempty"`
	Text        string       `msgpack:"text,omitempty"`
	Node        string       `msgpack:"node,omitempty"`
	Incarnation uint64       `msgpack:"incarnation,omitempty"`
	Endpoint    string       `msgpack:"endpoint,omitempty"`
	What        string       `msgpack:"what,omitempty"`
	Max         int64        `msgpack:"max,omitempty"`
	Epoch       uint64       `msgpack:"epoch,omitempty"`
	Revision    uint64       `msgpack:"revision,omitempty"`
	Lease       milliseconds `msgpack:"lease,omitempty"`
	Warming     milliseconds `msgpack:"warming,omitempty"`
	Counts      *wireCounts  `msgpack:"counts,omitempty"`
	Unknown     wireNames    `msgpack:"unknown,omitempty"`
	Channels    wireNames    `msgpack:"channels,omitempty"`
	Nodes       wireNodes    `msgpack:"nodes,omitempty"`
	Members     wireMembers  `msgpack:"members,omitempty"`
	More        bool         `msgpack:"more,omitempty"`
	Reset       bool         `msgpack:"reset,omitempty"`
	Events      *wireEvents  `msgpack:"events,omitempty"`
}

type (
	wireNames    []string
	wireMembers  []Member  // each [channel, role, node, index]
	wireRenewals []renewal // each [name, incarnation, load]
	wireNodes    []Entry   // each [name, incarnation, endpoint, weight, zone, host, load, lease, orphan]

	// wireCounts are [nodes, channels, members].
	wireCounts struct{ nodes, channels, members int }

	// wireEvents are one batch; each is
	// [kind, revision, role, index, name, incarnation, endpoint, weight, zone, host] or [3, revision, warming].
	wireEvents struct {
		list []Event // all of one channel, which is not on the wire: the asker knows it
	}

	// milliseconds are a duration on the wire, rounded up: what is not over yet is not 0.
	milliseconds uint64
)

func inMilliseconds(d time.Duration) milliseconds {
	return milliseconds((d + time.Millisecond - 1) / time.Millisecond)
}

// duration is at most a century: a directory that says more says nothing.
func (m milliseconds) duration() time.Duration {
	return time.Duration(min(m, 100*365*24*3600*1000)) * time.Millisecond
}

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
