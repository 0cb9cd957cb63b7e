package directory

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// Role says which end of a channel a member is.
type Role uint8

// The two roles. The zero Role is not valid.
const (
	Producer Role = 1
	Consumer Role = 2
)

func (r Role) String() string {
	switch r {
	case Producer:
		return "producer"
	case Consumer:
		return "consumer"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// NodeInfo is what a node says of itself for all of one life. It is comparable.
type NodeInfo struct {
	Name        string // 1 to 255 bytes of [A-Za-z0-9._-]
	Incarnation uint64 // one life of the node; a later life has a greater one; at most MaxIncarnation
	Endpoint    string // where its peers dial it, "tcp://10.0.0.7:4000"; at most 1024 bytes
	Weight      uint32 // the share that it takes of what is spread by weight; 0 counts as 1; at most MaxWeight
	Zone        string // what it is near to: the name of a zone and, within it, of a host. Formed as Name, or ""
	Host        string
}

// Entry is a node with what changes during its life.
type Entry struct {
	Node   NodeInfo
	Load   uint32        // what it reported last, see Service.Report
	Lease  time.Duration // what is left of it; 0: it has none, as a node of the directory's own process
	Orphan bool          // its connection to the directory has ended
	Freshness
}

// Freshness says how old an answer is.
type Freshness struct {
	Stale bool          // it is what a Client heard before, as no directory tells it now
	Age   time.Duration // how long ago that was; 0 unless Stale
}

// Status is a directory's account of itself.
type Status struct {
	Addr     string        // where it was asked; "" for a Registry
	Epoch    uint64        // one life of its table
	Revision uint64        // changes made in it
	Lease    time.Duration // how long a registration lives without renewal
	Warming  time.Duration // how long a node that is not known may still be one that has not registered again
	Nodes    int
	Channels int // that have members
	Members  int
}

// Member is one producer or one consumer of a channel. It is comparable and may be a map's key.
type Member struct {
	Channel string // 1 to 255 bytes of [A-Za-z0-9._-]
	Role    Role
	Node    string // the node's name
	Index   int    // 0 to MaxIndex; tells the members of one node, channel and role apart
}

// String is the member's address, "scores/n3/1". It leaves the role out.
func (m Member) String() string { return fmt.Sprintf("%s/%s/%d", m.Channel, m.Node, m.Index) }

// Compare orders members by channel, role, node and index.
func (m Member) Compare(o Member) int {
	return cmp.Or(
		cmp.Compare(m.Channel, o.Channel),
		cmp.Compare(m.Role, o.Role),
		cmp.Compare(m.Node, o.Node),
		cmp.Compare(m.Index, o.Index),
	)
}

// EventKind says what an Event tells.
type EventKind uint8

const (
	// Added: the member is there. Its node's endpoint and incarnation come with it.
	Added EventKind = 1
	// Removed: the member is gone. Node is what it was registered with. See Event.Expired.
	Removed EventKind = 2
	// Synced: everything that was there when the watch began has been told. It comes once per watch, and carries no member.
	Synced EventKind = 3
)

func (k EventKind) String() string {
	switch k {
	case Added:
		return "added"
	case Removed:
		return "removed"
	case Synced:
		return "synced"
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// Event is one thing that a Watcher tells.
type Event struct {
	// Revision is the directory's count of changes at the event. It never falls during one life of the directory;
	// a directory that lost its table counts again from the start.
	Revision uint64
	Kind     EventKind
	Member   Member // in a watch of the nodes: without channel, role and index
	Node     NodeInfo
	// Expired, of Removed: nobody has said so. The lease of the member's node has ended, or a directory that came back
	// empty has not heard of it; the node may be away, and come back in the same life.
	Expired bool
	// Warming comes with Synced: for so long, nodes that the directory's earlier life knew may still register again.
	Warming time.Duration
}

// Service is a directory, in this process (Registry) or in another one (Client).
//
// Every call returns at the latest when its context ends. A Client's calls return within its timeout as well; a
// Registry's never wait. All are safe for concurrent use. Errors to branch on: ErrNameTaken, ErrStale,
// ErrUnknownNode, ErrNobody, ErrWarming, ErrNotJoined, ErrInvalid, ErrLimit, ErrUnavailable, ErrClosed.
type Service interface {
	// Join claims a node name and returns the node's incarnation. With info.Incarnation 0 the directory chooses one
	// that is greater than any it knew of that name. A name that a live node holds is refused with
	// *NameTakenError; an orphan's name (its connection to the directory ended without Leave) goes to the newcomer,
	// and the orphan's members are removed.
	//
	// An incarnation other than 0 says: this life of the node was registered before. With all that was registered,
	// Join resumes that registration, members included; an older one is refused with *StaleError.
	//
	// A node that a Client joined lives for a lease, which the Client renews; when the lease ends it is removed with
	// all its members. One of a Registry's own process lives until it leaves.
	Join(ctx context.Context, info NodeInfo) (uint64, error)

	// Leave removes the node and all its members, for good: that life of it cannot join again. A node that is not
	// there is no error.
	Leave(ctx context.Context, node string, incarnation uint64) error

	// Evict is Leave for a node of somebody else, of that incarnation or, with 0, of any. One that is live is
	// refused with *LiveError unless force is set.
	Evict(ctx context.Context, node string, incarnation uint64, force bool) error

	// Add registers members, all of one node: every one of them or, with an error, none. A member that is there already
	// is no error.
	Add(ctx context.Context, incarnation uint64, members ...Member) error

	// Remove takes members out, all of one node. A member that is not there is no error.
	Remove(ctx context.Context, incarnation uint64, members ...Member) error

	// Report says how busy a node is that was joined here, in a unit that the fabric's nodes share: streams, or
	// thousandths of their CPUs. A Client tells it with the next renewal.
	Report(ctx context.Context, node string, incarnation uint64, load uint32) error

	// Members lists a channel's members by role, node and index; none, without an error, for an unknown channel.
	Members(ctx context.Context, channel string) ([]Member, error)

	// Channels lists the names of the channels that have members, in order.
	Channels(ctx context.Context) ([]string, error)

	// Nodes lists the nodes, orphans included, by name.
	Nodes(ctx context.Context) ([]NodeInfo, error)

	// Entries is Nodes with what changes during their lives.
	Entries(ctx context.Context) ([]Entry, error)

	// Node looks one node up: *UnknownNodeError if it is not there, *WarmingError if that cannot be told yet. It is
	// the directory's word as it stands now: without a directory there is none.
	Node(ctx context.Context, name string) (NodeInfo, error)

	// Lookup is Node with what changes during the node's life. When the directory cannot tell, a Client gives what it
	// heard before, marked stale.
	Lookup(ctx context.Context, name string) (Entry, error)

	// Roster lists a channel's members with one role, or with any (0), together with their nodes; or, for the channel
	// "", the nodes. It is what Choose chooses from, for callers that would rather choose by themselves. When the
	// directory cannot be reached, a Client gives the list that it has of a channel that is watched or was listed here,
	// marked stale.
	Roster(ctx context.Context, channel string, role Role) (Roster, error)

	// Choose chooses a member of a channel, or a node, by a policy. All who ask a directory with the same policy take
	// turns. *NobodyError if there is none, *WarmingError if that cannot be told yet. When the directory cannot tell, a
	// Client chooses from the list that Roster would give, and takes turns alone.
	Choose(ctx context.Context, q Query) (Choice, error)

	// Watch tells who is in a channel and what changes: Added events for all that are there, then Synced, then
	// changes in order. A channel that nobody knows yet is watched like any other. The context ends Watch, not the
	// Watcher.
	Watch(ctx context.Context, channel string) (Watcher, error)

	// WatchNodes tells in the same way which nodes there are.
	WatchNodes(ctx context.Context) (Watcher, error)

	// Status is the directory's account of itself.
	Status(ctx context.Context) (Status, error)

	// Close ends the service for this process; calls under way and watchers end with ErrClosed.
	Close() error
}

// Watcher tells what happens in one channel, or among the nodes.
//
// A watcher whose owner is slow holds no backlog that grows with the changes: once it falls too far behind it skips
// to the present, and tells the differences between that and what it told before. A member that came and went
// meanwhile is then not told; the state told so far is always one that leads to the true one. When a node comes back
// with a greater incarnation, Removed for its old members comes before Added for any new one.
type Watcher interface {
	// Next waits for the next event until ctx ends; ErrClosed after Close. Calls take turns.
	Next(ctx context.Context) (Event, error)
	// Close ends the watch and a Next under way. It is safe at any time, any number of times.
	Close() error
}
