package fabric

import (
	"context"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
)

// behind is a directory whose next watch tells what was there when it began, but
// only once it is released.
type behind struct {
	directory.Service
	next chan *snapshot // room for one
}

// snapshot is what such a watch will tell.
type snapshot struct {
	directory.Watcher
	events         []directory.Event
	taken, release chan struct{}
}

func newBehind(dir directory.Service) *behind { return &behind{dir, make(chan *snapshot, 1)} }

// hold has the next watch held.
func (b *behind) hold() *snapshot {
	s := &snapshot{taken: make(chan struct{}), release: make(chan struct{})}
	b.next <- s
	return s
}

func (b *behind) Watch(ctx context.Context, channel string) (directory.Watcher, error) {
	w, err := b.Service.Watch(ctx, channel)
	if err != nil {
		return nil, err
	}
	select {
	case s := <-b.next:
		s.Watcher = w
		for len(s.events) == 0 || s.events[len(s.events)-1].Kind != directory.Synced {
			e, err := w.Next(ctx)
			if err != nil {
				return nil, err
			}
			s.events = append(s.events, e)
		}
		close(s.taken)
		return s, nil
	default:
		return w, nil
	}
}

func (s *snapshot) Next(ctx context.Context) (directory.Event, error) {
	select {
	case <-s.release:
	case <-ctx.Done():
		return directory.Event{}, ctx.Err()
	}
	if len(s.events) == 0 {
		return s.Watcher.Next(ctx)
	}
	e := s.events[0]
	s.events = s.events[1:]
	return e, nil
}

// takeAll receives whatever comes until the consumer is drained.
func takeAll(t testing.TB, ctx context.Context, c *Consumer) (ended chan struct{}) {
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for _, err := range c.Messages(ctx) {
			if err != nil && ctx.Err() != nil {
				t.Error(err)
			}
		}
	}()
	return ended
}

// A node closes while a consumer begins to drain, and the consumer learns then
// that the node had producers when it began: nobody waits for one that has said
// that it is over.
func TestDrainThatIsToldLateOfANodeThatHasClosed(t *testing.T) {
	ctx := testContext(t)
	reg := directory.NewRegistry()
	dir := newBehind(reg)
	a, b := openNode(t, reg, "a"), openNode(t, dir, "b")
	p, c := newProducer(t, a, "x", ProducerConfig{}), newConsumer(t, b, "x", ConsumerConfig{})
	if err := waitTarget(t, ctx, p, c.Address()).Send(ctx, []byte{0}); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, ctx, c, 0, 1)
	ended := takeAll(t, ctx, c)
	meets := dir.hold()
	drained := make(chan error, 1)
	go func() { drained <- c.Drain(ctx) }()
	<-meets.taken
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "the consumer's node to hear of it", func() bool { return b.gone("a") && len(c.Producers()) == 0 })
	close(meets.release)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	<-ended
}

// The same if the directory does not say for long that it has left.
func TestDrainDoesNotWaitForWhoHasSaidBye(t *testing.T) {
	ctx := testContext(t)
	reg := directory.NewRegistry()
	late := newGate(reg)
	a, b := openNode(t, reg, "a"), openNode(t, late, "b")
	p, c := newProducer(t, a, "x", ProducerConfig{}), newConsumer(t, b, "x", ConsumerConfig{})
	if err := waitTarget(t, ctx, p, c.Address()).Send(ctx, []byte{0}); err != nil {
		t.Fatal(err)
	}
	wantMessages(t, ctx, c, 0, 1)
	late.shut()
	defer late.open()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Receive(ctx)
	wantLost(t, err, PeerLostError{Node: "a", Channel: "x", Acknowledged: 1, InDoubtTo: 1, Receiving: true})
	ended := takeAll(t, ctx, c)
	if err := c.Drain(ctx); err != nil {
		t.Error(err)
	}
	<-ended
}

// A consumer waits for a node that was given up and may come back, until the
// directory says that it has left.
func TestDrainWaitsForWhoMayComeBackUntilItLeaves(t *testing.T) {
	ctx := testContext(t)
	p := newPair(t, ctx, time.Minute, 100*time.Millisecond)
	p.send(t, ctx, 0, 1)
	wantMessages(t, ctx, p.c, 0, 1)
	p.hide(t, ctx)
	_, err := p.c.Receive(ctx)
	wantLost(t, err, PeerLostError{Node: "a", Channel: "x", Acknowledged: 1, InDoubtTo: 1, Receiving: true})
	await(t, ctx, "another stream to wait for the node", func() bool { return len(p.b.Stats().Streams) == 1 })
	drained := make(chan error, 1)
	go func() { drained <- p.c.Drain(ctx) }()
	// The first thing to come is the nudge that Drain gives before it waits, for the
	// receiving goroutine, which is this one as yet, to say whether anything is left to
	// wait for. Only that ends the wait.
	_, kind, err := p.c.inbox.Next(ctx)
	stream, _ := p.c.inbox.Source()
	if kind != link.Lost || err != nil || stream.Owner() != nil {
		t.Fatalf("what came is no nudge: kind %d, %v", kind, err)
	}
	if p.c.handled(stream) || p.c.isDrained() {
		t.Fatal("it does not wait")
	}
	ended := takeAll(t, ctx, p.c)
	if err := p.a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	<-ended
}
