package fabric

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// numbered is the body of a producer's i-th message: its number, and more or
// less filler that follows from it.
func numbered(buf []byte, i uint64) []byte {
	size := 8 + int(i*7%100)
	if i%5000 == 4999 {
		size = 100_000 // in fragments
	}
	buf = binary.BigEndian.AppendUint64(buf[:0], i)
	for len(buf) < size {
		buf = append(buf, byte(i))
	}
	return buf
}

// checkNumbered receives until all promised producers have finished, and
// returns how many messages of each came, all of them once and in order.
func checkNumbered(ctx context.Context, c *Consumer) (map[Address]uint64, error) {
	next := make(map[Address]uint64)
	var want []byte
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return next, fmt.Errorf("%s after %v: %w", c.Address(), next, err)
		}
		if want = numbered(want, next[m.Source()]); !bytes.Equal(m.Body, want) {
			return next, fmt.Errorf("%s: message %d of %s has %d bytes and begins % x", c.Address(), next[m.Source()], m.Source(), len(m.Body), m.Body[:min(len(m.Body), 16)])
		}
		next[m.Source()]++
	}
	return next, nil
}

// A relay cuts the one link of two nodes again and again, at any byte, also
// inside handshakes. Every message arrives once and in order, both ways.
func TestLinkCutAtRandomBytes(t *testing.T) {
	each := uint64(60_000) // messages per producer and consumer
	if testing.Short() {
		each = 10_000
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir := directory.NewRegistry()
	pa, pb := newProxy(t, dir, randomLife(1, 2<<20)), newProxy(t, dir, randomLife(2, 2<<20))
	a, b := openWith(t, Config{Name: "a", Directory: pa}), openWith(t, Config{Name: "b", Directory: pb})
	var consumers []*Consumer
	var producers []*Producer
	for _, n := range []*Node{a, b} {
		for i := range 2 {
			consumers = append(consumers, newConsumer(t, n, "to-"+n.Name(), ConsumerConfig{Index: i, Producers: 2}))
		}
	}
	for i := range 2 {
		producers = append(producers,
			newProducer(t, a, "to-b", ProducerConfig{Index: i}), newProducer(t, b, "to-a", ProducerConfig{Index: i}))
	}
	var wg sync.WaitGroup
	for _, p := range producers {
		wg.Go(func() {
			if err := p.WaitConsumers(ctx, 2); err != nil {
				t.Error(err)
				return
			}
			var body []byte
			for i := range each {
				body = numbered(body, i)
				if err := p.SendAll(ctx, body); err != nil {
					t.Errorf("%s, message %d: %v", p.Address(), i, err)
					return
				}
			}
			if err := p.Drain(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range consumers {
		wg.Go(func() {
			got, err := checkNumbered(ctx, c)
			if err != nil {
				t.Error(err)
				return
			}
			for source, n := range got {
				if n != each {
					t.Errorf("%s: %d of %d messages from %s", c.Address(), n, each, source)
				}
			}
			if len(got) != 2 {
				t.Errorf("%s: messages of %d producers", c.Address(), len(got))
			}
		})
	}
	wg.Wait()
	cuts := pa.countCuts() + pb.countCuts()
	resent := uint64(0)
	for _, l := range append(a.Stats().Links, b.Stats().Links...) {
		resent += l.Resent
	}
	t.Logf("%d messages, %d cuts, %d messages sent again", each*8, cuts, resent)
	if cuts < 20 || resent == 0 {
		t.Error("too few cuts to say anything")
	}
}

// hidden waits until n has noticed that its link to peer is down.
func hidden(t testing.TB, ctx context.Context, n *Node, peer string) {
	t.Helper()
	await(t, ctx, "the link to go down", func() bool {
		for _, l := range n.Stats().Links {
			if l.Peer == peer {
				return !l.Up
			}
		}
		return false
	})
}

// await waits until is says true. What it asks for makes no sound, so it is
// asked for again and again.
func await(t testing.TB, ctx context.Context, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, ctx.Err())
		}
	}
}

// lostPair is a producer at node a and a consumer at node b, with a link that
// can be cut. The stream's mark is 15 messages.
type lostPair struct {
	dir      *directory.Registry
	px       *proxy
	a, b     *Node
	c        *Consumer
	producer *Producer
	to       *Target
}

// newPair opens the nodes; the windows are the resume windows of a and b.
func newPair(t *testing.T, ctx context.Context, windowA, windowB time.Duration) *lostPair {
	t.Helper()
	dir := directory.NewRegistry()
	p := &lostPair{dir: dir, px: newProxy(t, dir, forever)}
	cfg := Config{HeartbeatInterval: 20 * time.Millisecond, HeartbeatTimeout: 10 * time.Second}
	cfg.Name, cfg.Directory, cfg.ResumeWindow = "a", p.px, windowA
	p.a = openWith(t, cfg)
	cfg.Name, cfg.Directory, cfg.ResumeWindow = "b", dir, windowB
	p.b = openWith(t, cfg)
	p.c = newConsumer(t, p.b, "x", ConsumerConfig{})
	p.producer = newProducer(t, p.a, "x", ProducerConfig{HighWaterMark: HighWaterMark{Messages: 15}})
	p.to = waitTarget(t, ctx, p.producer, Address{"b", 0})
	return p
}

// newLostPair is a pair of which 10 messages are stored and none is handled, 5
// more are accepted, and the link is down.
func newLostPair(t *testing.T, ctx context.Context, windowA, windowB time.Duration) *lostPair {
	t.Helper()
	p := newPair(t, ctx, windowA, windowB)
	p.send(t, ctx, 0, 10)
	if err := p.producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	p.hide(t, ctx)
	p.send(t, ctx, 10, 15)
	return p
}

// waitTarget waits until the producer knows the consumer, and until the stream
// to it takes messages, should the one before be lost.
func waitTarget(t testing.TB, ctx context.Context, p *Producer, addr Address) (to *Target) {
	t.Helper()
	await(t, ctx, "consumer "+addr.String(), func() bool {
		var err error
		to, err = p.To(addr)
		if err != nil {
			return false
		}
		failure, _ := to.stream.Failure()
		return failure == nil
	})
	return to
}

// hide cuts the link and keeps it down.
func (p *lostPair) hide(t testing.TB, ctx context.Context) {
	t.Helper()
	p.px.shutdown(true)
	hidden(t, ctx, p.a, "b")
}

// begin takes the stream that follows a lost one.
func (p *lostPair) begin(t testing.TB, ctx context.Context) {
	t.Helper()
	p.to = waitTarget(t, ctx, p.producer, Address{"b", 0})
}

// exchange receives from on what was accepted before accepted, while it sends
// from there up to to.
func (p *lostPair) exchange(t testing.TB, ctx context.Context, from, accepted, to byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			for i := accepted; i < to; i++ {
				if err := p.to.Send(ctx, []byte{i}); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	for i := from; i < to; i++ {
		if m, err := p.c.Receive(ctx); err != nil || m.Body[0] != i {
			t.Fatalf("message %d: %v, %v", i, m.Body, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func (p *lostPair) send(t *testing.T, ctx context.Context, from, to byte) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := p.to.Send(ctx, []byte{i}); err != nil {
			t.Fatal(err)
		}
	}
}

// receive takes messages from to below to, and then what comes instead of one.
func (p *lostPair) receive(t *testing.T, ctx context.Context, from, to byte) error {
	t.Helper()
	for i := from; i < to; i++ {
		m, err := p.c.Receive(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if m.Body[0] != i {
			t.Fatalf("message %d instead of %d", m.Body[0], i)
		}
	}
	_, err := p.c.Receive(ctx)
	return err
}

func wantLost(t *testing.T, err error, want PeerLostError) {
	t.Helper()
	var lost *PeerLostError
	if !errors.As(err, &lost) {
		t.Fatalf("%v instead of a PeerLostError", err)
	}
	if lost.Reason == "" {
		t.Errorf("without a reason: %v", lost)
	}
	t.Log(lost)
	got := *lost
	got.Reason = ""
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestResumeWindowOverIsToldAtBothEnds(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, 300*time.Millisecond, 300*time.Millisecond)
	// It is at its mark, so this Send waits until the stream is lost.
	wantLost(t, p.to.Send(ctx, []byte{15}), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 15})
	wantLost(t, p.receive(t, ctx, 0, 10), PeerLostError{Node: "a", Channel: "x", Acknowledged: 10, InDoubtTo: 10, Receiving: true})
	if err := p.to.TrySend(nil); !errors.As(err, new(*PeerLostError)) {
		t.Errorf("a lost stream takes messages: %v", err)
	}
}

func TestLinkBackWithinTheResumeWindow(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, time.Minute)
	p.px.shutdown(false)
	p.exchange(t, ctx, 0, 15, 100)
}

// restart opens another life of old, as after a crash: old is neither closed
// nor heard of any more.
func (p *lostPair) restart(t *testing.T, ctx context.Context, old *Node, dir directory.Service) *Node {
	t.Helper()
	if err := p.dir.Leave(ctx, old.Name(), old.Incarnation()); err != nil {
		t.Fatal(err)
	}
	n := openWith(t, Config{Name: old.Name(), Directory: dir})
	if n.Incarnation() <= old.Incarnation() {
		t.Fatalf("incarnation %d after %d", n.Incarnation(), old.Incarnation())
	}
	return n
}

func TestProducersNodeStartedAnew(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, time.Minute)
	again := p.restart(t, ctx, p.a, p.px)
	p.px.shutdown(false)
	producer := newProducer(t, again, "x", ProducerConfig{})
	if err := producer.Send(ctx, Address{"b", 0}, []byte{100}); err != nil {
		t.Fatal(err)
	}
	wantLost(t, p.receive(t, ctx, 0, 10), PeerLostError{Node: "a", Channel: "x", Acknowledged: 10, InDoubtTo: 10, Receiving: true})
	if m, err := p.c.Receive(ctx); err != nil || m.Body[0] != 100 {
		t.Fatalf("from the new life: %v, %v", m.Body, err)
	}
}

func TestConsumersNodeStartedAnew(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, time.Minute)
	sent := make(chan error, 1)
	go func() { sent <- p.to.Send(ctx, []byte{15}) }() // waits at the mark
	again := p.restart(t, ctx, p.b, p.dir)
	c := newConsumer(t, again, "x", ConsumerConfig{})
	// The directory says first that the old life has left, or already that there is a new one.
	if err := <-sent; !errors.Is(err, ErrNoConsumer) && !errors.As(err, new(*PeerLostError)) {
		t.Errorf("a Send to who is gone: %v", err)
	}
	await(t, ctx, "the new life to be known", func() bool {
		failure, _ := p.to.stream.Failure()
		return failure != nil
	})
	p.px.shutdown(false) // not before, or the old life may still come back and store the rest
	wantLost(t, p.producer.Flush(ctx), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 15})
	p.c = c
	p.begin(t, ctx)
	p.exchange(t, ctx, 100, 100, 200) // while the old life goes on dialling, and is refused
}

// Two nodes that dial each other at the same moment end with one link, and one
// connection.
func TestSimultaneousDials(t *testing.T) {
	for i := range 100 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ctx := testContext(t)
			dir := directory.NewRegistry()
			var proxies [2]*proxy
			var nodes [2]*Node
			var consumers [2]*Consumer
			for i, name := range []string{"a", "b"} {
				proxies[i] = newProxy(t, dir, forever)
				nodes[i] = openWith(t, Config{Name: name, Directory: proxies[i]})
				consumers[i] = newConsumer(t, nodes[i], "x", ConsumerConfig{Producers: 2})
			}
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i, n := range nodes {
				wg.Go(func() { // its producer makes the other node dial
					<-start
					p, err := n.Producer(ctx, "x", ProducerConfig{})
					if err == nil {
						err = p.WaitConsumers(ctx, 2)
					}
					if err == nil {
						err = p.SendAll(ctx, numbered(nil, 0))
					}
					if err == nil {
						err = p.Drain(ctx)
					}
					if err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() {
					if got, err := checkNumbered(ctx, consumers[i]); err != nil || len(got) != 2 {
						t.Errorf("%v, %v", got, err)
					}
				})
			}
			close(start)
			wg.Wait()
			await(t, ctx, "exactly one connection", func() bool {
				live := 0
				for _, p := range proxies {
					p.mu.Lock()
					live += len(p.conns)
					p.mu.Unlock()
				}
				return live == 2 // the ends of one relay
			})
			for _, n := range nodes {
				if l := n.Stats().Links; len(l) != 1 || !l[0].Up {
					t.Errorf("%s: %+v", n.Name(), l)
				}
			}
		})
	}
}
