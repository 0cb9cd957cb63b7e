package fabric

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// lostIn returns the losses that err joins.
func lostIn(err error) (list []PeerLostError) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			list = append(list, lostIn(e)...)
		}
		return list
	}
	var lost *PeerLostError
	if errors.As(err, &lost) {
		list = append(list, *lost)
	}
	return list
}

// Consumers at one address that close one after another, each with messages in
// doubt, are told one by one, and each of them once, whether Flush waits when it
// happens or comes later.
func TestFlushTellsEveryLossOnce(t *testing.T) {
	for _, waits := range []bool{true, false} {
		t.Run(fmt.Sprintf("Flush waits %v", waits), func(t *testing.T) {
			const lives = 20
			ctx := testContext(t)
			dir := directory.NewRegistry()
			a, b := openWith(t, Config{Name: "a", Directory: dir}), openWith(t, Config{Name: "b", Directory: dir, HeartbeatInterval: 10 * time.Millisecond})
			p := newProducer(t, a, "x", ProducerConfig{HighWaterMark: HighWaterMark{Messages: 8}})
			var told []PeerLostError
			for life := range lives {
				c := newConsumer(t, b, "x", ConsumerConfig{HighWaterMark: HighWaterMark{Messages: 2}})
				to := waitTarget(t, ctx, p, c.Address())
				for range 8 {
					if err := to.Send(ctx, nil); err != nil {
						t.Fatal(err)
					}
				}
				flushed := make(chan error, 1)
				if waits {
					go func() { flushed <- p.Flush(ctx) }()
				}
				await(t, ctx, "two messages to be stored", func() bool { return to.stream.View().Acknowledged == 2 })
				// Flush and the node learn of the loss at the same moment.
				p.channel.mu.Lock()
				closed := make(chan error, 1)
				go func() { closed <- c.Close() }()
				await(t, ctx, "the stream to fail", func() bool { return to.stream.View().Failed })
				p.channel.mu.Unlock()
				if err := <-closed; err != nil {
					t.Fatal(err)
				}
				if waits {
					got := lostIn(<-flushed)
					if len(got) != 1 || got[0].InDoubtTo != 8 {
						t.Fatalf("life %d: Flush says %v", life, got)
					}
					told = append(told, got...)
				}
				await(t, ctx, "the node to know", func() bool { return len(p.Consumers()) == 0 })
			}
			told = append(told, lostIn(p.Flush(ctx))...)
			if len(told) != lives {
				t.Errorf("%d losses told of %d", len(told), lives)
			}
			if err := p.Flush(ctx); err != nil {
				t.Errorf("at last: %v", err)
			}
		})
	}
}

// A producer that never flushes keeps a bounded list of its losses, and counts
// the others.
func TestLossesAreBounded(t *testing.T) {
	var l losses
	const more = 7
	for range maxLosses + more {
		l.add(&PeerLostError{Acknowledged: 3, InDoubtTo: 5})
	}
	told := l.take()
	var rest *MoreLostError
	if len(told) != maxLosses+1 || !errors.As(told[maxLosses], &rest) || *rest != (MoreLostError{Streams: more, InDoubt: 2 * more}) {
		t.Errorf("%d told, the last is %v", len(told), told[len(told)-1])
	}
	if again := l.take(); len(again) > 0 {
		t.Errorf("told again: %v", again)
	}
}

// Every producer at the node is told, also one that has sent nothing: the stream
// is theirs together.
func TestAllProducersOfANodeAreTold(t *testing.T) {
	ctx := testContext(t)
	p := newLostPair(t, ctx, 100*time.Millisecond, time.Minute)
	second := newProducer(t, p.a, "x", ProducerConfig{Index: 1})
	for _, producer := range []*Producer{p.producer, second} {
		wantLost(t, producer.Flush(ctx), PeerLostError{Node: "b", Channel: "x", Acknowledged: 10, InDoubtTo: 15})
	}
}
