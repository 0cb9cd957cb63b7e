package fabric

import (
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// Flush waits also for consumers that have left the directory, but not the
// stream.
func TestFlushWaitsForConsumersThatLeftTheDirectory(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	a, b := openWith(t, Config{Name: "a", Directory: dir}), openWith(t, Config{Name: "b", Directory: dir})
	c := newConsumer(t, b, "x", ConsumerConfig{HighWaterMark: HighWaterMark{Messages: 2}})
	p := newProducer(t, a, "x", ProducerConfig{})
	to := waitTarget(t, ctx, p, c.Address())
	if err := to.Send(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(ctx); err != nil { // the link is up
		t.Fatal(err)
	}
	for range 9 {
		if err := to.Send(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.Remove(ctx, b.Incarnation(), c.member()); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "the consumer to be gone", func() bool { return len(p.Consumers()) == 0 })
	flushed := make(chan uint64, 1)
	go func() {
		if err := p.Flush(ctx); err != nil {
			t.Error(err)
		}
		flushed <- b.Stats().Streams[0].Messages
	}()
	select {
	case n := <-flushed:
		t.Fatalf("flushed when %d of 10 messages were stored", n)
	default:
	}
	for range 10 {
		if _, err := c.Receive(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := <-flushed; n != 10 {
		t.Errorf("flushed when %d of 10 messages were stored", n)
	}
}
