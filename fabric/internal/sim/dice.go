package sim

import (
	"math/rand/v2"
	"time"
)

// dice decides everything that a seed decides. Who draws does so whatever is
// traced, so that a seed's history is always the same.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0x7a666162))} }

// percent is true so many times of a hundred.
func (d dice) percent(n int) bool { return d.IntN(100) < n }

// span is a time from lo to below hi.
func (d dice) span(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(d.Int64N(int64(hi-lo)))
}

// from is a number from lo to hi.
func (d dice) from(lo, hi int) int { return lo + d.IntN(hi-lo+1) }

// one is one of a list.
func one[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }
