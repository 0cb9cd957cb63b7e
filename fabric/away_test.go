package fabric

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

const awayMark = 8 << 20 // bytes, of streams whose other end is away

// awayLeft is what may be left of that, in pools and buffers, when it is given
// back: 1 MiB, or twice as much where the race detector keeps some.
func awayLeft() int64 {
	if raceEnabled {
		return awayMark / 4
	}
	return awayMark / 8
}

// fillAway sends messages of size bytes until the stream is at its mark, and
// returns how many were accepted.
func fillAway(t *testing.T, to *Target, size int) (accepted int64) {
	t.Helper()
	body := make([]byte, size)
	for {
		switch err := to.TrySend(body); {
		case err == nil:
			accepted++
		case errors.Is(err, ErrHighWater):
			return accepted
		default:
			t.Fatal(err)
		}
	}
}

// While its consumer is away a producer holds what its high-water mark says, and
// no more: TrySend answers, Send waits for as long as its context lets it.
func TestMemoryOfAProducerWhoseConsumerIsAway(t *testing.T) {
	for _, c := range []struct {
		size int
		most int64 // percent of the mark: small messages have headers, large ones memory in sizes of powers of two
	}{{64, 110}, {1 << 10, 110}, {100 << 10, 140}} {
		t.Run(fmt.Sprintf("messages of %d bytes", c.size), func(t *testing.T) {
			size := c.size
			ctx := testContext(t)
			p := newPair(t, ctx, time.Minute, time.Minute)
			producer := newProducer(t, p.a, "y", ProducerConfig{HighWaterMark: HighWaterMark{Bytes: awayMark, Messages: 1 << 30}})
			consumer := newConsumer(t, p.b, "y", ConsumerConfig{HighWaterMark: HighWaterMark{Bytes: awayMark, Messages: 1 << 30}})
			to := waitTarget(t, ctx, producer, consumer.Address())
			p.hide(t, ctx)
			before := heapInUse()
			accepted := fillAway(t, to, size)
			full := heapInUse() - before
			if bytes := accepted * int64(size); bytes > awayMark || bytes <= awayMark-int64(size) {
				t.Errorf("%d bytes are accepted, the mark is %d", bytes, awayMark)
			}
			// Whoever goes on asking costs nothing, and whoever waits little.
			body := make([]byte, size)
			for range 10_000 {
				if err := to.TrySend(body); !errors.Is(err, ErrHighWater) {
					t.Fatal(err)
				}
			}
			short, cancel := context.WithCancel(ctx)
			var waiting sync.WaitGroup
			for range 100 {
				waiting.Go(func() {
					if err := to.Send(short, body); !errors.Is(err, context.Canceled) {
						t.Errorf("a Send that waits: %v", err)
					}
				})
			}
			await(t, ctx, "all Sends to wait", func() bool {
				for _, s := range p.a.Stats().Streams {
					if s.Channel == "y" {
						return s.BlockedSends == 100
					}
				}
				return false
			})
			still := heapInUse() - before
			cancel()
			waiting.Wait()
			t.Logf("%d messages accepted, %d bytes of bodies: %d bytes of heap, %d after 10,000 were refused and while 100 wait", accepted, accepted*int64(size), full, still)
			if most := awayMark * c.most / 100; full > most || still > most {
				t.Errorf("%d and %d bytes, more than %d for a mark of %d", full, still, most, awayMark)
			}
			if full < awayMark*3/4 {
				t.Errorf("only %d bytes: this measures something else", full)
			}
		})
	}
}

// neighbours is traffic between the same two nodes on another channel.
func neighbours(t *testing.T, ctx context.Context, p *lostPair) *traffic {
	t.Helper()
	tr := startTraffic(t, p.a, p.b, "neighbours")
	tr.goesOn(t, ctx, 100)
	return tr
}

// A consumer that is gone for good costs its producer's node nothing any more,
// and the other streams of the link nothing at all.
func TestMemoryAfterTheConsumerIsLost(t *testing.T) {
	ctx := testContext(t)
	p := newPair(t, ctx, time.Minute, time.Minute)
	mark := HighWaterMark{Bytes: awayMark, Messages: 1 << 30}
	producer := newProducer(t, p.a, "y", ProducerConfig{HighWaterMark: mark})
	c := newConsumer(t, p.b, "y", ConsumerConfig{HighWaterMark: HighWaterMark{Bytes: 1 << 20, Messages: 1 << 30}})
	to := waitTarget(t, ctx, producer, c.Address())
	tr := neighbours(t, ctx, p)
	before := heapInUse()
	accepted := fillAway(t, to, 1<<10)
	full := heapInUse() - before
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	lost := lostIn(producer.Flush(ctx))
	if len(lost) != 1 || lost[0].InDoubtTo != uint64(accepted) || lost[0].Acknowledged == 0 || lost[0].Acknowledged == lost[0].InDoubtTo {
		t.Fatalf("%d messages were accepted, and what is lost is %+v", accepted, lost)
	}
	tr.goesOn(t, ctx, 1000)
	back := heapInUse() - before
	t.Logf("%d bytes of heap while it was there, %d when it was lost", full, back)
	if full < awayMark/2 || back > awayLeft() {
		t.Errorf("of %d bytes %d are still held", full, back)
	}
	if n := p.b.Stats().MemoryLent; n > 2*(1<<20) {
		t.Errorf("%d bytes are lent by the consumer's node", n)
	}
}

// A producer that is gone for good leaves its consumers with what has come, and
// nothing more: once that is handled all is given back.
func TestMemoryAfterTheProducerIsLost(t *testing.T) {
	ctx := testContext(t)
	p := newPair(t, ctx, time.Minute, 200*time.Millisecond)
	mark := HighWaterMark{Bytes: awayMark, Messages: 1 << 30}
	producer := newProducer(t, p.a, "y", ProducerConfig{HighWaterMark: mark})
	c := newConsumer(t, p.b, "y", ConsumerConfig{HighWaterMark: mark})
	to := waitTarget(t, ctx, producer, c.Address())
	before := heapInUse()
	// The window that is lent grows while the consumer keeps pace.
	const all, handled = 16 << 10, 12 << 10
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			body := make([]byte, 1<<10)
			for range all {
				if err := to.Send(ctx, body); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	got := uint64(0)
	for range handled {
		if _, err := c.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		got++
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	stored := func() (s StreamStats) {
		for _, st := range p.b.Stats().Streams {
			if st.Channel == "y" {
				s = st
			}
		}
		return s
	}
	await(t, ctx, "a megabyte to be stored", func() bool { return stored().DepthBytes > 1<<20 })
	p.hide(t, ctx)
	await(t, ctx, "the stream to be lost", func() bool { return stored().Messages == 0 })
	full := heapInUse() - before
	var err error
	for err == nil {
		if _, err = c.Receive(ctx); err == nil {
			got++
		}
	}
	wantLost(t, err, PeerLostError{Node: "a", Channel: "y", Acknowledged: got, InDoubtTo: got, Receiving: true})
	short, cancel := context.WithCancel(ctx)
	cancel()
	c.Receive(short) // which handles the last one
	if n := p.b.Stats().MemoryLent; n != 0 {
		t.Errorf("%d bytes are still lent", n)
	}
	p.px.shutdown(false) // the producer's end hears that the stream is lost, and gives its part back, too
	await(t, ctx, "the producer's end to be told", func() bool { return to.stream.View().Failed })
	back := heapInUse() - before
	t.Logf("%d bytes of heap at both ends when it was lost, %d when all was handled", full, back)
	if full < 1<<20 || back > awayLeft() {
		t.Errorf("of %d bytes %d are still held", full, back)
	}
}
