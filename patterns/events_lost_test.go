package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// A member that is lost has its events delivered to another one, all in order and
// marked; what the old one's program acknowledges after that is refused.
func TestEventsMemberLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[int]{Partitions: 1})
	node := openNode(t, dir, "dies")
	dies, err := OpenEventMember(ctx, node, EventMemberConfig[int]{Channel: "orders", InFlight: 5})
	check(t, err)
	check(t, p.WaitMembers(ctx, 1))
	for n := range 10 {
		check(t, p.Publish(ctx, []byte("key"), n))
	}
	var has []Event[int]
	for n := range 5 {
		e, err := dies.Receive(ctx)
		if err != nil || e.Value != n || e.Redelivered() || string(e.Key) != "key" || e.Source.Node != "p" {
			t.Errorf("%+v, %v", e, err)
		}
		has = append(has, e)
	}
	check(t, has[0].Ack())
	check(t, has[2].Ack()) // behind a gap
	await(t, "the first to be acknowledged", func() bool { return p.Stats().Acknowledged == 1 })
	check(t, node.Close())
	lives := openEventMemberOf(t, openNode(t, dir, "lives"), EventMemberConfig[int]{})
	for n := 1; n < 10; n++ {
		e, err := lives.Receive(ctx)
		if err != nil || e.Value != n || e.Redelivered() != (n < 6) {
			t.Errorf("%d: %+v, %v, deliveries %d", n, e, err, e.Deliveries())
		}
		check(t, e.Ack())
	}
	check(t, p.Flush(ctx))
	check(t, dies.Close())
	if err := has[3].Ack(); err != fabric.ErrClosed {
		t.Error(err)
	}
	if st := p.Stats(); st.Redelivered != 5 || st.Acknowledged != 10 {
		t.Errorf("%+v", st)
	}
}

// A member that is cut off for longer than the resume window is lost, and its partition
// moves; what it has not begun by then it drops, as the new owner handles it.
func TestEventsMemberCutOff(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	relay := newRelay(t, dir)
	cfg := fabric.Config{HeartbeatInterval: 50 * time.Millisecond, ResumeWindow: 200 * time.Millisecond}
	cfg.Name = "cut"
	cut := openEventMemberOf(t, openRelayed(t, relay, cfg), EventMemberConfig[int]{InFlight: 4})
	cfg.Name, cfg.Directory = "p", hidden{dir}
	node := openNodeOf(t, cfg)
	p := openEventPublisherOf(t, node, EventPublisherConfig[int]{Partitions: 1})
	check(t, p.WaitMembers(ctx, 1))
	for n := range 6 {
		check(t, p.Publish(ctx, []byte("key"), n))
	}
	begun, let := make(chan int, 6), make(chan struct{})
	handling, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		_ = cut.Handle(handling, 1, func(_ context.Context, e Event[int]) error {
			begun <- e.Value
			<-let
			return nil
		})
	})
	<-begun
	await(t, "the others to wait behind it", func() bool { return cut.Stats().Received == 4 })
	relay.hide(true)
	lives := openEventMemberOf(t, node, EventMemberConfig[int]{})
	for n := range 6 {
		e, err := lives.Receive(ctx)
		if err != nil || e.Value != n || e.Redelivered() != (n < 4) {
			t.Errorf("%d: %+v, %v", n, e, err)
		}
		check(t, e.Ack())
	}
	check(t, p.Flush(ctx))
	await(t, "it to know that it was cut off", func() bool { return cut.Stats().InHand == 0 })
	close(let)
	await(t, "the rest to be dropped", func() bool { return cut.Stats().Stale == 3 })
	stop()
	work.Wait()
	if len(begun) != 0 {
		t.Errorf("event %d was begun by a member that had lost it", <-begun)
	}
}

// A publisher that is lost, and one that is started anew.
func TestEventsPublisherLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	m := openEventMemberOf(t, openNode(t, dir, "m"), EventMemberConfig[int]{})
	node := openNode(t, dir, "p")
	p, err := OpenEventPublisher(ctx, node, EventPublisherConfig[int]{Channel: "orders", Partitions: 1})
	check(t, err)
	check(t, p.Publish(ctx, []byte("key"), 1))
	e, err := m.Receive(ctx)
	check(t, err)
	check(t, node.Close())
	if _, err := m.Receive(ctx); lostPeer(err) == nil {
		t.Errorf("%v", err)
	}
	if err := e.Ack(); lostPeer(err) == nil {
		t.Errorf("%v", err)
	}
	var unacked *UnacknowledgedError
	if err := p.Close(); !errors.As(err, &unacked) || unacked.Events != 1 {
		t.Errorf("%v", err)
	}
	again := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[int]{Partitions: 1})
	check(t, again.Publish(ctx, []byte("key"), 2))
	if e, err := m.Receive(ctx); err != nil || e.Value != 2 || e.Redelivered() {
		t.Errorf("%+v, %v", e, err)
	} else {
		check(t, e.Ack())
	}
	check(t, again.Flush(ctx))
}

// A publisher that takes the place of another one at its node is not taken for it.
func TestEventsPublisherReplaced(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	m := openEventMemberOf(t, openNode(t, dir, "m"), EventMemberConfig[int]{InFlight: 2})
	node := openNode(t, dir, "p")
	first, err := OpenEventPublisher(ctx, node, EventPublisherConfig[int]{Channel: "orders", Partitions: 1})
	check(t, err)
	for n := range 2 {
		check(t, first.Publish(ctx, []byte("key"), n))
	}
	var old []Event[int]
	for range 2 {
		e, err := m.Receive(ctx)
		check(t, err)
		old = append(old, e)
	}
	var unacked *UnacknowledgedError
	if err := first.Close(); !errors.As(err, &unacked) || unacked.Events != 2 {
		t.Error(err)
	}
	second := openEventPublisherOf(t, node, EventPublisherConfig[int]{Partitions: 1})
	for n := range 4 {
		check(t, second.Publish(ctx, []byte("key"), 10+n))
	}
	for n := range 4 {
		e, err := m.Receive(ctx)
		if err != nil || e.Value != 10+n || e.Redelivered() {
			t.Errorf("%+v, %v", e, err)
		}
		if err := old[n%2].Ack(); err != ErrMoved {
			t.Errorf("an event of the publisher before: %v", err)
		}
		check(t, e.Ack())
	}
	check(t, second.Flush(ctx))
	if st := second.Stats(); st.Acknowledged != 4 || st.Late != 0 {
		t.Errorf("%+v", st)
	}
}

// Events through links that are cut every 200 ms: in order, each once, as nobody is
// lost.
func TestEventsThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	l := newOrderBook(t)
	const members, keys = 3, 30
	var stops []func() int
	var handling sync.WaitGroup
	for i := range members {
		relay := newRelay(t, dir)
		m := openEventMemberOf(t, openRelayed(t, relay, fabric.Config{Name: fmt.Sprint("m", i)}), EventMemberConfig[change]{Publishers: 1})
		handling.Go(func() { check(t, m.Handle(ctx, 4, l.handler(m.Address(), 0))) })
		stops = append(stops, relay.cutEvery(200*time.Millisecond))
	}
	p := openEventPublisherOf(t, openNodeOf(t, fabric.Config{Name: "p", Directory: hidden{dir}}), EventPublisherConfig[change]{})
	check(t, p.WaitMembers(ctx, members))
	enough := make(chan struct{})
	timer := time.AfterFunc(time.Second, func() { close(enough) })
	defer timer.Stop()
	each := publishing(t, ctx, p, "key", keys, enough)
	check(t, p.Drain(ctx))
	handling.Wait()
	cuts := 0
	for _, stop := range stops {
		cuts += stop()
	}
	l.finished("key", keys, each)
	if st := p.Stats(); st.Redelivered != 0 || st.Acknowledged != uint64(keys*each) || cuts < 8 {
		t.Errorf("%d cuts, %+v", cuts, st)
	}
	t.Logf("%d events through %d cuts", keys*each, cuts)
}
