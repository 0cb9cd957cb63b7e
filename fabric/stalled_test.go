package fabric

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// crowd is a producer at node a and consumers at node b, over one link.
type crowd struct {
	a, b      *Node
	producer  *Producer
	targets   []*Target
	consumers []*Consumer
}

func newCrowd(t testing.TB, ctx context.Context, mark HighWaterMark, consumers int) *crowd {
	t.Helper()
	dir := directory.NewRegistry()
	cr := &crowd{a: openWith(t, Config{Name: "a", Directory: dir}), b: openWith(t, Config{Name: "b", Directory: dir})}
	for i := range consumers {
		cr.consumers = append(cr.consumers, newConsumer(t, cr.b, "x", ConsumerConfig{Index: i, HighWaterMark: mark, Producers: 1}))
	}
	cr.producer = newProducer(t, cr.a, "x", ProducerConfig{HighWaterMark: mark})
	if err := cr.producer.WaitConsumers(ctx, consumers); err != nil {
		t.Fatal(err)
	}
	for _, c := range cr.consumers {
		to, err := cr.producer.To(c.Address())
		if err != nil {
			t.Fatal(err)
		}
		cr.targets = append(cr.targets, to)
	}
	return cr
}

// send sends messages from to below to to the i-th consumer.
func (cr *crowd) send(ctx context.Context, i int, from, to uint64) error {
	var body []byte
	for n := from; n < to; n++ {
		body = numbered(body, n)
		if err := cr.targets[i].Send(ctx, body); err != nil {
			return fmt.Errorf("consumer %d, message %d: %w", i, n, err)
		}
	}
	return nil
}

// receive takes messages from to below to at the i-th consumer.
func (cr *crowd) receive(ctx context.Context, i int, from, to uint64) error {
	var want []byte
	for n := from; n < to; n++ {
		m, err := cr.consumers[i].Receive(ctx)
		if want = numbered(want, n); err == nil && string(m.Body) != string(want) {
			err = fmt.Errorf("it has %d bytes and not %d", len(m.Body), len(want))
		}
		if err != nil {
			return fmt.Errorf("consumer %d, message %d: %w", i, n, err)
		}
	}
	return nil
}

// both runs count messages over the streams of the listed consumers, all at
// once, and returns how long that took.
func (cr *crowd) both(t testing.TB, ctx context.Context, list []int, from, to uint64) time.Duration {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for _, i := range list {
		wg.Go(func() {
			if err := cr.send(ctx, i, from, to); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := cr.receive(ctx, i, from, to); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return time.Since(began)
}

// fill sends messages from from on to the i-th consumer until it would have to
// wait, and returns the number of the first one that was not accepted.
func (cr *crowd) fill(t testing.TB, i int, from uint64) uint64 {
	t.Helper()
	for n := from; ; n++ {
		switch err := cr.targets[i].TrySend(numbered(nil, n)); {
		case err == ErrHighWater:
			return n
		case err != nil:
			t.Fatal(err)
		}
	}
}

func (cr *crowd) stream(t testing.TB, n *Node, consumer int) StreamStats {
	t.Helper()
	for _, s := range n.Stats().Streams {
		if s.Consumer == consumer {
			return s
		}
	}
	t.Fatalf("node %s has no stream of consumer %d", n.Name(), consumer)
	return StreamStats{}
}

// One consumer does not read. The others go on at full speed, the stalled
// stream holds no more than its mark, and in the end it gets everything.
func TestStalledConsumer(t *testing.T) {
	const (
		each = 20_000
		mark = 512 << 10
	)
	ctx := testContext(t)
	cr := newCrowd(t, ctx, HighWaterMark{Bytes: mark}, 4)
	others := []int{1, 2, 3}
	free, stalled := time.Hour, time.Hour // the best of several rounds each
	var sent, last, accepted uint64       // to each of the others; to the one that stalls, handled and accepted
	round := func() time.Duration {
		sent += each
		return cr.both(t, ctx, others, sent-each, sent)
	}
	round()
	before := heapInUse()
	var blocked chan error
	for i := 0; ; i++ {
		free = min(free, round())
		last = accepted
		if i > 0 { // then no room comes back any more until it reads
			await(t, ctx, "what was handled to be known", func() bool {
				return cr.stream(t, cr.a, 0).Settled == cr.stream(t, cr.b, 0).Settled
			})
		}
		n := cr.fill(t, 0, last)
		blocked = make(chan error, 1)
		go func() { blocked <- cr.send(ctx, 0, n, n+1) }()
		accepted = n + 1
		stalled = min(stalled, round())
		if i == 11 || i >= 3 && stalled <= 2*free { // something else may be busy in a few of them
			break // and it stays so
		}
		if err := cr.receive(ctx, 0, last, accepted); err != nil {
			t.Fatal(err)
		}
		if err := <-blocked; err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("3 streams, %d messages each: %v, and %v while a fourth is stalled", each, free, stalled)
	if stalled > 2*free {
		t.Errorf("the others are slower: %v instead of %v", stalled, free)
	}
	most := int64(4 * mark)
	if raceEnabled {
		most *= 2 // it makes pools lose what they are given
	}
	if grown := heapInUse() - before; grown > most {
		t.Errorf("the heap has grown by %d bytes, with a mark of %d", grown, mark)
	}
	for _, n := range []*Node{cr.a, cr.b} {
		s := cr.stream(t, n, 0)
		if s.DepthBytes > mark {
			t.Errorf("at %s the stalled stream holds %d messages, %d bytes", n.Name(), s.Depth, s.DepthBytes)
		}
	}
	if s := cr.stream(t, cr.a, 0); s.BlockedSends != 1 {
		t.Errorf("%d Sends wait", s.BlockedSends)
	}
	if lent := cr.b.Stats().MemoryLent; lent > 4*mark {
		t.Errorf("%d bytes are lent to 4 streams with a mark of %d", lent, mark)
	}
	if err := cr.receive(ctx, 0, last, accepted); err != nil {
		t.Fatal(err)
	}
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	cr.both(t, ctx, []int{0}, accepted, accepted+each)
}

// A consumer that handles one message while another one handles a hundred gets
// all of its own, and holds nobody up.
func TestSlowConsumer(t *testing.T) {
	const each = 300
	ctx := testContext(t)
	cr := newCrowd(t, ctx, HighWaterMark{Messages: 50}, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := cr.send(ctx, 0, 0, each); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := cr.send(ctx, 1, 0, each*100); err != nil {
			t.Error(err)
		}
	})
	for n := range uint64(each) {
		if err := cr.receive(ctx, 1, n*100, n*100+100); err != nil {
			t.Fatal(err)
		}
		if s := cr.stream(t, cr.a, 0); s.Depth > 50 || s.Settled > n {
			t.Fatalf("after %d messages handled: %+v", n, s)
		}
		if err := cr.receive(ctx, 0, n, n+1); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

// A consumer that closes in mid-stream costs its own stream only, and whoever
// sends to it learns where it ended.
func TestConsumerClosesInMidStream(t *testing.T) {
	const each = 20_000
	ctx := testContext(t)
	cr := newCrowd(t, ctx, HighWaterMark{Messages: 100}, 3)
	sent := make(chan error, 1)
	go func() { sent <- cr.send(ctx, 0, 0, 1<<40) }()
	closed := make(chan error, 1)
	go func() {
		err := cr.receive(ctx, 0, 0, 1000)
		closed <- errors.Join(err, cr.consumers[0].Close())
	}()
	cr.both(t, ctx, []int{1, 2}, 0, each)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	var lost *PeerLostError
	if err := <-sent; !errors.As(err, &lost) {
		t.Fatalf("Send to a consumer that has closed: %v", err)
	}
	if lost.Node != "b" || lost.Channel != "x" || lost.Consumer != 0 || lost.Receiving ||
		lost.Acknowledged > lost.InDoubtTo || lost.InDoubtTo < 1000 || lost.InDoubtTo > 1000+200 {
		t.Errorf("%+v", lost)
	}
	await(t, ctx, "the consumer to be gone", func() bool { return len(cr.producer.Consumers()) == 2 })
	if err := cr.producer.Send(ctx, Address{"b", 0}, nil); !errors.Is(err, ErrNoConsumer) {
		t.Errorf("Send to a consumer that is not there: %v", err)
	}
	cr.both(t, ctx, []int{1, 2}, each, 2*each)
	await(t, ctx, "its credit to return", func() bool { return cr.b.Stats().MemoryLent < 2*(4<<20) && len(cr.b.Stats().Streams) == 2 })
}

// waiting makes a Send wait at the mark of the only consumer, and returns what
// it will say.
func waiting(t *testing.T, ctx context.Context, cr *crowd) <-chan error {
	t.Helper()
	accepted := cr.fill(t, 0, 0)
	said := make(chan error, 1)
	go func() { said <- cr.send(ctx, 0, accepted, accepted+1) }()
	await(t, testContext(t), "a Send that waits", func() bool { return cr.stream(t, cr.a, 0).BlockedSends == 1 })
	return said
}

// isGone reports whether a Send has failed because its consumer is gone. The
// directory may have said so before the link, or before there was one.
func isGone(err error) bool {
	return errors.As(err, new(*PeerLostError)) || errors.Is(err, ErrNoConsumer)
}

func TestSendThatWaitsEnds(t *testing.T) {
	mark := HighWaterMark{Messages: 10}
	for _, c := range []struct {
		name string
		end  func(t *testing.T, cr *crowd, cancel context.CancelFunc)
		want func(error) bool
	}{
		{"with its context", func(t *testing.T, _ *crowd, cancel context.CancelFunc) { cancel() },
			func(err error) bool { return errors.Is(err, context.Canceled) }},
		{"when the node closes", func(t *testing.T, cr *crowd, _ context.CancelFunc) { cr.a.Close() },
			func(err error) bool { return errors.Is(err, ErrClosed) }},
		{"when the consumer closes", func(t *testing.T, cr *crowd, _ context.CancelFunc) { cr.consumers[0].Close() }, isGone},
		{"when the consumer's node closes", func(t *testing.T, cr *crowd, _ context.CancelFunc) { cr.b.Close() }, isGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			cr := newCrowd(t, ctx, mark, 1)
			said := waiting(t, ctx, cr)
			c.end(t, cr, cancel)
			select {
			case err := <-said:
				if !c.want(err) {
					t.Errorf("it said %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it still waits")
			}
		})
	}
}

// What was waiting when its context ended was not accepted, and leaves no gap.
func TestCancelledSendIsNotAccepted(t *testing.T) {
	ctx := testContext(t)
	cr := newCrowd(t, ctx, HighWaterMark{Messages: 10}, 1)
	short, cancel := context.WithCancel(ctx)
	said := waiting(t, short, cr)
	cancel()
	if err := <-said; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := cr.receive(ctx, 0, 0, 10); err != nil {
		t.Fatal(err)
	}
	cr.both(t, ctx, []int{0}, 10, 50)
}
