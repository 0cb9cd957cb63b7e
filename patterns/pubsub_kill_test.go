package patterns

import (
	"context"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
)

func init() {
	roles["publisher"] = childPublisher
	roles["subscriber"] = childSubscriber
}

// childPublisher publishes numbers from 0 on, until it is killed.
func childPublisher(ctx context.Context, node *fabric.Node) error {
	p, err := OpenPublisher(ctx, node, PublisherConfig[int]{Channel: "news", Quality: Reliable})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.WaitSubscribers(ctx, 1); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if err := p.Publish(ctx, "a", i); err != nil {
			return err
		}
	}
}

// childSubscriber reads nothing.
func childSubscriber(ctx context.Context, node *fabric.Node) error {
	s, err := OpenSubscriber(ctx, node, SubscriberConfig[int]{
		Channel: "news", Filters: []Filter{Prefix("")}, Quality: Reliable, Queue: fabric.HighWaterMark{Messages: 10},
	})
	if err != nil {
		return err
	}
	defer s.Close()
	<-ctx.Done()
	return nil
}

// A publisher that is killed has published an unbroken run, of whose end the
// subscriber is told; and so has its next life, which begins anew.
func TestPubSubPublisherKilled(t *testing.T) {
	n, dir := newNursery(t)
	s := openSubscriberOf(t, openNode(t, dir, "here"), SubscriberConfig[int]{})
	n.start("publisher", "p")
	next := 0
	for lives := 0; lives < 3; {
		m, err := s.Receive(testContext(t))
		switch {
		case lostPeer(err) != nil:
			next = 0
		case err != nil || m.Value != next:
			t.Fatalf("got %d, %v, want %d of life %d", m.Value, err, next, lives)
		default:
			if next++; next == 1000 {
				lives++
				n.kill(0)
				n.start("publisher", "p") // the fabric learns by this that the one before is gone
			}
		}
	}
}

// A subscriber's process that is killed holds nobody up for longer than the fabric
// takes to give it up, and it is forgotten then.
func TestPubSubSubscriberKilled(t *testing.T) {
	n, dir := newNursery(t)
	home := openNodeOf(t, fabric.Config{
		Name: "here", Directory: dir, ResumeWindow: 200 * time.Millisecond, HeartbeatInterval: 50 * time.Millisecond, HeartbeatTimeout: 5 * time.Second,
	})
	p := openPublisherOf(t, home, PublisherConfig[int]{})
	n.start("subscriber", "s")
	check(t, p.WaitSubscribers(testContext(t), 1))
	published := make(chan error, 1)
	go func() {
		for range 20 { // more than it has room for
			if err := p.Publish(testContext(t), "a", 1); err != nil {
				published <- err
				return
			}
		}
		published <- nil
	}()
	await(t, "it to wait", func() bool { return p.Stats().Waiting == 1 })
	n.kill(0)
	check(t, <-published)
	if st := p.Stats(); st.Subscribers != 0 || len(st.Nodes) != 0 {
		t.Errorf("%+v", st)
	}
}
