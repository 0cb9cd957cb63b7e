package fabric

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// newEndedPair is a pair whose producer has sent 10 messages and finished, and whose
// consumer has handled all of it. Of the last 5 the producer's node does not know
// that they are stored, and the link is down.
func newEndedPair(t *testing.T, ctx context.Context) *lostPair {
	t.Helper()
	p := newPair(t, ctx, time.Minute, time.Minute)
	p.c.Promise(1)
	p.send(t, ctx, 0, 5)
	wantMessages(t, ctx, p.c, 0, 5)
	p.px.setMute(true)
	p.send(t, ctx, 5, 10)
	if err := p.producer.Finish([]*Target{p.to}); err != nil {
		t.Fatal(err)
	}
	if err := p.receive(t, ctx, 5, 10); err != ErrEnd {
		t.Fatal(err)
	}
	p.hide(t, ctx)
	p.px.setMute(false)
	if _, pending := p.to.stream.Failure(); !pending {
		t.Fatal("the producer's node knows already: this tests nothing")
	}
	return p
}

// What a consumer has stored its producers know when it has drained, although all of
// them have finished before, and the link was down.
func TestDrainAtTheEndWhileTheLinkIsDown(t *testing.T) {
	ctx := testContext(t)
	p := newEndedPair(t, ctx)
	left := make(chan error, 1)
	go func() { left <- errors.Join(p.c.Drain(ctx), p.b.Close()) }()
	await(t, ctx, "the consumer to leave", func() bool {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return p.c.gone
	})
	p.px.shutdown(false)
	if err := <-left; err != nil {
		t.Error(err)
	}
	if _, pending := p.to.stream.Failure(); pending {
		t.Error("the producer's node does not know what is stored")
	}
	if err := p.producer.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// The same with a node that drains.
func TestNodeDrainsAtTheEndWhileTheLinkIsDown(t *testing.T) {
	ctx := testContext(t)
	p := newEndedPair(t, ctx)
	left := make(chan error, 1)
	go func() { left <- p.b.Drain(ctx) }()
	await(t, ctx, "the consumer to leave", func() bool {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return p.c.gone
	})
	p.px.shutdown(false)
	if err := <-left; err != nil {
		t.Error(err)
	}
	if err := p.producer.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// It waits no longer than its context, and says who may not know.
func TestDrainAtTheEndIsBounded(t *testing.T) {
	ctx := testContext(t)
	p := newEndedPair(t, ctx)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	err := p.c.Drain(short)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "node a may not know that all is stored") {
		t.Errorf("%v", err)
	}
	if m, err := p.c.Receive(ctx); err != ErrEnd {
		t.Errorf("after it: %q, %v", m.Body, err)
	}
	if err := p.c.Drain(ctx); err != nil {
		t.Errorf("once more: %v", err)
	}
}
