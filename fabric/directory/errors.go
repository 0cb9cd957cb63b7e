package directory

import (
	"errors"
	"fmt"
	"time"
)

// Errors to branch on with errors.Is. The typed ones below match them and say more.
var (
	ErrNameTaken   = errors.New("directory: name taken")
	ErrStale       = errors.New("directory: not the registered incarnation")
	ErrNotJoined   = errors.New("directory: node is not joined here")
	ErrUnknownNode = errors.New("directory: unknown node")
	ErrWarming     = errors.New("directory: not known yet")
	ErrNobody      = errors.New("directory: nobody to choose")
	ErrLive        = errors.New("directory: node is live")
	ErrInvalid     = errors.New("directory: invalid argument")
	ErrLimit       = errors.New("directory: limit reached")
	ErrUnavailable = errors.New("directory: unavailable")
	ErrClosed      = errors.New("directory: closed")
)

// NameTakenError: a live node has the name.
type NameTakenError struct {
	Name     string
	Endpoint string // of the node that has it
}

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("directory: name %q is taken by the live node at %q", e.Name, e.Endpoint)
}
func (e *NameTakenError) Is(target error) bool { return target == ErrNameTaken }

// StaleError: the call named an incarnation that is not the node's registered one; after a take-over, an older one.
type StaleError struct {
	Node        string
	Incarnation uint64 // the call's
	Current     uint64 // the directory's
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("directory: node %q: incarnation %d is not the registered one, %d", e.Node, e.Incarnation, e.Current)
}
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// NotJoinedError: the node is registered, but by someone else. Join with its incarnation and endpoint first.
type NotJoinedError struct{ Node string }

func (e *NotJoinedError) Error() string {
	return fmt.Sprintf("directory: node %q is joined elsewhere: only who joined it changes it", e.Node)
}
func (e *NotJoinedError) Is(target error) bool { return target == ErrNotJoined }

// UnknownNodeError: no node of that name is registered.
type UnknownNodeError struct{ Name string }

func (e *UnknownNodeError) Error() string        { return fmt.Sprintf("directory: no node %q", e.Name) }
func (e *UnknownNodeError) Is(target error) bool { return target == ErrUnknownNode }

// WarmingError: the directory began without its table not long ago, and does not know what it was asked for. It may
// not have been registered again yet; ask once more after Remaining.
type WarmingError struct {
	What      string // "node n1", "consumer of channel scores"
	Remaining time.Duration
}

func (e *WarmingError) Error() string {
	return fmt.Sprintf("directory: %s is not known yet: the directory has started empty, and gives nodes %v more to register again",
		e.What, e.Remaining.Round(time.Millisecond))
}
func (e *WarmingError) Is(target error) bool { return target == ErrWarming }

// NobodyError: there is nobody to choose.
type NobodyError struct {
	Channel string // "": among the nodes
	Role    Role   // 0: any
}

func (e *NobodyError) Error() string        { return fmt.Sprintf("directory: there is no %s", e.who()) }
func (e *NobodyError) Is(target error) bool { return target == ErrNobody }

func (e *NobodyError) who() string {
	switch {
	case e.Channel == "":
		return "node"
	case e.Role == 0:
		return "member of channel " + e.Channel
	}
	return fmt.Sprintf("%v of channel %s", e.Role, e.Channel)
}

// LiveError: the node is connected to the directory, and is not evicted without force.
type LiveError struct {
	Name     string
	Endpoint string
}

func (e *LiveError) Error() string {
	return fmt.Sprintf("directory: node %q at %q is live: evict it by force, or end it", e.Name, e.Endpoint)
}
func (e *LiveError) Is(target error) bool { return target == ErrLive }

// NameError: a name is not well formed.
type NameError struct {
	What   string // "node", "channel", "zone" or "host"
	Name   string
	Offset int // of the first bad byte
	Reason string
}

func (e *NameError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("directory: %s name %s", e.What, e.Reason)
	}
	return fmt.Sprintf("directory: %s name %q %s", e.What, e.Name, e.Reason)
}
func (e *NameError) Is(target error) bool { return target == ErrInvalid }

// LimitError: the directory holds as many as it may.
type LimitError struct {
	What string
	Max  int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("directory: limit of %d %s reached", e.Max, e.What)
}
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// UnavailableError: the directory at Addr did not answer in time.
type UnavailableError struct {
	Addr string
	Err  error // the last thing that went wrong
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("directory: %s is unavailable: %v", e.Addr, e.Err)
}
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }
func (e *UnavailableError) Unwrap() error        { return e.Err }

// invalid makes an error that matches ErrInvalid.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
