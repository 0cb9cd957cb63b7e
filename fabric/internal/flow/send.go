package flow

import "github.com/zfab/zfab/fabric/internal/planted"

// Sender is the producer's end of a stream's credit.
//
//	consumed <= sent <= limit and sent <= accepted <= consumed + mark
type Sender struct {
	Accepted Position // everything that Send has taken
	Sent     Position // everything given to the link; Bytes counts parts of a message too
	Consumed Position // everything the consumer has handled
	Limit    Position // nothing at or beyond may be sent
	Epoch    uint32   // of Limit; a grant of another epoch does not count
}

// Admits reports whether a message of n bytes may be accepted under mark. A
// message larger than the mark is admitted alone.
func (s *Sender) Admits(mark Mark, n int) bool {
	held := s.Accepted.Messages - s.Consumed.Messages
	if planted.Is(planted.MarkForgetsTheRoad) {
		held = s.Accepted.Messages - s.Sent.Messages
	}
	if held == 0 {
		return true
	}
	return held < mark.Messages && s.Accepted.Bytes-s.Consumed.Bytes+uint64(n) <= mark.Bytes
}

// Accept counts a message of n bytes in.
func (s *Sender) Accept(n int) {
	s.Accepted.Messages++
	s.Accepted.Bytes += uint64(n)
}

// Backlog reports whether something waits to be sent.
func (s *Sender) Backlog() bool { return s.Sent.Messages < s.Accepted.Messages }

// Room is what the limit admits from here: so many messages, so many bytes.
func (s *Sender) Room() (messages, bytes uint64) {
	if s.Limit.Messages > s.Sent.Messages {
		messages = s.Limit.Messages - s.Sent.Messages
	}
	if s.Limit.Bytes > s.Sent.Bytes {
		bytes = s.Limit.Bytes - s.Sent.Bytes
	}
	if planted.Is(planted.WindowOffByOne) {
		return messages + 1, bytes + 1
	}
	return messages, bytes
}

// Grant takes a consumer's word: what it has handled, and the limit of epoch.
// Positions only grow, so an older or repeated grant changes nothing. It
// reports whether the limit rose and whether consumption went on.
func (s *Sender) Grant(epoch uint32, consumed, limit Position) (raised, progressed bool) {
	if consumed.Messages > s.Consumed.Messages || consumed.Bytes > s.Consumed.Bytes {
		s.Consumed.Messages = max(s.Consumed.Messages, consumed.Messages)
		s.Consumed.Bytes = max(s.Consumed.Bytes, consumed.Bytes)
		progressed = true
	}
	if epoch != s.Epoch && !planted.Is(planted.OldEpochCounts) {
		return false, progressed
	}
	if limit.Messages > s.Limit.Messages {
		s.Limit.Messages, raised = limit.Messages, true
	}
	if limit.Bytes > s.Limit.Bytes {
		s.Limit.Bytes, raised = limit.Bytes, true
	}
	return raised, progressed
}

// Release gives unused credit back: the limit falls to what was sent, and a
// new epoch begins, in which grants that are still on their way do not count.
func (s *Sender) Release() {
	s.Epoch++
	s.Limit = s.Sent
}

// Rewind goes back to sent after a reconnect.
func (s *Sender) Rewind(sent Position) {
	if planted.Is(planted.DeltaCredit) {
		s.Limit.Messages += s.Sent.Messages - sent.Messages
		s.Limit.Bytes += s.Sent.Bytes - sent.Bytes
	}
	s.Sent = sent
}
