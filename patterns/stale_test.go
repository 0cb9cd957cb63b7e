package patterns

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// withholding is a directory for a node that learns of no producers of a channel until
// it is let: so that its consumers there open no streams.
type withholding struct {
	directory.Service
	channel string
	let     chan struct{}
}

func (w withholding) Watch(ctx context.Context, channel string) (directory.Watcher, error) {
	watcher, err := w.Service.Watch(ctx, channel)
	if channel != w.channel || err != nil {
		return watcher, err
	}
	return &withheld{Watcher: watcher, let: w.let}, nil
}

type withheld struct {
	directory.Watcher
	let  chan struct{}
	kept []directory.Event
}

func (w *withheld) Next(ctx context.Context) (directory.Event, error) {
	for {
		select {
		case <-w.let:
			if len(w.kept) > 0 {
				e := w.kept[0]
				w.kept = w.kept[1:]
				return e, nil
			}
			return w.Watcher.Next(ctx)
		default:
		}
		next, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			select {
			case <-w.let:
				cancel()
			case <-stop:
			}
		}()
		e, err := w.Watcher.Next(next)
		close(stop)
		cancel()
		switch {
		case err != nil && ctx.Err() == nil && next.Err() != nil:
			continue // it was let
		case err == nil && e.Kind == directory.Added && e.Member.Role == directory.Producer:
			w.kept = append(w.kept, e)
		default:
			return e, err
		}
	}
}

// A request that was accepted for a server that has closed before it came is not
// handled by the next one of that address.
func TestRequestForAnEarlierServer(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	let := make(chan struct{})
	node := openNode(t, withholding{dir, "ask", let}, "s")
	handled := new(atomic.Int64)
	handle := func(_ context.Context, n int) (int, error) { handled.Add(1); return n, nil }
	first, err := OpenReplier(ctx, node, ReplierConfig[int, int]{Channel: "ask"}, handle)
	check(t, err)
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	call := r.Start(ctx, 1, CallOptions{})
	await(t, "the request to be under way", func() bool { return r.Stats().Requests == 1 })
	check(t, first.Close())
	_, err = call.Wait(ctx)
	var lost *ServerLostError
	t.Logf("the call: %v", err)
	if !errors.As(err, &lost) {
		t.Errorf("%v", err)
	}
	second := openReplierOf(t, node, ReplierConfig[int, int]{}, handle)
	close(let)
	check(t, r.WaitServers(ctx, 1))
	if a, err := r.Call(ctx, 2); err != nil || a != 2 { // behind what was accepted before
		t.Errorf("%d, %v", a, err)
	}
	t.Logf("%d requests were handled; %+v", handled.Load(), second.Stats())
	if handled.Load() != 1 {
		t.Errorf("%d requests were handled, want 1", handled.Load())
	}
}

// A job that was accepted for a worker that has closed before it came is done once, as
// the next one of that address gets it, and not as well because of the first.
func TestPipelineForAnEarlierWorker(t *testing.T) {
	for _, d := range []Delivery{AtLeastOnce, AtMostOnce} {
		t.Run(d.String(), func(t *testing.T) {
			ctx, dir := testContext(t), directory.NewRegistry()
			let := make(chan struct{})
			node := openNode(t, withholding{dir, "jobs", let}, "w")
			p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{Delivery: d})
			first, err := OpenPuller(ctx, node, PullerConfig[int]{Channel: "jobs"})
			check(t, err)
			check(t, p.WaitWorkers(ctx, 1))
			check(t, p.Push(ctx, 0))
			check(t, first.Close())
			second := openPullerOf(t, node, PullerConfig[int]{})
			close(let)
			await(t, "it to be forgotten", func() bool { w := p.Stats().Workers; return len(w) == 1 && w[0].Settled == 0 })
			check(t, p.WaitWorkers(ctx, 1))
			check(t, p.Push(ctx, 1))
			got := make(map[int]int)
			for got[1] == 0 {
				j := next(t, second)
				got[j.Value]++
				check(t, j.Ack())
			}
			want := map[int]int{0: 1, 1: 1}
			if d == AtMostOnce {
				want = map[int]int{1: 1} // the first is lost, and counted
			}
			if !maps.Equal(got, want) {
				t.Errorf("jobs were done %v times, want %v", got, want)
			}
			if st := second.Stats(); st.Orphaned != 1 || d == AtMostOnce && p.Stats().Lost != 1 {
				t.Errorf("%+v, %+v", st, p.Stats())
			}
		})
	}
}

// An event that was accepted for a member that has closed before it came is not that of
// the next one of that address, as others have handled it by then.
func TestEventsForAnEarlierMember(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	let := make(chan struct{})
	node := openNode(t, withholding{dir, "orders", let}, "m")
	const keys = 20
	p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[int]{Partitions: 4})
	first, err := OpenEventMember(ctx, node, EventMemberConfig[int]{Channel: "orders"})
	check(t, err)
	check(t, p.WaitMembers(ctx, 1))
	for n := range keys {
		check(t, p.Publish(ctx, key(n), n))
	}
	check(t, first.Close())
	other := openEventMemberOf(t, openNode(t, dir, "other"), EventMemberConfig[int]{})
	for range keys {
		e, err := other.Receive(ctx)
		if err != nil || !e.Redelivered() {
			t.Errorf("%+v, %v", e, err)
		}
		check(t, e.Ack())
	}
	check(t, p.Flush(ctx))
	second := openEventMemberOf(t, node, EventMemberConfig[int]{})
	close(let)
	check(t, p.WaitMembers(ctx, 2))
	for n := range keys {
		check(t, p.Publish(ctx, key(n), keys+n))
	}
	got := make(map[int]int)
	var mu sync.Mutex
	var work sync.WaitGroup
	handling, stop := context.WithCancel(ctx)
	for _, m := range []*EventMember[int]{other, second} {
		work.Go(func() {
			_ = m.Handle(handling, 1, func(_ context.Context, e Event[int]) error {
				mu.Lock()
				defer mu.Unlock()
				got[e.Value]++
				return nil
			})
		})
	}
	check(t, p.Flush(ctx))
	stop()
	work.Wait()
	if st := second.Stats(); st.Orphaned != keys {
		t.Errorf("%+v", st)
	}
	for n := range keys {
		if got[n] != 0 || got[keys+n] != 1 {
			t.Errorf("event %d was handled %d times by its next member, and %d %d times", n, got[n], keys+n, got[keys+n])
		}
	}
}
