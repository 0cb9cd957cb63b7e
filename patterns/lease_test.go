package patterns

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// shortLease is how long registrations live in these tests. It is far less than the
// resume window, which here never ends.
const (
	shortLease  = 300 * time.Millisecond
	neverWindow = time.Hour
)

// newLeased returns a directory for this process and others, whose registrations last
// for a lease.
func newLeased(t testing.TB, lease time.Duration) (dir *directory.Registry, address string) {
	t.Helper()
	dir, err := directory.OpenRegistry(directory.RegistryConfig{Lease: lease})
	check(t, err)
	server, err := directory.Serve(testContext(t), dir, "tcp://127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, server.Close()) })
	return dir, server.Addr()
}

// leased is a node that can be kept from renewing its lease, and from its peers, each
// by a relay.
type leased struct {
	node             *fabric.Node
	directory, peers *relay
}

func openLeased(t testing.TB, directoryAddr string, cfg fabric.Config) *leased {
	t.Helper()
	l := &leased{directory: newRelayTo(t, strings.TrimPrefix(directoryAddr, "tcp://"))}
	client, err := directory.Dial(testContext(t), "tcp://"+l.directory.ln.Addr().String(), directory.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, client.Close()) })
	l.peers = newRelay(t, client)
	cfg.Directory, cfg.ResumeWindow = l.peers, neverWindow
	l.node = openNodeOf(t, cfg)
	return l
}

// hide keeps the node from everybody, or lets it come back.
func (l *leased) hide(hidden bool) {
	l.directory.hide(hidden)
	l.peers.hide(hidden)
}

// A member whose lease has ended, and who is connected all the same, gets nothing new
// of others' partitions, and has what it has acknowledged; when it is registered again
// it is a member again.
func TestEventsMemberWithoutLease(t *testing.T) {
	ctx := testContext(t)
	dir, addr := newLeased(t, shortLease)
	l := openLeased(t, addr, fabric.Config{Name: "m"})
	p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[int]{Partitions: 4})
	m := openEventMemberOf(t, l.node, EventMemberConfig[int]{})
	check(t, p.WaitMembers(ctx, 1))
	var work sync.WaitGroup
	defer work.Wait()
	handling, stop := context.WithCancel(ctx)
	defer stop()
	next := 0
	work.Go(func() {
		_ = m.Handle(handling, 1, func(_ context.Context, e Event[int]) error {
			if e.Value != next || e.Redelivered() {
				t.Errorf("event %d, want %d; deliveries %d", e.Value, next, e.Deliveries())
			}
			next++
			return nil
		})
	})
	publish := func(from, to int) {
		for n := from; n < to; n++ {
			check(t, p.Publish(ctx, []byte("key"), n))
		}
	}
	publish(0, 10)
	check(t, p.Flush(ctx))
	l.directory.hide(true)
	await(t, "its lease to end", func() bool { return p.Stats().Members == 0 })
	publish(10, 20)
	l.directory.hide(false)
	check(t, p.WaitMembers(ctx, 1))
	publish(20, 30)
	check(t, p.Flush(ctx))
	if st := p.Stats(); st.Acknowledged != 30 || st.Redelivered != 0 {
		t.Errorf("%+v", st)
	}
}

func init() { roles["member"] = childMember }

// childMember takes events, and acknowledges none.
func childMember(ctx context.Context, node *fabric.Node) error {
	m, err := OpenEventMember(ctx, node, EventMemberConfig[int]{Channel: "orders", InFlight: 4})
	if err != nil {
		return err
	}
	defer m.Close()
	for _, err := range m.Events(ctx) {
		if err != nil {
			return err
		}
	}
	return nil
}

// The partitions of a member's process that is killed move within a lease, long before
// the resume window ends; what it had comes again, in order and marked.
func TestEventsMemberKilled(t *testing.T) {
	kids, dir := newNurseryOf(t, shortLease)
	ctx := testContext(t)
	p := openEventPublisherOf(t, openNodeOf(t, fabric.Config{Name: "p", Directory: dir, ResumeWindow: neverWindow}), EventPublisherConfig[int]{
		Partitions: 1, Patience: 50 * time.Millisecond,
	})
	kids.start("member", "killed")
	check(t, p.WaitMembers(ctx, 1))
	for n := range 10 {
		check(t, p.Publish(ctx, []byte("key"), n))
	}
	kids.kill(0)
	lives := openEventMemberOf(t, openNode(t, dir, "lives"), EventMemberConfig[int]{})
	for n := range 10 {
		e, err := lives.Receive(ctx)
		if err != nil || e.Value != n || e.Redelivered() != (n < 4) {
			t.Fatalf("%d: %+v, %v", n, e, err)
		}
		check(t, e.Ack())
	}
	check(t, p.Flush(ctx))
}

// A member that is cut off from everybody for longer than its lease lasts begins no
// event that others have by then, also once it is back; and it is a member again.
func TestEventsMemberBackAfterItsLease(t *testing.T) {
	ctx := testContext(t)
	dir, addr := newLeased(t, shortLease)
	l := openLeased(t, addr, fabric.Config{Name: "cut"})
	cut := openEventMemberOf(t, l.node, EventMemberConfig[int]{InFlight: 4, Patience: 20 * time.Millisecond})
	node := openNodeOf(t, fabric.Config{Name: "p", Directory: hidden{dir}, ResumeWindow: neverWindow})
	p := openEventPublisherOf(t, node, EventPublisherConfig[int]{Partitions: 1, Patience: time.Second})
	check(t, p.WaitMembers(ctx, 1))
	var work sync.WaitGroup
	begun, let := make(chan int, 100), make(chan struct{})
	handling, stop := context.WithCancel(ctx)
	work.Go(func() {
		_ = cut.Handle(handling, 1, func(_ context.Context, e Event[int]) error {
			begun <- e.Value
			<-let
			return nil
		})
	})
	publish := func(from, to int) {
		for n := from; n < to; n++ {
			check(t, p.Publish(ctx, []byte("key"), n))
		}
	}
	publish(0, 2)
	<-begun
	await(t, "the second one to wait behind it", func() bool { return cut.Stats().Received == 2 })
	l.hide(true)
	publish(2, 6) // two of which are on their way to it
	await(t, "it to begin nothing", func() bool {
		h := &cut.core.hands
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.held) == 1
	})
	let <- struct{}{}
	await(t, "the first one to be handled", func() bool { return cut.Stats().InHand == 1 })
	lives := openEventMemberOf(t, node, EventMemberConfig[int]{})
	for n := range 6 { // also the first, as nobody has heard of it
		e, err := lives.Receive(ctx)
		if err != nil || e.Value != n || e.Redelivered() != (n < 4) {
			t.Fatalf("%d: %+v, %v", n, e, err)
		}
		check(t, e.Ack())
	}
	if len(begun) > 0 {
		t.Errorf("event %d was begun while others had it", <-begun)
	}
	l.hide(false)
	check(t, p.WaitMembers(ctx, 2))
	check(t, lives.Close())
	close(let)
	publish(6, 10)
	for n := 6; n < 10; n++ {
		if got := <-begun; got != n {
			t.Fatalf("event %d was begun, want %d", got, n)
		}
	}
	check(t, p.Flush(ctx))
	if st := cut.Stats(); st.Stale != 3 {
		t.Errorf("%+v", st)
	}
	stop()
	work.Wait()
}

// A publisher does not wait for a subscriber's process that was killed, nor keep
// anything for it, once its lease has ended.
func TestPubSubSubscriberKilledForGood(t *testing.T) {
	kids, dir := newNurseryOf(t, shortLease)
	home := openNodeOf(t, fabric.Config{Name: "here", Directory: dir, ResumeWindow: neverWindow})
	p := openPublisherOf(t, home, PublisherConfig[[]byte]{
		Patience: 50 * time.Millisecond, HighWaterMark: fabric.HighWaterMark{Bytes: 10_000},
	})
	kids.start("subscriber", "s")
	check(t, p.WaitSubscribers(testContext(t), 1))
	kids.kill(0)
	published := make(chan error, 1)
	go func() {
		body := make([]byte, 1000)
		for range 20 { // more than it and its stream have room for
			if err := p.Publish(testContext(t), "a", body); err != nil {
				published <- err
				return
			}
		}
		published <- nil
	}()
	check(t, <-published)
	await(t, "it to be forgotten", func() bool {
		st := p.Stats()
		return st.Subscribers == 0 && len(st.Nodes) == 0
	})
}

// A subscriber is told of a publisher's process that was killed once its lease has
// ended.
func TestPubSubPublisherKilledForGood(t *testing.T) {
	kids, dir := newNurseryOf(t, shortLease)
	s := openSubscriberOf(t, openNodeOf(t, fabric.Config{Name: "here", Directory: dir, ResumeWindow: neverWindow}), SubscriberConfig[int]{})
	kids.start("publisher", "p")
	for next := 0; ; next++ {
		m, err := s.Receive(testContext(t))
		if lost := lostPeer(err); lost != nil {
			if next < 100 || lost.Node != "p" {
				t.Errorf("after %d: %v", next, err)
			}
			break
		}
		if err != nil || m.Value != next {
			t.Fatalf("got %d, %v, want %d", m.Value, err, next)
		}
		if next == 100 {
			kids.kill(0)
		}
	}
	if st := s.Stats(); st.Publishers != 0 {
		t.Errorf("%+v", st)
	}
}

// Who was given up and comes back in the same life goes on: the subscriber is told of a
// loss where messages may be missing, and gets all that is published once it is
// confirmed again; whichever of the two was away.
func TestPubSubBackAfterItsLease(t *testing.T) {
	for _, away := range []string{"publisher", "subscriber"} {
		t.Run(away, func(t *testing.T) {
			ctx := testContext(t)
			dir, addr := newLeased(t, shortLease)
			l := openLeased(t, addr, fabric.Config{Name: "away"})
			here := openNodeOf(t, fabric.Config{Name: "here", Directory: hidden{dir}, ResumeWindow: neverWindow})
			from, to := here, l.node
			if away == "publisher" {
				from, to = to, from
			}
			p := openPublisherOf(t, from, PublisherConfig[int]{Quality: Reliable, Patience: 50 * time.Millisecond})
			s := openSubscriberOf(t, to, SubscriberConfig[int]{})
			publish(t, p, "a", 0)
			values(t, s, 1)
			l.hide(true)
			publish(t, p, "a", 1) // which may come, or not
			if away == "publisher" {
				if _, err := s.Receive(ctx); lostPeer(err) == nil || lostPeer(err).Node != "away" {
					t.Fatal(err)
				}
			} else {
				await(t, "it to be forgotten", func() bool { return p.Stats().Subscribers == 0 })
			}
			before := s.Stats()
			l.hide(false)
			confirmed := func() bool { return s.Stats().Publishers == 1 && p.Stats().Subscribers == 1 }
			if away == "publisher" {
				await(t, "it to be confirmed again", confirmed)
			} else { // which it was before; so it has to be told of the loss first
				for told := false; !told; {
					m, err := s.Receive(ctx)
					if told = lostPeer(err) != nil; !told && (err != nil || m.Value != 1) {
						t.Fatalf("%+v, %v", m, err)
					}
				}
				await(t, "it to be confirmed again", confirmed)
			}
			publish(t, p, "a", 2)
			for {
				m, err := s.Receive(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if m.Value == 2 {
					break
				}
				t.Errorf("got %d", m.Value)
			}
			if st := s.Stats(); st.Malformed != before.Malformed {
				t.Errorf("%+v", st)
			}
		})
	}
}
