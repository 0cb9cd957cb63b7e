package patterns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// upTo streams the numbers below n, or fails behind them if n is negative.
func upTo(_ context.Context, n int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range max(n, -n) {
			if !yield(i, nil) {
				return
			}
		}
		if n < 0 {
			yield(0, &ReplyError{Code: CodeApplication, Text: "no more"})
		}
	}
}

// collect reads a stream of numbers, which must be in order, and its error.
func collect(t testing.TB, seq iter.Seq2[int, error]) (n int, err error) {
	t.Helper()
	for v, err := range seq {
		if err != nil {
			return n, err
		}
		if v != n {
			t.Errorf("item %d is %d", n, v)
		}
		n++
	}
	return n, nil
}

func TestStream(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	server := openStreamReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{}, upTo)
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{StreamWindow: 4})
	check(t, r.WaitServers(ctx, 1))
	for _, n := range []int{0, 1, 3, 4, 5, 1000} {
		if got, err := collect(t, r.Stream(ctx, n, CallOptions{})); got != n || err != nil {
			t.Errorf("a stream of %d: %d, %v", n, got, err)
		}
	}
	var e *ReplyError
	if got, err := collect(t, r.Stream(ctx, -7, CallOptions{})); got != 7 || !errors.As(err, &e) || e.Code != CodeApplication {
		t.Errorf("a stream that fails behind seven: %d, %v", got, err)
	}
	if _, err := r.Call(ctx, 1); !errors.As(err, &e) || e.Code != CodeStream {
		t.Errorf("Call of a stream: %v", err)
	}
	// Who has enough tells the server.
	for v, err := range r.Stream(ctx, 1<<30, CallOptions{}) {
		check(t, err)
		if v == 10 {
			break
		}
	}
	await(t, "the handler's end", func() bool { return server.Stats().Running == 0 })
	if st := r.Stats(); st.Outstanding != 0 || st.Cancelled != 1 {
		t.Errorf("%+v", st)
	}
	one := openReplierOf(t, openNode(t, dir, "one"), ReplierConfig[int, int]{Channel: "one"}, func(context.Context, int) (int, error) { return 0, nil })
	s := openRequesterOf(t, r.core.node, RequesterConfig[int, int]{Channel: "one"})
	check(t, s.WaitServers(ctx, 1))
	if got, err := collect(t, s.Stream(ctx, 1, CallOptions{})); got != 1 || err != nil {
		t.Errorf("a stream of a server with one reply: %d, %v (%v)", got, err, one.Address())
	}
}

// A stream whose sequence panics ends with an error behind what it had yielded, and its
// server goes on.
func TestStreamHandlerPanics(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	cfg := ReplierConfig[int, int]{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	server := openStreamReplierOf(t, openNode(t, dir, "s"), cfg, func(_ context.Context, n int) iter.Seq2[int, error] {
		if n == 0 {
			panic("no sequence")
		}
		return func(yield func(int, error) bool) {
			for i := range n {
				yield(i, nil)
			}
			if n == 3 {
				panic("no more")
			}
		}
	})
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 1))
	for n, text := range map[int]string{0: "the handler panicked: no sequence", 3: "the handler panicked: no more"} {
		var e *ReplyError
		got, err := collect(t, r.Stream(ctx, n, CallOptions{}))
		if got != n || !errors.As(err, &e) || e.Code != CodePanic || e.Text != text {
			t.Errorf("%d: %d items, %v", n, got, err)
		}
	}
	if got, err := collect(t, r.Stream(ctx, 5, CallOptions{})); got != 5 || err != nil {
		t.Errorf("after that: %d, %v", got, err)
	}
	if st := server.Stats(); st.Panics != 2 || st.Errors != 2 {
		t.Errorf("%+v", st)
	}
}

// A server is no further ahead of its caller than the window, and other calls are
// not held up.
func TestStreamWaitsForItsReader(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	var yielded atomic.Int64
	openStreamReplierOf(t, openNode(t, dir, "s"), ReplierConfig[int, int]{}, func(_ context.Context, n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := 0; yield(i, nil) && i < n-1; i++ {
				if n > 1000 {
					yielded.Store(int64(i) + 1)
				}
			}
		}
	})
	const window = 8
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{StreamWindow: window})
	check(t, r.WaitServers(ctx, 1))
	read := 0
	for _, err := range r.Stream(ctx, 1<<30, CallOptions{}) {
		check(t, err)
		if read++; read%50 == 0 {
			if got, err := collect(t, r.Stream(ctx, 100, CallOptions{})); got != 100 || err != nil {
				t.Errorf("another stream: %d, %v", got, err)
			}
			if ahead := yielded.Load() - int64(read); ahead > 2*window {
				t.Fatalf("the server is %d items ahead, the window is %d", ahead, window)
			}
		}
		if read == 200 {
			break
		}
	}
}

// A stream that has yielded nothing moves if it may; one that has does not.
func TestStreamServerLost(t *testing.T) {
	for _, items := range []int{0, 3} {
		ctx, dir := testContext(t), directory.NewRegistry()
		node := openNode(t, dir, "dies")
		begun := make(chan struct{})
		dies, err := OpenStreamReplier(ctx, node, ReplierConfig[int, int]{Channel: "ask"}, func(ctx context.Context, _ int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				close(begun)
				for i := range items {
					yield(i, nil)
				}
				<-ctx.Done()
			}
		})
		check(t, err)
		defer dies.Close()
		r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
		check(t, r.WaitServers(ctx, 1))
		end := make(chan struct{}) // of the server
		go func() {
			<-begun
			other, err := OpenStreamReplier(ctx, r.core.node, ReplierConfig[int, int]{Channel: "ask"}, upTo)
			check(t, err)
			t.Cleanup(func() { check(t, other.Close()) })
			check(t, r.WaitServers(ctx, 2))
			<-end
			check(t, node.Close())
		}()
		if items == 0 {
			close(end)
		}
		got, err := 0, error(nil)
		for v, failure := range r.Stream(ctx, 10, CallOptions{Idempotent: true}) {
			if err = failure; err != nil {
				break
			}
			if v != got {
				t.Errorf("item %d is %d", got, v)
			}
			if got++; got == items {
				close(end)
			}
		}
		if items == 0 && (got != 10 || err != nil) {
			t.Errorf("moved: %d, %v", got, err)
		}
		var lost *ServerLostError
		if items > 0 && (got != items || !errors.As(err, &lost)) {
			t.Errorf("lost behind %d: %d, %v", items, got, err)
		}
	}
}

// Of two servers that stream for a hedged call, one is heard.
func TestStreamHedged(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	for i := range 2 {
		openStreamReplierOf(t, openNode(t, dir, fmt.Sprint("s", i)), ReplierConfig[int, int]{}, func(ctx context.Context, n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range n {
					time.Sleep(100 * time.Microsecond)
					if !yield(i, nil) {
						return
					}
				}
			}
		})
	}
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, int]{})
	check(t, r.WaitServers(ctx, 2))
	for range 20 {
		if got, err := collect(t, r.Stream(ctx, 30, CallOptions{Hedge: 50 * time.Microsecond})); got != 30 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
	}
	if st := r.Stats(); st.Hedged == 0 || st.Outstanding != 0 {
		t.Errorf("%+v", st)
	}
}

// A server that sends more than it may ends its stream, and nothing else.
func TestStreamBeyondItsWindow(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	rude := openNode(t, dir, "rude")
	requests, err := rude.Consumer(ctx, "ask", fabric.ConsumerConfig{})
	check(t, err)
	replies, err := rude.Producer(ctx, "ask.replies", fabric.ProducerConfig{})
	check(t, err)
	r := openRequesterOf(t, openNode(t, dir, "c"), RequesterConfig[int, []byte]{StreamWindow: 2})
	check(t, replies.WaitConsumers(ctx, 1))
	check(t, replies.SendAll(ctx, appendRecord(nil, kindServe, 1, uint64(requests.Address().Index), 1)))
	check(t, r.WaitServers(ctx, 1))
	go func() {
		m, err := requests.Receive(ctx)
		check(t, err)
		kind, f := readRecord(m.Body)
		if replies, session := f.number(), f.number(); kind != kindMeet || replies != 0 || session != 1 {
			t.Errorf("record %d of requester %d to session %d", kind, replies, session)
		}
		m, err = requests.Receive(ctx)
		check(t, err)
		_, f = readRecord(m.Body)
		f.number()
		id := f.number()
		for range 10 {
			check(t, replies.SendAll(ctx, appendRecord(nil, kindItem, id)))
		}
	}()
	items := 0
	var record *RecordError
	for _, err := range r.Stream(ctx, 1, CallOptions{}) {
		if err == nil {
			items++
			await(t, "one over the window", func() bool { return r.Stats().LateReplies > 0 })
		} else if !errors.As(err, &record) {
			t.Error(err)
		}
	}
	if items < 2 || items > 3 || record == nil || r.Stats().Outstanding != 0 {
		t.Errorf("%d items, then %v", items, record)
	}
}
