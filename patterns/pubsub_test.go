package patterns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func openPublisherOf[T any](t testing.TB, n *fabric.Node, cfg PublisherConfig[T]) *Publisher[T] {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "news"
	}
	p, err := OpenPublisher(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func openSubscriberOf[T any](t testing.TB, n *fabric.Node, cfg SubscriberConfig[T]) *Subscriber[T] {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "news"
	}
	if cfg.Filters == nil {
		cfg.Filters = []Filter{Prefix("")}
	}
	s, err := OpenSubscriber(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// get receives a message that must come.
func get[T any](t testing.TB, s *Subscriber[T]) Publication[T] {
	t.Helper()
	p, err := s.Receive(testContext(t))
	if err != nil {
		t.Fatalf("no message: %v", err)
	}
	return p
}

// values receives n messages, and nothing else.
func values[T any](t testing.TB, s *Subscriber[T], n int) (list []T) {
	t.Helper()
	for range n {
		list = append(list, get(t, s).Value)
	}
	return list
}

// rest receives what there is until the end.
func rest[T any](t testing.TB, s *Subscriber[T]) (list []T) {
	t.Helper()
	for p, err := range s.Messages(testContext(t)) {
		if err != nil {
			t.Error(err)
			break
		}
		list = append(list, p.Value)
	}
	return list
}

func numbers(from, to int) (list []int) {
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

func publish[T any](t testing.TB, p *Publisher[T], topic string, list ...T) {
	t.Helper()
	for _, v := range list {
		if err := p.Publish(testContext(t), topic, v); err != nil {
			t.Error(err)
			return
		}
	}
}

// Each subscriber gets what its filters take, once, in order, on whatever node; also
// on the publisher's own.
func TestPubSub(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	home := openNode(t, dir, "p")
	p := openPublisherOf(t, home, PublisherConfig[int]{})
	nodes := []*fabric.Node{home, openNode(t, dir, "s1"), openNode(t, dir, "s2")}
	wants := [][]Filter{
		{Prefix("")}, {Prefix("a.b")}, {Pattern("a.*")}, {Pattern("a.>")}, {Pattern("*.c"), Prefix("b"), Pattern(">")}, {Pattern("x.y")},
	}
	type reader struct {
		*Subscriber[int]
		filters []Filter
	}
	var readers []reader
	for _, n := range nodes {
		for _, filters := range wants {
			readers = append(readers, reader{openSubscriberOf(t, n, SubscriberConfig[int]{Filters: filters, Quality: Reliable, Publishers: 1}), filters})
		}
	}
	check(t, p.WaitSubscribers(ctx, len(readers)))
	topics := []string{"a.b", "a.c", "a.bc.d", "b.c", "a", "x"}
	const messages = 600
	var running sync.WaitGroup
	for _, r := range readers {
		running.Go(func() {
			var want []int
			for i := range messages {
				if anyMatches(r.filters, topics[i%len(topics)]) {
					want = append(want, i)
				}
			}
			if got := rest(t, r.Subscriber); !slices.Equal(got, want) {
				t.Errorf("%v: got %d, want %d: %v", r.filters, len(got), len(want), got)
			}
		})
	}
	for i := range messages {
		publish(t, p, topics[i%len(topics)], i)
	}
	check(t, p.Drain(ctx))
	running.Wait()
	if st := p.Stats(); st.Published != messages || st.Copies > messages*3 || st.Dropped+st.Evicted+st.Malformed > 0 {
		t.Errorf("%+v", st)
	}
	if err := p.Publish(ctx, "a", 1); err != fabric.ErrClosed {
		t.Errorf("after Drain: %v", err)
	}
}

// linkBytes is what a node has sent to all others.
func linkBytes(n *fabric.Node) (sum uint64) {
	for _, l := range n.Stats().Links {
		sum += l.BytesOut
	}
	return sum
}

// What goes over links grows with the nodes that want it, and not with their
// subscribers; and to a node that does not want it nothing goes.
func TestPubSubOneCopyPerNode(t *testing.T) {
	const nodes, messages = 4, 500
	body := make([]byte, 1000)
	run := func(each int) uint64 {
		ctx, dir := testContext(t), directory.NewRegistry()
		home := openNode(t, dir, "p")
		p := openPublisherOf(t, home, PublisherConfig[[]byte]{})
		var running sync.WaitGroup
		for i := range nodes {
			n := openNode(t, dir, fmt.Sprint("s", i))
			for range each {
				s := openSubscriberOf(t, n, SubscriberConfig[[]byte]{Filters: []Filter{Pattern("a.*")}, Quality: Reliable, Publishers: 1})
				running.Go(func() {
					if got := len(rest(t, s)); got != messages {
						t.Errorf("%d messages, want %d", got, messages)
					}
				})
			}
		}
		other := openNode(t, dir, "other")
		openSubscriberOf(t, other, SubscriberConfig[[]byte]{Filters: []Filter{Pattern("b.*")}})
		for range messages {
			publish(t, p, "a.x", body)
		}
		check(t, p.Drain(ctx))
		running.Wait()
		if st := p.Stats(); st.Copies != nodes*messages {
			t.Errorf("%d copies for %d subscribers at each of %d nodes", st.Copies, each, nodes)
		}
		for _, s := range other.Stats().Streams {
			if s.Channel == "news" && s.Messages > 5 { // hello, and words about the subscription
				t.Errorf("a node that wants nothing got %d messages", s.Messages)
			}
		}
		return linkBytes(home)
	}
	one, many := run(1), run(25)
	t.Logf("%d messages of %d bytes to %d nodes: %d bytes with one subscriber at each, %d with 25", messages, len(body), nodes, one, many)
	if least := uint64(nodes * messages * len(body)); one < least || many > one+one/20 {
		t.Errorf("%d bytes with one subscriber at each node, %d with 25: more than 5 %% more", one, many)
	}
}

// Whatever is published once OpenSubscriber has returned reaches the subscriber,
// from publishers that were there and from those that come later.
func TestPubSubNoSlowJoiner(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	first := openPublisherOf(t, openNode(t, dir, "p1"), PublisherConfig[string]{})
	near, far := openNode(t, dir, "s1"), openNode(t, dir, "s2")
	for i := range 30 {
		s := openSubscriberOf(t, []*fabric.Node{near, far}[i%2], SubscriberConfig[string]{})
		publish(t, first, "a", fmt.Sprint(i))
		if got := get(t, s); got.Value != fmt.Sprint(i) || got.Topic != "a" || got.Replayed || got.Publisher != first.Address() {
			t.Fatalf("%d: got %+v", i, got)
		}
		if i%3 > 0 {
			check(t, s.Close())
		}
	}
	second := openPublisherOf(t, openNode(t, dir, "p2"), PublisherConfig[string]{})
	check(t, second.WaitSubscribers(ctx, 10))
	s := openSubscriberOf(t, near, SubscriberConfig[string]{})
	publish(t, second, "b", "second")
	publish(t, first, "b", "first")
	got := values(t, s, 2)
	slices.Sort(got)
	if !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("got %v", got)
	}
	if st := s.Stats(); st.Publishers != 2 || st.Received != 2 || st.Missed > 0 {
		t.Errorf("%+v", st)
	}
}

// The same where nodes know the channel already, and are a moment behind the
// directory.
func TestPubSubNoSlowJoinerAtBusyNodes(t *testing.T) {
	dir := directory.NewRegistry()
	nodes := []*fabric.Node{openNode(t, dir, "n1"), openNode(t, dir, "n2")}
	for i := range 100 {
		p := openPublisherOf(t, nodes[i%2], PublisherConfig[int]{})
		s := openSubscriberOf(t, nodes[i/2%2], SubscriberConfig[int]{Publishers: 1})
		publish(t, p, "a", i)
		check(t, p.Close())
		if got := rest(t, s); !slices.Equal(got, []int{i}) {
			t.Fatalf("got %v, want %d: %+v, %+v", got, i, p.Stats(), s.Stats())
		}
		check(t, s.Close())
	}
}

func TestPubSubWaitSubscribers(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	if err := p.WaitSubscribers(shortContext(t), 1); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "0 of 1") {
		t.Error(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- p.WaitSubscribers(ctx, 2) }()
	n := openNode(t, dir, "s")
	openSubscriberOf(t, n, SubscriberConfig[int]{})
	s := openSubscriberOf(t, n, SubscriberConfig[int]{})
	check(t, <-waited)
	check(t, s.Close())
	await(t, "the publisher to know", func() bool { return p.Stats().Subscribers == 1 })
	check(t, p.Close())
	if err := p.WaitSubscribers(ctx, 2); err != fabric.ErrClosed {
		t.Error(err)
	}
}

// Who joins late gets the last value of each topic, in the order of publishing, or
// the last messages; then what is published from then on. It comes besides what the
// queue holds.
func TestPubSubThePast(t *testing.T) {
	dir := directory.NewRegistry()
	home, n := openNode(t, dir, "p"), openNode(t, dir, "s")
	channels := 0
	for name, c := range map[string]struct {
		cfg  SubscriberConfig[int]
		want []int
	}{
		"the last of each topic":    {SubscriberConfig[int]{Retained: true}, []int{6, 7, 8}}, // of three topics
		"of those that it wants":    {SubscriberConfig[int]{Retained: true, Filters: []Filter{Pattern("d"), Prefix("f")}}, []int{6, 8}},
		"the last messages":         {SubscriberConfig[int]{Replay: 3}, []int{6, 7, 8}},
		"as many as there are":      {SubscriberConfig[int]{Replay: 1000}, []int{4, 5, 6, 7, 8}},
		"of those, that it wants":   {SubscriberConfig[int]{Replay: 2, Filters: []Filter{Prefix("b"), Pattern("*.1"), Pattern("d"), Pattern("f")}}, []int{6, 8}},
		"nothing, if not asked for": {SubscriberConfig[int]{}, nil},
	} {
		for _, q := range []Quality{Latest, BoundedDrop, Reliable} {
			channels++
			channel := fmt.Sprint("news", channels)
			p := openPublisherOf(t, home, PublisherConfig[int]{Channel: channel, Retain: 3, Replay: 5})
			for i, topic := range strings.Fields("a b.1 c b.2 b.1 d d e f") {
				publish(t, p, topic, i)
			}
			c.cfg.Channel, c.cfg.Quality, c.cfg.Queue.Messages = channel, q, 1
			s := openSubscriberOf(t, n, c.cfg)
			publish(t, p, "f", 9)
			for i, want := range append(c.want, 9) {
				if m := get(t, s); m.Value != want || m.Replayed != (i < len(c.want)) {
					t.Errorf("%s, %s: got %+v, want %d", name, q, m, want)
				}
			}
			if st := p.Stats(); st.Retained != 3 || st.Kept != 5 || st.Replayed != uint64(len(c.want)) {
				t.Errorf("%+v", st)
			}
			check(t, s.Close())
			check(t, p.Close())
		}
	}
}

// Between what is replayed and what is live there is no gap and no duplicate,
// whatever is published while somebody joins, and whoever else is at the node.
func TestPubSubReplayMeetsLive(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const replay = 50
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{Replay: replay})
	n := openNode(t, dir, "s")
	var publishing, reading sync.WaitGroup
	stop := make(chan struct{})
	publishing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				publish(t, p, "a", i)
			}
		}
	})
	for range 20 {
		await(t, "some to be published", func() bool { return p.Stats().Kept == replay })
		s := openSubscriberOf(t, n, SubscriberConfig[int]{Quality: Reliable, Replay: replay, Publishers: 1})
		reading.Go(func() {
			next, live := -1, 0
			for m, err := range s.Messages(ctx) {
				if err != nil {
					t.Error(err)
					return
				}
				if next >= 0 && m.Value != next || m.Replayed && live > 0 {
					t.Errorf("got %d (replayed: %v) after %d, %d live ones", m.Value, m.Replayed, next-1, live)
					return
				}
				next = m.Value + 1
				if !m.Replayed {
					live++
				}
				if live == 500 {
					check(t, s.Close())
					return
				}
			}
		})
	}
	reading.Wait()
	close(stop)
	publishing.Wait()
	if st := p.Stats(); st.Replayed != 20*replay || st.Dropped > 0 {
		t.Errorf("%+v", st)
	}
}

// A subscriber that drains gets what was published before, and its end; the other
// ones go on.
func TestPubSubSubscriberDrains(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	n := openNode(t, dir, "s")
	s, stays := openSubscriberOf(t, n, SubscriberConfig[int]{}), openSubscriberOf(t, n, SubscriberConfig[int]{})
	publish(t, p, "a", numbers(0, 100)...)
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx) }()
	if got := rest(t, s); !slices.Equal(got, numbers(0, 100)) {
		t.Errorf("got %v", got)
	}
	check(t, <-drained)
	if _, err := s.Receive(ctx); err != fabric.ErrClosed {
		t.Errorf("after Drain: %v", err)
	}
	publish(t, p, "a", 100)
	if got := values(t, stays, 101); !slices.Equal(got, numbers(0, 101)) {
		t.Errorf("got %v", got)
	}
	// Nobody reads: it ends with its context.
	publish(t, p, "a", 101)
	if err := stays.Drain(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody reads: %v", err)
	}
}

// Several publishers, also at one node; each one's order holds, and the end comes
// when all that were promised have finished.
func TestPubSubManyPublishers(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const each = 500
	home := openNode(t, dir, "p")
	var publishers []*Publisher[int]
	for _, n := range []*fabric.Node{home, home, openNode(t, dir, "q")} {
		publishers = append(publishers, openPublisherOf(t, n, PublisherConfig[int]{Quality: Reliable}))
	}
	s := openSubscriberOf(t, openNode(t, dir, "s"), SubscriberConfig[int]{Publishers: len(publishers), Queue: fabric.HighWaterMark{Messages: 10}})
	var publishing sync.WaitGroup
	for _, p := range publishers {
		publishing.Go(func() {
			publish(t, p, "a", numbers(0, each)...)
			check(t, p.Drain(ctx))
		})
	}
	got := make(map[fabric.Address][]int)
	for m, err := range s.Messages(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got[m.Publisher] = append(got[m.Publisher], m.Value)
	}
	publishing.Wait()
	for _, p := range publishers {
		if !slices.Equal(got[p.Address()], numbers(0, each)) {
			t.Errorf("%s: %v", p.Address(), got[p.Address()])
		}
	}
}

func TestPubSubRaw(t *testing.T) {
	dir := directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[[]byte]{})
	n := openNode(t, dir, "s")
	a, b := openSubscriberOf(t, n, SubscriberConfig[[]byte]{}), openSubscriberOf(t, n, SubscriberConfig[[]byte]{})
	for _, size := range []int{0, 1, 100, bufferMin, 1 << 20} {
		body := []byte(strings.Repeat("x", size))
		publish(t, p, "a", body)
		clear(body) // it was copied
		first, second := get(t, a), get(t, b)
		if string(first.Value) != strings.Repeat("x", size) || string(second.Value) != string(first.Value) {
			t.Errorf("%d bytes: got %d and %d", size, len(first.Value), len(second.Value))
		}
		if kept := first.Keep(); size > 0 {
			kept.Value[0] = 'y'
			if second.Value[0] != 'x' {
				t.Error("Keep does not copy")
			}
		}
	}
}
