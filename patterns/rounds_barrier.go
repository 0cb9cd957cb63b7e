package patterns

import (
	"context"
	"math"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// barrier is how far the consumers are, as one producer knows it.
type barrier struct {
	index map[fabric.Address]int // of consumers

	mu     sync.Mutex
	ended  []uint64      // rounds that each consumer has ended; allRounds once it is not waited for
	lowest uint64        // that all have ended
	at     int           // how many are there
	higher chan struct{} // closed when lowest grows
	closed bool
}

// allRounds is what a consumer has ended that takes no more part.
const allRounds = math.MaxUint64

func newBarrier(consumers []fabric.Address) *barrier {
	b := &barrier{
		index: make(map[fabric.Address]int, len(consumers)), ended: make([]uint64, len(consumers)),
		at: len(consumers), higher: make(chan struct{}),
	}
	for i, a := range consumers {
		b.index[a] = i
	}
	return b
}

// hear takes what consumers say, until the rounds are closed.
func (b *barrier) hear(from *ExchangeConsumer) {
	for {
		m, err := from.Receive(context.Background())
		switch lost := lostPeer(err); {
		case err == nil:
			kind, f := readRecord(m.Body)
			rounds := f.number()
			if i, ok := b.index[m.Source()]; ok && kind == kindRoundOver && f.end() {
				b.over(i, rounds)
			}
		case lost != nil && !isUnfinished(err):
			for a, i := range b.index {
				if a.Node == lost.Node {
					b.over(i, allRounds)
				}
			}
		default: // closed here, or nobody is left
			b.mu.Lock()
			b.closed = true
			close(b.higher)
			b.mu.Unlock()
			return
		}
	}
}

func isUnfinished(err error) bool {
	_, is := err.(*UnfinishedError)
	return is
}

// over notes that a consumer has ended so many rounds.
func (b *barrier) over(i int, rounds uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.ended[i]
	if rounds <= before {
		return
	}
	b.ended[i] = rounds
	if before > b.lowest {
		return
	}
	if b.at--; b.at > 0 {
		return
	}
	b.lowest = allRounds
	for _, n := range b.ended {
		switch {
		case n < b.lowest:
			b.lowest, b.at = n, 1
		case n == b.lowest:
			b.at++
		}
	}
	close(b.higher)
	b.higher = make(chan struct{})
}

// wait waits until all consumers have ended so many rounds.
func (b *barrier) wait(ctx context.Context, rounds uint64) error {
	for {
		b.mu.Lock()
		enough, closed, higher := b.lowest >= rounds, b.closed, b.higher
		b.mu.Unlock()
		switch {
		case enough:
			return nil
		case closed:
			return fabric.ErrClosed
		}
		select {
		case <-higher:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
