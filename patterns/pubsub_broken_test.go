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

// A subscriber is told that a publisher's node is lost, gets from the others, and
// from the next life of that one.
func TestPubSubPublisherLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	dies := openNode(t, dir, "dies")
	p, other := openPublisherOf(t, dies, PublisherConfig[int]{}), openPublisherOf(t, openNode(t, dir, "other"), PublisherConfig[int]{})
	n := openNode(t, dir, "s")
	subscribers := []*Subscriber[int]{
		openSubscriberOf(t, n, SubscriberConfig[int]{}),
		openSubscriberOf(t, n, SubscriberConfig[int]{Filters: []Filter{Pattern("b")}}),
	}
	publish(t, p, "b", 1)
	for _, s := range subscribers {
		values(t, s, 1)
	}
	check(t, dies.Close())
	for _, s := range subscribers {
		if _, err := s.Receive(ctx); lostPeer(err) == nil || lostPeer(err).Node != "dies" {
			t.Errorf("lost: %v", err)
		}
	}
	publish(t, other, "b", 2)
	again := openPublisherOf(t, openNode(t, dir, "dies"), PublisherConfig[int]{})
	check(t, again.WaitSubscribers(ctx, 2))
	for _, s := range subscribers {
		values(t, s, 1)
	}
	publish(t, again, "b", 3)
	for _, s := range subscribers {
		if m := get(t, s); m.Value != 3 || m.Publisher.Node != "dies" {
			t.Errorf("got %+v", m)
		}
		if st := s.Stats(); st.Publishers != 2 || st.Missed > 0 {
			t.Errorf("%+v", st)
		}
	}
	if err := p.Publish(ctx, "b", 1); err != nil { // to nobody
		t.Error(err)
	}
}

// One that had finished is not lost.
func TestPubSubPublisherGoneAfterItsLastWord(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	goes := openNode(t, dir, "goes")
	p, stays := openPublisherOf(t, goes, PublisherConfig[int]{}), openPublisherOf(t, openNode(t, dir, "stays"), PublisherConfig[int]{})
	s := openSubscriberOf(t, openNode(t, dir, "s"), SubscriberConfig[int]{Publishers: 2})
	publish(t, p, "a", 1)
	check(t, p.Close())
	check(t, goes.Close())
	values(t, s, 1)
	publish(t, stays, "a", 2)
	check(t, stays.Drain(ctx))
	if got := rest(t, s); !slices.Equal(got, []int{2}) {
		t.Errorf("got %v", got)
	}
}

// A publisher forgets the subscribers of a lost node at once, and waits for none of
// them.
func TestPubSubSubscriberLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	dies := openNode(t, dir, "dies")
	s := openSubscriberOf(t, dies, SubscriberConfig[int]{Quality: Reliable, Queue: fabric.HighWaterMark{Messages: 1}})
	stays := openSubscriberOf(t, openNode(t, dir, "stays"), SubscriberConfig[int]{Quality: Reliable, Publishers: 1})
	publish(t, p, "a", 0)
	published := make(chan error, 1)
	go func() { published <- p.Publish(ctx, "a", 1) }()
	await(t, "it to wait", func() bool { return p.Stats().Waiting == 1 })
	check(t, dies.Close())
	check(t, <-published)
	if st := p.Stats(); st.Subscribers != 1 || len(st.Nodes) != 1 {
		t.Errorf("%+v", st)
	}
	if got := values(t, s, 1); got[0] != 0 {
		t.Errorf("got %v", got)
	}
	if _, err := s.Receive(ctx); err != fabric.ErrClosed {
		t.Errorf("after its node was closed: %v", err)
	}
	check(t, p.Drain(ctx))
	if got := rest(t, stays); !slices.Equal(got, numbers(0, 2)) {
		t.Errorf("got %v", got)
	}
}

// A link that stays away for longer than the resume window is a loss, of which both
// ends hear; when it is back, all goes on.
func TestPubSubLinkLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a := &away{relays: []*relay{newRelay(t, dir), newRelay(t, dir)}}
	short := fabric.Config{ResumeWindow: 200 * time.Millisecond, HeartbeatInterval: 50 * time.Millisecond, HeartbeatTimeout: 5 * time.Second}
	short.Name = "p"
	a.publisher = openRelayed(t, a.relays[0], short)
	short.Name = "s"
	a.subscriber = openRelayed(t, a.relays[1], short)
	p := openPublisherOf(t, a.publisher, PublisherConfig[int]{})
	s := openSubscriberOf(t, a.subscriber, SubscriberConfig[int]{Quality: Reliable})
	publish(t, p, "a", 1)
	values(t, s, 1)
	a.hide(true)
	if _, err := s.Receive(ctx); lostPeer(err) == nil || lostPeer(err).Node != "p" {
		t.Errorf("lost: %v", err)
	}
	await(t, "the publisher to forget", func() bool { return p.Stats().Subscribers == 0 })
	publish(t, p, "a", 2) // to nobody
	a.hide(false)
	check(t, p.WaitSubscribers(ctx, 1))
	publish(t, p, "a", 3)
	for {
		m, err := s.Receive(ctx)
		if lostPeer(err) != nil {
			continue // both ends may find the loss, one after the other
		}
		check(t, err)
		if m.Value != 3 {
			t.Errorf("got %d", m.Value)
		}
		break
	}
}

// Messages of another type are typed errors, and no harm to others; so are codecs
// that fail or panic.
func TestPubSubBadMessages(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[string]{Codec: failing{}})
	n := openNode(t, dir, "s")
	s := openSubscriberOf(t, n, SubscriberConfig[string]{Codec: failing{}, Quality: Reliable, Queue: fabric.HighWaterMark{Messages: 2}})
	typed := openSubscriberOf(t, n, SubscriberConfig[int]{})
	var bad *CodecError
	for _, v := range []string{"fails", "panics"} {
		if err := p.Publish(ctx, "a", v); !errors.As(err, &bad) || bad.Decoding {
			t.Errorf("%s: %v", v, err)
		}
	}
	for i := range 10 { // more than there is room for: what cannot be decoded is handled, too
		publish(t, p, "a", fmt.Sprint("good", i))
		if got := get(t, s); got.Value != fmt.Sprint("good", i) {
			t.Errorf("got %+v", got)
		}
		if m, err := typed.Receive(ctx); !errors.As(err, &bad) || !bad.Decoding || m.Topic != "a" || m.Publisher != p.Address() {
			t.Errorf("of another type: %+v, %v", m, err)
		}
	}
	if st := typed.Stats(); st.Undecodable != 10 || st.Received != 10 {
		t.Errorf("%+v", st)
	}
	var topic *TopicError
	for _, name := range []string{"", "a..b", "a.*", ">", strings.Repeat("x", 256)} {
		if err := p.Publish(ctx, name, "good"); !errors.As(err, &topic) {
			t.Errorf("topic %q: %v", name, err)
		}
	}
	if st := p.Stats(); st.Published != 10 {
		t.Errorf("%+v", st)
	}
}

// A message that one node does not take reaches all others; who should have had it
// is told, and room for it comes back.
func TestPubSubTooLarge(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[[]byte]{})
	small := openNodeOf(t, fabric.Config{Name: "small", Directory: dir, MaxMessage: 2 << 10})
	cfg := SubscriberConfig[[]byte]{Quality: Reliable, Queue: fabric.HighWaterMark{Messages: 2}}
	s, large := openSubscriberOf(t, small, cfg), openSubscriberOf(t, openNode(t, dir, "large"), cfg)
	var tooLarge *fabric.TooLargeError
	for range 5 {
		if err := p.Publish(ctx, "a", make([]byte, 4<<10)); !errors.As(err, &tooLarge) {
			t.Fatalf("too large: %v", err)
		}
		if got := get(t, large); len(got.Value) != 4<<10 {
			t.Errorf("got %d bytes", len(got.Value))
		}
		var missed *MissedError
		if _, err := s.Receive(ctx); !errors.As(err, &missed) || missed.Messages != 1 {
			t.Errorf("got %v", err)
		}
	}
	publish(t, p, "a", []byte("good"))
	if got := get(t, s); string(got.Value) != "good" {
		t.Errorf("got %q", got.Value)
	}
	if st := p.Stats(); st.Dropped != 5 {
		t.Errorf("%+v", st)
	}
}

// A node that takes not even a hello has no subscribers, and nobody else notices.
func TestPubSubNodeThatTakesNothing(t *testing.T) {
	dir := directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	tiny := openNodeOf(t, fabric.Config{Name: "tiny", Directory: dir, MaxMessage: 4})
	var e *UnconfirmedError
	if _, err := OpenSubscriber(shortContext(t), tiny, SubscriberConfig[int]{Channel: "news", Filters: []Filter{Prefix("")}}); !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
	s := openSubscriberOf(t, openNode(t, dir, "s"), SubscriberConfig[int]{})
	publish(t, p, "a", 1)
	values(t, s, 1)
}

// A message that is found to be too large only after it had to wait.
func TestPubSubTooLargeLater(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a := &away{relays: []*relay{newRelay(t, dir), newRelay(t, dir)}}
	a.publisher = openRelayed(t, a.relays[0], fabric.Config{Name: "p"})
	a.subscriber = openRelayed(t, a.relays[1], fabric.Config{Name: "s", MaxMessage: 2 << 10})
	p := openPublisherOf(t, a.publisher, PublisherConfig[int]{HighWaterMark: fabric.HighWaterMark{Messages: 4}, Codec: padded{}})
	cfg := SubscriberConfig[int]{Quality: Reliable, Publishers: 1, Queue: fabric.HighWaterMark{Messages: 20}, Codec: padded{}}
	s := openSubscriberOf(t, a.subscriber, cfg)
	a.hide(true)
	publish(t, p, "a", numbers(0, 20)...)
	a.hide(false)
	await(t, "room", func() bool { return p.Stats().Nodes[0].Backlog == 0 })
	check(t, p.Drain(ctx))
	came, at := following(t, s, 0, 1)
	if st := s.Stats(); came != 18 || at != 19 || st.Missed != 2 {
		t.Errorf("%d came, the last one %d, %+v", came, at, st)
	}
}

// padded is a codec by which every tenth number is large.
type padded struct{}

func (padded) Append(dst []byte, v int) ([]byte, error) {
	dst = append(dst, byte(v))
	if v%10 == 7 {
		dst = append(dst, make([]byte, 4<<10)...)
	}
	return dst, nil
}

func (padded) Decode(src []byte, v *int) error {
	*v = int(src[0])
	return nil
}

// OpenSubscriber says who has not confirmed.
func TestPubSubUnconfirmed(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	silent := openNode(t, dir, "silent")
	c, err := silent.Consumer(ctx, "news.subs", fabric.ConsumerConfig{})
	check(t, err)
	n := openNode(t, dir, "s")
	var e *UnconfirmedError
	cfg := SubscriberConfig[int]{Channel: "news", Filters: []Filter{Prefix("")}}
	if _, err := OpenSubscriber(shortContext(t), n, cfg); !errors.As(err, &e) || !slices.Equal(e.Nodes, []string{"silent"}) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		s, err := OpenSubscriber(ctx, n, cfg)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	check(t, c.Close()) // it is none any more
	check(t, <-opened)
}

// Publishers that close with messages for a node that is behind say how many; and
// the subscriber does not take them for finished.
func TestPubSubUndelivered(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a := openAway(t, dir)
	p := openPublisherOf(t, a.publisher, PublisherConfig[int]{HighWaterMark: fabric.HighWaterMark{Messages: 5}})
	s := openSubscriberOf(t, a.subscriber, SubscriberConfig[int]{Publishers: 1})
	check(t, p.Flush(ctx))
	a.hide(true)
	publish(t, p, "a", numbers(0, 10)...)
	var left *UndeliveredError
	// The stream may still hold what was said of the subscription.
	if err := p.Close(); !errors.As(err, &left) || left.Messages < 5 || left.Messages > 8 || !slices.Equal(left.Nodes, []string{"s"}) {
		t.Fatalf("got %v", err)
	}
	a.hide(false)
	if sent := 10 - left.Messages; !slices.Equal(values(t, s, sent), numbers(0, sent)) {
		t.Error("others came than were sent")
	}
	check(t, a.publisher.Close())
	if _, err := s.Receive(ctx); lostPeer(err) == nil {
		t.Errorf("got %v", err)
	}
}

// The subscribers of one node and channel share one hub, however they come and go,
// and it goes with the last one.
func TestPubSubHubIsShared(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	n := openNode(t, dir, "s")
	var coming sync.WaitGroup
	for i := range 16 {
		coming.Go(func() {
			for range 10 {
				opening, cancel := context.WithCancel(ctx)
				if i%4 == 0 {
					go cancel() // some give up in the middle
				}
				s, err := OpenSubscriber(opening, n, SubscriberConfig[int]{Channel: "news", Filters: []Filter{Prefix("")}})
				cancel()
				if err != nil && (i%4 > 0 || !errors.Is(err, context.Canceled)) {
					t.Error(err)
				}
				if err == nil {
					check(t, s.Close())
				}
			}
		})
	}
	coming.Wait()
	await(t, "the publisher to know", func() bool { return p.Stats().Subscribers == 0 })
	s, other := openSubscriberOf(t, n, SubscriberConfig[int]{}), openSubscriberOf(t, n, SubscriberConfig[int]{})
	if s.core.hub != other.core.hub {
		t.Error("two hubs at one node")
	}
	members, err := n.Directory().Members(ctx, "news")
	check(t, err)
	if len(members) != 2 {
		t.Errorf("members: %v", members)
	}
	check(t, n.Close())
	for _, s := range []*Subscriber[int]{s, other} {
		if _, err := s.Receive(ctx); err != fabric.ErrClosed {
			t.Errorf("after its node was closed: %v", err)
		}
		check(t, s.Close())
	}
	hubs.mu.Lock()
	defer hubs.mu.Unlock()
	if len(hubs.open) > 0 {
		t.Errorf("%d hubs are left behind", len(hubs.open))
	}
}
