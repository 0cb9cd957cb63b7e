package patterns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func openReplierOf[Q, A any](t testing.TB, n *fabric.Node, cfg ReplierConfig[Q, A], handle func(context.Context, Q) (A, error)) *Replier {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "ask"
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	r, err := OpenReplier(testContext(t), n, cfg, handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, r.Close()) })
	return r
}

func openStreamReplierOf[Q, A any](t testing.TB, n *fabric.Node, cfg ReplierConfig[Q, A], handle func(context.Context, Q) iter.Seq2[A, error]) *Replier {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "ask"
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	r, err := OpenStreamReplier(testContext(t), n, cfg, handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, r.Close()) })
	return r
}

func openRequesterOf[Q, A any](t testing.TB, n *fabric.Node, cfg RequesterConfig[Q, A]) *Requester[Q, A] {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "ask"
	}
	r, err := OpenRequester(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, r.Close()) })
	return r
}

// counting streams a value so many times.
func counting[A any](a A) func(context.Context, int) iter.Seq2[A, error] {
	return func(_ context.Context, n int) iter.Seq2[A, error] {
		return func(yield func(A, error) bool) {
			for range n {
				if !yield(a, nil) {
					return
				}
			}
		}
	}
}

// double is a handler.
func double(_ context.Context, n int) (int, error) { return 2 * n, nil }

func TestRequest(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const servers, clients, calls = 3, 2, 300
	var repliers []*Replier
	for i := range servers {
		repliers = append(repliers, openReplierOf(t, openNode(t, dir, fmt.Sprint("s", i)), ReplierConfig[int, int]{}, double))
	}
	var calling sync.WaitGroup
	for i := range clients {
		r := openRequesterOf(t, openNode(t, dir, fmt.Sprint("c", i)), RequesterConfig[int, int]{})
		calling.Go(func() {
			check(t, r.WaitServers(ctx, servers))
			var pending []*Pending[int]
			for n := range calls {
				if n%2 == 0 {
					pending = append(pending, r.Start(ctx, n, CallOptions{}))
				} else if a, err := r.Call(ctx, n); err != nil || a != 2*n {
					t.Errorf("%d: %d, %v", n, a, err)
				}
			}
			for n, p := range pending {
				if a, err := p.Wait(ctx); err != nil || a != 4*n {
					t.Errorf("%d: %d, %v", 2*n, a, err)
				}
			}
			check(t, r.Drain(ctx))
			st := r.Stats()
			if st.Calls != calls || st.Requests != calls || st.Outstanding != 0 || st.LateReplies+st.Malformed+st.Lost > 0 {
				t.Errorf("%+v", st)
			}
			if _, err := r.Call(ctx, 1); !errors.Is(err, fabric.ErrClosed) {
				t.Errorf("Call after Drain: %v", err)
			}
			if _, err := r.Start(ctx, 1, CallOptions{}).Wait(ctx); !errors.Is(err, fabric.ErrClosed) {
				t.Errorf("Start after Drain: %v", err)
			}
		})
	}
	calling.Wait()
	total := uint64(0)
	for _, s := range repliers {
		st := s.Stats()
		total += st.Started
		if st.Started == 0 || st.Errors+st.Refused+st.Undeliverable > 0 {
			t.Errorf("%+v", st)
		}
	}
	if total != clients*calls {
		t.Errorf("%d requests were handled, want %d", total, clients*calls)
	}
}

// blocker is a handler that runs until it is let go or its context ends.
type blocker struct {
	begun chan int
	let   chan struct{}
	ended chan error // of contexts
}

func newBlocker() *blocker {
	return &blocker{begun: make(chan int, 100), let: make(chan struct{}), ended: make(chan error, 100)}
}

func (b *blocker) handle(ctx context.Context, n int) (int, error) {
	b.begun <- n
	select {
	case <-b.let:
		return n, nil
	case <-ctx.Done():
		b.ended <- context.Cause(ctx)
		return 0, ctx.Err()
	}
}

// The time left travels with the request, and a call that ends tells its handler.
func TestRequestDeadlineAndCancellationReachTheHandler(t *testing.T) {
	dir, b := directory.NewRegistry(), newBlocker()
	server := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{}, b.handle)
	seen := make(chan time.Duration, 1)
	openReplierOf(t, openNode(t, dir, "s2"), ReplierConfig[int, int]{Channel: "deadline"}, func(ctx context.Context, _ int) (int, error) {
		at, ok := ctx.Deadline()
		if !ok {
			return 0, errors.New("no deadline")
		}
		seen <- time.Until(at)
		return 0, nil
	})
	node := openNode(t, dir, "c")
	d := openRequesterOf(t, node, RequesterConfig[int, int]{Channel: "deadline"})
	check(t, d.WaitServers(testContext(t), 1))
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Second)
	_, err := d.Call(ctx, 1)
	cancel()
	if left := <-seen; err != nil || left > 10*time.Second || left < 5*time.Second {
		t.Errorf("%v are left of ten seconds (%v)", left, err)
	}

	r := openRequesterOf(t, node, RequesterConfig[int, int]{})
	check(t, r.WaitServers(testContext(t), 1))
	ctx, cancel = context.WithCancel(testContext(t))
	p := r.Start(ctx, 1, CallOptions{})
	<-b.begun
	if _, err := p.Wait(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v", err)
	}
	cancel()
	if _, err := p.Wait(testContext(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that is cancelled: %v", err)
	}
	if err := <-b.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("its handler: %v", err)
	}
	if _, err := r.Call(shortContext(t), 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that takes too long: %v", err)
	}
	<-b.begun
	<-b.ended
	await(t, "the server to be idle", func() bool { return server.Stats().Running == 0 })
	if st := r.Stats(); st.Cancelled == 0 || st.Outstanding != 0 { // the second may have expired at the server first
		t.Errorf("%+v", st)
	}
}

// Handlers run as many at a time as allowed; others wait; what the queue does not
// hold is refused, and moves to a server that has room, as it was not started.
func TestRequestServerIsBounded(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	busy := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{Concurrency: 2, Queue: fabric.HighWaterMark{Messages: 3}}, b.handle)
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	var pending []*Pending[int]
	for i := range 5 {
		pending = append(pending, r.Start(ctx, i, CallOptions{}))
	}
	await(t, "two to run and three to wait", func() bool { st := busy.Stats(); return st.Running == 2 && st.Queued == 3 })
	var e *ReplyError
	if _, err := r.Call(ctx, 9); !errors.As(err, &e) || e.Code != CodeBusy || !errors.Is(err, ErrNoServer) {
		t.Errorf("the sixth: %v", err)
	}
	// One that gives up in the queue is not started.
	if _, err := r.Call(shortContext(t), 9); err == nil {
		t.Error("the sixth was answered")
	}
	free := openReplierOf(t, openNode(t, dir, "s2"), ReplierConfig[int, int]{}, double)
	check(t, r.WaitServers(ctx, 2))
	for i := range 5 {
		if a, err := r.Call(ctx, i); err != nil || a != 2*i {
			t.Errorf("with another server: %d, %v", a, err)
		}
	}
	close(b.let)
	for i, p := range pending {
		if a, err := p.Wait(ctx); err != nil || a != i {
			t.Errorf("call %d: %d, %v", i, a, err)
		}
	}
	if len(b.begun) != 5 {
		t.Errorf("%d handlers have run, want 5", len(b.begun))
	}
	if st := free.Stats(); st.Started != 5 {
		t.Errorf("%+v", st)
	}
}

// What gave up while it waited is never started, and what waited too long is not
// either.
func TestRequestEndsInTheQueue(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	server := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{Concurrency: 1}, b.handle)
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	first := r.Start(ctx, 1, CallOptions{})
	<-b.begun
	if _, err := r.Call(shortContext(t), 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	last := r.Start(ctx, 3, CallOptions{})
	await(t, "the last to wait", func() bool { return server.Stats().Requests == 3 && server.Stats().Cancelled == 1 })
	close(b.let)
	for _, p := range []*Pending[int]{first, last} {
		if _, err := p.Wait(ctx); err != nil {
			t.Error(err)
		}
	}
	if n := <-b.begun; n != 3 || len(b.begun) != 0 {
		t.Errorf("request %d was started behind the first one", n)
	}
}

// Who asks much waits behind itself.
func TestRequestServesRequestersInTurn(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	server := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{Concurrency: 1}, b.handle)
	greedy := openRequesterOf(t, openNode(t, dir, "greedy"), RequesterConfig[int, int]{})
	modest := openRequesterOf(t, openNode(t, dir, "modest"), RequesterConfig[int, int]{})
	check(t, greedy.WaitServers(ctx, 1))
	check(t, modest.WaitServers(ctx, 1))
	var all []*Pending[int]
	for range 50 {
		all = append(all, greedy.Start(ctx, 0, CallOptions{}))
	}
	await(t, "the greedy one's requests", func() bool { return server.Stats().Queued == 49 })
	for range 3 {
		all = append(all, modest.Start(ctx, 1, CallOptions{}))
	}
	await(t, "the modest one's requests", func() bool { return server.Stats().Queued == 52 })
	close(b.let)
	for _, p := range all {
		if _, err := p.Wait(ctx); err != nil {
			t.Error(err)
		}
	}
	place := 0
	for i := range len(all) {
		if <-b.begun == 1 {
			place = i
		}
	}
	if place > 10 {
		t.Errorf("the third of three was served as number %d, behind those of one that sent fifty", place)
	}
}

// Calls with a key go to one server for as long as it is there, from everywhere.
func TestRequestByKey(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const servers = 4
	for i := range servers {
		name := fmt.Sprint("s", i)
		openReplierOf(t, openNode(t, dir, name), ReplierConfig[int, string]{}, func(context.Context, int) (string, error) { return name, nil })
	}
	owner, used := make(map[string]string), make(map[string]bool)
	for i := range 2 {
		r := openRequesterOf(t, openNode(t, dir, fmt.Sprint("c", i)), RequesterConfig[int, string]{})
		check(t, r.WaitServers(ctx, servers))
		for n := range 200 {
			key := fmt.Sprint("key", n%50)
			name, err := r.CallWith(ctx, n, CallOptions{Key: []byte(key)})
			check(t, err)
			if owner[key] == "" {
				owner[key] = name
			}
			if owner[key] != name {
				t.Errorf("%s is at %s and at %s", key, owner[key], name)
			}
			used[name] = true
		}
	}
	if len(used) != servers {
		t.Errorf("fifty keys are at %d of %d servers", len(used), servers)
	}
}

// A hedged call takes the first answer, and cancels the other.
func TestRequestHedge(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	openReplierOf(t, openNode(t, dir, "slow"), ReplierConfig[int, int]{}, b.handle)
	openReplierOf(t, openNode(t, dir, "fast"), ReplierConfig[int, int]{}, double)
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 2))
	const calls = 6
	for range calls { // they go to one and the other in turn
		if a, err := r.CallWith(ctx, 5, CallOptions{Hedge: time.Millisecond}); err != nil || a != 10 {
			t.Fatalf("%d, %v", a, err)
		}
	}
	for range calls / 2 {
		if err := <-b.ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if st := r.Stats(); st.Hedged < calls/2 || st.Moved != 0 {
		t.Errorf("%+v", st)
	}
}

// A hedge that finds no second server leaves the first call as it is.
func TestRequestHedgeWithoutSecondServer(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{}, func(_ context.Context, n int) (int, error) {
		time.Sleep(20 * time.Millisecond)
		return n, nil
	})
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	if a, err := r.CallWith(ctx, 5, CallOptions{Hedge: time.Millisecond}); err != nil || a != 5 {
		t.Errorf("%d, %v", a, err)
	}
	if st := r.Stats(); st.Hedged != 0 || st.Requests != 1 {
		t.Errorf("%+v", st)
	}
}

// Ten thousand calls are outstanding at a time, and all are answered.
func TestRequestTenThousandOutstanding(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const calls = 10_000
	var begun atomic.Int64
	let := make(chan struct{})
	server := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{Concurrency: 100}, func(_ context.Context, n int) (int, error) {
		begun.Add(1)
		<-let
		return n, nil
	})
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{MaxOutstanding: calls})
	check(t, r.WaitServers(ctx, 1))
	pending := make([]*Pending[int], calls)
	for i := range pending {
		pending[i] = r.Start(ctx, i, CallOptions{})
	}
	await(t, "all to have come", func() bool { return server.Stats().Requests == calls })
	if st := r.Stats(); st.Outstanding != calls || begun.Load() != 100 {
		t.Errorf("%d outstanding, %d handlers", st.Outstanding, begun.Load())
	}
	if _, err := r.Call(shortContext(t), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one over the bound: %v", err)
	}
	close(let)
	for i, p := range pending {
		if a, err := p.Wait(ctx); err != nil || a != i {
			t.Fatalf("call %d: %d, %v", i, a, err)
		}
	}
}

// A server that drains answers what it has, and new calls go elsewhere; one that
// closes refuses what waits, which moves, and ends the handlers that run.
func TestRequestServerDrainsAndCloses(t *testing.T) {
	for _, drain := range []bool{true, false} {
		ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
		leaving := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{Concurrency: 1}, b.handle)
		r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
		check(t, r.WaitServers(ctx, 1))
		runs, waits := r.Start(ctx, 1, CallOptions{}), r.Start(ctx, 1, CallOptions{})
		<-b.begun
		await(t, "one to wait", func() bool { return leaving.Stats().Queued == 1 })
		openReplierOf(t, openNode(t, dir, "s2"), ReplierConfig[int, int]{}, func(_ context.Context, n int) (int, error) { return 100 * n, nil })
		check(t, r.WaitServers(ctx, 2))
		left := make(chan error, 1)
		if drain {
			go func() { left <- leaving.Drain(ctx) }()
			await(t, "the server to be left alone", func() bool { a, err := r.Call(ctx, 2); return err == nil && a == 200 && len(r.Servers()) == 2 })
			for range 20 {
				if a, err := r.Call(ctx, 2); err != nil || a != 200 {
					t.Errorf("a new call: %d, %v", a, err)
				}
			}
			close(b.let)
			for _, p := range []*Pending[int]{runs, waits} {
				if a, err := p.Wait(ctx); err != nil || a != 1 {
					t.Errorf("drained: %d, %v", a, err)
				}
			}
		} else {
			go func() { left <- leaving.Close() }()
			var e *ReplyError
			first, err1 := runs.Wait(ctx)
			second, err2 := waits.Wait(ctx)
			if err1 == nil { // which of the two ran is chance
				first, second, err1, err2 = second, first, err2, err1
			}
			if !errors.As(err1, &e) || e.Code != CodeClosing || err2 != nil || second != 100 {
				t.Errorf("closed: %d, %v and %d, %v", first, err1, second, err2)
			}
		}
		check(t, <-left)
		await(t, "the server to be forgotten", func() bool { return len(r.Servers()) == 1 })
	}
}

// A requester that closes ends its calls and their handlers.
func TestRequesterCloses(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	server := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{Concurrency: 1}, b.handle)
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	runs, waits := r.Start(ctx, 1, CallOptions{}), r.Start(ctx, 2, CallOptions{})
	<-b.begun
	await(t, "one to wait", func() bool { return server.Stats().Queued == 1 })
	if err := r.Drain(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v", err)
	}
	for _, p := range []*Pending[int]{runs, waits} {
		if _, err := p.Wait(ctx); !errors.Is(err, fabric.ErrClosed) {
			t.Errorf("a call of a closed requester: %v", err)
		}
	}
	<-b.ended
	await(t, "the server to have forgotten it", func() bool { st := server.Stats(); return st.Running == 0 && st.Queued == 0 && st.Requesters == 0 })
}
