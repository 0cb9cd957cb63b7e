package patterns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
			t.Fatal(err)
		}
		list = append(list, p.Value)
	}
	return list
}

func upTo0(from, to int) (list []int) {
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

func publish[T any](t testing.TB, p *Publisher[T], topic string, list ...T) {
	t.Helper()
	for _, v := range list {
		if err := p.Publish(testContext(t), topic, v); err != nil {
			t.Fatal(err)
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

var _ = errors.Is
var _ = fmt.Sprint
var _ = strings.Repeat
var _ context.Context
var _ time.Duration
