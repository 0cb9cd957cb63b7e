package patterns

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// sending is a job on its way to the worker that was chosen for it.
type sending struct {
	job *job
	to  *worker
}

// push gives a job to a worker, or waits for one with room. It takes the parcel
// over.
func (p *pusher) push(ctx context.Context, parcel parcel) error {
	if p.cfg.delivery == AtMostOnce {
		defer parcel.release()
		return p.pushOnce(ctx, parcel)
	}
	j := newJob(parcel)
	w, err := p.place(ctx, j)
	if err != nil {
		j.free()
		return err
	}
	if again, err := p.deliver(sending{j, w}, true); err != nil || len(again) > 0 {
		p.deliverAll(again)
		return err
	}
	return nil
}

// pushOnce is push for at most once: a job that a worker's stream has accepted
// is over.
func (p *pusher) pushOnce(ctx context.Context, parcel parcel) error {
	var mem [headRoom]byte
	head := appendRecord(mem[:0], kindOneJob, p.main.index())
	for {
		w, err := p.place(ctx, nil)
		if err != nil {
			return err
		}
		if err = parcel.send(p.ctx, w.target, head); err == nil {
			return nil
		}
		p.mu.Lock()
		w.who.sent--
		p.stats.Pushed--
		if w.left {
			p.stats.Lost--
		}
		p.release(w)
		if !tooLarge(err) {
			p.main.workers.retire(w)
		}
		again := p.advance(nil)
		p.mu.Unlock()
		p.deliverAll(again)
		if tooLarge(err) {
			return err
		}
	}
}

// place waits until a worker is chosen for j, which is nil with at most once.
func (p *pusher) place(ctx context.Context, j *job) (*worker, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, fabric.ErrClosed
	}
	if p.waiting.first == nil {
		if w := p.tryPlace(j); w != nil {
			p.mu.Unlock()
			return w, nil
		}
	}
	w := waitPool.Get().(*waiting)
	w.job = j
	p.waiting.append(w)
	p.mu.Unlock()
	defer func() { w.job = nil; waitPool.Put(w) }()
	select {
	case to := <-w.ready:
		return placed(to)
	case <-ctx.Done():
	}
	p.mu.Lock()
	if p.waiting.remove(w) {
		p.mu.Unlock()
		return nil, ctx.Err()
	}
	p.mu.Unlock()
	return placed(<-w.ready) // it was chosen meanwhile
}

func placed(to *worker) (*worker, error) {
	if to == nil {
		return nil, fabric.ErrClosed
	}
	return to, nil
}

// tryPlace chooses a worker for a new job, if it may be taken now: jobs that were
// delivered before go first. Under mu.
func (p *pusher) tryPlace(j *job) *worker {
	if j != nil && !p.fits(j.size()) || p.main.again.first != nil {
		return nil
	}
	s := p.main.workers.balance.pick()
	if s == nil {
		return nil
	}
	p.stats.Pushed++
	if j == nil {
		s.who.who.sent++
		return s.who
	}
	j.id, j.number, j.lane = p.jobs.add(j), p.admitted, p.main
	p.admitted++
	p.bytes += j.size()
	assign(j, s.who)
	return s.who
}

// fits reports whether a job of that size may be unsettled besides what is. One
// job alone always may. Under mu.
func (p *pusher) fits(size int64) bool {
	used := p.jobs.used
	return used == 0 || int64(used) < p.cfg.bound.Messages && p.bytes+size <= p.cfg.bound.Bytes
}

// advance gives jobs that wait to workers with room: those that were delivered
// before, then those of Pushes that wait. It appends to out what the caller has
// to deliver, without mu. Under mu.
func (p *pusher) advance(out []sending) []sending {
	for _, l := range [...]*lane{p.main, p.dead} {
		for l != nil && l.again.first != nil {
			s := l.workers.balance.pick()
			if s == nil {
				break
			}
			j := l.again.first
			j.leave()
			assign(j, s.who)
			if j.deliveries > 1 {
				p.stats.Redelivered++
			}
			out = append(out, sending{j, s.who})
		}
	}
	for w := p.waiting.first; w != nil; w = p.waiting.first {
		to := p.tryPlace(w.job)
		if to == nil {
			break
		}
		p.waiting.pop()
		w.ready <- to
	}
	return out
}

// deliver sends a job to its worker. It returns jobs that are to be delivered
// because of that. first says that Push still waits for the answer: a job that
// is too large for its worker is then an error, and not accepted.
func (p *pusher) deliver(s sending, first bool) ([]sending, error) {
	var mem [maxHead]byte
	j := s.job
	err := j.parcel.send(p.ctx, s.to.target, j.head(mem[:0]))
	if err == nil && j.state.CompareAndSwap(jobSending, jobOut) {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was := j.state.Swap(jobWaiting)
	switch {
	case was == jobDone:
		j.free()
		return nil, nil
	case err == nil: // moved while it was being sent
		p.back(j, j.retry)
		return p.advance(nil), nil
	case was == jobSending:
		p.detach(j)
		p.release(s.to)
	}
	j.deliveries-- // it was not
	switch {
	case !tooLarge(err):
		j.lane.workers.retire(s.to)
		j.lane.again.append(j)
		err = nil
	case first:
		p.stats.Pushed--
		p.finish(j)
	default:
		p.giveUp(j, err.Error())
		err = nil
	}
	return p.advance(nil), err
}

// release gives w the room back of one job. Under mu.
func (p *pusher) release(w *worker) { w.who.lane.workers.balance.done(w.seat) }

func tooLarge(err error) bool {
	var large *fabric.TooLargeError
	return errors.As(err, &large)
}

// deliverAll delivers jobs, and what follows from that.
func (p *pusher) deliverAll(list []sending) {
	for len(list) > 0 {
		s := list[0]
		again, _ := p.deliver(s, false)
		list = append(list[1:], again...)
	}
}

// detach takes j away from where it is. Under mu.
func (p *pusher) detach(j *job) {
	j.leave()
	j.worker = nil
	if j.at >= 0 {
		j.lane.later.remove(j)
	}
}

// comeBack takes j, which is with a worker that has it no more. Under mu.
func (p *pusher) comeBack(j *job, r retry) {
	p.detach(j)
	if j.state.CompareAndSwap(jobSending, jobMoved) {
		j.retry = r
		return
	}
	p.back(j, r)
}

// back lets j, which nobody has, go on: to the next worker, now or later, or to
// the dead letters. Under mu.
func (p *pusher) back(j *job, r retry) {
	if p.cfg.max > 0 && j.lane == p.main && j.deliveries >= uint64(p.cfg.max) {
		p.giveUp(j, r.reason)
		return
	}
	j.state.Store(jobWaiting)
	if r.delay <= 0 {
		j.lane.again.append(j)
		return
	}
	j.due = time.Now().Add(r.delay)
	j.lane.postpone(j)
}

// giveUp makes j, which nobody has, a dead letter, or drops it. Under mu.
func (p *pusher) giveUp(j *job, reason string) {
	if p.dead == nil || j.lane == p.dead {
		p.stats.Dropped++
		p.dropped++
		p.dropCause = reason
		p.finish(j)
		return
	}
	p.stats.DeadLetters++
	j.lane, j.before, j.deliveries, j.reason = p.dead, max(j.deliveries, 1), 0, reason
	j.state.Store(jobWaiting)
	p.dead.again.append(j)
}

// finish forgets j, which nobody has. Under mu.
func (p *pusher) finish(j *job) {
	p.jobs.remove(j.id)
	p.bytes -= j.size()
	for i := 0; i < len(p.flushes); i++ {
		f := p.flushes[i]
		if j.number >= f.before {
			continue
		}
		if f.left--; f.left == 0 {
			close(f.done)
			p.flushes = append(p.flushes[:i], p.flushes[i+1:]...)
			i--
		}
	}
	if !j.state.CompareAndSwap(jobSending, jobDone) {
		if j.state.Load() == jobMoved {
			j.state.Store(jobDone)
			return
		}
		j.free()
	}
}

// waiting is a Push that waits. Its bound is the program's: one per goroutine.
type waiting struct {
	job        *job
	ready      chan *worker // capacity 1; nil: the pusher is closed
	prev, next *waiting
	queued     bool
}

var waitPool = sync.Pool{New: func() any { return &waiting{ready: make(chan *worker, 1)} }}

// waitList is the Pushes that wait, in their order.
type waitList struct {
	first, last *waiting
	len         int
}

func (l *waitList) append(w *waiting) {
	w.prev, w.next, w.queued = l.last, nil, true
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.len++
}

func (l *waitList) pop() *waiting {
	w := l.first
	if w != nil {
		l.remove(w)
	}
	return w
}

// remove reports false if w was taken out already.
func (l *waitList) remove(w *waiting) bool {
	if !w.queued {
		return false
	}
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	l.len--
	return true
}
