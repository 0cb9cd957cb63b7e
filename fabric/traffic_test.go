package fabric

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
)

// openWith opens a node that is closed with the test.
func openWith(t testing.TB, cfg Config) *Node {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n, err := Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// traffic is a producer that sends numbered messages to a consumer for as long
// as the test runs, and the consumer that checks their order.
type traffic struct {
	received atomic.Uint64
	arrived  chan struct{} // capacity 1
}

func startTraffic(t testing.TB, from, to *Node, channel string) *traffic {
	t.Helper()
	mark := HighWaterMark{Messages: 64}
	c := newConsumer(t, to, channel, ConsumerConfig{HighWaterMark: mark})
	p := newProducer(t, from, channel, ProducerConfig{HighWaterMark: mark})
	if err := p.WaitConsumers(testContext(t), 1); err != nil {
		t.Fatal(err)
	}
	target, err := p.To(c.Address())
	if err != nil {
		t.Fatal(err)
	}
	tr := &traffic{arrived: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		body := make([]byte, 8)
		for i := uint64(0); ; i++ {
			binary.BigEndian.PutUint64(body, i)
			if err := target.Send(ctx, body); err != nil {
				if ctx.Err() == nil {
					t.Errorf("good peer's message %d: %v", i, err)
				}
				return
			}
		}
	})
	wg.Go(func() {
		for i := uint64(0); ; i++ {
			m, err := c.Receive(ctx)
			if err == nil && binary.BigEndian.Uint64(m.Body) != i {
				err = fmt.Errorf("it is number %d", binary.BigEndian.Uint64(m.Body))
			}
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("good peer's message %d: %v", i, err)
				}
				return
			}
			tr.received.Add(1)
			select {
			case tr.arrived <- struct{}{}:
			default:
			}
		}
	})
	return tr
}

// goesOn waits until count more messages have arrived.
func (tr *traffic) goesOn(t testing.TB, ctx context.Context, count uint64) {
	t.Helper()
	for until := tr.received.Load() + count; tr.received.Load() < until; {
		select {
		case <-tr.arrived:
		case <-ctx.Done():
			t.Fatalf("traffic of the good peer stands still at message %d", tr.received.Load())
		}
	}
}
