package fabric

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// gate is a directory of which the watches that have begun before tell nothing
// while it is shut.
type gate struct {
	directory.Service
	turn chan struct{} // holds one token while the gate is open
}

func newGate(dir directory.Service) *gate {
	g := &gate{dir, make(chan struct{}, 1)}
	g.open()
	return g
}

func (g *gate) open() { g.turn <- struct{}{} }
func (g *gate) shut() { <-g.turn }

func (g *gate) Watch(ctx context.Context, channel string) (directory.Watcher, error) {
	w, err := g.Service.Watch(ctx, channel)
	if err != nil || len(g.turn) == 0 {
		return w, err
	}
	return gatedWatcher{w, g}, nil
}

type gatedWatcher struct {
	directory.Watcher
	gate *gate
}

func (w gatedWatcher) Next(ctx context.Context) (directory.Event, error) {
	e, err := w.Watcher.Next(ctx)
	if err != nil {
		return e, err
	}
	select {
	case token := <-w.gate.turn:
		w.gate.turn <- token
		return e, nil
	case <-ctx.Done():
		return e, ctx.Err()
	}
}

// drain drains c while somebody receives, wants messages with these first bytes,
// and returns what Drain said.
func drain(t testing.TB, ctx context.Context, c *Consumer, from, to byte) error {
	t.Helper()
	said := make(chan error, 1)
	go func() { said <- c.Drain(ctx) }()
	wantMessages(t, ctx, c, from, to)
	if m, err := c.Receive(ctx); err != ErrEnd {
		t.Errorf("behind the last message: %q, %v", m.Body, err)
	}
	return <-said
}

func wantMessages(t testing.TB, ctx context.Context, c *Consumer, from, to byte) {
	t.Helper()
	for i := from; i < to; i++ {
		if m, err := c.Receive(ctx); err != nil || m.Body[0] != i {
			t.Fatalf("message %d: %q, %v", i, m.Body, err)
		}
	}
}

// What was accepted for a consumer that drains is delivered, though the link is
// down when it leaves the directory; and nothing is accepted any more.
func TestDrainWhileTheLinkIsDown(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, time.Minute)
	said := make(chan error, 1)
	go func() { said <- p.to.Send(ctx, nil) }() // waits at the mark
	drained := make(chan error, 1)
	go func() { drained <- p.c.Drain(ctx) }()
	if err := <-said; !errors.Is(err, ErrNoConsumer) {
		t.Errorf("a Send to who is leaving: %v", err)
	}
	if err := p.producer.Send(ctx, p.c.Address(), nil); !errors.Is(err, ErrNoConsumer) {
		t.Errorf("a Send to who has left: %v", err)
	}
	p.px.shutdown(false)
	wantMessages(t, ctx, p.c, 0, 15)
	if m, err := p.c.Receive(ctx); err != ErrEnd {
		t.Errorf("behind the last message: %q, %v", m.Body, err)
	}
	for what, err := range map[string]error{"Drain": <-drained, "Flush": p.producer.Flush(ctx), "Target.Flush": p.to.Flush(ctx)} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The same if there has been no connection yet.
func TestDrainBeforeTheFirstConnection(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	px := newProxy(t, dir, forever)
	px.shutdown(true)
	p := newProducer(t, openWith(t, Config{Name: "a", Directory: px}), "x", ProducerConfig{})
	c := newConsumer(t, openWith(t, Config{Name: "b", Directory: dir}), "x", ConsumerConfig{})
	to := waitTarget(t, ctx, p, c.Address())
	for i := range byte(5) {
		if err := to.Send(ctx, []byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	drained := make(chan error, 1)
	go func() { drained <- drain(t, ctx, c, 0, 5) }()
	await(t, ctx, "the consumer to be out of the directory", func() bool { return len(p.Consumers()) == 0 })
	px.shutdown(false)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// A producer has seen a consumer that has not heard of it yet.
func TestDrainMeetsProducersThatTheConsumerHasNotHeardOf(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	late := newGate(dir)
	c := newConsumer(t, openWith(t, Config{Name: "b", Directory: late}), "x", ConsumerConfig{})
	late.shut()
	p := newProducer(t, openWith(t, Config{Name: "a", Directory: dir}), "x", ProducerConfig{})
	for i := range byte(5) {
		if err := p.Send(ctx, c.Address(), []byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := drain(t, ctx, c, 0, 5); err != nil {
		t.Error(err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
	late.open()
}

// The directory says late that a consumer has left, when another one has taken
// its place already and the link is down: what was accepted for that one stays.
func TestLateWordThatAConsumerHasLeft(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	px := newProxy(t, dir, forever)
	late := newGate(px)
	a := openWith(t, Config{Name: "a", Directory: late})
	b := openWith(t, Config{Name: "b", Directory: dir})
	p := newProducer(t, a, "x", ProducerConfig{})
	c := newConsumer(t, b, "x", ConsumerConfig{})
	if err := waitTarget(t, ctx, p, c.Address()).Send(ctx, []byte{0}); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, ctx, c, 0, 1)
	late.shut()
	if err := drain(t, ctx, c, 0, 0); err != nil {
		t.Fatal(err)
	}
	c = newConsumer(t, b, "x", ConsumerConfig{})
	to := waitTarget(t, ctx, p, c.Address()) // it has opened its stream by itself
	px.shutdown(true)
	hidden(t, ctx, a, "b")
	for i := range byte(5) {
		if err := to.Send(ctx, []byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	late.open()
	// It has left, and is there again: another stream begins behind the one that is full.
	await(t, ctx, "the directory's word", func() bool {
		again, err := p.To(c.Address())
		return err == nil && again.stream != to.stream
	})
	if err := p.Send(ctx, c.Address(), []byte{5}); err != nil {
		t.Fatal(err)
	}
	px.shutdown(false)
	wantMessages(t, ctx, c, 0, 6)
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// A node that drains while the link to a peer is down has nothing left to
// deliver, but the peer does not know that: it comes and is told, instead of
// waiting for the resume window.
func TestNodeThatDrainsIsHeardThoughTheLinkIsDown(t *testing.T) {
	ctx := testContext(t)
	p := newPair(t, ctx, time.Minute, time.Minute)
	p.send(t, ctx, 0, 5)
	if err := p.producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, ctx, p.c, 0, 5)
	p.hide(t, ctx)
	drained := make(chan error, 1)
	go func() { drained <- p.a.Drain(ctx) }()
	await(t, ctx, "the node to be out of the directory", func() bool { return len(p.c.Producers()) == 0 })
	p.px.shutdown(false)
	await(t, ctx, "the consumer's stream to end", func() bool { return len(p.b.Stats().Streams) == 0 })
	if err := <-drained; err != nil {
		t.Error(err)
	}
	// There is nobody left to wait for.
	if err := drain(t, ctx, p.c, 0, 0); err != nil {
		t.Error(err)
	}
}

// A consumer that closes while the link is down says so as soon as it is back:
// nobody waits for the resume window.
func TestCloseWhileTheLinkIsDown(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, time.Minute)
	if err := p.c.Close(); err != nil {
		t.Fatal(err)
	}
	p.px.shutdown(false)
	wantLost(t, p.producer.Flush(ctx), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 15})
	if p.producer.Flush(ctx) != nil {
		t.Error("Flush tells it twice")
	}
	await(t, ctx, "the consumer's end to be gone", func() bool { return len(p.b.Stats().Streams) == 0 })
}

// All streams have ended before their consumer has handled anything: it gets all
// that they brought, also what came behind the first end.
func TestDrainOfAConsumerThatIsBehind(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, time.Minute) // 15 messages, of which 5 come later
	other := newProducer(t, openWith(t, Config{Name: "other", Directory: p.dir}), "x", ProducerConfig{})
	if err := waitTarget(t, ctx, other, p.c.Address()).Send(ctx, nil); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- p.c.Drain(ctx) }()
	streams := func(count int) func() bool { return func() bool { return len(p.b.Stats().Streams) == count } }
	if err := other.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "the first stream to end", streams(1))
	p.px.shutdown(false)
	await(t, ctx, "both streams to end", streams(0))
	got := make(map[string]int)
	for m, err := range p.c.Messages(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got[m.Source().Node]++
	}
	if got["a"] != 15 || got["other"] != 1 {
		t.Errorf("%v came, want 15 from a and 1 from other", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// A consumer whose last stream is lost while it drains is told of that, and then
// of the end.
func TestLossWhileDraining(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, 200*time.Millisecond)
	drained := make(chan error, 1)
	go func() { drained <- p.c.Drain(ctx) }()
	wantLost(t, p.receive(t, ctx, 0, 10), PeerLostError{Node: "a", Channel: "x", Acknowledged: 10, InDoubtTo: 10, Receiving: true})
	if m, err := p.c.Receive(ctx); err != ErrEnd {
		t.Errorf("after the loss: %q, %v", m.Body, err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
