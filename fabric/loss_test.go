package fabric

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// ghost registers a consumer of the channel at a node that nobody ever reaches,
// and returns what takes it out again.
func ghost(t testing.TB, ctx context.Context, dir directory.Service, channel string) (leave func()) {
	t.Helper()
	incarnation, err := dir.Join(ctx, directory.NodeInfo{Name: "ghost"})
	if err == nil {
		err = dir.Add(ctx, incarnation, directory.Member{Channel: channel, Role: directory.Consumer, Node: "ghost"})
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := dir.Leave(ctx, "ghost", incarnation); err != nil {
			t.Error(err)
		}
	}
}

// What was accepted for a consumer that never came is told as lost once it has
// been out of the directory for the resume window; nobody waits any longer. No
// more is accepted for it meanwhile.
func TestConsumerThatNeverCame(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	leave := ghost(t, ctx, dir, "x")
	a := openWith(t, Config{Name: "a", Directory: dir, HeartbeatInterval: 20 * time.Millisecond, ResumeWindow: 200 * time.Millisecond})
	p := newProducer(t, a, "x", ProducerConfig{HighWaterMark: HighWaterMark{Messages: 2}})
	if err := p.WaitConsumers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	to, err := p.To(Address{"ghost", 0})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := to.Send(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	said := make(chan error, 1)
	go func() { said <- to.Send(ctx, []byte("waits at the mark")) }()
	leave()
	for _, err := range []error{<-said, to.TrySend(nil)} {
		if !errors.Is(err, ErrNoConsumer) {
			t.Errorf("a Send to who has left: %v", err)
		}
	}
	want := PeerLostError{Node: "ghost", Channel: "x", Acknowledged: 0, InDoubtTo: 2}
	wantLost(t, p.Flush(ctx), want)
	wantLost(t, to.Flush(ctx), want)
	if err := p.Flush(ctx); err != nil {
		t.Errorf("Flush tells it twice: %v", err)
	}
}

// Flush does not say that all is stored when a consumer took what was accepted
// for it along, although the channel has no such consumer any more.
func TestFlushTellsOfAConsumerThatClosed(t *testing.T) {
	ctx := testContext(t)
	cr := newCrowd(t, ctx, HighWaterMark{Messages: 100}, 1)
	accepted := cr.fill(t, 0, 0)
	if err := cr.receive(ctx, 0, 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := cr.consumers[0].Close(); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "the consumer to be gone", func() bool { return len(cr.producer.Consumers()) == 0 })
	var lost *PeerLostError
	if err := cr.producer.Flush(ctx); !errors.As(err, &lost) {
		// All of it may have been stored before the consumer closed.
		if s := cr.targets[0].Flush(ctx); err != nil || s != nil {
			t.Fatalf("Flush: %v; of the consumer alone: %v", err, s)
		}
	} else if lost.InDoubtTo != accepted || lost.Acknowledged > accepted {
		t.Errorf("%+v, and %d were accepted", lost, accepted)
	}
}

// A consumer hears nothing of a node's going away after all its producers have
// finished, and does hear of one that had not.
func TestNodeThatClosesAfterItsProducersFinished(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	done, early, b := openWith(t, Config{Name: "done", Directory: dir}), openWith(t, Config{Name: "early", Directory: dir}), openWith(t, Config{Name: "b", Directory: dir})
	c := newConsumer(t, b, "x", ConsumerConfig{Producers: 3})
	for i, n := range []*Node{done, early} {
		p := newProducer(t, n, "x", ProducerConfig{})
		if err := p.Send(ctx, c.Address(), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Receive(ctx); err != nil || m.Body[0] != byte(i) {
			t.Fatalf("%v, %v", m.Body, err)
		}
	}
	if err := done.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	hidden(t, ctx, b, "done")
	if err := early.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Receive(ctx)
	wantLost(t, err, PeerLostError{Node: "early", Channel: "x", Acknowledged: 1, InDoubtTo: 1, Receiving: true})
}

// With its Close, what a consumer has not handed out yet is dropped.
func TestReceiveAfterClose(t *testing.T) {
	ctx := testContext(t)
	cr := newCrowd(t, ctx, HighWaterMark{Messages: 100}, 1)
	cr.fill(t, 0, 0)
	if err := cr.producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := cr.receive(ctx, 0, 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := cr.consumers[0].Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if m, err := cr.consumers[0].Receive(ctx); err != ErrClosed {
			t.Errorf("after Close: %q, %v", m.Body, err)
		}
	}
}

// The producer's end gives a stream up and begins another one, while the
// consumer's end still waits for the first one. When the link is back, the
// consumer is told, and then gets the second one from its begin.
func TestProducersEndAloneGivesUp(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, 100*time.Millisecond, time.Minute)
	wantLost(t, p.to.Send(ctx, nil), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 15})
	p.begin(t, ctx)
	p.send(t, ctx, 100, 112)
	p.px.shutdown(false)
	wantLost(t, p.receive(t, ctx, 0, 10), PeerLostError{Node: "a", Channel: "x", Acknowledged: 10, InDoubtTo: 10, Receiving: true})
	p.exchange(t, ctx, 100, 112, 200)
}

// The consumer's end gives a stream up, while the producer's end still waits.
// When the link is back, the producer is told, and nothing comes twice.
func TestConsumersEndAloneGivesUp(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, 100*time.Millisecond)
	wantLost(t, p.receive(t, ctx, 0, 10), PeerLostError{Node: "a", Channel: "x", Acknowledged: 10, InDoubtTo: 10, Receiving: true})
	p.px.shutdown(false)
	wantLost(t, p.to.Send(ctx, nil), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 15})
	p.begin(t, ctx)
	p.exchange(t, ctx, 100, 100, 200)
}

// The same if nothing of what the consumer has got was acknowledged.
func TestConsumersEndAloneGivesUpWhatWasNotAcknowledged(t *testing.T) {
	ctx := testContext(t)
	p := newPair(t, ctx, time.Minute, 100*time.Millisecond)
	p.send(t, ctx, 0, 1)
	m, err := p.c.Receive(ctx)
	if err != nil || m.Body[0] != 0 {
		t.Fatalf("%v, %v", m.Body, err)
	}
	p.hide(t, ctx)
	if _, err := p.c.Receive(ctx); !errors.As(err, new(*PeerLostError)) {
		t.Fatal(err)
	}
	p.px.shutdown(false)
	await(t, ctx, "the stream to be lost", func() bool { return errors.As(p.to.TrySend([]byte{99}), new(*PeerLostError)) })
	p.begin(t, ctx)
	p.exchange(t, ctx, 100, 100, 200)
}

// A consumer is closed and another one takes its index while the link is down:
// what was for the one is not for the other.
func TestConsumerReplacedWhileTheLinkIsDown(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, time.Minute, time.Minute)
	if err := p.c.Close(); err != nil {
		t.Fatal(err)
	}
	p.c = newConsumer(t, p.b, "x", ConsumerConfig{})
	said := make(chan error, 1)
	go func() { said <- p.to.Send(ctx, nil) }()
	if err := <-said; !errors.Is(err, ErrNoConsumer) {
		t.Errorf("a Send to who has left: %v", err)
	}
	p.px.shutdown(false)
	wantLost(t, p.producer.Flush(ctx), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 15})
	p.begin(t, ctx)
	p.exchange(t, ctx, 100, 100, 200)
}

// A node's next life may be connected while the loss of the one before is still
// being told: that must not take the new streams along.
func TestNextLifeWhileTheLossOfTheOneBeforeIsTold(t *testing.T) {
	ctx := testContext(t)
	dir, book := directory.NewRegistry(), newLogBook()
	up := make(chan struct{}, 16)
	var first sync.Once
	book.hook = func(message string) {
		switch message {
		case "link up":
			up <- struct{}{}
		case "link down":
			first.Do(func() {
				<-up // the first life's
				select {
				case <-up:
				case <-time.After(200 * time.Millisecond): // the next life waits for it, as well
				}
			})
		}
	}
	b := openWith(t, Config{Name: "b", Directory: dir, Logger: book.logger()})
	c := newConsumer(t, b, "x", ConsumerConfig{})
	newProducer(t, b, "y", ProducerConfig{})
	for life := range byte(3) {
		a := openWith(t, Config{Name: "a", Directory: dir})
		newConsumer(t, a, "y", ConsumerConfig{}) // so that both dial
		to := waitTarget(t, ctx, newProducer(t, a, "x", ProducerConfig{}), c.Address())
		if err := to.Send(ctx, []byte{life}); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := c.Receive(ctx)
			if errors.As(err, new(*PeerLostError)) {
				continue // of the life before
			}
			if err != nil || m.Body[0] != life {
				t.Fatalf("life %d: %v, %v", life, m.Body, err)
			}
			break
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
