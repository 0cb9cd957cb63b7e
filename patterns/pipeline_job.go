package patterns

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"
)

// job is one job of a pusher, from Push to its being settled. Whoever sends it
// reads its parcel and deliveries without the pusher's mu while its state is
// jobSending, so nothing else changes them then; all other fields are under mu.
type job struct {
	parcel
	id         uint64
	number     uint64 // jobs admitted before it
	lane       *lane
	deliveries uint64 // in this lane, the one under way included
	state      atomic.Uint32
	retry      retry // what is to come after jobMoved

	// Where it is: with a worker, in a list (a worker's, or again), or later.
	worker     *worker
	in         *jobList
	prev, next *job
	due        time.Time // in later
	at         int       // place there, -1 if it is not there

	// Of a dead letter.
	before uint64 // deliveries in the main lane
	reason string
}

// The states of a job. Only its sender leaves jobSending for jobOut; all else
// happens under the pusher's mu.
const (
	jobWaiting = iota // for a worker
	jobSending        // its worker is chosen, and somebody is in Target.Send
	jobOut            // with its worker
	jobMoved          // as jobSending, but the worker has it no more: retry when Send returns
	jobDone           // as jobSending, but it is settled: release it when Send returns
)

// retry says how a job goes on that has come back.
type retry struct {
	delay  time.Duration
	reason string
}

var jobPool = sync.Pool{New: func() any { return &job{at: -1} }}

func newJob(p parcel) *job {
	j := jobPool.Get().(*job)
	j.parcel = p
	return j
}

// free gives the job's memory back. Nothing refers to it any more.
func (j *job) free() {
	j.parcel.release()
	*j = job{at: -1}
	jobPool.Put(j)
}

// size is what the job counts for in the pusher's bound, in bytes.
func (j *job) size() int64 { return int64(len(j.body())) }

// head is the job's record, without its body.
func (j *job) head(b []byte) []byte {
	if j.before == 0 {
		return appendRecord(b, kindJob, j.lane.index(), j.id, j.deliveries)
	}
	return appendTextRecord(b, j.reason, kindDeadJob, j.lane.index(), j.id, j.deliveries, j.before)
}

// jobList is a list of jobs, each in one list at most.
type jobList struct {
	first, last *job
}

func (l *jobList) append(j *job) {
	j.in, j.prev, j.next = l, l.last, nil
	if l.last == nil {
		l.first = j
	} else {
		l.last.next = j
	}
	l.last = j
}

// leave takes j out of its list.
func (j *job) leave() {
	l := j.in
	if l == nil {
		return
	}
	if j.prev == nil {
		l.first = j.next
	} else {
		j.prev.next = j.next
	}
	if j.next == nil {
		l.last = j.prev
	} else {
		j.next.prev = j.prev
	}
	j.in, j.prev, j.next = nil, nil, nil
}

// laterHeap is the jobs that wait for a time, the earliest first.
type laterHeap []*job

func (h laterHeap) Len() int           { return len(h) }
func (h laterHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h laterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *laterHeap) Push(v any) {
	j := v.(*job)
	j.at = len(*h)
	*h = append(*h, j)
}

func (h *laterHeap) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	j.at = -1
	return j
}

func (h *laterHeap) add(j *job)    { heap.Push(h, j) }
func (h *laterHeap) remove(j *job) { heap.Remove(h, j.at) }
