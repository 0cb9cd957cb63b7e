package patterns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// event is what a subscriber got: a message, or how many it missed.
type taken struct{ value, missed int }

// received is one step of a subscriber; done is its end.
func received(ctx context.Context, s *Subscriber[int]) (e taken, done bool, err error) {
	var missed *MissedError
	switch m, err := s.Receive(ctx); {
	case errors.As(err, &missed):
		return taken{missed: int(missed.Messages)}, false, nil
	case err == fabric.ErrEnd:
		return taken{}, true, nil
	default:
		return taken{value: m.Value}, false, err
	}
}

func eventsOf(t testing.TB, s *Subscriber[int], n int) (list []taken) {
	t.Helper()
	for range n {
		e, _, err := received(testContext(t), s)
		check(t, err)
		list = append(list, e)
	}
	return list
}

func expectEvents(t testing.TB, s *Subscriber[int], want ...taken) {
	t.Helper()
	if got := eventsOf(t, s, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What a subscriber has that is behind: the latest messages, the latest of each
// topic, or the first ones and how many are missing behind them.
func TestPubSubBehind(t *testing.T) {
	dir := directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	n := openNode(t, dir, "s")
	three := fabric.HighWaterMark{Messages: 3}
	latest := openSubscriberOf(t, n, SubscriberConfig[int]{Quality: Latest, Queue: three})
	last := openSubscriberOf(t, n, SubscriberConfig[int]{Quality: Latest, Conflate: true})
	bounded := openSubscriberOf(t, n, SubscriberConfig[int]{Queue: three}) // the publisher's default
	bytes := openSubscriberOf(t, n, SubscriberConfig[int]{Quality: Latest, Queue: fabric.HighWaterMark{Bytes: 2}})
	topics := []string{"a", "b", "c"}
	for i := range 10 {
		publish(t, p, topics[min(i, 9-i)%3], i) // abcab bacba
	}
	await(t, "all to be there", func() bool {
		return latest.Stats().Missed == 7 && bounded.Stats().Missed == 7 && last.Stats().Conflated == 7 && bytes.Stats().Missed == 8
	})
	expectEvents(t, latest, taken{value: 7}, taken{value: 8}, taken{value: 9})
	expectEvents(t, last, taken{value: 7}, taken{value: 8}, taken{value: 9})
	expectEvents(t, bytes, taken{value: 8}, taken{value: 9})
	expectEvents(t, bounded, taken{value: 0})
	publish(t, p, "d", 10) // has room, behind the gap
	await(t, "it to be there", func() bool { return bounded.Stats().Queued == 3 })
	publish(t, p, "d", 11, 12)
	await(t, "two more to be missed", func() bool { return bounded.Stats().Missed == 9 })
	expectEvents(t, bounded, taken{value: 1}, taken{value: 2}, taken{missed: 7}, taken{value: 10}, taken{missed: 2})
	publish(t, p, "d", 13)
	expectEvents(t, bounded, taken{value: 13})
	if st := bounded.Stats(); st.Received != 5 || st.Missed != 9 || st.Queued != 0 || st.QueuedBytes != 0 {
		t.Errorf("%+v", st)
	}
	if st := p.Stats(); st.Dropped > 0 {
		t.Errorf("%+v", st)
	}
}

// Publish waits for a reliable subscriber that has no room, and for nobody else.
func TestPubSubReliableWaits(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	n := openNode(t, dir, "s")
	for name, room := range map[string]fabric.HighWaterMark{"messages": {Messages: 8}, "bytes": {Bytes: 8}} {
		s := openSubscriberOf(t, n, SubscriberConfig[int]{Quality: Reliable, Queue: room, Filters: []Filter{Pattern("r")}})
		other := openSubscriberOf(t, n, SubscriberConfig[int]{Quality: Reliable, Filters: []Filter{Pattern("o")}})
		publish(t, p, "r", numbers(0, 8)...)
		if err := p.Publish(shortContext(t), "r", 99); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: without room: %v", name, err)
		}
		waited := make(chan error, 1)
		go func() { waited <- p.Publish(ctx, "r", 8) }()
		await(t, "it to wait", func() bool { return p.Stats().Waiting == 1 })
		publish(t, p, "o", 1)
		values(t, other, 1)
		if got := values(t, s, 9); !slices.Equal(got, numbers(0, 9)) {
			t.Errorf("%s: got %v", name, got)
		}
		check(t, <-waited)
		// A subscriber that goes lets go of who waits for it.
		publish(t, p, "r", numbers(0, 7)...)
		go func() { waited <- errors.Join(p.Publish(ctx, "r", 8), p.Publish(ctx, "r", 9)) }()
		await(t, "it to wait", func() bool { return p.Stats().Waiting == 1 })
		check(t, s.Close())
		check(t, <-waited)
		check(t, other.Close())
	}
}

// A publisher waits no longer than it is configured to. Who is evicted has all up to
// there, and a typed error; nobody else notices.
func TestPubSubEvicts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{Quality: Reliable, EvictAfter: 20 * time.Millisecond, Replay: 100})
	n := openNode(t, dir, "s")
	slow := openSubscriberOf(t, n, SubscriberConfig[int]{Queue: fabric.HighWaterMark{Messages: 4}})
	var reading sync.WaitGroup
	for range 2 {
		s := openSubscriberOf(t, n, SubscriberConfig[int]{Publishers: 1})
		reading.Go(func() {
			if got := rest(t, s); !slices.Equal(got, numbers(0, 50)) {
				t.Errorf("got %v", got)
			}
		})
	}
	publish(t, p, "a", numbers(0, 50)...)
	if got := values(t, slow, 4); !slices.Equal(got, numbers(0, 4)) {
		t.Errorf("got %v", got)
	}
	for range 2 {
		var evicted *EvictedError
		if _, err := slow.Receive(ctx); !errors.As(err, &evicted) || evicted.Publisher != p.Address() {
			t.Errorf("after eviction: %v", err)
		}
	}
	check(t, slow.Close())
	again := openSubscriberOf(t, n, SubscriberConfig[int]{Replay: 46, Publishers: 1})
	if st := p.Stats(); st.Evicted != 1 || st.Subscribers != 3 || st.Dropped > 0 {
		t.Errorf("%+v", st)
	}
	check(t, p.Drain(ctx))
	reading.Wait()
	if got := rest(t, again); !slices.Equal(got, numbers(4, 50)) {
		t.Errorf("got %v", got)
	}
}

// away are two nodes with a link between them that can be taken away.
type away struct {
	publisher, subscriber *fabric.Node
	relays                []*relay
}

func openAway(t testing.TB, dir directory.Service) *away {
	a := &away{relays: []*relay{newRelay(t, dir), newRelay(t, dir)}}
	a.publisher = openRelayed(t, a.relays[0], fabric.Config{Name: "p"})
	a.subscriber = openRelayed(t, a.relays[1], fabric.Config{Name: "s"})
	return a
}

func (a *away) hide(hidden bool) {
	for _, r := range a.relays {
		r.hide(hidden)
	}
}

// following checks a subscriber's events up to its end: values grow by step, but for
// what is said to be missing; it returns how many came, and the last one.
func following(t testing.TB, s *Subscriber[int], first, step int) (came, last int) {
	t.Helper()
	next := first
	for {
		e, done, err := received(testContext(t), s)
		switch {
		case err != nil:
			t.Error(err)
			return came, next - step
		case done:
			return came, next - step
		case e.missed > 0:
			next += e.missed * step
		default:
			if e.value != next {
				t.Errorf("got %d, want %d", e.value, next)
				return came, next - step
			}
			next += step
			came++
		}
	}
}

// While a node is away its messages wait at the publisher, within the bounds: what is
// dropped there is counted for each of the node's subscribers, by its own filters
// and quality; and the latest get through. Subscribers elsewhere notice nothing.
func TestPubSubNodeAway(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a := openAway(t, dir)
	p := openPublisherOf(t, a.publisher, PublisherConfig[int]{
		HighWaterMark: fabric.HighWaterMark{Messages: 20}, Backlog: fabric.HighWaterMark{Messages: 10},
	})
	on := func(q Quality, filters ...Filter) *Subscriber[int] {
		return openSubscriberOf(t, a.subscriber, SubscriberConfig[int]{Quality: q, Filters: filters, Publishers: 1})
	}
	even, odd, all := on(BoundedDrop, Pattern("*.even")), on(BoundedDrop, Pattern("*.odd")), on(BoundedDrop, Prefix("n"))
	latest := on(Latest, Prefix("n"))
	reliable := on(Reliable, Pattern("r"))
	last := openSubscriberOf(t, a.subscriber, SubscriberConfig[int]{Quality: Latest, Conflate: true, Filters: []Filter{Pattern("last.*")}, Publishers: 1})
	near := openSubscriberOf(t, a.publisher, SubscriberConfig[int]{Quality: Reliable, Publishers: 1, Filters: []Filter{Prefix("n")}})
	var reading sync.WaitGroup
	const messages = 2000
	reading.Go(func() {
		if got := rest(t, near); !slices.Equal(got, numbers(0, messages)) {
			t.Errorf("near: got %d", len(got))
		}
	})
	publish(t, p, "n.even", 0)
	check(t, p.Flush(ctx))
	a.hide(true)
	for i := 1; i < messages; i++ {
		publish(t, p, []string{"n.even", "n.odd"}[i%2], i)
		if i%100 == 0 {
			publish(t, p, "r", i/100)
			publish(t, p, fmt.Sprint("last.", i%300), i) // of three topics
		}
	}
	if err := p.Flush(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flush while the node is away: %v", err)
	}
	st := p.Stats()
	var far PublisherNodeStats
	for _, n := range st.Nodes {
		if n.Address.Node == "s" {
			far = n
		}
	}
	// Reliable ones wait besides, and the last of each topic.
	if far.Backlog > 10+3+messages/100 || far.Backlog < 10 || far.Dropped != st.Dropped || st.Dropped == 0 {
		t.Errorf("%+v", st)
	}
	a.hide(false)
	check(t, p.Drain(ctx))
	reading.Wait()
	for name, c := range map[string]struct {
		s           *Subscriber[int]
		first, step int
	}{"even": {even, 0, 2}, "odd": {odd, 1, 2}, "all": {all, 0, 1}} {
		came, at := following(t, c.s, c.first, c.step)
		st := c.s.Stats()
		if at < messages-2 || came == 0 || st.Missed == 0 || came+int(st.Missed) != messages/c.step {
			t.Errorf("%s: %d came, the last one is %d: %+v", name, came, at, st)
		}
	}
	got := rest(t, latest)
	if st := latest.Stats(); got[len(got)-1] != messages-1 || len(got)+int(st.Missed) != messages || !slices.IsSorted(got) {
		t.Errorf("latest: %v, %+v", got, st)
	}
	if got := rest(t, reliable); !slices.Equal(got, numbers(1, messages/100)) {
		t.Errorf("reliable: %v", got)
	}
	got = rest(t, last)
	if n := len(got); n < 3 || !slices.Equal(got[n-3:], []int{1700, 1800, 1900}) {
		t.Errorf("last of each topic: %v", got)
	}
	if st := p.Stats(); uint64(len(got))+last.Stats().Missed+st.Conflated+last.Stats().Conflated != 19 {
		t.Errorf("of 19 messages %d came: %+v, %+v", len(got), last.Stats(), st)
	}
}

// Links that are cut five times a second lose nothing beyond what the qualities say.
func TestPubSubThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a := openAway(t, dir)
	p := openPublisherOf(t, a.publisher, PublisherConfig[int]{Backlog: fabric.HighWaterMark{Messages: 100}})
	reliable := openSubscriberOf(t, a.subscriber, SubscriberConfig[int]{Quality: Reliable, Publishers: 1, Filters: []Filter{Pattern("r")}})
	bounded := openSubscriberOf(t, a.subscriber, SubscriberConfig[int]{Quality: BoundedDrop, Publishers: 1, Filters: []Filter{Pattern("b")}})
	latest := openSubscriberOf(t, a.subscriber, SubscriberConfig[int]{Quality: Latest, Publishers: 1, Filters: []Filter{Pattern("b")}})
	var reading sync.WaitGroup
	var got, news []int
	var came, at int
	reading.Go(func() { got = rest(t, reliable) })
	reading.Go(func() { came, at = following(t, bounded, 0, 1) })
	reading.Go(func() { news = rest(t, latest) })
	const each, times = 200 * time.Millisecond, 6
	var stops []func() int
	for _, r := range a.relays {
		stops = append(stops, r.cutEvery(each))
	}
	over, joined := make(chan struct{}), make(chan struct{})
	reading.Go(func() { // who comes and goes meanwhile
		defer close(joined)
		for {
			select {
			case <-over:
				return
			default:
			}
			s, err := OpenSubscriber(ctx, a.subscriber, SubscriberConfig[int]{Channel: "news", Quality: Reliable, Filters: []Filter{Pattern("r")}})
			if err != nil {
				t.Error(err)
				return
			}
			m, err := s.Receive(ctx)
			next, again := s.Receive(ctx)
			if err := errors.Join(err, again, s.Close()); err != nil || next.Value != m.Value+1 {
				t.Errorf("got %d after %d: %v", next.Value, m.Value, err)
				return
			}
		}
	})
	messages := 0
	for began := time.Now(); time.Since(began) < times*each; messages++ {
		publish(t, p, "r", messages)
		publish(t, p, "b", messages)
	}
	close(over)
	for i, waiting := messages, true; waiting; i++ { // the last one to come may wait for two messages
		select {
		case <-joined:
			waiting = false
		default:
			publish(t, p, "r", i)
		}
	}
	cuts := 0
	for _, stop := range stops {
		cuts += stop()
	}
	check(t, p.Drain(ctx))
	reading.Wait()
	if len(got) < messages || !slices.Equal(got, numbers(0, len(got))) {
		t.Errorf("reliable: %d of %d", len(got), messages)
	}
	st := bounded.Stats()
	if came+int(st.Missed) != messages {
		t.Errorf("bounded: %d came, the last one %d, %+v of %d", came, at, st, messages)
	}
	lst := latest.Stats()
	if len(news)+int(lst.Missed) != messages || news[len(news)-1] != messages-1 || !slices.IsSorted(news) {
		t.Errorf("latest: %d came, %+v of %d", len(news), lst, messages)
	}
	if cuts < times/2 || p.Stats().Evicted+p.Stats().Malformed > 0 {
		t.Errorf("%d cuts, %+v", cuts, p.Stats())
	}
	t.Logf("%d messages to each through %d cuts; %d and %d missed", messages, cuts, st.Missed, lst.Missed)
}
