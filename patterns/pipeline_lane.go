package patterns

import (
	"context"
	"errors"
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

	workers *roster[load]
	again   jobList   // jobs that wait for a worker, because one has not settled them
	later   laterHeap // jobs that were rejected with a delay
}

// worker is a Puller as a pusher knows it. One that is gone or away has its jobs
// taken away, and they go on to count as what it has outstanding: it may still
// settle them.
type worker = member[load]

// load is what a worker has and had.
type load struct {
	lane        *lane
	jobs        jobList
	settled     uint64
	sent, taken uint64 // at most once: jobs in all
}

// assign makes j the worker's. Under mu.
func assign(j *job, w *worker) {
	j.worker = w
	j.deliveries++
	j.state.Store(jobSending)
	w.who.jobs.append(j)
}

func openLane(ctx context.Context, p *pusher, channel string) (*lane, error) {
	acks, err := p.node.Consumer(ctx, ackChannel(channel), fabric.ConsumerConfig{})
	if err != nil {
		return nil, err
	}
	l := &lane{pusher: p, channel: channel, acks: acks, kick: make(chan struct{}, 1)}
	l.producer, err = p.node.Producer(ctx, channel, fabric.ProducerConfig{HighWaterMark: unlimited})
	if err != nil {
		acks.Close()
		return nil, err
	}
	l.workers = newRoster(p.node, l.producer, p.cfg.patience, l.lost)
	l.workers.meet = func(w *worker) error {
		var mem [headRoom]byte
		return w.target.TrySend(appendRecord(mem[:0], kindMeetJob, l.index(), w.session))
	}
	return l, nil
}

// close lets workers know that nothing more comes, and that they need say nothing
// more: what they have said is heard.
func (l *lane) close(ctx context.Context) error {
	err := l.producer.Close()
	if drained := l.acks.Drain(ctx); ctx.Err() == nil {
		err = errors.Join(err, drained)
	}
	return err
}

// index is what workers address this pusher by.
func (l *lane) index() uint64 { return uint64(l.acks.Address().Index) }

// hear takes what workers say, until the lane is closed.
func (l *lane) hear() {
	p := l.pusher
	defer p.wg.Done()
	var out []sending
	for {
		m, err := l.acks.Receive(context.Background())
		lost := lostPeer(err)
		if err != nil && lost == nil {
			return
		}
		p.mu.Lock()
		if lost != nil {
			l.workers.nodeLost(lost)
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
		if w := l.workers.hello(from, session, int(index), int(room)); w != nil {
			w.who.lane = l
		}
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
		l.workers.bye(from, session)
	default:
		return false
	}
	return true
}

// lost gives the jobs of a worker that is gone or away to others.
func (l *lane) lost(w *worker, reason string) {
	p := l.pusher
	if p.cfg.delivery == AtMostOnce && w.left {
		p.stats.Lost += w.who.sent - w.who.taken
	}
	for j := w.who.jobs.first; j != nil; j = w.who.jobs.first {
		p.comeBack(j, retry{reason: "worker lost: " + reason})
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
	if w := l.workers.members[from]; w != nil && w.seat.out > 0 {
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
		j.worker.who.settled++
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
	w := l.workers.members[from]
	if w == nil {
		return
	}
	jobs = min(jobs, w.who.sent-w.who.taken)
	w.who.taken += jobs
	w.who.settled = w.who.taken
	l.pusher.stats.Settled += jobs
	w.seat.out = int(w.who.sent - w.who.taken)
	l.workers.balance.fix(w.seat)
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
	tick := time.NewTicker(l.workers.interval())
	defer tick.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	changed := l.reachAll()
	for {
		l.round(time.Now(), due)
		select {
		case <-p.ctx.Done():
			return
		case <-changed:
			changed = l.reachAll()
		case <-tick.C:
			p.mu.Lock()
			l.workers.watch(time.Now())
			p.mu.Unlock()
		case <-l.kick:
		case <-due.C:
		}
	}
}

// reachAll finds the workers' consumers, and returns what is closed when that is to be
// done again.
func (l *lane) reachAll() (changed <-chan struct{}) {
	changed = l.producer.Changed()
	l.pusher.mu.Lock()
	defer l.pusher.mu.Unlock()
	l.workers.reachAll()
	return changed
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

func (l *lane) workerStats() []WorkerStats {
	list := make([]WorkerStats, 0, len(l.workers.members))
	for _, w := range l.workers.members {
		list = append(list, WorkerStats{
			Address: w.addr, Room: w.seat.room, Outstanding: w.seat.out, Settled: w.who.settled, Away: w.away || w.gone,
		})
	}
	slices.SortFunc(list, func(a, b WorkerStats) int { return compareAddress(a.Address, b.Address) })
	return list
}
