package patterns

import (
	"errors"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// ErrSettled: the job was acknowledged or rejected before.
var ErrSettled = errors.New("the job is settled already")

// hands are the jobs that a worker's program has and has not settled yet.
type hands struct {
	mu     sync.Mutex
	jobs   slots[hand]
	busy   int // jobs, and settlements that are not sent yet
	closed bool
	empty  chan struct{} // closed when busy is 0; nil while nobody asks
}

// hand is one such job.
type hand struct {
	pusher   *fabric.Target
	job      uint64
	delivery uint64
}

func (h *hands) take(j hand) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy++
	return h.jobs.add(j)
}

// settle takes a job out of the program's hands. Told must follow when the pusher
// was told.
func (h *hands) settle(token uint64) (hand, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return hand{}, fabric.ErrClosed
	}
	j, ok := h.jobs.remove(token)
	if !ok {
		return hand{}, ErrSettled
	}
	return j, nil
}

func (h *hands) told() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy--; h.busy == 0 && h.empty != nil {
		close(h.empty)
		h.empty = nil
	}
}

func (h *hands) ack(token uint64) error {
	j, err := h.settle(token)
	if err != nil {
		return err
	}
	defer h.told()
	var mem [headRoom]byte
	return j.pusher.TrySend(appendRecord(mem[:0], kindDone, j.job, j.delivery))
}

// maxDelayMillis is the longest delay of a rejected job: 30 days.
const maxDelayMillis = 30 * 24 * 3600 * 1000

func (h *hands) reject(token uint64, delay time.Duration, reason string) error {
	j, err := h.settle(token)
	if err != nil {
		return err
	}
	defer h.told()
	millis := uint64(min(max((delay+time.Millisecond-1)/time.Millisecond, 0), maxDelayMillis))
	var mem [maxHead]byte
	return j.pusher.TrySend(appendTextRecord(mem[:0], reason, kindReject, j.job, j.delivery, millis))
}

// none returns what is closed when the program has no unsettled job, and the
// pushers know it.
func (h *hands) none() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	none := h.empty
	if none == nil {
		none = make(chan struct{})
		if h.busy == 0 {
			close(none)
		} else {
			h.empty = none
		}
	}
	return none
}

func (h *hands) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}
