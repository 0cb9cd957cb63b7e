package patterns

import (
	"fmt"

	"github.com/zfab/zfab/fabric"
)

// How a job gets done. The pusher has a producer on the channel, and beside the
// channel a consumer for what workers say; a worker has the other ends.
//
//  1. A worker says hello to each pusher: which of its node's consumers it is,
//     and how many jobs it takes at a time, its room. The pusher answers: what comes
//     before that was for an earlier worker there. (pipeline_puller.go)
//  2. Push encodes a job and keeps it, within the pusher's bound, until it is
//     settled. It gives it to the worker with the least outstanding of those with
//     room, or waits. (pipeline_push.go)
//  3. The worker hands the job to its program, which acknowledges or rejects it.
//     Either gives the worker's room back. (pipeline_hand.go)
//  4. The pusher forgets what is acknowledged. What was rejected, and what a
//     worker had that is gone, goes to the next worker with room, before anything
//     new; after MaxDeliveries to a dead letter channel. (pipeline_lane.go)
//
// A job is settled by the first acknowledgement, whichever delivery it is of.
//
//	          assign          Ack
//	waiting ---------> out ---------> settled
//	   ^                |
//	   +----------------+ Reject (after its delay), worker gone or away
//
// At most once has no 3 and 4: the worker says at times how many jobs it has
// taken, and that gives its room back.

// Delivery says what becomes of a job whose worker is gone.
type Delivery uint8

const (
	// AtLeastOnce: a job that no worker has acknowledged is delivered again, to
	// another one. So a job may be done twice, if its worker is lost between doing
	// and acknowledging it.
	AtLeastOnce Delivery = iota
	// AtMostOnce: a job is delivered to one worker, and lost with it; how many
	// were lost is counted. Nothing is kept, and nothing acknowledged.
	AtMostOnce
)

func (d Delivery) String() string {
	switch d {
	case AtLeastOnce:
		return "at least once"
	case AtMostOnce:
		return "at most once"
	}
	return fmt.Sprintf("delivery %d", uint8(d))
}

// The kinds of a pipeline's records.
const (
	// pusher to worker
	kindJob     = 1 // [acks, job, delivery] + body
	kindDeadJob = 2 // [acks, job, delivery, deliveries before, reason] + body
	kindOneJob  = 3 // [acks] + body: at most once
	kindMeetJob = 9 // [acks, session]: what follows is for the worker of that session
	// worker to pusher
	kindHello  = 4 // [session, consumer, room]
	kindDone   = 5 // [job, delivery]
	kindReject = 6 // [job, delivery, delay in milliseconds, reason]
	kindTaken  = 7 // [jobs since the last one]
	kindBye    = 8 // [session]
)

// ackChannel is where workers answer pushers.
func ackChannel(channel string) string { return channel + ".acks" }

// unlimited is the high-water mark of streams whose bound is the pattern's: what
// is on them counts as unsettled, or as room.
var unlimited = fabric.HighWaterMark{Bytes: 1 << 50, Messages: 1 << 30}

// UnsettledError: a pusher was closed with jobs that no worker has acknowledged.
// Some of them may have been done.
type UnsettledError struct {
	Channel string
	Jobs    int
}

func (e *UnsettledError) Error() string {
	return fmt.Sprintf("pipeline %s: %d jobs were not acknowledged", e.Channel, e.Jobs)
}

// DroppedError: jobs were given up after PusherConfig.MaxDeliveries deliveries,
// and there is no dead letter channel to take them.
type DroppedError struct {
	Channel string
	Jobs    int
	Reason  string // the last one's
}

func (e *DroppedError) Error() string {
	return fmt.Sprintf("pipeline %s: %d jobs were dropped, the last one because: %s", e.Channel, e.Jobs, e.Reason)
}
