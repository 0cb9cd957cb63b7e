package patterns

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

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
