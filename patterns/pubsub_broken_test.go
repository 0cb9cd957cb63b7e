package patterns

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// What somebody else sends on either channel is refused and counted, and nobody is
// the worse for it.
func TestPubSubStrangers(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	s := openSubscriberOf(t, openNode(t, dir, "s"), SubscriberConfig[int]{Quality: Reliable})
	stranger := openNode(t, dir, "stranger")
	toHubs, err := stranger.Producer(ctx, "news", fabric.ProducerConfig{})
	check(t, err)
	toPublishers, err := stranger.Producer(ctx, "news.subs", fabric.ProducerConfig{})
	check(t, err)
	for _, producer := range []*fabric.Producer{toHubs, toPublishers} {
		check(t, producer.WaitConsumers(ctx, 1))
	}
	good := appendFilters(nil, []Filter{Prefix("")})
	subscribe := func(filters []byte, numbers ...uint64) []byte {
		return append(appendRecord(nil, append([]uint64{kindSubscribe}, numbers...)...), filters...)
	}
	malformed := [][]byte{ // for both
		nil, []byte("hello"), {0xc1}, appendRecord(nil, 99), appendRecord(nil, 99, 1), appendRecord(nil, kindJob, 1),
	}
	forPublishers := [][]byte{
		appendRecord(nil, kindSubscribe, 1), appendRecord(nil, kindUnsubscribe, 1), appendRecord(nil, kindHandled, 1, 2), appendRecord(nil, kindUnhub),
		subscribe(nil, 1, 1, 1, 0, 1, 1, 0, 0), subscribe([]byte{0x92}, 1, 1, 1, 0, 1, 1, 0, 0),
		subscribe(good, 1, 1, 4, 0, 1, 1, 0, 0), subscribe(good, 1, 1, 1, 2, 1, 1, 0, 0), subscribe(good, 1, 1, 1, 0, 0, 1, 0, 0),
		subscribe(good, 1, 1, 1, 0, math.MaxUint64, 1, 0, 0), subscribe(good, 1, 1, 1, 0, 1, math.MaxUint64, 0, 0),
		subscribe(good, 1, 1, 1, 0, 1, 1, maxHistory+1, 0), subscribe(good, 1, 1, 1, 0, 1, 1, 0, 2),
		subscribe(appendFilters(nil, []Filter{Pattern("a..b")}), 1, 1, 1, 0, 1, 1, 0, 0),
		subscribe(appendFilters(nil, slices.Repeat([]Filter{Prefix("a")}, maxFilters+1)), 1, 1, 1, 0, 1, 1, 0, 0),
	}
	late := [][]byte{ // about nothing that there is, or about what is another node's
		subscribe(good, 12345, 1, 1, 0, 1, 1, 0, 0), appendRecord(nil, kindUnsubscribe, 12345, 1),
		appendRecord(nil, kindHandled, 12345, 1, 1, 1), appendRecord(nil, kindUnhub, 12345),
	}
	p.core.mu.Lock()
	p.core.outlets.all(func(token uint64, _ *outlet) { late = append(late, appendRecord(nil, kindUnhub, token)) })
	p.core.mu.Unlock()
	for _, record := range slices.Concat(malformed, forPublishers, late) {
		check(t, toPublishers.SendAll(ctx, record))
	}
	await(t, "publishers to count them", func() bool {
		st := p.Stats()
		return int(st.Malformed) == len(malformed)+len(forPublishers) && int(st.Late) >= len(late)
	})

	// A node that says hello is a publisher, and may be a bad one.
	hello := appendRecord(nil, kindPublishes, 0, 7)
	var sub uint64
	s.core.hub.mu.Lock()
	sub = s.core.id
	s.core.hub.mu.Unlock()
	before := [][]byte{appendTextRecord(nil, "a", kindPublished), appendRecord(nil, kindLastWord)} // without hello
	after := [][]byte{
		appendTextRecord(nil, "", kindPublished), appendTextRecord(nil, "a.*", kindPublished), appendRecord(nil, kindPublished, 1),
		appendRecord(nil, kindPublishes, 1<<40, 7), appendRecord(nil, kindLastWord, 1), appendRecord(nil, kindConfirmed, sub, 0),
		appendRecord(nil, kindConfirmed, sub, 9), appendRecord(nil, kindMissed, sub), appendRecord(nil, kindEvicted), appendTextRecord(nil, "a..b", kindReplayed, sub),
	}
	harmless := [][]byte{ // nobody has subscribed there, or not that
		append(appendTextRecord(nil, "a", kindPublished), "body"...), appendTextRecord(nil, "a", kindReplayed, sub),
		appendRecord(nil, kindMissed, sub, 5), appendRecord(nil, kindEvicted, 12345), appendRecord(nil, kindOver, 12345), appendRecord(nil, kindConfirmed, 12345, 1),
	}
	for _, record := range slices.Concat(malformed, before, [][]byte{hello}, malformed, after, harmless) {
		check(t, toHubs.SendAll(ctx, record))
	}
	count := 2*len(malformed) + len(before) + len(after)
	await(t, "the hub to count them", func() bool { return int(s.Stats().Malformed) == count })
	var strange *RecordError
	if _, err := s.Receive(ctx); !errors.As(err, &strange) || strange.From != toHubs.Address() {
		t.Errorf("a stranger's message: %v", err)
	}
	publish(t, p, "a", 1)
	for {
		m, err := s.Receive(ctx)
		if errors.As(err, &strange) {
			continue // told once for all that had come until it was read
		}
		check(t, err)
		if m.Value != 1 {
			t.Errorf("got %+v", m)
		}
		break
	}
	if st := s.Stats(); st.Missed > 0 || int(st.Malformed) != count {
		t.Errorf("%+v", st)
	}
}

// Whatever comes, on either channel and from whoever has said hello, both ends go on
// working.
func FuzzPubSubRecords(f *testing.F) {
	ctx, dir := context.Background(), directory.NewRegistry()
	p := openPublisherOf(f, openNode(f, dir, "p"), PublisherConfig[int]{Retain: 10, Replay: 10})
	s := openSubscriberOf(f, openNode(f, dir, "s"), SubscriberConfig[int]{})
	stranger := openNode(f, dir, "stranger")
	beside, err := stranger.Consumer(ctx, "news.subs", fabric.ConsumerConfig{})
	check(f, err)
	toHubs, err := stranger.Producer(ctx, "news", fabric.ProducerConfig{})
	check(f, err)
	toPublishers, err := stranger.Producer(ctx, "news.subs", fabric.ProducerConfig{})
	check(f, err)
	check(f, toHubs.WaitConsumers(ctx, 1))
	check(f, toPublishers.WaitConsumers(ctx, 2))
	check(f, toHubs.SendAll(ctx, appendRecord(nil, kindPublishes, 0, 7)))
	m, err := beside.Receive(ctx)
	check(f, err)
	_, fields := readRecord(m.Body)
	fields.number()
	sub := fields.number()
	check(f, toHubs.SendAll(ctx, appendRecord(nil, kindConfirmed, sub, uint64(BoundedDrop))))
	for kind := uint64(kindPublished); kind <= kindUnhub; kind++ {
		f.Add(kind, sub, uint64(1), "a.b", []byte("body"))
	}
	f.Add(uint64(kindSubscribe), uint64(7), uint64(1), "", appendFilters(nil, []Filter{Pattern("a.*")}))
	published, ended := 0, false
	f.Fuzz(func(t *testing.T, kind, first, second uint64, text string, body []byte) {
		// What is interesting is made shorter in as many runs as the square of its length,
		// each of which takes milliseconds: larger inputs would take all of the time.
		if len(text)+len(body) > 48 {
			t.Skip("the records are all shorter")
		}
		if ended = ended || first == sub && (kind == kindEvicted || kind == kindDenied); ended {
			ended = s.core.refused() != nil
			t.Skip("a publisher may say that, and ends the subscriber")
		}
		for _, record := range [][]byte{
			body, appendRecord(nil, kind), appendRecord(nil, kind, first), appendRecord(nil, kind, first, second),
			append(appendTextRecord(nil, text, kind), body...), append(appendTextRecord(nil, text, kind, first), body...),
			append(appendRecord(nil, kind, first, second, second, 0, first, second, second, 0), body...),
		} {
			check(t, toHubs.SendAll(ctx, record))
			check(t, toPublishers.Send(ctx, fabric.Address{Node: "p"}, record))
		}
		published++
		check(t, p.Publish(ctx, "check", published))
		for {
			m, err := s.Receive(testContext(t))
			var evicted *EvictedError
			var denied *DeniedError
			if ended = errors.As(err, &evicted) || errors.As(err, &denied); ended {
				return // the body was such a record
			}
			if err != nil && !passing(err) {
				t.Fatal(err)
			}
			if err == nil && m.Publisher == p.Address() {
				if m.Value != published {
					t.Fatalf("got %d, want %d", m.Value, published)
				}
				return
			}
		}
	})
}

// A publisher that keeps to no bound fills no subscriber's memory.
func TestPubSubPublisherThatKeepsToNoBound(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	n := openNode(t, dir, "bad")
	beside, err := n.Consumer(ctx, "news.subs", fabric.ConsumerConfig{})
	check(t, err)
	producer, err := n.Producer(ctx, "news", fabric.ProducerConfig{})
	check(t, err)
	opened := make(chan *Subscriber[int], 1)
	go func() {
		s, err := OpenSubscriber(ctx, openNode(t, dir, "s"), SubscriberConfig[int]{
			Channel: "news", Filters: []Filter{Prefix("")}, Quality: Reliable, Queue: fabric.HighWaterMark{Messages: 10},
		})
		check(t, err)
		opened <- s
	}()
	check(t, producer.WaitConsumers(ctx, 1))
	check(t, producer.SendAll(ctx, appendRecord(nil, kindPublishes, 0, 7)))
	m, err := beside.Receive(ctx)
	check(t, err)
	kind, f := readRecord(m.Body)
	if token := f.number(); kind != kindSubscribe || token != 7 {
		t.Fatalf("kind %d, token %d", kind, token)
	}
	check(t, producer.SendAll(ctx, appendRecord(nil, kindConfirmed, f.number(), uint64(Reliable))))
	s := <-opened
	for i := range 1000 {
		check(t, producer.SendAll(ctx, append(appendTextRecord(nil, "a", kindPublished), byte(i&0x7f))))
	}
	await(t, "all to have come", func() bool { return s.Stats().Missed == 990 })
	expectEvents(t, s, taken{value: 0}, taken{value: 1})
	if st := s.Stats(); st.Queued != 8 {
		t.Errorf("%+v", st)
	}
	check(t, s.Close())
}

// A publisher that hears nothing of what it asks for is given up before that fills
// the memory.
func TestPubSubPublisherThatDoesNotHear(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPublisherOf(t, openNode(t, dir, "p"), PublisherConfig[int]{})
	n := openNode(t, dir, "s")
	many := slices.Repeat([]Filter{Prefix(strings.Repeat("x", maxTopic))}, maxFilters-1)
	s := openSubscriberOf(t, n, SubscriberConfig[int]{Filters: append(many, Pattern("a"))})
	bad := openNode(t, dir, "bad")
	beside, err := bad.Consumer(ctx, "news.subs", fabric.ConsumerConfig{})
	check(t, err)
	producer, err := bad.Producer(ctx, "news", fabric.ProducerConfig{})
	check(t, err)
	check(t, producer.WaitConsumers(ctx, 1))
	const hellos = 6000 // 100 MB of subscriptions
	for i := range hellos {
		check(t, producer.SendAll(ctx, appendRecord(nil, kindPublishes, uint64(beside.Address().Index), uint64(i))))
		if i%1000 > 0 {
			continue
		}
		check(t, producer.Flush(ctx))
	}
	publish(t, p, "a", 1)
	values(t, s, 1)
	check(t, producer.SendAll(ctx, appendRecord(nil, kindLastWord))) // which is not heard any more
	await(t, "the bad one to be given up", func() bool {
		s.core.hub.mu.Lock()
		defer s.core.hub.mu.Unlock()
		return len(s.core.hub.sources) == 1
	})
	for _, st := range n.Stats().Streams {
		if st.Channel == "news.subs" && st.DepthBytes > uint64(saidMost.Bytes)+1<<20 {
			t.Errorf("%+v", st)
		}
	}
}

// Who is to be given up is given up while others' messages come without a pause; and
// once, however often it was found to be away.
func TestPubSubGivesUpWhileOthersPublish(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	publishers := make(map[string]*Publisher[int])
	for _, name := range []string{"away", "busy", "other"} {
		publishers[name] = openPublisherOf(t, openNode(t, dir, name), PublisherConfig[int]{})
	}
	const many = 1000
	s := openSubscriberOf(t, openNode(t, dir, "s"), SubscriberConfig[int]{Queue: fabric.HighWaterMark{Messages: 2 * many}})
	h := s.core.hub
	h.mu.Lock() // the reading goroutine waits, at the first message of another publisher than before
	publish(t, publishers["busy"], "a", 0)
	publish(t, publishers["other"], "a", 0)
	publish(t, publishers["busy"], "a", numbers(0, many)...)
	check(t, publishers["busy"].Flush(ctx))
	for addr, from := range h.sources {
		if addr.Node == "away" {
			for range 3 {
				h.miss(from)
			}
		}
	}
	if len(h.away) != 1 {
		t.Errorf("it is to be given up %d times", len(h.away))
	}
	h.mu.Unlock()
	before := 0
	for ; ; before++ {
		_, err := s.Receive(ctx)
		if lost := lostPeer(err); lost != nil && lost.Node == "away" {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if before > 2*rouseEvery {
		t.Errorf("it was given up after %d messages", before)
	}
}

// guise is somebody who speaks as a publisher does, and the hub that hears it.
type guise struct {
	node     *fabric.Node
	producer *fabric.Producer
	hub      *hub
}

func newGuise(t testing.TB) *guise {
	t.Helper()
	dir := directory.NewRegistry()
	g := &guise{hub: openSubscriberOf(t, openNode(t, dir, "s"), SubscriberConfig[int]{}).core.hub, node: openNode(t, dir, "g")}
	var err error
	g.producer, err = g.node.Producer(testContext(t), "news", fabric.ProducerConfig{})
	check(t, err)
	check(t, g.producer.WaitConsumers(testContext(t), 1))
	return g
}

// hello says hello, and waits until it is heard.
func (g *guise) hello(t testing.TB, answer int) {
	t.Helper()
	check(t, g.producer.SendAll(testContext(t), appendRecord(nil, kindPublishes, uint64(answer), 7)))
	await(t, "the hello to be heard", func() bool {
		g.hub.mu.Lock()
		defer g.hub.mu.Unlock()
		return len(g.hub.sources) == 1
	})
}

// away has the hub give it up.
func (g *guise) away(t testing.TB) {
	t.Helper()
	g.hub.mu.Lock()
	for _, s := range g.hub.sources {
		g.hub.miss(s)
	}
	g.hub.mu.Unlock()
	await(t, "it to be given up", func() bool {
		g.hub.mu.Lock()
		defer g.hub.mu.Unlock()
		return len(g.hub.away) == 0
	})
}

// hearAnew waits for the word that it is to begin anew.
func (g *guise) hearAnew(t testing.TB, c *fabric.Consumer) {
	t.Helper()
	for {
		m, err := c.Receive(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if kind, f := readRecord(m.Body); kind == kindAnew {
			if token := f.number(); token != 7 || !f.end() {
				t.Errorf("%d is to begin anew", token)
			}
			return
		}
	}
}

// A publisher that was given up hears that it is to begin anew, also if there was no
// way to it when it was given up, or no room for the word; and one that finishes is
// forgotten.
func TestPubSubWhoWasGivenUpHearsOfIt(t *testing.T) {
	t.Run("no way", func(t *testing.T) {
		g := newGuise(t)
		g.hello(t, 0)
		g.away(t)
		c, err := g.node.Consumer(testContext(t), "news.subs", fabric.ConsumerConfig{})
		check(t, err)
		g.hearAnew(t, c)
	})
	t.Run("no room", func(t *testing.T) {
		before := saidMost
		saidMost = fabric.HighWaterMark{Messages: 1}
		defer func() { saidMost = before }()
		g := newGuise(t)
		c, err := g.node.Consumer(testContext(t), "news.subs", fabric.ConsumerConfig{})
		check(t, err)
		g.hello(t, 0)
		await(t, "the subscription to take the room", func() bool {
			for _, st := range g.hub.key.node.Stats().Streams {
				if st.Channel == "news.subs" && st.Messages == 1 {
					return true
				}
			}
			return false
		})
		g.away(t)
		g.hearAnew(t, c)
	})
	t.Run("deaf", func(t *testing.T) { // and is given up because of that
		g := newGuise(t)
		c, err := g.node.Consumer(testContext(t), "news.subs", fabric.ConsumerConfig{})
		check(t, err)
		g.hello(t, 0)
		g.hub.mu.Lock()
		for _, s := range g.hub.sources {
			s.deaf.Store(true)
		}
		g.hub.mu.Unlock()
		check(t, g.producer.SendAll(testContext(t), appendTextRecord(nil, "a", kindPublished)))
		g.hearAnew(t, c)
	})
	t.Run("finished", func(t *testing.T) {
		g := newGuise(t)
		g.hello(t, 0)
		g.away(t)
		check(t, g.producer.SendAll(testContext(t), appendRecord(nil, kindLastWord)))
		await(t, "it to be forgotten", func() bool {
			g.hub.mu.Lock()
			defer g.hub.mu.Unlock()
			return len(g.hub.sources)+len(g.hub.byAnswer) == 0
		})
	})
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

func TestPubSubRefusesBadConfig(t *testing.T) {
	ctx, n := testContext(t), openNode(t, directory.NewRegistry(), "n")
	for want, cfg := range map[string]PublisherConfig[int]{
		"quality 9":               {Quality: 9},
		"EvictAfter is 1ms":       {EvictAfter: time.Millisecond},
		"EvictAfter is -1s":       {EvictAfter: -time.Second},
		"Backlog.Messages is -1":  {Backlog: fabric.HighWaterMark{Messages: -1}},
		"Backlog.Bytes is -1":     {Backlog: fabric.HighWaterMark{Bytes: -1}},
		"HighWaterMark.Bytes":     {HighWaterMark: fabric.HighWaterMark{Bytes: -1}},
		"Retain is -1":            {Retain: -1},
		"Replay is 65537":         {Replay: maxHistory + 1},
		`channel name "a/b.subs"`: {Channel: "a/b"},
	} {
		if cfg.Channel == "" {
			cfg.Channel = "news"
		}
		if p, err := OpenPublisher(ctx, n, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q (%v)", cfg, err, want, p != nil)
		}
	}
	all := []Filter{Prefix("")}
	for want, cfg := range map[string]SubscriberConfig[int]{
		"Filters is []":              {},
		"be 1 to 64":                 {Filters: slices.Repeat(all, 65)},
		"a token is empty":           {Filters: []Filter{Pattern("a.")}},
		"quality 9":                  {Filters: all, Quality: 9},
		"go with the quality latest": {Filters: all, Conflate: true},
		"Queue.Messages is -1":       {Filters: all, Queue: fabric.HighWaterMark{Messages: -1}},
		"Queue.Bytes is -1":          {Filters: all, Queue: fabric.HighWaterMark{Bytes: -1}},
		"Replay is -1":               {Filters: all, Replay: -1},
		"be 0 with Retained":         {Filters: all, Replay: 1, Retained: true},
		"Publishers is -1":           {Filters: all, Publishers: -1},
		`channel name "a/b.subs"`:    {Filters: all, Channel: "a/b"},
	} {
		if cfg.Channel == "" {
			cfg.Channel = "news"
		}
		if s, err := OpenSubscriber(ctx, n, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q (%v)", cfg, err, want, s != nil)
		}
	}
	for _, channel := range []string{"news", "news.subs"} {
		members, err := n.Directory().Members(ctx, channel)
		if err != nil || len(members) != 0 {
			t.Errorf("%v, %v are left behind", members, err)
		}
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
