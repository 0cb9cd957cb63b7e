package wordcount

import (
	"sync"
	"time"
)

// A tally counts the files that are read, and tells how many now and then. Any
// goroutine may add; what is told is told by one at a time, and only grows.
type tally struct {
	every time.Duration // at most this often

	mu   sync.Mutex
	told time.Time
	read int
	tell func(read int) // nil: nobody asks
}

// tallyInterval is how often a node tells.
const tallyInterval = 100 * time.Millisecond

// add counts n files more.
func (t *tally) add(n int) {
	if t.tell == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read += n
	if now := time.Now(); now.Sub(t.told) >= t.every {
		t.told = now
		t.tell(t.read)
	}
}
