package patterns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
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

func TestRequestErrors(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const tooMuch = 2 << 20
	server := openReplierOf(t, openNodeOf(t, fabric.Config{Name: "s", Directory: dir, MaxMessage: 1 << 20}), ReplierConfig[string, string]{Replies: failing{}},
		func(_ context.Context, q string) (string, error) {
			switch q {
			case "plain":
				return "", errors.New("went wrong")
			case "coded":
				return "", fmt.Errorf("wrapped: %w", &ReplyError{Code: CodeApplication + 4, Text: "not found"})
			case "panic":
				panic("no idea")
			case "large":
				return strings.Repeat("x", tooMuch), nil
			case "long error":
				return "", errors.New(strings.Repeat("x", tooMuch))
			}
			return q, nil
		})
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[string, string]{Replies: failing{}})
	check(t, r.WaitServers(ctx, 1))
	for _, c := range []struct {
		q    string
		code Code
		text string
	}{
		{"plain", CodeError, "went wrong"},
		{"coded", CodeApplication + 4, "not found"},
		{"panic", CodePanic, "the handler panicked: no idea"},
		{"large", CodeBadReply, "larger than"},
		{"long error", CodeError, "xxx..."},
		{"fails", CodeBadReply, "string cannot be encoded: refused"},
		{"panics", CodeBadReply, "the codec panicked"},
	} {
		var e *ReplyError
		_, err := r.Call(ctx, c.q)
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Text, c.text) || len(e.Text) > maxText || e.Server != server.Address() {
			t.Errorf("%s: %v", c.q, err)
		}
	}
	var codec *CodecError
	if _, err := r.Call(ctx, "fails at the other end"); !errors.As(err, &codec) || !codec.Decoding {
		t.Errorf("a reply that the codec refuses: %v", err)
	}
	var large *fabric.TooLargeError
	if _, err := r.Call(ctx, strings.Repeat("x", tooMuch)); !errors.As(err, &large) {
		t.Errorf("a request that is too large: %v", err)
	}
	if a, err := r.Call(ctx, "good"); err != nil || a != "good" {
		t.Errorf("after all that: %q, %v", a, err)
	}
	await(t, "the handlers' ends", func() bool { return server.Stats().Running == 0 })
	if st := server.Stats(); st.Panics != 1 || st.Errors != 7 || st.Queued != 0 {
		t.Errorf("%+v", st)
	}
	other := openRequesterOf(t, openNode(t, dir, "other"), RequesterConfig[reading, reading]{})
	check(t, other.WaitServers(ctx, 1))
	var e *ReplyError
	if _, err := other.Call(ctx, aReading); !errors.As(err, &e) || e.Code != CodeBadRequest {
		t.Errorf("a request of another type: %v", err)
	}
	third := openRequesterOf(t, openNode(t, dir, "third"), RequesterConfig[string, reading]{})
	check(t, third.WaitServers(ctx, 1))
	if _, err := third.Call(ctx, "good"); !errors.As(err, &codec) || codec.Type != "patterns.reading" {
		t.Errorf("a reply of another type: %v", err)
	}
}

func TestRequestWithoutServer(t *testing.T) {
	r := openRequesterOf(t, openNode(t, directory.NewRegistry(), "c"), RequesterConfig[int, int]{})
	ctx := testContext(t)
	for _, opts := range []CallOptions{{}, {Key: []byte("k")}, {Idempotent: true}} {
		if _, err := r.CallWith(ctx, 1, opts); !errors.Is(err, ErrNoServer) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	for _, err := range r.Stream(ctx, 1, CallOptions{}) {
		if !errors.Is(err, ErrNoServer) {
			t.Errorf("Stream: %v", err)
		}
	}
	if st := r.Stats(); st.Outstanding != 0 || st.Requests != 0 {
		t.Errorf("%+v", st)
	}
	if err := r.WaitServers(shortContext(t), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitServers: %v", err)
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

// A server that is gone ends its calls at once, with an error that says so; those
// that are idempotent move.
func TestRequestServerLost(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, n *fabric.Node, r *relay){
		"closed": func(t *testing.T, n *fabric.Node, _ *relay) { check(t, n.Close()) },
		"away":   func(_ *testing.T, _ *fabric.Node, r *relay) { r.hide(true) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
			relay := newRelay(t, dir)
			node := openRelayed(t, relay, fabric.Config{Name: "s"})
			dies, err := OpenReplier(ctx, node, ReplierConfig[int, int]{Channel: "ask"}, b.handle)
			check(t, err)
			defer dies.Close()
			r := openRequesterOf(t, openNodeOf(t, fabric.Config{Name: "c", Directory: hidden{dir}}), RequesterConfig[int, int]{Patience: 50 * time.Millisecond})
			check(t, r.WaitServers(ctx, 1))
			once := r.Start(ctx, 1, CallOptions{})
			again := r.Start(ctx, 2, CallOptions{Idempotent: true})
			<-b.begun
			<-b.begun
			openReplierOf(t, r.core.node, ReplierConfig[int, int]{}, double)
			check(t, r.WaitServers(ctx, 2))
			began := time.Now()
			lose(t, node, relay)
			var lost *ServerLostError
			if _, err := once.Wait(ctx); !errors.As(err, &lost) || lost.Server != dies.Address() {
				t.Errorf("a call that may have been done: %v", err)
			}
			if a, err := again.Wait(ctx); err != nil || a != 4 {
				t.Errorf("an idempotent call: %d, %v", a, err)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("noticed after %v", d)
			}
			if st := r.Stats(); st.Lost != 2 || st.Moved != 1 {
				t.Errorf("%+v", st)
			}
			if a, err := r.Call(ctx, 3); err != nil || a != 6 {
				t.Errorf("the next call: %d, %v", a, err)
			}
			relay.hide(false)
			if name == "away" {
				await(t, "the server to be back", func() bool { return r.core.node.Connected("s") })
			}
		})
	}
}

// An answer that comes when its call is over is counted, and nothing else.
func TestRequestLateReply(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	begun, let := make(chan struct{}), make(chan struct{})
	openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{}, double)
	node := openNode(t, dir, "c")
	r := openRequesterOf(t, node, RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	if _, err := r.Call(ctx, 1); err != nil {
		t.Fatal(err)
	}
	// A server that does not listen to cancellations, by hand.
	deaf := openNode(t, dir, "deaf")
	requests, err := deaf.Consumer(ctx, "slow", fabric.ConsumerConfig{})
	check(t, err)
	replies, err := deaf.Producer(ctx, "slow.replies", fabric.ProducerConfig{})
	check(t, err)
	slow := openRequesterOf(t, node, RequesterConfig[int, int]{Channel: "slow"})
	check(t, replies.WaitConsumers(ctx, 1))
	check(t, replies.SendAll(ctx, appendRecord(nil, kindServe, 1, uint64(requests.Address().Index), 1)))
	check(t, slow.WaitServers(ctx, 1))
	var serving sync.WaitGroup
	serving.Go(func() {
		m, err := requests.Receive(ctx)
		check(t, err)
		_, f := readRecord(m.Body)
		f.number()
		id := f.number()
		close(begun)
		<-let
		check(t, replies.SendAll(ctx, append(appendRecord(nil, kindReply, id), 5)))
		check(t, replies.SendAll(ctx, appendRecord(nil, kindFailure, id))) // cut
		check(t, replies.SendAll(ctx, []byte("hello")))
	})
	gone, cancel := context.WithCancel(ctx)
	p := slow.Start(gone, 1, CallOptions{})
	<-begun
	cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(let)
	serving.Wait()
	await(t, "the late reply", func() bool { st := slow.Stats(); return st.LateReplies == 1 && st.Malformed == 2 })
}

// What somebody else sends on the servers' channel is refused and counted.
func TestRequestStrangers(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	server := openReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{}, double)
	stranger, err := openNode(t, dir, "x").Producer(ctx, "ask", fabric.ProducerConfig{})
	check(t, err)
	check(t, stranger.WaitConsumers(ctx, 1))
	records := [][]byte{
		nil, []byte("hello"), appendRecord(nil, 99, 1), appendRecord(nil, kindRequest, 1, 2), appendRecord(nil, kindRequest, 1, 2, 3, 1<<40),
		appendRecord(nil, kindCancel), appendRecord(nil, kindCredit, 1), appendRecord(nil, kindLeave),
	}
	for _, record := range records {
		check(t, stranger.SendAll(ctx, record))
	}
	for _, record := range [][]byte{ // well-formed, and about nothing that there is
		appendRecord(nil, kindRequest, 7, 1, 0, 0), appendRecord(nil, kindCancel, 7, 1), appendRecord(nil, kindCredit, 7, 1, 1), appendRecord(nil, kindLeave, 7),
	} {
		check(t, stranger.SendAll(ctx, record))
	}
	await(t, "all to be counted", func() bool {
		st := server.Stats()
		return st.Malformed == uint64(len(records)) && st.Orphaned == 1
	})
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	if a, err := r.Call(ctx, 4); err != nil || a != 8 {
		t.Errorf("%d, %v", a, err)
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

func TestRequestRefusesBadConfig(t *testing.T) {
	ctx, n := testContext(t), openNode(t, directory.NewRegistry(), "n")
	for _, cfg := range []RequesterConfig[int, int]{{MaxOutstanding: -1}, {MaxOutstanding: maxOutstanding + 1}, {StreamWindow: -1}, {Patience: 1}} {
		cfg.Channel = "ask"
		if _, err := OpenRequester(ctx, n, cfg); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	for _, cfg := range []ReplierConfig[int, int]{
		{Concurrency: -1}, {Concurrency: maxConcurrency + 1}, {Queue: fabric.HighWaterMark{Messages: -1}}, {Queue: fabric.HighWaterMark{Bytes: -1}},
	} {
		cfg.Channel = "ask"
		if _, err := OpenReplier(ctx, n, cfg, double); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	for _, channel := range []string{"a/b", longName} {
		if _, err := OpenReplier(ctx, n, ReplierConfig[int, int]{Channel: channel}, double); !errors.Is(err, directory.ErrInvalid) {
			t.Errorf("%.10q: %v", channel, err)
		}
		if _, err := OpenRequester(ctx, n, RequesterConfig[int, int]{Channel: channel}); !errors.Is(err, directory.ErrInvalid) {
			t.Errorf("%.10q: %v", channel, err)
		}
	}
	if members, err := n.Directory().Members(ctx, longName); err != nil || len(members) != 0 {
		t.Errorf("%v, %v are left behind", members, err)
	}
}
