package patterns

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// holds is how many publishers' events a member does not begin.
func (m *EventMember[T]) holds() int {
	h := &m.core.hands
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.held)
}

// begins handles a member's events until the test ends, and tells which were begun.
func begins(t testing.TB, m *EventMember[int]) <-chan int {
	t.Helper()
	begun := make(chan int, 100)
	ctx, stop := context.WithCancel(testContext(t))
	var work sync.WaitGroup
	work.Go(func() {
		_ = m.Handle(ctx, 1, func(_ context.Context, e Event[int]) error {
			begun <- e.Value
			return nil
		})
	})
	t.Cleanup(func() { stop(); work.Wait() })
	return begun
}

// expect waits for an event to be begun.
func expect(t testing.TB, begun <-chan int, want int) {
	t.Helper()
	select {
	case got := <-begun:
		if got != want {
			t.Fatalf("event %d was begun, want %d", got, want)
		}
	case <-testContext(t).Done():
		t.Fatalf("event %d was not begun", want)
	}
}

// A hold ends with its publisher's node, also if that has sent nothing: who comes
// after it at its address is not held.
func TestEventsHoldEndsWithItsPublishersNode(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	relay := newRelay(t, dir)
	node := openRelayed(t, relay, fabric.Config{Name: "m", ResumeWindow: 200 * time.Millisecond})
	m := openEventMemberOf(t, node, EventMemberConfig[int]{Patience: minPatience})
	begun := begins(t, m)
	first, err := fabric.Open(ctx, fabric.Config{Name: "p", Directory: hidden{dir}, Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	p, err := OpenEventPublisher(ctx, first, EventPublisherConfig[int]{Channel: "orders", Partitions: 1})
	check(t, err)
	check(t, p.WaitMembers(ctx, 1))
	relay.hide(true)
	await(t, "a hold", func() bool { return m.holds() == 1 })
	check(t, first.Close())
	_ = p.Close() // with its node
	await(t, "the hold to end", func() bool { return m.holds() == 0 })
	relay.hide(false)
	second := openEventPublisherOf(t, openNodeOf(t, fabric.Config{Name: "p", Directory: hidden{dir}}), EventPublisherConfig[int]{Partitions: 1})
	check(t, second.Publish(ctx, []byte("key"), 1))
	expect(t, begun, 1)
	check(t, second.Flush(ctx))
}

// A hold ends with the way back to its publisher, whose node stays: who is at its
// address then is asked, and goes on. What the first had sent is not begun.
func TestEventsHoldEndsWithTheWayBack(t *testing.T) {
	for _, sent := range []bool{false, true} {
		ctx, dir := testContext(t), directory.NewRegistry()
		relay := newRelay(t, dir)
		m := openEventMemberOf(t, openRelayed(t, relay, fabric.Config{Name: "m"}), EventMemberConfig[int]{Patience: minPatience})
		node := openNodeOf(t, fabric.Config{Name: "p", Directory: hidden{dir}})
		first, err := OpenEventPublisher(ctx, node, EventPublisherConfig[int]{Channel: "orders", Partitions: 1})
		check(t, err)
		check(t, first.WaitMembers(ctx, 1))
		begun, let := make(chan int, 10), make(chan struct{})
		handling, stop := context.WithCancel(ctx)
		var work sync.WaitGroup
		work.Go(func() {
			_ = m.Handle(handling, 1, func(_ context.Context, e Event[int]) error {
				begun <- e.Value
				<-let
				return nil
			})
		})
		if sent {
			check(t, first.Publish(ctx, []byte("key"), 1))
			check(t, first.Publish(ctx, []byte("key"), 2))
			expect(t, begun, 1)
			await(t, "the other to wait behind it", func() bool { return m.Stats().Received == 2 })
		}
		relay.hide(true)
		await(t, "a hold", func() bool { return m.holds() == 1 })
		_ = first.Close() // two events were not acknowledged
		second := openEventPublisherOf(t, node, EventPublisherConfig[int]{Partitions: 1})
		relay.hide(false)
		close(let)
		check(t, second.Publish(ctx, []byte("key"), 3))
		expect(t, begun, 3)
		check(t, second.Flush(ctx))
		if sent && m.Stats().Stale != 1 {
			t.Errorf("%+v", m.Stats())
		}
		await(t, "the hold to end", func() bool { return m.holds() == 0 })
		stop()
		work.Wait()
	}
}

// Who drains says hello no more, whoever comes beside it meanwhile: a publisher that
// has found that it takes no more would take it for a new member, and give what it has
// to others.
func TestEventsDrainingMemberIsNoNewOne(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[int]{Partitions: 1})
	m := openEventMemberOf(t, openNode(t, dir, "m"), EventMemberConfig[int]{})
	check(t, p.WaitMembers(ctx, 1))
	check(t, p.Publish(ctx, []byte("key"), 0))
	has, err := m.Receive(ctx)
	check(t, err)
	drained := make(chan error, 1)
	go func() { drained <- m.Drain(ctx) }()
	if _, err := m.Receive(ctx); err != fabric.ErrEnd {
		t.Fatal(err)
	}
	p.core.mu.Lock()
	for _, member := range p.core.members.members {
		p.core.members.retire(member) // as a Publish does that comes just now
	}
	p.core.mu.Unlock()
	other := openEventPublisherOf(t, openNode(t, dir, "q"), EventPublisherConfig[int]{Partitions: 1})
	lives := openEventMemberOf(t, openNode(t, dir, "lives"), EventMemberConfig[int]{})
	check(t, other.Publish(ctx, []byte("key"), 1))
	check(t, p.Publish(ctx, []byte("key"), 2))
	if e, err := lives.Receive(ctx); err != nil || e.Value != 1 {
		t.Errorf("%+v, %v", e, err)
	} else {
		check(t, e.Ack())
	}
	if e, err := lives.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d is handled while another member has the first one: %v", e.Value, err)
	}
	check(t, has.Ack())
	check(t, <-drained)
	if e, err := lives.Receive(ctx); err != nil || e.Value != 2 || e.Redelivered() {
		t.Errorf("%+v, %v", e, err)
	} else {
		check(t, e.Ack())
	}
	check(t, p.Flush(ctx))
}

// A question that has no answer is asked again, and the answer to it, or to any time
// that it was asked, lets the member go on.
func TestEventsAsksAgain(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	relay := newRelay(t, dir)
	m := openEventMemberOf(t, openRelayed(t, relay, fabric.Config{Name: "m"}), EventMemberConfig[int]{Patience: minPatience})
	begun := begins(t, m)
	node := openNodeOf(t, fabric.Config{Name: "p", Directory: hidden{dir}})
	acks, err := node.Consumer(ctx, "orders.upto", fabric.ConsumerConfig{})
	check(t, err)
	events, err := node.Producer(ctx, "orders", fabric.ProducerConfig{})
	check(t, err)
	hear := func(kind uint64) (session, question uint64) {
		t.Helper()
		for {
			r, err := acks.Receive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got, f := readRecord(r.Body); got == kind {
				return f.number(), f.number()
			}
		}
	}
	hear(kindGroupHello)
	relay.hide(true)
	await(t, "a hold", func() bool { return m.holds() == 1 })
	relay.hide(false)
	session, first := hear(kindAmI)
	for range 2 {
		hear(kindGroupHello)
		if _, again := hear(kindAmI); again != first {
			t.Fatalf("question %d was asked as %d", first, again)
		}
	}
	check(t, events.WaitConsumers(ctx, 1))
	check(t, events.SendAll(ctx, appendRecord(nil, kindMeetGroup, 0, session)))
	check(t, events.SendAll(ctx, append(appendRecord(nil, kindEvent, 0, 0, 1, 1, 1, 0), 7))) // which is one in MessagePack
	check(t, events.SendAll(ctx, appendRecord(nil, kindStill, 0, session, first)))
	expect(t, begun, 7)
	if _, epoch := hear(kindUpTo); epoch != 1 {
		t.Errorf("epoch %d", epoch)
	}
}
