// Package flow is the arithmetic of credit: who may send how much, and how
// much room a consumer lends.
//
// A stream has two windows. The producer's end keeps a Sender: what was
// accepted, what was sent, what the consumer has handled, and the limit up to
// which it may send. The consumer's end keeps a Receiver: what arrived, what
// was handled, and the limit it has lent. All of them are absolute positions
// in messages and bytes, counted from the stream's begin:
//
//	consumed <= next <= sent <= limit        (the consumer's room)
//	accepted <= consumed + high-water mark   (the stream's bound, end to end)
//
// Credit is never a difference, so that records which carry it may be merged,
// repeated, lost and sent again after a reconnect.
//
// Room is lent on demand from a Budget that all streams of a node share: none
// while the stream is idle, a floor of one message once something waits, twice
// as much each time the limit alone holds a stream up whose consumer keeps
// pace, and never more than the high-water mark or one message, whichever is
// larger. Doubling on evidence reaches rate times round trip within a few round
// trips without a clock.
//
// No type here has a lock, reads a clock or knows a stream. Budget alone may be
// used by several goroutines.
package flow
