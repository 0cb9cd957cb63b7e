package patterns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zfab/zfab/fabric"
)

// lane is a pusher's way to the workers of one channel: the pipeline's own, or
// that of its dead letters. What is not said to be else is under the pusher's
// mu.
type lane struct {
	pusher   *pusher
	channel  string
	producer *fabric.Producer
	acks     *fabric.Consumer
	kick     chan struct{} // capacity 1: the keeper's time has changed

	workers map[fabric.Address]*worker // by the address of what they speak with
	balance balancer[*worker]
	again   jobList   // jobs that wait for a worker, because one has not settled them
	later   laterHeap // jobs that were rejected with a delay
}

// worker is a Puller as a pusher knows it.
type worker struct {
	lane    *lane
	addr    fabric.Address // its consumer on the channel
	source  fabric.Address // its producer of acknowledgements
	session uint64
	target  *fabric.Target // nil until the node knows the consumer, and never changed after
	seat    *seat[*worker]
	jobs    jobList // that it has
	settled uint64

	sent, taken uint64 // at most once: jobs in all

	since     time.Time // when its node was first seen without connection; zero if it has one
	suspended bool      // since is too long ago: its jobs were given to others
	gone      bool      // its consumer takes no more; what it has it may still settle
	left      bool      // the pusher knows it no more
}

// assign makes j the worker's. Under mu.
func (w *worker) assign(j *job) {
	j.worker = w
	j.deliveries++
	j.state.Store(jobSending)
	w.jobs.append(j)
}

func openLane(ctx context.Context, p *pusher, channel string) (*lane, error) {
	acks, err := p.node.Consumer(ctx, ackChannel(channel), fabric.ConsumerConfig{})
	if err != nil {
		return nil, err
	}
	l := &lane{
		pusher: p, channel: channel, acks: acks, kick: make(chan struct{}, 1),
		workers: make(map[fabric.Address]*worker),
	}
	l.producer, err = p.node.Producer(ctx, channel, fabric.ProducerConfig{HighWaterMark: unlimited})
	if err != nil {
		acks.Close()
		return nil, err
	}
	return l, nil
}

func (l *lane) close() error { return errors.Join(l.producer.Close(), l.acks.Close()) }

// index is what workers address this pusher by.
func (l *lane) index() uint64 { return uint64(l.acks.Address().Index) }

// hear takes what workers say, until the lane is closed.
func (l *lane) hear() {
	p := l.pusher
	defer p.wg.Done()
	var out []sending
	for {
		m, err := l.acks.Receive(p.ctx)
		lost := lostPeer(err)
		if err != nil && lost == nil {
			return
		}
		p.mu.Lock()
		if lost != nil {
			for _, w := range l.workers {
				if w.source.Node == lost.Node {
					l.leave(w, "its worker is lost: "+lost.Reason)
				}
			}
		} else if !l.take(m.Source(), m.Body) {
			p.stats.Malformed++
		}
		out = p.advance(out[:0])
		p.mu.Unlock()
		p.deliverAll(out)
	}
}

// take takes a record, and reports whether it is one. Under mu.
func (l *lane) take(from fabric.Address, record []byte) bool {
	kind, f := readRecord(record)
	switch kind {
	case kindDone:
		id, delivery := f.number(), f.number()
		if !f.end() {
			return false
		}
		l.done(from, id, delivery)
	case kindReject:
		id, delivery, millis, reason := f.number(), f.number(), f.number(), f.text()
		if !f.end() {
			return false
		}
		l.rejected(from, id, delivery, retry{time.Duration(min(millis, maxDelayMillis)) * time.Millisecond, reason})
	case kindHello:
		session, index, room := f.number(), f.number(), f.number()
		if !f.end() || room == 0 || room > maxInFlight {
			return false
		}
		l.hello(from, session, fabric.Address{Node: from.Node, Index: int(index)}, int(room))
	case kindTaken:
		jobs := f.number()
		if !f.end() {
			return false
		}
		l.took(from, jobs)
	case kindBye:
		session := f.number()
		if !f.end() {
			return false
		}
		if w := l.workers[from]; w != nil && w.session == session {
			l.leave(w, "its worker has closed")
		}
	default:
		return false
	}
	return true
}

// hello takes a worker in. One that says it again is not new.
func (l *lane) hello(from fabric.Address, session uint64, addr fabric.Address, room int) {
	if w := l.workers[from]; w != nil {
		if w.session == session && !w.gone {
			return
		}
		l.leave(w, "its worker was replaced")
	}
	w := &worker{lane: l, addr: addr, source: from, session: session}
	w.seat = newSeat(w, room)
	l.workers[from] = w
	l.reach(w)
}

// reach finds the worker's consumer, or finds that it is there no more.
func (l *lane) reach(w *worker) {
	t, err := l.producer.To(w.addr)
	if err == nil && w.target == nil {
		w.target = t
		l.tellCame()
	}
	l.seat(w, err == nil)
}

// seat lets w have jobs, if it can.
func (l *lane) seat(w *worker, listed bool) {
	if listed && !w.gone && !w.suspended {
		l.balance.sit(w.seat)
	} else {
		l.balance.leave(w.seat)
	}
}

// tellCame wakes who waits for workers.
func (l *lane) tellCame() {
	p := l.pusher
	close(p.came)
	p.came = make(chan struct{})
}

// present is how many workers are there. Under mu.
func (l *lane) present() (n int) {
	for _, w := range l.workers {
		if w.target != nil && !w.gone {
			n++
		}
	}
	return n
}

// leave lets w go, and gives its jobs to others.
func (l *lane) leave(w *worker, reason string) {
	p := l.pusher
	delete(l.workers, w.source)
	w.left = true
	p.retire(w)
	if p.cfg.delivery == AtMostOnce {
		p.stats.Lost += w.sent - w.taken
	}
	l.takeBack(w, reason)
}

// takeBack gives w's jobs to others. They go on to count as w's outstanding.
func (l *lane) takeBack(w *worker, reason string) {
	for j := w.jobs.first; j != nil; j = w.jobs.first {
		l.pusher.comeBack(j, retry{reason: reason})
	}
}

// current finds the job that a worker speaks of, and whether the worker has it
// now. It gives the worker's room back.
func (l *lane) current(from fabric.Address, id, delivery uint64) (j *job, now bool) {
	j, ok := l.pusher.jobs.get(id)
	if ok && j.lane == l && j.worker != nil && j.worker.source == from && j.deliveries == delivery {
		l.pusher.release(j.worker)
		return j, true
	}
	l.pusher.stats.Late++
	if w := l.workers[from]; w != nil && w.seat.out > 0 {
		l.pusher.release(w)
	}
	if !ok || j.lane != l || delivery == 0 || delivery > j.deliveries {
		return nil, false
	}
	return j, false
}

// done settles a job, also if the worker has it no more: it is done.
func (l *lane) done(from fabric.Address, id, delivery uint64) {
	j, now := l.current(from, id, delivery)
	if j == nil {
		return
	}
	if now {
		j.worker.settled++
	}
	l.pusher.stats.Settled++
	l.pusher.detach(j)
	l.pusher.finish(j)
}

func (l *lane) rejected(from fabric.Address, id, delivery uint64, r retry) {
	if j, now := l.current(from, id, delivery); now {
		l.pusher.stats.Rejected++
		l.pusher.comeBack(j, r)
	}
}

// took is a worker's word of how many jobs it has taken since it said so last.
func (l *lane) took(from fabric.Address, jobs uint64) {
	w := l.workers[from]
	if w == nil {
		return
	}
	jobs = min(jobs, w.sent-w.taken)
	w.taken += jobs
	w.settled = w.taken
	l.pusher.stats.Settled += jobs
	w.seat.out = int(w.sent - w.taken)
	l.balance.fix(w.seat)
}

// postpone lets j wait for its time.
func (l *lane) postpone(j *job) {
	l.later.add(j)
	if l.later[0] == j {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
}

// keep looks after what comes with time: workers that the node gets to know,
// nodes without connection, jobs that are due.
func (l *lane) keep() {
	p := l.pusher
	defer p.wg.Done()
	tick := time.NewTicker(min(max(p.cfg.patience/4, minPatience), time.Second))
	defer tick.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	changed := l.producer.Changed()
	for {
		l.round(time.Now(), due)
		select {
		case <-p.ctx.Done():
			return
		case <-changed:
			changed = l.producer.Changed()
			p.mu.Lock()
			for _, w := range l.workers {
				l.reach(w)
			}
			p.mu.Unlock()
		case <-tick.C:
			p.mu.Lock()
			for _, w := range l.workers {
				l.watch(w, time.Now())
			}
			p.mu.Unlock()
		case <-l.kick:
		case <-due.C:
		}
	}
}

// round gives the jobs that are due to workers with room, and sets the time of
// the next one.
func (l *lane) round(now time.Time, due *time.Timer) {
	p := l.pusher
	p.mu.Lock()
	for len(l.later) > 0 && !l.later[0].due.After(now) {
		j := l.later[0]
		l.later.remove(j)
		l.again.append(j)
	}
	if len(l.later) > 0 {
		due.Reset(l.later[0].due.Sub(now))
	}
	out := p.advance(nil)
	p.mu.Unlock()
	p.deliverAll(out)
}

// watch looks whether w's node has a connection. Without one for longer than
// the pusher's patience, its jobs go to others, and it gets no new ones until it
// has.
func (l *lane) watch(w *worker, now time.Time) {
	switch {
	case l.pusher.node.Connected(w.source.Node):
		w.since = time.Time{}
		if w.suspended {
			w.suspended = false
			l.reach(w)
		}
	case w.since.IsZero():
		w.since = now
	case !w.suspended && now.Sub(w.since) > l.pusher.cfg.patience:
		w.suspended = true
		l.balance.leave(w.seat)
		l.takeBack(w, fmt.Sprintf("its worker's node %s has no connection", w.source.Node))
	}
}

func (l *lane) workerStats() []WorkerStats {
	list := make([]WorkerStats, 0, len(l.workers))
	for _, w := range l.workers {
		list = append(list, WorkerStats{
			Address: w.addr, Room: w.seat.room, Outstanding: w.seat.out, Settled: w.settled, Away: w.suspended || w.gone,
		})
	}
	slices.SortFunc(list, func(a, b WorkerStats) int { return compareAddress(a.Address, b.Address) })
	return list
}
