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
