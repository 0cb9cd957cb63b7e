package flow

import "sync/atomic"

// Budget is the memory, in bytes, that a node lends to its streams in all. Its
// methods may be called by several goroutines.
type Budget struct {
	total int64
	lent  atomic.Int64
}

// NewBudget returns a budget of total bytes.
func NewBudget(total int64) *Budget { return &Budget{total: total} }

// Take lends want bytes, or as many as are left, but never fewer than floor:
// a stream's floor is one message, without which it could not go on at all.
// Floors are therefore the only way in which Lent can exceed Total.
func (b *Budget) Take(want, floor uint64) uint64 {
	for {
		lent := b.lent.Load()
		got := min(want, uint64(max(b.total-lent, 0)))
		got = max(got, min(floor, want))
		if b.lent.CompareAndSwap(lent, lent+int64(got)) {
			return got
		}
	}
}

// Return gives n bytes back.
func (b *Budget) Return(n uint64) { b.lent.Add(-int64(n)) }

// Lent is what is lent now, and Total what may be.
func (b *Budget) Lent() int64  { return b.lent.Load() }
func (b *Budget) Total() int64 { return b.total }
