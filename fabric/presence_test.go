package fabric

import (
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

func TestChanged(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a, b := openNode(t, dir, "a"), openNode(t, dir, "b")
	p := newProducer(t, a, "x", ProducerConfig{})
	wait := func(changed <-chan struct{}, consumers int) {
		t.Helper()
		for len(p.Consumers()) != consumers {
			select {
			case <-changed:
				changed = p.Changed()
			case <-ctx.Done():
				t.Fatalf("not told that there are %d consumers", consumers)
			}
		}
	}
	changed := p.Changed()
	if len(p.Consumers()) != 0 {
		t.Fatal("a consumer is there already")
	}
	c := newConsumer(t, b, "x", ConsumerConfig{})
	wait(changed, 1)
	changed = p.Changed()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	wait(changed, 0)
}

func TestConnected(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a := openNode(t, dir, "a")
	b := openNode(t, dir, "b")
	if !a.Connected("a") || a.Connected("b") || a.Connected("nobody") {
		t.Error("connected to itself alone, at first:", a.Connected("a"), a.Connected("b"), a.Connected("nobody"))
	}
	newConsumer(t, b, "x", ConsumerConfig{})
	newProducer(t, a, "x", ProducerConfig{})
	await(t, ctx, "a link", func() bool { return a.Connected("b") && b.Connected("a") })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "the link's end", func() bool { return !a.Connected("b") })
}
