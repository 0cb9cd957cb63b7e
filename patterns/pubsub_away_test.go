package patterns

import (
	"slices"
	"strings"
	"testing"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

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
