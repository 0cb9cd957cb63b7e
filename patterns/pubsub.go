package patterns

import (
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// How a message gets to its subscribers. A publisher has a producer on the
// channel, and beside the channel a consumer for what subscribers' nodes say. All
// subscribers of a node have one hub between them, which has the other ends.
//
//  1. A publisher says hello to each hub, with a token for it. The hub answers
//     with its subscriptions: each one's filters, quality, room, and what it wants
//     of the past. (pubsub_hear.go, pubsub_hub.go)
//  2. The publisher takes a subscription in, and says so on the stream to that
//     hub: confirmed. What is asked of the past follows, and then whatever is
//     published from that moment on: nothing is missing between them, and nothing
//     comes twice. (pubsub_history.go)
//  3. Publish finds who wants the topic (pubsub_match.go), waits for room if there
//     are reliable subscriptions without, and sends one copy to each node of
//     those. What a node's stream has no room for waits at the publisher, in the
//     node's outlet, as far as the qualities of those who want it allow.
//     (pubsub_publish.go, pubsub_outlet.go)
//  4. The hub reads at once whatever comes, and puts the one copy into the queues
//     of all who want it. It never waits for any of them. (pubsub_read.go)
//  5. A subscriber's queue keeps what its quality says (pubsub_queue.go). A
//     reliable one tells each publisher how much it has handled, which is room for
//     more.
//
// Who is dead is given up when the fabric says so or, sooner, when its lease has ended
// and its node has had no connection for a while. If it is alive and comes back, all
// begins anew: a publisher says hello with another token, and subscribers are told that
// something may be missing.
//
// Where something is dropped it is counted for each subscription that wanted it:
// in the outlet, whose word of it goes in the place of what is missing, and in the
// queue, where the count stands in that place.

// Quality says what becomes of messages for a subscriber that is behind.
type Quality uint8

const (
	// PublisherQuality: what each publisher's config says.
	PublisherQuality Quality = iota
	// Latest: the oldest are dropped, so that what is new gets through. They are
	// counted in SubscriberStats.Missed. With SubscriberConfig.Conflate a message
	// that waits gives way to a newer one of its topic.
	Latest
	// BoundedDrop: what the queue has no room for is dropped, and the subscriber is
	// told how many it missed where, by a *MissedError in their place.
	BoundedDrop
	// Reliable: nothing is dropped. The publisher waits for room or, if it is so
	// configured, evicts who has none for too long.
	Reliable
)

func (q Quality) String() string {
	switch q {
	case PublisherQuality:
		return "publisher's quality"
	case Latest:
		return "latest"
	case BoundedDrop:
		return "bounded drop"
	case Reliable:
		return "reliable"
	}
	return fmt.Sprintf("quality %d", uint8(q))
}

// The kinds of records of publishers and subscribers.
const (
	// publisher to hub, on the channel
	kindPublished = 32 // [topic] + body
	kindReplayed  = 33 // [subscription, topic] + body
	kindPublishes = 34 // [subscriptions, token]: hello
	kindConfirmed = 35 // [subscription, quality]
	kindMissed    = 36 // [subscription, messages]
	kindEvicted   = 37 // [subscription]
	kindOver      = 38 // [subscription]
	kindDenied    = 39 // [subscription]
	kindLastWord  = 40 // []: the publisher has finished
	// hub to publisher, beside it
	kindSubscribe   = 41 // [token, subscription, quality, conflate, messages, bytes, replay, retained] + filters
	kindUnsubscribe = 42 // [token, subscription]
	kindHandled     = 43 // [token, subscription, messages, bytes]
	kindUnhub       = 44 // [token]: the hub closes
	kindAnew        = 45 // [token]: the hub has given the publisher up, which is to begin anew
)

// subscriptionChannel is where hubs speak to publishers.
func subscriptionChannel(channel string) string { return channel + ".subs" }

// Bounds that both ends of a subscription keep to.
const (
	// maxHistory bounds what a publisher keeps of the past, each of the two kinds:
	// messages of Replay, and topics of Retain.
	maxHistory = 1 << 16
	// historyBytes bounds the bytes of each.
	historyBytes = 64 << 20
	// maxFilters bounds the filters of one subscription.
	maxFilters = 64
	// maxNodeSubscriptions bounds the subscriptions of one node at one publisher.
	maxNodeSubscriptions = 1 << 16
	// maxQueue bounds the messages of a subscriber's queue.
	maxQueue = 1 << 20
	// maxQueueBytes bounds its bytes: a petabyte is a number that nobody means.
	maxQueueBytes = 1 << 50
	// maxIndex bounds the index of a consumer, as in the directory.
	maxIndex = directory.MaxIndex
)

// MissedError: so many messages that the subscriber wanted were dropped here,
// between the publication before and the next one of that publisher.
type MissedError struct {
	Channel   string
	Publisher fabric.Address
	Messages  uint64
}

func (e *MissedError) Error() string {
	return fmt.Sprintf("channel %s: %d messages of publisher %s were missed", e.Channel, e.Messages, e.Publisher)
}

// EvictedError: a reliable subscriber was behind for longer than a publisher
// waits. It got all of that publisher's messages up to there.
type EvictedError struct {
	Channel   string
	Publisher fabric.Address
}

func (e *EvictedError) Error() string {
	return fmt.Sprintf("channel %s: publisher %s waits no longer for this subscriber", e.Channel, e.Publisher)
}

// DeniedError: a publisher does not take a subscription: its node has too many, or
// asks for too much of the past at a time.
type DeniedError struct {
	Channel   string
	Publisher fabric.Address
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("channel %s: publisher %s takes no such subscription: its node has too many, or asks for too much", e.Channel, e.Publisher)
}

// UnconfirmedError: a subscription was not confirmed by all publishers that the
// directory knows before the context ended.
type UnconfirmedError struct {
	Channel string
	Nodes   []string // of publishers that have not confirmed
	Err     error    // the context's
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("channel %s: not confirmed by the publishers of %s: %v", e.Channel, list("node", e.Nodes), e.Err)
}

func (e *UnconfirmedError) Unwrap() error { return e.Err }

// UndeliveredError: a publisher was closed while messages waited for nodes that
// are behind. They were dropped; who was to get them is told that the publisher is
// lost, once its node closes.
type UndeliveredError struct {
	Channel  string
	Messages int
	Nodes    []string
}

func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("channel %s: %d messages were not sent to %s", e.Channel, e.Messages, list("node", e.Nodes))
}

// defaultBehind says what a queue or an outlet holds by default.
var defaultBehind = fabric.HighWaterMark{Bytes: 4 << 20, Messages: 1 << 10}

// minEvictAfter is the least patience with subscribers.
const minEvictAfter = 10 * time.Millisecond
