package patterns

import (
	"errors"
	"fmt"
)

// How an event reaches its handler. A publisher has a producer on the channel, and
// beside the channel a consumer for acknowledgements; a member of the group has the
// other ends.
//
//  1. A member says hello to each publisher: how many events of each partition it
//     takes at a time. The publisher answers: what comes before that was for an
//     earlier member there. (greeter.go, meetings.go)
//  2. Publish puts an event behind the others of its key's partition, and keeps it
//     until it is acknowledged. (events_publisher.go)
//  3. Each partition has one owner, by rendezvous hashing of the members that the
//     publisher knows, and its events go to that one in order. (events_partition.go)
//  4. The member's program handles them in order and acknowledges; the member tells
//     the publisher up to where all were. (events_hand.go)
//  5. When members come or go, a partition whose owner is to be another one gets no
//     more events; it moves when the old owner has acknowledged what it has, or is
//     lost. Then what is not acknowledged is delivered to the new one, marked if it
//     was delivered before.
//  6. A member is lost when the fabric says so or, sooner, when its node has had no
//     connection for a while and its lease has ended. It may live all the same: so it
//     begins no events while it is out of touch with their publisher, until that has
//     said that they still are its own, or that it was let go. (events_touch.go)
//
//	         chosen            another is chosen              acknowledged all, or lost
//	nobody's -------> owned ------------------------> leaving ------------------------> owned
//	   ^                | lost, and nobody is left        | chosen again
//	   +----------------+                                 +--------------> owned
//
// Each time that a partition gets an owner begins an epoch of it. Acknowledgements
// say theirs, so that one that is late counts for nothing.

// The kinds of records of events.
const (
	// publisher to member
	kindEvent     = 80 // [acks, partition, epoch, sequence, delivery, size of key] + key, value
	kindLetGo     = 84 // [acks, session]: it is no member any more, and has no partitions
	kindStill     = 86 // [acks, session, question]: it is a member, and has what it had
	kindMeetGroup = 87 // [acks, session]: what follows is for the member of that session
	// member to publisher
	kindGroupHello = 81 // [session, consumer, room]
	kindUpTo       = 82 // [partition, epoch, sequence]: all up to it are acknowledged
	kindGroupBye   = 83 // [session]
	kindAmI        = 85 // [session, question]: is it a member still?
)

// upToChannel is where members answer publishers.
func upToChannel(channel string) string { return channel + ".upto" }

// ErrMoved: the event is not this member's any more. Its publisher has given it to
// another one, or to this one again.
var ErrMoved = errors.New("the event was given to somebody else")

// UnacknowledgedError: a publisher was closed with events that no member has
// acknowledged. Some of them may have been handled.
type UnacknowledgedError struct {
	Channel string
	Events  int
}

func (e *UnacknowledgedError) Error() string {
	return fmt.Sprintf("events on %s: %d were not acknowledged", e.Channel, e.Events)
}

// UndeliverableError: events were dropped that no member's node takes, because they
// are too large for it.
type UndeliverableError struct {
	Channel string
	Events  int
	Err     error // the last one's
}

func (e *UndeliverableError) Error() string {
	return fmt.Sprintf("events on %s: %d were dropped: %v", e.Channel, e.Events, e.Err)
}

func (e *UndeliverableError) Unwrap() error { return e.Err }
