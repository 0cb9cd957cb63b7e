package patterns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func openListenersOf[T any](t testing.TB, n *fabric.Node, cfg ListenersConfig[T]) *Listeners[T] {
	t.Helper()
	cfg.Channel = "news"
	l, err := OpenListeners(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, l.Close()) })
	return l
}

func openBroadcasterOf[T any](t testing.TB, n *fabric.Node, cfg BroadcasterConfig[T]) *Broadcaster[T] {
	t.Helper()
	cfg.Channel = "news"
	b, err := OpenBroadcaster(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, b.Close()) })
	return b
}

// Every listener gets everything, in order, and a link carries one copy however many
// listeners are behind it.
func TestBroadcastOneCopyPerNode(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const nodes, each, values, size = 3, 20, 200, 10_000
	var work sync.WaitGroup
	var heard atomic.Uint64
	for i := range nodes {
		all := openListenersOf(t, openNode(t, dir, fmt.Sprint("l", i)), ListenersConfig[[]byte]{Listeners: each, Broadcasters: 1})
		for _, l := range all.All() {
			work.Go(func() {
				n := 0
				for h, err := range l.Values(ctx) {
					if err != nil || len(h.Value) != size || int(h.Value[0]) != n%256 || h.Source.Node != "b" {
						t.Errorf("value %d: %d bytes of %s, %v", n, len(h.Value), h.Source, err)
						return
					}
					n++
					heard.Add(1)
				}
				if n != values {
					t.Errorf("%d values, want %d", n, values)
				}
				if _, err := l.Receive(ctx); err != fabric.ErrEnd {
					t.Error(err)
				}
			})
		}
	}
	node := openNode(t, dir, "b")
	b := openBroadcasterOf(t, node, BroadcasterConfig[[]byte]{})
	check(t, b.WaitNodes(ctx, nodes))
	body := make([]byte, size)
	for n := range values {
		body[0] = byte(n)
		check(t, b.Send(ctx, body))
	}
	check(t, b.Drain(ctx))
	work.Wait()
	if n := heard.Load(); n != nodes*each*values {
		t.Errorf("%d values were heard, want %d", n, nodes*each*values)
	}
	for _, l := range node.Stats().Links {
		if l.BytesOut < values*size || l.BytesOut > values*size*11/10 {
			t.Errorf("%d bytes went to %s: one copy of all is %d", l.BytesOut, l.Peer, values*size)
		}
	}
	if st := b.Stats(); st.Values != values || st.Copies != nodes*values || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// A listener that does not receive holds up the broadcaster, within the node's bound,
// until it is closed; those who come later get what is sent from then on.
func TestBroadcastSlowListener(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const queue = 8
	all := openListenersOf(t, openNode(t, dir, "l"), ListenersConfig[int]{
		Listeners: 2, Queue: fabric.HighWaterMark{Messages: queue}, HighWaterMark: fabric.HighWaterMark{Messages: 4},
	})
	b := openBroadcasterOf(t, openNode(t, dir, "b"), BroadcasterConfig[int]{HighWaterMark: fabric.HighWaterMark{Messages: 4}})
	check(t, b.WaitNodes(ctx, 1))
	sent := 0
	for {
		limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		err := b.Send(limited, sent)
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		if sent++; sent > 1000 {
			t.Fatal("nobody holds the broadcaster up")
		}
	}
	if st := all.Stats(); st.Queued > queue {
		t.Errorf("%+v", st)
	}
	fast, slow := all.Listener(0), all.Listener(1)
	if h, err := slow.Receive(ctx); err != nil || h.Value != 0 { // and it has that in its hands
		t.Errorf("%+v, %v", h, err)
	}
	for n := range queue {
		if h, err := fast.Receive(ctx); err != nil || h.Value != n {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if _, err := fast.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beyond the queue: %v", err)
	}
	check(t, slow.Close())
	for n := queue; n < sent; n++ {
		if h, err := fast.Receive(ctx); err != nil || h.Value != n {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if _, err := slow.Receive(ctx); err != fabric.ErrClosed {
		t.Error(err)
	}
	late := openListenersOf(t, openNode(t, dir, "late"), ListenersConfig[int]{})
	check(t, b.WaitNodes(ctx, 2))
	check(t, b.Send(ctx, -1))
	for _, l := range []*Listener[int]{fast, late.Listener(0)} {
		if h, err := l.Receive(ctx); err != nil || h.Value != -1 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if st := all.Stats(); st.Listeners != 1 || st.Values != uint64(sent+1) {
		t.Errorf("%+v", st)
	}
}

// A node that is lost is an error of Send, and the others get all; a broadcaster that
// is lost is an error of every listener, and they go on.
func TestBroadcastPeersLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	dies, otherNode := openNode(t, dir, "dies"), openNode(t, dir, "other")
	lost := openListenersOf(t, dies, ListenersConfig[int]{})
	lives := openListenersOf(t, openNode(t, dir, "lives"), ListenersConfig[int]{Listeners: 2})
	node := openNode(t, dir, "b")
	b := openBroadcasterOf(t, node, BroadcasterConfig[int]{})
	other := openBroadcasterOf(t, otherNode, BroadcasterConfig[int]{})
	check(t, b.WaitNodes(ctx, 2))
	check(t, other.WaitNodes(ctx, 2))
	const values = 500
	var work sync.WaitGroup
	for _, l := range lives.All() {
		work.Go(func() {
			n, losses := 0, 0
			for n < values || losses == 0 {
				h, err := l.Receive(ctx)
				switch {
				case lostPeer(err) != nil && lostPeer(err).Node == "other":
					losses++
				case err != nil:
					t.Error(err)
					return
				case h.Source.Node == "b":
					if h.Value != n {
						t.Errorf("%d instead of %d", h.Value, n)
					}
					n++
				}
			}
		})
	}
	check(t, other.Send(ctx, 0))
	check(t, other.Flush(ctx))
	failed := 0
	for n := range values {
		if n == values/2 {
			await(t, "it to be connected", func() bool { return node.Connected("dies") })
			check(t, dies.Close())
			check(t, otherNode.Close())
		}
		if err := b.Send(ctx, n); err != nil {
			if lostPeer(err) == nil || lostPeer(err).Node != "dies" {
				t.Errorf("%d: %v", n, err)
			}
			failed++
		}
	}
	work.Wait()
	await(t, "the lost node to be missed", func() bool { return b.Stats().Nodes == 1 })
	if st := b.Stats(); st.Failed != uint64(failed) || st.Values != values {
		t.Errorf("%d failed, %+v", failed, st)
	}
	// What the lost one may not have got; nothing, if it had all when it closed.
	if err := b.Flush(ctx); err != nil && lostPeer(err) == nil {
		t.Error(err)
	}
	_, err := lost.Listener(0).Receive(ctx)
	for err == nil { // what it had
		_, err = lost.Listener(0).Receive(ctx)
	}
	if err != fabric.ErrClosed {
		t.Error(err)
	}
}

// A listener that leaves while it reads a value keeps that value's memory.
func TestBroadcastHubModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		const listeners = 5
		h := &fan{ears: make([]ear, listeners), open: listeners, bound: fabric.HighWaterMark{Messages: 1 << 20, Bytes: 1 << 40}}
		h.ctx, h.cancel = context.WithCancel(context.Background())
		ctx := context.Background()
		put, got := 0, make([]int, listeners)
		closed := make([]bool, listeners)
		holding := make([]fanEntry, listeners)
		for range 2000 {
			switch i := r.IntN(listeners); {
			case r.IntN(3) == 0:
				h.put(fanEntry{body: packed(fmt.Append(nil, put))})
				put++
			case r.IntN(400) == 0:
				h.leave(i)
				closed[i] = true
			case closed[i]:
				if _, err := h.next(ctx, i); err != fabric.ErrClosed {
					t.Fatalf("seed %d: %v", seed, err)
				}
			case got[i] < put:
				e, err := h.next(ctx, i)
				if err != nil || string(e.body.body()) != fmt.Sprint(got[i]) {
					t.Fatalf("seed %d: listener %d gets %q, %v; want %d", seed, i, e.body.body(), err, got[i])
				}
				holding[i] = e
				got[i]++
			}
			slowest := put
			for i := range got {
				if !closed[i] {
					slowest = min(slowest, max(got[i]-1, 0))
				}
				if got[i] > 0 {
					if want := fmt.Sprint(got[i] - 1); string(holding[i].body.body()) != want {
						t.Fatalf("seed %d: listener %d holds %q, want %s", seed, i, holding[i].body.body(), want)
					}
				}
			}
			if h.first > uint64(slowest) || h.first+uint64(len(h.entries)) != uint64(put) {
				t.Fatalf("seed %d: from %d on %d entries, the slowest is at %d of %d", seed, h.first, len(h.entries), slowest, put)
			}
		}
		h.cancel()
	}
}

// Values of another type, records that are none, and values that cannot be encoded.
func TestBroadcastBadInput(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	node := openNode(t, dir, "l")
	all := openListenersOf(t, node, ListenersConfig[reading]{Listeners: 2})
	b := openBroadcasterOf(t, openNodeOf(t, fabric.Config{Name: "b", Directory: dir, MaxMessage: 1000}), BroadcasterConfig[string]{Codec: failing{}})
	if err := b.Send(ctx, "nobody"); err != nil && !errors.Is(err, fabric.ErrNoConsumer) {
		t.Error(err)
	}
	check(t, b.WaitNodes(ctx, 1))
	var codec *CodecError
	for _, v := range []string{"fails", "panics"} {
		if err := b.Send(ctx, v); !errors.As(err, &codec) || codec.Decoding {
			t.Error(err)
		}
	}
	if err := b.Send(ctx, string(make([]byte, 2000))); !tooLarge(err) {
		t.Error(err)
	}
	stranger, err := b.producerNode(ctx, t, dir)
	check(t, err)
	records := [][]byte{nil, []byte("hello"), appendRecord(nil, kindBroadcast, 1), appendRecord(nil, 99)}
	for _, r := range records {
		check(t, stranger.SendAll(ctx, r))
	}
	check(t, stranger.Flush(ctx))
	check(t, b.Send(ctx, "another type"))
	good := openBroadcasterOf(t, node, BroadcasterConfig[reading]{})
	check(t, good.WaitNodes(ctx, 1))
	check(t, b.Flush(ctx))
	check(t, good.Send(ctx, aReading))
	for _, l := range all.All() {
		counts := make(map[string]int)
		for counts["good"] == 0 || counts["codec"] == 0 {
			h, err := l.Receive(ctx)
			var record *RecordError
			switch {
			case err == nil && h.Value == aReading:
				counts["good"]++
			case errors.As(err, &codec):
				counts["codec"]++
			case errors.As(err, &record):
				counts["record"]++
			default:
				t.Fatal(err)
			}
		}
		if counts["record"] != len(records) {
			t.Errorf("%v", counts)
		}
	}
	if st := all.Stats(); st.Malformed != uint64(len(records)) || st.Undecodable < 2 {
		t.Errorf("%+v", st)
	}
	if _, err := OpenListeners(ctx, node, ListenersConfig[int]{Channel: "news"}); !errors.Is(err, fabric.ErrIndexTaken) {
		t.Error(err)
	}
	for _, cfg := range []ListenersConfig[int]{
		{Listeners: -1}, {Listeners: maxListeners + 1}, {Broadcasters: -1},
		{Queue: fabric.HighWaterMark{Messages: -1}}, {Queue: fabric.HighWaterMark{Bytes: -1}},
	} {
		cfg.Channel = "other"
		if _, err := OpenListeners(ctx, node, cfg); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// producerNode is a producer on the broadcast's channel that is no broadcaster.
func (b *Broadcaster[T]) producerNode(ctx context.Context, t *testing.T, dir directory.Service) (*fabric.Producer, error) {
	p, err := openNode(t, dir, "stranger").Producer(ctx, b.channel, fabric.ProducerConfig{})
	if err == nil {
		err = p.WaitConsumers(ctx, 1)
	}
	return p, err
}

// Drain lets listeners have what was sent, and Broadcasters that drain are the end.
func TestBroadcastDrain(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	all := openListenersOf(t, openNode(t, dir, "l"), ListenersConfig[int]{Listeners: 3, Queue: fabric.HighWaterMark{Messages: 2}})
	b := openBroadcasterOf(t, openNode(t, dir, "b"), BroadcasterConfig[int]{})
	check(t, b.WaitNodes(ctx, 1))
	for n := range 100 {
		check(t, b.Send(ctx, n))
	}
	var work sync.WaitGroup
	for _, l := range all.All() {
		work.Go(func() {
			n := 0
			for h, err := range l.Values(ctx) {
				if err != nil || h.Value != n {
					t.Errorf("%+v, %v; want %d", h, err, n)
				}
				n++
			}
			if n != 100 {
				t.Errorf("%d values", n)
			}
		})
	}
	check(t, all.Drain(ctx))
	work.Wait()
	if err := b.Send(ctx, 1); err != nil && !errors.Is(err, fabric.ErrNoConsumer) {
		t.Error(err)
	}
	stuck := openListenersOf(t, openNode(t, dir, "stuck"), ListenersConfig[int]{})
	check(t, b.WaitNodes(ctx, 1))
	check(t, b.Send(ctx, 1))
	await(t, "the value", func() bool { return stuck.Stats().Queued == 1 })
	if err := stuck.Drain(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody receives: %v", err)
	}
}

// A broadcast through links that are cut every 200 ms.
func TestBroadcastThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	relay := newRelay(t, dir) // listeners' nodes dial the broadcaster's
	b := openBroadcasterOf(t, openRelayed(t, relay, fabric.Config{Name: "b"}), BroadcasterConfig[int]{})
	var work sync.WaitGroup
	const nodes = 3
	for i := range nodes {
		all := openListenersOf(t, openNode(t, dir, fmt.Sprint("l", i)), ListenersConfig[int]{Listeners: 4, Broadcasters: 1})
		for _, l := range all.All() {
			work.Go(func() {
				n := 0
				for h, err := range l.Values(ctx) {
					if err != nil || h.Value != n {
						t.Errorf("%+v, %v; want %d", h, err, n)
						return
					}
					n++
				}
			})
		}
	}
	check(t, b.WaitNodes(ctx, nodes))
	stop := relay.cutEvery(200 * time.Millisecond)
	n := 0
	for began := time.Now(); time.Since(began) < time.Second; n++ {
		check(t, b.Send(ctx, n))
	}
	check(t, b.Drain(ctx))
	work.Wait()
	cuts := stop()
	if st := b.Stats(); st.Copies != uint64(nodes*n) || cuts < 8 {
		t.Errorf("%d cuts, %d values, %+v", cuts, n, st)
	}
	t.Logf("%d values through %d cuts", n, cuts)
}

// BenchmarkBroadcast is values of 64 bytes to 25 listeners at each of two nodes.
func BenchmarkBroadcast(b *testing.B) {
	ctx, dir := context.Background(), directory.NewRegistry()
	var work sync.WaitGroup
	const nodes, each = 2, 25
	for i := range nodes {
		for _, l := range openListenersOf(b, openNode(b, dir, fmt.Sprint("l", i)), ListenersConfig[[]byte]{Listeners: each, Broadcasters: 1}).All() {
			work.Go(func() {
				for _, err := range l.Values(ctx) {
					check(b, err)
				}
			})
		}
	}
	all := openBroadcasterOf(b, openNode(b, dir, "b"), BroadcasterConfig[[]byte]{})
	check(b, all.WaitNodes(ctx, nodes))
	body := make([]byte, 64)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		check(b, all.Send(ctx, body))
	}
	check(b, all.Drain(ctx))
	work.Wait()
	b.ReportMetric(float64(b.N*nodes*each)/b.Elapsed().Seconds(), "values/s")
}
