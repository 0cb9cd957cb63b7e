package fabric

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// forgetful is a directory whose watches also tell what a test puts in.
type forgetful struct {
	directory.Service
	told chan directory.Event
}

type forgetfulWatch struct {
	directory.Watcher
	real, told chan directory.Event
	err        chan error
	closed     chan struct{}
	once       sync.Once
}

func (f *forgetful) Watch(ctx context.Context, channel string) (directory.Watcher, error) {
	w, err := f.Service.Watch(ctx, channel)
	if err != nil {
		return nil, err
	}
	fw := &forgetfulWatch{Watcher: w, real: make(chan directory.Event), told: f.told, err: make(chan error, 1), closed: make(chan struct{})}
	go func() { // ends with the watch
		for {
			e, err := w.Next(context.Background())
			if err != nil {
				fw.err <- err
				return
			}
			select {
			case fw.real <- e:
			case <-fw.closed:
				return
			}
		}
	}()
	return fw, nil
}

func (w *forgetfulWatch) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Watcher.Close()
}

func (w *forgetfulWatch) Next(ctx context.Context) (directory.Event, error) {
	select {
	case e := <-w.real:
		return e, nil
	case e := <-w.told:
		return e, nil
	case err := <-w.err:
		return directory.Event{}, err
	case <-ctx.Done():
		return directory.Event{}, ctx.Err()
	}
}

// newForgottenPair is a pair of which 10 messages are stored, and the link is down.
// Its producer's directory tells what the test puts in.
func newForgottenPair(t *testing.T, ctx context.Context, window time.Duration) (*lostPair, *forgetful) {
	t.Helper()
	dir := directory.NewRegistry()
	p := &lostPair{dir: dir, px: newProxy(t, dir, forever)}
	forgets := &forgetful{Service: p.px, told: make(chan directory.Event)}
	cfg := Config{HeartbeatInterval: 20 * time.Millisecond, HeartbeatTimeout: 10 * time.Second, ResumeWindow: window}
	cfg.Name, cfg.Directory = "a", forgets
	p.a = openWith(t, cfg)
	cfg.Name, cfg.Directory = "b", dir
	p.b = openWith(t, cfg)
	p.c = newConsumer(t, p.b, "x", ConsumerConfig{})
	p.producer = newProducer(t, p.a, "x", ProducerConfig{HighWaterMark: HighWaterMark{Messages: 15}})
	p.to = waitTarget(t, ctx, p.producer, Address{"b", 0})
	p.send(t, ctx, 0, 10)
	if err := p.producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	p.hide(t, ctx)
	return p, forgets
}

// A host that is away for longer than its lease is out of the directory, and its
// consumers with it. Who has a consumer's target goes on sending to it, up to the
// mark; when the host is back within the resume window, all of it arrives.
func TestLeaseEndsWhileTheHostIsAway(t *testing.T) {
	ctx := testContext(t)
	p, forgets := newForgottenPair(t, ctx, time.Minute)
	member := directory.Member{Channel: "x", Role: directory.Consumer, Node: "b"}
	node, err := p.dir.Node(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	forgets.told <- directory.Event{Kind: directory.Removed, Member: member, Node: node, Expired: true}
	await(t, ctx, "the consumer to be out of the channel", func() bool { return len(p.producer.Consumers()) == 0 })
	if _, err := p.producer.To(Address{"b", 0}); !errors.Is(err, ErrNoConsumer) {
		t.Errorf("one that is away is found: %v", err)
	}
	p.send(t, ctx, 10, 15)
	if err := p.to.TrySend([]byte{15}); err != ErrHighWater {
		t.Errorf("at the mark: %v", err)
	}

	forgets.told <- directory.Event{Kind: directory.Added, Member: member, Node: node}
	again := waitTarget(t, ctx, p.producer, Address{"b", 0})
	if again.stream != p.to.stream {
		t.Error("another stream has taken its place")
	}
	p.px.shutdown(false)
	p.exchange(t, ctx, 0, 15, 40)
	if err := p.producer.Drain(ctx); err != nil {
		t.Error(err)
	}
}

// If it does not come back in time, what is in doubt is told exactly.
func TestLeaseEndsAndTheHostStaysAway(t *testing.T) {
	ctx := testContext(t)
	p, forgets := newForgottenPair(t, ctx, 500*time.Millisecond)
	p.send(t, ctx, 10, 12)
	node, err := p.dir.Node(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	forgets.told <- directory.Event{
		Kind: directory.Removed, Member: directory.Member{Channel: "x", Role: directory.Consumer, Node: "b"}, Node: node, Expired: true,
	}
	wantLost(t, p.producer.Flush(ctx), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 12})
}
