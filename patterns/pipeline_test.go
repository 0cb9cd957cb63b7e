package patterns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func openPusherOf[T any](t testing.TB, n *fabric.Node, cfg PusherConfig[T]) *Pusher[T] {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "jobs"
	}
	p, err := OpenPusher(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func openPullerOf[T any](t testing.TB, n *fabric.Node, cfg PullerConfig[T]) *Puller[T] {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "jobs"
	}
	p, err := OpenPuller(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// next receives a job that must come.
func next[T any](t testing.TB, p *Puller[T]) Job[T] {
	t.Helper()
	j, err := p.Receive(testContext(t))
	if err != nil {
		t.Fatalf("no job: %v", err)
	}
	return j
}

// ledger counts what was done.
type ledger[T comparable] struct {
	mu   sync.Mutex
	done map[T]int
}

func (l *ledger[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(map[T]int)
	}
	l.done[v]++
}

// holds checks that jobs 0 to n-1 were done, and if once, no job twice.
func holds(t testing.TB, l *ledger[int], n int, once bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	missing, twice := 0, 0
	for i := range n {
		if l.done[i] == 0 {
			missing++
		}
		if l.done[i] > 1 {
			twice++
		}
	}
	if missing > 0 || once && twice > 0 || len(l.done) != n-missing {
		t.Errorf("of %d jobs %d were not done and %d more than once; %d different ones", n, missing, twice, len(l.done))
	}
}

// work acknowledges all that comes, until the end.
func work(t testing.TB, ctx context.Context, p *Puller[int], done *ledger[int]) {
	for j, err := range p.Jobs(ctx) {
		if err != nil {
			t.Error(err)
			return
		}
		done.add(j.Value)
		check(t, j.Ack())
	}
}

func TestPipeline(t *testing.T) {
	for _, d := range []Delivery{AtLeastOnce, AtMostOnce} {
		t.Run(d.String(), func(t *testing.T) {
			ctx, dir := testContext(t), directory.NewRegistry()
			const pushers, workers, jobs = 2, 3, 3000
			var done ledger[int]
			var running sync.WaitGroup
			for i := range workers {
				w := openPullerOf(t, openNode(t, dir, fmt.Sprint("w", i)), PullerConfig[int]{Pushers: pushers})
				running.Go(func() { work(t, ctx, w, &done) })
			}
			for i := range pushers {
				p := openPusherOf(t, openNode(t, dir, fmt.Sprint("p", i)), PusherConfig[int]{Delivery: d})
				running.Go(func() {
					check(t, p.WaitWorkers(ctx, workers))
					for j := range jobs / pushers {
						check(t, p.Push(ctx, j*pushers+i))
					}
					check(t, p.Drain(ctx))
					st := p.Stats()
					if st.Pushed != jobs/pushers || st.Unsettled != 0 || st.UnsettledMem != 0 || st.Lost+st.Redelivered+st.Late > 0 {
						t.Errorf("%+v", st)
					}
					if d == AtLeastOnce && st.Settled != st.Pushed {
						t.Errorf("%d of %d are settled", st.Settled, st.Pushed)
					}
					for _, w := range st.Workers {
						if d == AtLeastOnce && w.Settled == 0 {
							t.Errorf("%v has done nothing", w.Address)
						}
					}
					if err := p.Push(ctx, 0); !errors.Is(err, fabric.ErrClosed) {
						t.Errorf("Push after Drain: %v", err)
					}
				})
			}
			running.Wait()
			holds(t, &done, jobs, true)
		})
	}
}

// Within one node it is the same.
func TestPipelineInOneNode(t *testing.T) {
	ctx, n := testContext(t), openNode(t, directory.NewRegistry(), "n")
	var done ledger[int]
	var running sync.WaitGroup
	for range 2 {
		w := openPullerOf(t, n, PullerConfig[int]{Pushers: 1})
		running.Go(func() { work(t, ctx, w, &done) })
	}
	p := openPusherOf(t, n, PusherConfig[int]{})
	for i := range 200 {
		check(t, p.Push(ctx, i))
	}
	check(t, p.Drain(ctx))
	running.Wait()
	holds(t, &done, 200, true)
}

// Raw bytes come as they are, large ones too, and are valid for as long as
// promised.
func TestPipelineRaw(t *testing.T) {
	for _, d := range []Delivery{AtLeastOnce, AtMostOnce} {
		ctx, dir := testContext(t), directory.NewRegistry()
		p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[[]byte]{Delivery: d})
		w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[[]byte]{InFlight: 8})
		sizes := []int{0, 1, 1000, bufferMin - 1, bufferMin, 1 << 20, 8 << 20}
		var sending sync.WaitGroup
		sending.Go(func() {
			for _, size := range sizes {
				body := []byte(strings.Repeat("x", size))
				check(t, p.Push(ctx, body))
				for i := range body {
					body[i] = 'y' // it is the program's again
				}
			}
		})
		var kept [][]byte
		for _, size := range sizes {
			j := next(t, w)
			if len(j.Value) != size || strings.Trim(string(j.Value), "x") != "" {
				t.Fatalf("%s: got %d bytes, want %d", d, len(j.Value), size)
			}
			kept = append(kept, j.Keep().Value)
			check(t, j.Ack())
		}
		sending.Wait()
		for i, b := range kept {
			if len(b) != sizes[i] || strings.Trim(string(b), "x") != "" {
				t.Errorf("%s: a kept job of %d bytes has changed", d, sizes[i])
			}
		}
		check(t, p.Drain(ctx))
	}
}

// A worker has as many jobs as it asked for and no more; what it settles is
// replaced.
func TestPipelineBoundsWhatAWorkerHas(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{InFlight: 3})
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for i := range 7 {
			check(t, p.Push(ctx, i))
		}
	})
	for round := range 4 {
		var have []Job[int]
		for len(have) < min(3, 7-3*round) {
			have = append(have, next(t, w))
		}
		if len(have) == 3 {
			if j, err := w.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a fourth job: %+v, %v", j, err)
			}
		}
		if w.Stats().InHand != len(have) || p.Stats().Unsettled < len(have) {
			t.Errorf("%d in hand, %d unsettled, want %d", w.Stats().InHand, p.Stats().Unsettled, len(have))
		}
		for _, j := range have {
			check(t, j.Ack())
		}
		if 3*round+len(have) == 7 {
			break
		}
	}
	pushing.Wait()
	check(t, p.Drain(ctx))
}

// A worker that is busy gets no more; one that comes late takes its share at
// once, also of what was waiting.
func TestPipelineLateWorkerTakesItsShare(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	busy := openPullerOf(t, openNode(t, dir, "busy"), PullerConfig[int]{InFlight: 2})
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for i := range 100 {
			check(t, p.Push(ctx, i))
		}
	})
	held := []Job[int]{next(t, busy), next(t, busy)}
	await(t, "a Push that waits", func() bool { return p.Stats().Waiting == 1 })
	late := openPullerOf(t, openNode(t, dir, "late"), PullerConfig[int]{InFlight: 2})
	for range 98 {
		check(t, next(t, late).Ack())
	}
	pushing.Wait()
	for _, j := range held {
		check(t, j.Ack())
	}
	check(t, p.Drain(ctx))
}

func TestPipelineReject(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{})
	check(t, p.Push(ctx, 7))
	first := next(t, w)
	if first.Redelivered() || first.Deliveries() != 1 {
		t.Errorf("delivery %d at first", first.Deliveries())
	}
	const delay = 150 * time.Millisecond
	began := time.Now()
	check(t, first.Reject(delay))
	check(t, p.Push(ctx, 8)) // is not held up
	other := next(t, w)
	if other.Value != 8 || time.Since(began) >= delay {
		t.Errorf("job %d came after %v", other.Value, time.Since(began))
	}
	again := next(t, w)
	if waited := time.Since(began); again.Value != 7 || !again.Redelivered() || again.Deliveries() != 2 || waited < delay {
		t.Errorf("job %d, delivery %d, after %v", again.Value, again.Deliveries(), waited)
	}
	check(t, again.Reject(0))
	last := next(t, w)
	if last.Deliveries() != 3 {
		t.Errorf("delivery %d after two", last.Deliveries())
	}
	for _, j := range []Job[int]{first, again} {
		if err := j.Ack(); err != ErrSettled {
			t.Errorf("a job is settled twice: %v", err)
		}
	}
	check(t, last.Ack())
	check(t, other.Ack())
	check(t, p.Drain(ctx))
	if st := p.Stats(); st.Settled != 2 || st.Rejected != 2 || st.Redelivered != 2 || st.Late != 0 {
		t.Errorf("%+v", st)
	}
}

// What a worker has not settled goes to others when it closes, and when its node
// does: marked, and before what is new.
func TestPipelineRedelivers(t *testing.T) {
	for name, end := range map[string]func(*fabric.Node, *Puller[int]) error{
		"worker closed": func(_ *fabric.Node, w *Puller[int]) error { return w.Close() },
		"node closed":   func(n *fabric.Node, _ *Puller[int]) error { return n.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, dir := testContext(t), directory.NewRegistry()
			p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
			node := openNode(t, dir, "dies")
			dies := openPullerOf(t, node, PullerConfig[int]{InFlight: 4})
			for i := range 4 {
				check(t, p.Push(ctx, i))
			}
			var has []Job[int]
			for range 3 { // the fourth is on its way
				has = append(has, next(t, dies))
			}
			check(t, has[1].Ack())
			await(t, "the acknowledgement", func() bool { return p.Stats().Settled == 1 })
			var pushing sync.WaitGroup
			pushing.Go(func() {
				for i := 4; i < 6; i++ {
					check(t, p.Push(ctx, i))
				}
			})
			await(t, "a Push that waits", func() bool { return p.Stats().Waiting == 1 || p.Stats().Pushed == 5 })
			check(t, end(node, dies))
			if err := has[0].Ack(); err == nil {
				t.Error("a job of a closed worker was acknowledged")
			}
			w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{InFlight: 8})
			again := map[int]int{}
			for range 5 {
				j := next(t, w)
				again[j.Value] = j.Deliveries()
				check(t, j.Ack())
			}
			pushing.Wait()
			if again[0] != 2 || again[2] != 2 || again[5] != 1 || again[1] != 0 {
				t.Errorf("deliveries by job: %v", again)
			}
			check(t, p.Drain(ctx))
			if st := p.Stats(); st.Settled != 6 || st.Redelivered < 2 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestPipelineDeadLetters(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[string]{MaxDeliveries: 3, DeadLetters: "dead"})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[string]{})
	check(t, p.Push(ctx, "poison"))
	for i := range 3 {
		j := next(t, w)
		if j.Deliveries() != i+1 {
			t.Errorf("delivery %d, want %d", j.Deliveries(), i+1)
		}
		check(t, j.Reject(0))
	}
	if _, err := w.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after three deliveries: %v", err)
	}
	if err := p.Flush(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush while a dead letter waits: %v", err)
	}
	// Dead letters are a pipeline as any other: they too come again until they
	// are acknowledged.
	grave := openPullerOf(t, openNode(t, dir, "g"), PullerConfig[string]{Channel: "dead"})
	for i := range 5 {
		j := next(t, grave)
		reason, deliveries := j.DeadLetter()
		if j.Value != "poison" || deliveries != 3 || j.Deliveries() != i+1 || reason != "rejected by its worker" {
			t.Errorf("dead letter %q, %d deliveries before and %d since, because %q", j.Value, deliveries, j.Deliveries(), reason)
		}
		if i < 4 {
			check(t, j.Reject(0))
		} else {
			check(t, j.Ack())
		}
	}
	check(t, p.Drain(ctx))
	if st := p.Stats(); st.DeadLetters != 1 || st.Dropped != 0 || st.Settled != 1 {
		t.Errorf("%+v", st)
	}
}

// Without a dead letter channel a job that nobody can do is dropped; that is
// counted, and an error.
func TestPipelineDrops(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[string]{MaxDeliveries: 1})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[string]{})
	check(t, p.Push(ctx, "poison"))
	check(t, next(t, w).Reject(time.Hour))
	var dropped *DroppedError
	if err := p.Flush(ctx); !errors.As(err, &dropped) || dropped.Jobs != 1 || dropped.Reason != "rejected by its worker" {
		t.Errorf("Flush: %v", err)
	}
	check(t, p.Flush(ctx))
	if st := p.Stats(); st.Dropped != 1 || st.Unsettled != 0 {
		t.Errorf("%+v", st)
	}
}

// A Push that waits ends with its context, and has pushed nothing.
func TestPipelinePushWaits(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[[]byte]{
		Unsettled: fabric.HighWaterMark{Messages: 3, Bytes: 1000},
	})
	if err := p.Push(shortContext(t), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a worker: %v", err)
	}
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[[]byte]{})
	check(t, p.Push(ctx, make([]byte, 5000))) // larger than the bound, and alone
	if err := p.Push(shortContext(t), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over the bound in bytes: %v", err)
	}
	check(t, next(t, w).Ack())
	for range 3 {
		check(t, p.Push(ctx, nil))
	}
	if err := p.Push(shortContext(t), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over the bound in jobs: %v", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- p.Push(ctx, []byte("last")) }()
	await(t, "a Push that waits", func() bool { return p.Stats().Waiting == 1 })
	for range 3 {
		check(t, next(t, w).Ack())
	}
	check(t, <-waiting)
	if j := next(t, w); string(j.Value) != "last" {
		t.Errorf("got %q", j.Value)
	}
	go func() { waiting <- p.Flush(ctx) }()
	await(t, "the acknowledgements", func() bool { return p.Stats().Unsettled == 1 })
	var unsettled *UnsettledError
	if err := p.Close(); !errors.As(err, &unsettled) || unsettled.Jobs != 1 {
		t.Errorf("Close: %v", err)
	}
	if err := <-waiting; !errors.Is(err, fabric.ErrClosed) {
		t.Errorf("Flush: %v", err)
	}
}

// What a worker remembers of pushers is bounded, however many come and go, in order or
// not; who is there is not forgotten, nor who has just gone.
func TestPipelineManyPushers(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{})
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{})
	check(t, p.Push(ctx, 1))
	check(t, next(t, w).Ack())
	other, err := openNode(t, dir, "many").Producer(ctx, "jobs", fabric.ProducerConfig{})
	check(t, err)
	check(t, other.WaitConsumers(ctx, 1))
	const many = 10 * keepMeetings
	var last []byte
	for i := range many {
		check(t, other.SendAll(ctx, appendRecord(nil, kindMeetJob, uint64(i), w.core.greeter.session)))
		last = append(appendRecord(nil, kindOneJob, uint64(i)), 2) // which is one in MessagePack
	}
	check(t, other.SendAll(ctx, last))
	if j := next(t, w); j.Value != 2 {
		t.Errorf("%+v", j)
	}
	if n := len(w.core.meetings.met); n > 2*keepMeetings+1 {
		t.Errorf("%d pushers are remembered", n)
	}
	check(t, p.Push(ctx, 3))
	if j := next(t, w); j.Value != 3 {
		t.Errorf("%+v", j)
	} else {
		check(t, j.Ack())
	}
	check(t, p.Drain(ctx))
	check(t, other.SendAll(ctx, appendRecord(nil, kindMeetJob, maxIndex+1, w.core.greeter.session)))
	var record *RecordError
	if _, err := w.Receive(ctx); !errors.As(err, &record) {
		t.Error(err)
	}
}
