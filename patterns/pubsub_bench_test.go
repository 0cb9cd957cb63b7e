package patterns

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// BenchmarkPubSub publishes messages of 64 bytes over TCP to reliable subscribers,
// each of which gets all. allocs/op is what all ends allocate for a message.
func BenchmarkPubSub(b *testing.B) {
	for _, nodes := range []int{1, 4} {
		for _, each := range []int{1, 25} {
			b.Run(fmt.Sprintf("nodes=%d/subscribers=%d", nodes, each), func(b *testing.B) { benchPubSub(b, nodes, each) })
		}
	}
}

func benchPubSub(b *testing.B, nodes, each int) {
	ctx, dir := context.Background(), directory.NewRegistry()
	p := openPublisherOf(b, openNode(b, dir, "p"), PublisherConfig[[]byte]{Quality: Reliable})
	var running sync.WaitGroup
	for i := range nodes {
		n := openNode(b, dir, fmt.Sprint("s", i))
		for range each {
			s := openSubscriberOf(b, n, SubscriberConfig[[]byte]{Publishers: 1, Queue: fabric.HighWaterMark{Messages: 1 << 14}})
			running.Go(func() {
				got := 0
				for _, err := range s.Messages(ctx) {
					if err != nil {
						b.Error(err)
						break
					}
					got++
				}
				if got != b.N {
					b.Errorf("%d of %d came", got, b.N)
				}
			})
		}
	}
	body := make([]byte, 64)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := p.Publish(ctx, "a.b.c", body); err != nil {
			b.Fatal(err)
		}
	}
	check(b, p.Drain(ctx))
	running.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(b.N*nodes*each)/b.Elapsed().Seconds(), "deliveries/s")
}

// One of a hundred subscribers at four nodes stops reading, and the others go on as fast
// as messages are published: at a rate that leaves the machine room, so that who is held
// up is seen, in either direction. As others may use the machine meanwhile, one good
// comparison of a few is enough.
func TestPubSubOneOfAHundredStops(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes most of the time itself")
	}
	for name, cfg := range map[string]SubscriberConfig[[]byte]{
		"latest":       {Quality: Latest},
		"bounded drop": {Quality: BoundedDrop},
		"reliable":     {Quality: Reliable}, // once it is evicted
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they pause, mostly
			const tries = 5
			for try := 1; ; try++ {
				reading, stopped := hundred(t, cfg)
				change := 100 * (stopped.Seconds()/reading.Seconds() - 1)
				t.Logf("%v with all reading, %v when one has stopped: %+.1f %%", reading, stopped, change)
				if math.Abs(change) < 5 {
					return
				}
				if try == tries {
					t.Fatalf("others are more than 5 %% off in each of %d comparisons", tries)
				}
			}
		})
	}
}

// audience is subscribers that get the same messages.
type audience struct {
	t     *testing.T
	ctx   context.Context
	p     *Publisher[[]byte]
	size  int // of what all get in a turn
	came  atomic.Int64
	heard chan struct{} // capacity 1: a turn is over
}

// hear is called for each message that one of them gets.
func (a *audience) hear() {
	if a.came.Add(1)%int64(a.size) == 0 {
		a.heard <- struct{}{}
	}
}

// turn publishes messages, so many a second at the most if rate is not 0, and returns
// how long it takes until all have them.
func (a *audience) turn(messages, rate int) time.Duration {
	a.t.Helper()
	body, began := make([]byte, 64), time.Now()
	for i := range messages {
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate)))) // is the pace
		}
		if err := a.p.Publish(a.ctx, "a", body); err != nil {
			a.t.Fatal(err)
		}
	}
	select {
	case <-a.heard:
	case <-a.ctx.Done():
		a.t.Fatalf("%d came: %+v", a.came.Load(), a.p.Stats())
	}
	return time.Since(began)
}

// hundred returns the time that some messages take to 99 subscribers, while the
// hundredth reads and when it has stopped, for good, and its queue is full.
func hundred(t *testing.T, cfg SubscriberConfig[[]byte]) (reading, stopped time.Duration) {
	const nodes, each, messages, rate = 4, 25, 500, 1000
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[[]byte]{Quality: Reliable, EvictAfter: 100 * time.Millisecond})
	all := &audience{t: t, ctx: ctx, p: p, size: (nodes*each - 1) * messages, heard: make(chan struct{}, 1)}
	var running sync.WaitGroup
	defer running.Wait()
	read := func(ctx context.Context, s *Subscriber[[]byte], each func()) {
		running.Go(func() {
			for {
				if _, err := s.Receive(ctx); err == nil {
					each()
				} else if !passing(err) {
					return
				}
			}
		})
	}
	var last *Subscriber[[]byte]
	for i := range nodes {
		n := openNode(t, dir, fmt.Sprint("s", i))
		for j := range each {
			if i == nodes-1 && j == each-1 {
				cfg.Queue = fabric.HighWaterMark{Messages: 16}
				last = openSubscriberOf(t, n, cfg)
				continue
			}
			s := openSubscriberOf(t, n, SubscriberConfig[[]byte]{Quality: cfg.Quality})
			defer s.Close()
			read(ctx, s, all.hear)
		}
	}
	check(t, p.WaitSubscribers(ctx, nodes*each))
	turn := func() time.Duration { return all.turn(messages, rate) }
	reads, stop := context.WithCancel(ctx)
	defer stop()
	read(reads, last, func() {})
	turn()
	reading = turn()
	stop()
	before := last.Stats().Missed
	for last.Stats().Missed == before && last.core.refused() == nil { // until it drops, or is evicted
		turn()
	}
	stopped = turn()
	return reading, stopped
}

// One subscriber that stops reading changes what others get by less than 5 %: they
// take turns beside one that reads and beside the same one when it has stopped, so
// that both see the same machine. As a busy one may be slow in the wrong turns, one
// good comparison of a few is enough. The fastest turn of each counts: whatever else
// the machine does only makes them slower.
func TestPubSubSlowSubscriberHoldsUpNobody(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes most of the time itself")
	}
	for name, c := range map[string]struct {
		cfg   SubscriberConfig[[]byte]
		turns int
	}{
		"latest":       {SubscriberConfig[[]byte]{Quality: Latest}, 7},
		"conflating":   {SubscriberConfig[[]byte]{Quality: Latest, Conflate: true}, 7},
		"bounded drop": {SubscriberConfig[[]byte]{Quality: BoundedDrop}, 7},
		"reliable":     {SubscriberConfig[[]byte]{Quality: Reliable}, 2}, // once it is evicted
	} {
		t.Run(name, func(t *testing.T) {
			const tries = 5
			for try := 1; ; try++ {
				reading, stopped := besides(t, c.cfg, c.turns)
				change := 100 * (stopped.Seconds()/reading.Seconds() - 1)
				t.Logf("%v beside one that reads, %v when it has stopped: %+.1f %%", reading, stopped, change)
				if change < 5 {
					return
				}
				if try == tries {
					t.Fatalf("others are slower by more than 5 %% in each of %d comparisons", tries)
				}
			}
		})
	}
}

// besides returns the least time that some messages take to all of four
// subscribers, beside one that reads and beside one that has stopped.
func besides(t *testing.T, cfg SubscriberConfig[[]byte], turns int) (reading, stopped time.Duration) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[[]byte]{Quality: Reliable, EvictAfter: time.Second})
	n := openNode(t, dir, "s")
	const subscribers, messages = 4, 5_000
	all := &audience{t: t, ctx: ctx, p: p, size: subscribers * messages, heard: make(chan struct{}, 1)}
	var running sync.WaitGroup
	defer running.Wait()
	read := func(ctx context.Context, s *Subscriber[[]byte], each func()) {
		running.Go(func() {
			for {
				switch _, err := s.Receive(ctx); {
				case err == nil:
					each()
				case passing(err):
				default:
					if err != fabric.ErrClosed && ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for range subscribers {
		s := openSubscriberOf(t, n, SubscriberConfig[[]byte]{Queue: fabric.HighWaterMark{Messages: 1 << 14}})
		defer s.Close()
		read(ctx, s, all.hear)
	}
	turn := func() time.Duration { return all.turn(messages, 0) }
	var before, after []time.Duration
	cfg.Channel, cfg.Filters = "news", []Filter{Prefix("")}
	turn()
	for range turns {
		s, err := OpenSubscriber(ctx, n, cfg)
		if err != nil {
			t.Fatal(err)
		}
		reads, stop := context.WithCancel(ctx)
		read(reads, s, func() {})
		before = append(before, turn())
		stop()
		queue := s.Stats()
		for behind := false; !behind; { // until it drops, or is evicted
			turn()
			st := s.Stats()
			behind = st.Missed+st.Conflated > queue.Missed+queue.Conflated || s.core.refused() != nil
		}
		after = append(after, turn())
		check(t, s.Close())
	}
	return slices.Min(before), slices.Min(after)
}
