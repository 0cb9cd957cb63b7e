package fabric

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// The promise is of different producers: one that finishes in a second life of
// its node is not another one.
func TestEndCountsEachProducerOnce(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	c := newConsumer(t, openNode(t, dir, "a"), "x", ConsumerConfig{Producers: 2})
	for i := range 3 {
		// The first two are lives of one node. The third one's message comes
		// behind their ends.
		b := openNode(t, dir, []string{"b", "b", "d"}[i])
		p := newProducer(t, b, "x", ProducerConfig{})
		if err := p.Send(ctx, c.Address(), nil); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			// From a producer that has finished before: dropped.
		} else if m, err := c.Receive(ctx); err != nil || m.Source().Node != b.Name() {
			t.Fatalf("message of life %d: %v from %v", i, err, m.Source())
		}
		if i == 2 {
			break
		}
		if err := p.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Finished(); !slices.Equal(got, []Address{{"b", 0}}) {
		t.Errorf("%v have finished", got)
	}
	c.Promise(1)
	if _, err := c.Receive(ctx); err != ErrEnd {
		t.Errorf("at the end: %v", err)
	}
}

func TestFinishTellsTargetsOnly(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a, b := openNode(t, dir, "a"), openNode(t, dir, "b")
	told := newConsumer(t, b, "x", ConsumerConfig{Index: 1, Producers: 1})
	other := newConsumer(t, b, "x", ConsumerConfig{Index: 2, Producers: 1})
	p := newProducer(t, a, "x", ProducerConfig{})
	to, err := p.To(told.Address())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SendAll(ctx, []byte("body")); err != nil {
		t.Fatal(err)
	}
	if err := p.Finish([]*Target{to}); err != nil {
		t.Fatal(err)
	}
	if err := p.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := to.TrySend(nil); err != ErrClosed {
		t.Errorf("TrySend after Finish: %v", err)
	}
	for _, c := range []*Consumer{told, other} {
		if m, err := c.Receive(ctx); err != nil || string(m.Body) != "body" {
			t.Fatal(m, err)
		}
	}
	if _, err := told.Receive(ctx); err != ErrEnd {
		t.Errorf("who was told: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := other.Receive(short); err != context.DeadlineExceeded {
		t.Errorf("who was not told: %v", err)
	}
}
