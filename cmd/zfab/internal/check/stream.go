package check

import "slices"

// maxGaps bounds the memory of one stream in a run that goes badly wrong. The
// oldest gap is then given up: what was missing stays lost, and if it comes
// later after all it counts as a duplicate.
const maxGaps = 1024

// A gap is a run of sequence numbers that were passed over: [from, to).
type gap struct{ from, to uint64 }

// A stream is what one consumer knows of one producer.
type stream struct {
	next      uint64 // one past the highest sequence number seen
	gaps      []gap  // ascending, none empty
	abandoned uint64 // numbers in gaps that were given up
	corrupted uint64
}

// arrive takes the number of a sound message and says what it was.
func (s *stream) arrive(sequence uint64) (duplicated, reordered bool) {
	switch {
	case sequence == s.next:
		s.next++
	case sequence > s.next:
		s.passOver(gap{s.next, sequence})
		s.next = sequence + 1
	default:
		late := s.fill(sequence)
		return !late, late
	}
	return false, false
}

func (s *stream) passOver(g gap) {
	if len(s.gaps) == maxGaps {
		s.abandoned += s.gaps[0].to - s.gaps[0].from
		s.gaps = slices.Delete(s.gaps, 0, 1)
	}
	s.gaps = append(s.gaps, g)
}

// fill takes a number out of the gap it is missing from; false if it is in none.
func (s *stream) fill(sequence uint64) bool {
	for i, g := range s.gaps {
		if sequence < g.from || sequence >= g.to {
			continue
		}
		switch {
		case g.from+1 == g.to:
			s.gaps = slices.Delete(s.gaps, i, i+1)
		case sequence == g.from:
			s.gaps[i].from++
		case sequence == g.to-1:
			s.gaps[i].to--
		default:
			s.gaps[i].to = sequence
			s.gaps = slices.Insert(s.gaps, i+1, gap{sequence + 1, g.to})
		}
		return true
	}
	return false
}

// A StreamState is what remains to be known of a stream at its end: enough to
// say how many messages are lost once the producer tells how many it sent.
type StreamState struct {
	Producer  int    `json:"producer"`
	Epoch     Epoch  `json:"epoch,omitempty"`
	Next      uint64 `json:"next"`                // one past the highest sequence number seen
	Gaps      uint64 `json:"gaps,omitempty"`      // numbers below it that never came
	Corrupted uint64 `json:"corrupted,omitempty"` // damaged messages, which have no number
}

func (s *stream) state() StreamState {
	gaps := s.abandoned
	for _, g := range s.gaps {
		gaps += g.to - g.from
	}
	return StreamState{Next: s.next, Gaps: gaps, Corrupted: s.corrupted}
}

// Lost is how many of the first sent messages never came. A damaged one did
// come: it stands for one that is missing, so that a flipped byte is not told
// as a loss as well.
func (s StreamState) Lost(sent uint64) uint64 {
	missing := s.Gaps
	if sent > s.Next {
		missing += sent - s.Next
	}
	return missing - min(missing, s.Corrupted)
}
