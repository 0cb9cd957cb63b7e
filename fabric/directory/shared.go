package directory

import (
	"context"
	"errors"
	"time"
)

// Shared keeps one table for several directories: an ordered map of bytes with revisions, transactions and leases, as
// an etcd cluster is one. A Registry that is given one has no table of its own, but a copy that follows it, and any of
// the directories may die. All methods are safe for concurrent use, and return at the latest when ctx ends.
//
// An error other than those named here says that the store cannot be reached, or cannot decide, now; what was asked of
// it may then have happened or may still happen.
type Shared interface {
	// String names the store, for errors and the log.
	String() string

	// Read gives everything that is there at one revision, in any order, and returns the revision. What it gives is
	// valid until each returns. It ends with each's error.
	Read(ctx context.Context, each func(SharedEntry) error) (revision uint64, err error)

	// Watch tells what has changed after a revision, in order and nothing twice, until ctx ends or the store cannot be
	// heard any more; with ErrCompacted if the store does not remember what came after that revision. It calls told on
	// its own goroutine. Once Revision or Commit has returned a number, it tells as much soon, if need be with an update
	// of no changes; if it cannot, it ends with an error, and is called again.
	Watch(ctx context.Context, after uint64, told func(SharedUpdate)) error

	// Revision returns a revision that is not older than anything that was committed before the call.
	Revision(ctx context.Context) (uint64, error)

	// Commit makes a transaction: if all that it compares is so, then all of it at one revision, else nothing. With
	// done it returns that revision, without a revision at which something compared was not so. ErrLeaseOver: a lease
	// that the transaction names has ended.
	Commit(ctx context.Context, t SharedTransaction) (revision uint64, done bool, err error)

	// Grant begins a lease of at least that time. When a lease ends, all entries that were set with it are removed, at
	// one revision.
	Grant(ctx context.Context, atLeast time.Duration) (lease int64, err error)
	// Renew begins leases anew, and returns those that have ended.
	Renew(ctx context.Context, leases []int64) (over []int64, err error)
	// Revoke ends a lease at once. One that has ended is no error.
	Revoke(ctx context.Context, lease int64) error
}

// SharedEntry is an entry of a Shared store.
type SharedEntry struct {
	Key      string
	Value    []byte // nil, in an update: the entry is gone
	Lease    int64  // it lives as long as this lease; 0: it stays
	Revision uint64 // at which it was set
}

// SharedUpdate is all that changed at one revision, in the order of the transaction; or, without changes, that
// everything up to the revision has been told.
type SharedUpdate struct {
	Revision uint64
	Changes  []SharedEntry
}

// SharedTransaction is some changes that are made together or not at all.
type SharedTransaction struct {
	If   []SharedCondition
	Then []SharedChange
}

// MaxSharedTransaction is how many conditions, and how many changes, a transaction has at most.
const MaxSharedTransaction = 100

// SharedCondition says that the entry is the one that was set at a revision; 0: that there is none.
type SharedCondition struct {
	Key      string
	Revision uint64
}

// SharedChange sets an entry or, with a nil value, removes it; with Prefix all whose keys begin like that.
type SharedChange struct {
	Key    string
	Prefix bool
	Value  []byte
	Lease  int64
}

// What a Shared store answers, besides that it cannot be reached.
var (
	ErrCompacted = errors.New("directory: the store has forgotten that revision")
	ErrLeaseOver = errors.New("directory: the lease has ended")
)
