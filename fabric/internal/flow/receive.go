package flow

import "github.com/zfab/zfab/fabric/internal/planted"

// FirstWindow is what is lent to a stream when its first backlog is announced,
// in bytes, if the high-water mark allows that much: one full record.
const FirstWindow = 64 << 10

// Receiver is the consumer's end of a stream's credit.
//
//	consumed <= received <= limit, limit = consumed + window when something was lent
type Receiver struct {
	Received Position // everything stored here; Bytes counts parts of a message too
	Consumed Position // everything the consumer has handled
	Limit    Position // everything lent so far
	Epoch    uint32   // of Limit
	window   uint64   // bytes lent beyond Consumed, and taken from the budget
	told     Position // Consumed, when it was last told to the producer's end
	released bool     // nothing is lent; window is what is held still
	caughtUp bool     // the consumer has handled all that was there since the window last grew
}

// Window is how many bytes are lent beyond what was consumed.
func (r *Receiver) Window() uint64 { return r.window }

// Demand says that the producer's end holds a backlog whose next message has
// size bytes, blocked when the limit alone holds it up. It lends more where
// that helps and the budget allows, and reports whether the limit rose. One
// whole message always fits behind what was consumed: without that the
// consumer could never handle it and return its credit.
func (r *Receiver) Demand(mark Mark, budget *Budget, size int, blocked bool) bool {
	want := r.window
	switch {
	case want == 0 || r.released:
		want = min(r.window+FirstWindow, mark.Bytes) // behind what is held still
	case blocked && r.caughtUp:
		want = max(want, min(want*2, mark.Bytes))
		r.caughtUp = false
	}
	want = max(want, r.window, uint64(size), 1)
	r.released = false
	if want > r.window {
		r.window += budget.Take(want-r.window, max(uint64(size), r.window, 1)-r.window)
	}
	return r.Extend(mark)
}

// Extend moves the limit up to what the window allows behind Consumed, and
// reports whether it rose.
func (r *Receiver) Extend(mark Mark) bool {
	if r.window == 0 || r.released {
		return false
	}
	rose := false
	if l := r.Consumed.Bytes + r.window; l > r.Limit.Bytes {
		r.Limit.Bytes, rose = l, true
	}
	if l := r.Consumed.Messages + mark.Messages; l > r.Limit.Messages {
		r.Limit.Messages, rose = l, true
	}
	return rose
}

// Admits reports whether messages and bytes more are within the limit.
func (r *Receiver) Admits(messages, bytes int) bool {
	return r.Received.Messages+uint64(messages) <= r.Limit.Messages &&
		r.Received.Bytes+uint64(bytes) <= r.Limit.Bytes
}

// Receive counts what arrived.
func (r *Receiver) Receive(messages, bytes int) {
	r.Received.Messages += uint64(messages)
	r.Received.Bytes += uint64(bytes)
}

// Consume counts what the consumer has handled. It reports whether that is
// worth telling now: a quarter of the window has become free, or everything
// before until is handled, which the producer's end waits for. Returning credit
// at a quarter keeps a sender that is in pace from ever reaching its limit, at
// four small records a window.
func (r *Receiver) Consume(mark Mark, budget *Budget, messages, bytes int, until uint64) bool {
	r.Consumed.Messages += uint64(messages)
	r.Consumed.Bytes += uint64(bytes)
	r.caughtUp = r.caughtUp || r.Consumed.Messages == r.Received.Messages
	r.shrink(budget, max(mark.Bytes, 1))
	r.Extend(mark)
	return r.Consumed.Bytes-r.told.Bytes >= max(r.window/4, 1) ||
		r.Consumed.Messages-r.told.Messages >= max(mark.Messages/4, 1) ||
		r.Consumed.Messages >= until && !planted.Is(planted.SettleToldLate)
}

// Untold reports whether consumption went on since it was last told.
func (r *Receiver) Untold() bool { return r.told != r.Consumed }

// Told notes that the positions were just written into a state record.
func (r *Receiver) Told() { r.told = r.Consumed }

// shrink gives back what the window has more than most, after a message larger
// than the mark has passed, or all of it that is not held any more, after a
// release. What the limit still admits stays accounted for.
func (r *Receiver) shrink(budget *Budget, most uint64) {
	if r.released {
		most = 0
	}
	if most = max(most, r.Limit.Bytes-min(r.Consumed.Bytes, r.Limit.Bytes)); r.window > most {
		if !planted.Is(planted.BudgetNotReturned) {
			budget.Return(r.window - most)
		}
		r.window = most
	}
}

// Released takes unused credit back: the producer's end has begun epoch and
// will send nothing beyond what arrived until it is lent more.
func (r *Receiver) Released(budget *Budget, epoch uint32) {
	r.Epoch, r.released = epoch, true
	r.Limit = r.Received
	r.shrink(budget, 0)
}

// Close gives everything back to the budget.
func (r *Receiver) Close(budget *Budget) {
	budget.Return(r.window)
	r.window, r.released = 0, true
}
