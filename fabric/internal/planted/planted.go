// Package planted names mistakes that can be planted into flow, link and
// peering, each a real one at its real place. They prove that the simulator
// finds such mistakes: a checker that never fails proves nothing.
//
// Without the build tag plantedbugs, Is is a constant false, and the compiler
// leaves nothing of them. With it, one at a time can be chosen: see package sim.
package planted

// Bug is one mistake.
type Bug uint8

// The mistakes.
const (
	None Bug = iota

	// flow
	WindowOffByOne     // the producer's end sends one message and one byte beyond its limit
	DeltaCredit        // what is sent again after a resume counts as credit given back
	OldEpochCounts     // a limit lent before the credit was handed back counts after it
	SettleToldLate     // what a blocked stream waits for is told by the quarter of the window
	BudgetNotReturned  // a window that shrinks does not give back what it took from the budget
	MarkForgetsTheRoad // what was sent does not count for the high-water mark

	// link, the consumer's end
	NoDedup             // messages that come again are delivered again
	OffsetIgnored       // a fragment that overlaps what is there is appended whole
	AckBeforeStore      // a message is acknowledged with its first fragment
	SettleOnReceipt     // a message counts as handled when it arrives
	CreditLostOnCancel  // a consumer's end that is given up keeps what it was lent
	LabelReusedTooEarly // a label is used again before its reset has come
	LimitNotRestated    // the first word on a connection, and the answer to blocked, leave the limit out
	BufferNotHeld       // a received message lies in memory that is read to again
	WaitingHidesBlocked // a Send that waits makes the consumer's end forget that the stream is blocked
	PlacedAfterCut      // a message of which the last bytes were lost with the connection is delivered

	// link, the producer's end
	ControlBehindData   // state, pong and cancel wait until the data is written
	BlockedOnlyOnce     // a stream that was blocked once never says so again
	RewindTooFar        // a resume goes on one message too late
	RewindForgetsBytes  // and does not count back the bytes
	EndLostOnCut        // an end of a producer is taken for told when its connection breaks
	ResumeWithoutName   // a consumer that was made anew goes on with the stream of the one before
	DrainForgetsTheRoad // a consumer that drains is let go before it has stored everything
	EndForgotten        // an end of which the word was lost is not told again
	GivenUpAlone        // nor found out, if only the consumer's end was given up
	SecondWaiterSilent  // of two Sends that wait, the second does not say so
	WaiterForgotten     // of two Sends that wait, the second is not woken

	// link, both ends
	PongForgotten  // a ping is not answered
	SilenceEndured // a peer that is silent is never given up

	// peering
	NoFencing       // an older incarnation is admitted
	LivesMixed      // streams of an incarnation go on with the next one
	WindowNeverEnds // streams wait for ever for a connection
	WindowTooShort  // or only half as long as they may

	Count int = iota
)

var names = [Count]string{
	"none",
	"window off by one", "delta credit after resume", "old epoch counts", "settlement told late", "budget not returned", "mark forgets the road",
	"no dedup", "fragment offset ignored", "acknowledge before store", "settle on receipt", "credit lost on cancel",
	"label reused too early", "limit not restated after a cut", "buffer not held", "waiting hides blocked", "placed after a cut",
	"control behind data", "blocked only once", "rewind too far", "rewind forgets bytes", "end of producer lost on a cut",
	"resume without identity", "drain forgets the road", "end forgotten", "given up alone", "second waiter silent", "waiter forgotten",
	"pong forgotten", "silence endured",
	"no fencing", "lives mixed", "window never ends", "window too short",
}

func (b Bug) String() string { return names[b] }
