package patterns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func openEventPublisherOf[T any](t testing.TB, n *fabric.Node, cfg EventPublisherConfig[T]) *EventPublisher[T] {
	t.Helper()
	cfg.Channel = "orders"
	p, err := OpenEventPublisher(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() }) // what is not acknowledged is a test's own business
	return p
}

func openEventMemberOf[T any](t testing.TB, n *fabric.Node, cfg EventMemberConfig[T]) *EventMember[T] {
	t.Helper()
	cfg.Channel, cfg.Logger = "orders", slog.New(slog.DiscardHandler)
	m, err := OpenEventMember(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, m.Close()) })
	return m
}

// change is an event: the number of its key's events that came before it.
type change struct{ Number int }

// orderBook holds what members handle against what may be: the events of a key in order
// and without a gap, one at a time whichever members have it, and again only if marked.
type orderBook struct {
	t     testing.TB
	mu    sync.Mutex
	next  map[string]int // by key
	busy  map[string]bool
	by    map[fabric.Address]int // events handled, by member
	again int
}

func newOrderBook(t testing.TB) *orderBook {
	return &orderBook{t: t, next: make(map[string]int), busy: make(map[string]bool), by: make(map[fabric.Address]int)}
}

// begin and end are around an event's handling.
func (l *orderBook) begin(key string, n int, redelivered bool, by fabric.Address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by[by]++
	switch want := l.next[key]; {
	case l.busy[key]:
		l.t.Errorf("%s: event %d is handled beside another one", key, n)
	case n > want:
		l.t.Errorf("%s: event %d is handled before %d", key, n, want)
	case n < want && !redelivered:
		l.t.Errorf("%s: event %d is handled again and not marked", key, n)
	case n < want:
		l.again++
	default:
		l.next[key]++
	}
	l.busy[key] = true
}

func (l *orderBook) end(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy[key] = false
}

// handler enters events in the orderBook, and works on each for a moment.
func (l *orderBook) handler(by fabric.Address, work time.Duration) func(context.Context, Event[change]) error {
	return func(ctx context.Context, e Event[change]) error {
		l.begin(string(e.Key), e.Value.Number, e.Redelivered(), by)
		defer l.end(string(e.Key))
		if work > 0 {
			time.Sleep(work) // is the work
		}
		return nil
	}
}

// publishing publishes events of keys in turn until it is stopped, and returns how many
// of each key.
func publishing(t testing.TB, ctx context.Context, p *EventPublisher[change], prefix string, keys int, until <-chan struct{}) int {
	n := 0
	for {
		for k := range keys {
			if err := p.Publish(ctx, fmt.Appendf(nil, "%s%d", prefix, k), change{n}); err != nil {
				t.Error(err)
				return n
			}
		}
		n++
		select {
		case <-until:
			return n
		default:
		}
	}
}

// finished holds the orderBook against what was published.
func (l *orderBook) finished(prefix string, keys, each int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range keys {
		key := fmt.Sprint(prefix, k)
		if l.next[key] != each {
			l.t.Errorf("%d of %d events of %s were handled", l.next[key], each, key)
		}
	}
}

func TestEvents(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const members, publishers, keys, each = 3, 2, 40, 50
	l := newOrderBook(t)
	var handling sync.WaitGroup
	for i := range members {
		m := openEventMemberOf(t, openNode(t, dir, fmt.Sprint("m", i)), EventMemberConfig[change]{Publishers: publishers})
		handling.Go(func() { check(t, m.Handle(ctx, 4, l.handler(m.Address(), 0))) })
	}
	var work sync.WaitGroup
	for i := range publishers {
		p := openEventPublisherOf(t, openNode(t, dir, fmt.Sprint("p", i)), EventPublisherConfig[change]{})
		work.Go(func() {
			check(t, p.WaitMembers(ctx, members))
			for n := range each {
				for k := range keys {
					check(t, p.Publish(ctx, fmt.Appendf(nil, "p%d/%d", i, k), change{n}))
				}
			}
			check(t, p.Flush(ctx))
			st := p.Stats()
			if st.Acknowledged != keys*each || st.Published != keys*each || st.Redelivered+st.Late+st.Malformed+st.Dropped != 0 || st.Unacknowledged != 0 {
				t.Errorf("%+v", st)
			}
			owned := 0
			for _, n := range st.Owned {
				owned += n
			}
			if owned != defaultPartitions || len(st.Owned) != members {
				t.Errorf("%v", st.Owned)
			}
			check(t, p.Drain(ctx))
			if err := p.Publish(ctx, nil, change{}); err != fabric.ErrClosed {
				t.Error(err)
			}
		})
	}
	work.Wait()
	handling.Wait()
	for i := range publishers {
		l.finished(fmt.Sprintf("p%d/", i), keys, each)
	}
	if len(l.by) != members || l.again != 0 {
		t.Errorf("%v handled, %d again", l.by, l.again)
	}
}

// participant is a member with its node, and the goroutine that handles its events.
type participant struct {
	node   *fabric.Node
	member *EventMember[change]
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (l *orderBook) join(ctx context.Context, dir directory.Service, name string) *participant {
	l.t.Helper()
	node, err := fabric.Open(ctx, fabric.Config{Name: name, Directory: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.t.Fatal(err)
	}
	p := &participant{node: node}
	p.member, err = OpenEventMember(ctx, node, EventMemberConfig[change]{Channel: "orders", InFlight: 8, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.t.Fatal(err)
	}
	var handling context.Context
	handling, p.cancel = context.WithCancel(ctx)
	p.done.Go(func() {
		err := p.member.Handle(handling, 3, l.handler(p.member.Address(), 20*time.Microsecond))
		if err != nil && err != fabric.ErrClosed && handling.Err() == nil {
			l.t.Error(err)
		}
	})
	return p
}

// leave takes the member out: it drains, closes, or dies in the middle of its work.
func (p *participant) leave(ctx context.Context, t testing.TB, how int) {
	switch how {
	case 0:
		check(t, p.member.Drain(ctx))
	case 1:
		check(t, p.member.Close())
	default: // what it handles ends with it, and nobody is told but by the node's end
		p.cancel()
		p.done.Wait()
	}
	check(t, p.node.Close())
	p.cancel()
	p.done.Wait()
	check(t, p.member.Close())
}

// Members come and go under load, in every way: per key nothing is lost, overtaken,
// handled twice at a time, or handled again without a mark.
func TestEventsMembersComeAndGo(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ctx, dir := testContext(t), directory.NewRegistry()
			r := rand.New(rand.NewPCG(seed, 1))
			const keys = 50
			l := newOrderBook(t)
			p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[change]{
				Partitions: 16, Unacknowledged: fabric.HighWaterMark{Messages: 64},
			})
			here := []*participant{l.join(ctx, dir, "m0"), l.join(ctx, dir, "m1")}
			names := 2
			enough := make(chan struct{})
			var publisher sync.WaitGroup
			each := 0
			publisher.Go(func() { each = publishing(t, ctx, p, "key", keys, enough) })
			for range 12 {
				before := p.Stats().Acknowledged
				await(t, "some to be acknowledged", func() bool { return p.Stats().Acknowledged > before+200 })
				if len(here) < 2 || len(here) < 4 && r.IntN(2) == 0 {
					here = append(here, l.join(ctx, dir, fmt.Sprint("m", names)))
					names++
					continue
				}
				i := r.IntN(len(here))
				here[i].leave(ctx, t, r.IntN(3))
				here = append(here[:i], here[i+1:]...)
			}
			close(enough)
			publisher.Wait()
			check(t, p.Drain(ctx))
			for _, m := range here {
				m.leave(ctx, t, 1)
			}
			l.finished("key", keys, each)
			st := p.Stats()
			if st.Acknowledged != uint64(keys*each) || st.Unacknowledged != 0 {
				t.Errorf("%d events of %d keys: %+v", each, keys, st)
			}
			t.Logf("%d events, %d delivered again, %d handled again, %d moves, %d late", keys*each, st.Redelivered, l.again, st.Moved, st.Late)
		})
	}
}

// A partition does not move while its owner may still handle what it has, and gets
// nothing new meanwhile.
func TestEventsPartitionWaitsForItsOwner(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[int]{Partitions: 8})
	old := openEventMemberOf(t, openNode(t, dir, "old"), EventMemberConfig[int]{InFlight: 4})
	check(t, p.WaitMembers(ctx, 1))
	for n := range 10 * 8 {
		check(t, p.Publish(ctx, fmt.Append(nil, "k", n%20), n))
	}
	var has []Event[int]
	for range 4 * 8 {
		limited := shortContext(t)
		e, err := old.Receive(limited)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		check(t, err)
		has = append(has, e.Keep())
	}
	young := openEventMemberOf(t, openNode(t, dir, "young"), EventMemberConfig[int]{InFlight: 100})
	check(t, p.WaitMembers(ctx, 2))
	moving := p.Stats().Leaving
	if moving == 0 || moving == 8 {
		t.Fatalf("%d of 8 partitions are to move", moving)
	}
	if _, err := young.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the new member has an event that the old one may be handling: %v", err)
	}
	last := make(map[int]int) // by partition
	for i := range has {      // in the wrong order: what is behind a gap is not told
		e := has[len(has)-1-i]
		check(t, e.Ack())
		check(t, e.Ack()) // again, which is nothing
		last[e.Partition] = max(last[e.Partition], e.Value)
	}
	await(t, "the partitions to move", func() bool { return p.Stats().Leaving == 0 && p.Stats().Moved == uint64(moving) })
	got := 0
	for p.Stats().Unacknowledged > 0 && ctx.Err() == nil {
		for _, m := range []*EventMember[int]{old, young} {
			limited, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			for e, err := range m.Events(limited) {
				if err != nil {
					break
				}
				if e.Value <= last[e.Partition] || e.Redelivered() {
					t.Errorf("event %d of partition %d comes behind %d, deliveries %d", e.Value, e.Partition, last[e.Partition], e.Deliveries())
				}
				last[e.Partition] = e.Value
				check(t, e.Ack())
				got++
			}
			cancel()
		}
	}
	if got+len(has) != 80 {
		t.Errorf("%d and %d events, want 80", len(has), got)
	}
	if st := old.Stats(); st.InHand != 0 || st.Redelivered != 0 {
		t.Errorf("%+v", st)
	}
}

// Publish waits while its key's partition is full, and no other does.
func TestEventsBound(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[int]{Partitions: 2, Unacknowledged: fabric.HighWaterMark{Messages: 3}})
	full, other := []byte("a"), []byte("b")
	for i := 0; hash(other)%2 == hash(full)%2; i++ {
		other = fmt.Append(nil, "b", i)
	}
	for n := range 3 {
		check(t, p.Publish(ctx, full, n))
	}
	if err := p.Publish(shortContext(t), full, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	check(t, p.Publish(ctx, other, 0))
	if err := p.Flush(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() { check(t, p.Publish(ctx, full, 3)) })
	m := openEventMemberOf(t, openNode(t, dir, "m"), EventMemberConfig[int]{InFlight: 1})
	for n := range 5 {
		e, err := m.Receive(ctx)
		check(t, err)
		if m.Stats().InHand > 2 {
			t.Errorf("%d: %d in hand of two partitions", n, m.Stats().InHand)
		}
		check(t, e.Ack())
	}
	waiting.Wait()
	check(t, p.Flush(ctx))
	waiting.Go(func() {
		for n := range 4 {
			if err := p.Publish(ctx, full, n); err != nil && err != fabric.ErrClosed {
				t.Error(err)
			}
		}
	})
	await(t, "it to be full", func() bool { return p.Stats().Unacknowledged == 3 })
	var unacked *UnacknowledgedError
	if err := p.Close(); !errors.As(err, &unacked) || unacked.Events != 3 {
		t.Error(err)
	}
	waiting.Wait()
}

// What is in a program's hands of an older epoch is refused, and no more is taken than
// there is room for.
func TestEventHands(t *testing.T) {
	h := eventHands{byKey: make(map[handKey]*eventHand)}
	k := handKey{fabric.Address{Node: "p"}, 3}
	old := h.take(k, nil, 1, 7, 2)
	if h.take(k, nil, 1, 8, 2) != old || h.take(k, nil, 1, 9, 2) != nil {
		t.Error("a third event was taken where there is room for two")
	}
	check(t, old.ack(8)) // behind a gap, and so nobody is told
	young := h.take(k, nil, 2, 7, 2)
	if err := old.ack(7); err != ErrMoved || !old.isOver() || young == old {
		t.Errorf("%v", err)
	}
	if n, _ := h.busy(); n != 1 {
		t.Errorf("%d events in hand", n)
	}
	h.lose("other")
	if young.isOver() {
		t.Error("the publisher of another node is lost")
	}
	h.lose("p")
	if err := young.ack(7); lostPeer(err) == nil {
		t.Errorf("%v", err)
	}
	if n, _ := h.busy(); n != 0 || len(h.byKey) != 0 {
		t.Errorf("%d events in hand, of %d partitions", n, len(h.byKey))
	}
}

// BenchmarkEvents is events of a small struct by a thousand keys from one publisher to
// two members at other nodes, each acknowledged.
func BenchmarkEvents(b *testing.B) {
	ctx, dir := context.Background(), directory.NewRegistry()
	const members = 2
	var handling sync.WaitGroup
	for i := range members {
		m := openEventMemberOf(b, openNode(b, dir, fmt.Sprint("m", i)), EventMemberConfig[reading]{InFlight: 256, Publishers: 1})
		handling.Go(func() {
			for e, err := range m.Events(ctx) {
				check(b, err)
				check(b, e.Ack())
			}
		})
	}
	p := openEventPublisherOf(b, openNode(b, dir, "p"), EventPublisherConfig[reading]{})
	check(b, p.WaitMembers(ctx, members))
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = key(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := range b.N {
		if err := p.Publish(ctx, keys[n%len(keys)], aReading); err != nil {
			b.Fatal(err)
		}
	}
	check(b, p.Drain(ctx))
	handling.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
