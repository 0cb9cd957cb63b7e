package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// Handlers that fail or panic are tried again, and hold up their partition only.
func TestEventsHandlersFail(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openEventPublisherOf(t, openNode(t, dir, "p"), EventPublisherConfig[string]{Partitions: 4})
	m := openEventMemberOf(t, openNode(t, dir, "m"), EventMemberConfig[string]{Publishers: 1, MaxAttempts: 2})
	var tries, good atomic.Int64
	var handling sync.WaitGroup
	handling.Go(func() {
		check(t, m.Handle(ctx, 2, func(_ context.Context, e Event[string]) error {
			switch e.Value {
			case "fails once":
				if tries.Add(1) == 1 {
					return errors.New("not now")
				}
			case "fails":
				return errors.New("never")
			case "panics":
				panic("no idea")
			}
			good.Add(1)
			return nil
		}))
	})
	for i, v := range []string{"good", "fails once", "fails", "panics", "good"} {
		check(t, p.Publish(ctx, fmt.Append(nil, i), v))
	}
	check(t, p.Drain(ctx))
	handling.Wait()
	if st := m.Stats(); st.Retried != 3 || st.Failed != 2 || good.Load() != 3 || st.InHand != 0 {
		t.Errorf("%d good, %+v", good.Load(), st)
	}
	if err := m.Handle(ctx, 0, nil); !errors.Is(err, fabric.ErrConfig) {
		t.Error(err)
	}
	check(t, m.Close())
	if err := m.Handle(ctx, 1, nil); err != fabric.ErrClosed {
		t.Error(err)
	}
}

// Events of another type, that cannot be encoded, or are too large, and records that
// are none: errors or counts, and the partition goes on.
func TestEventsBadInput(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openEventPublisherOf(t, openNodeOf(t, fabric.Config{Name: "p", Directory: dir, MaxMessage: 1000}), EventPublisherConfig[string]{Partitions: 1, Codec: failing{}})
	large := string(make([]byte, 2000))
	check(t, p.Publish(ctx, []byte("key"), large)) // nobody is there yet who refuses it
	m := openEventMemberOf(t, openNode(t, dir, "m"), EventMemberConfig[string]{Codec: failing{}, InFlight: 2})
	check(t, p.WaitMembers(ctx, 1))
	await(t, "the large one to be dropped", func() bool { return p.Stats().Dropped == 1 })
	var undeliverable *UndeliverableError
	if err := p.Flush(ctx); !errors.As(err, &undeliverable) || undeliverable.Events != 1 || !tooLarge(err) {
		t.Error(err)
	}
	if err := p.Publish(ctx, []byte("key"), large); !tooLarge(err) {
		t.Error(err)
	}
	var codec *CodecError
	for _, v := range []string{"fails", "panics"} {
		if err := p.Publish(ctx, []byte("key"), v); !errors.As(err, &codec) || codec.Decoding {
			t.Error(err)
		}
	}
	check(t, p.Publish(ctx, []byte("key"), "fails at the other end"))
	check(t, p.Publish(ctx, []byte("key"), "panics at the other end"))
	check(t, p.Publish(ctx, nil, "good"))
	for range 2 {
		if _, err := m.Receive(ctx); !errors.As(err, &codec) || !codec.Decoding {
			t.Error(err)
		}
	}
	if e, err := m.Receive(ctx); err != nil || e.Value != "good" || len(e.Key) != 0 {
		t.Errorf("%+v, %v", e, err)
	} else {
		check(t, e.Ack())
	}
	check(t, p.Flush(ctx))
	stranger, err := openNode(t, dir, "x").Producer(ctx, "orders", fabric.ProducerConfig{})
	check(t, err)
	check(t, stranger.WaitConsumers(ctx, 1))
	records := [][]byte{
		nil, []byte("hello"), appendRecord(nil, kindEvent, 0, 0, 0, 0, 0), appendRecord(nil, kindEvent, 0, 5000, 1, 1, 1, 0),
		appendRecord(nil, kindEvent, 0, 0, 1, 1, 1, 9), appendRecord(nil, 99),
	}
	for _, record := range records {
		check(t, stranger.SendAll(ctx, record))
		var e *RecordError
		if _, err := m.Receive(ctx); !errors.As(err, &e) || e.From != stranger.Address() {
			t.Error(err)
		}
	}
	check(t, stranger.SendAll(ctx, appendRecord(nil, kindEvent, 7, 0, 1, 1, 1, 0))) // of a publisher that is not there
	if _, err := m.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if st := m.Stats(); st.Undecodable != 2 || st.Malformed != uint64(len(records)) || st.Orphaned != 1 {
		t.Errorf("%+v", st)
	}
	acks, err := openNode(t, dir, "y").Producer(ctx, "orders.upto", fabric.ProducerConfig{})
	check(t, err)
	check(t, acks.WaitConsumers(ctx, 1))
	bad := [][]byte{
		[]byte("hello"), appendRecord(nil, kindUpTo, 1, 1, 1), appendRecord(nil, kindUpTo, 0), appendRecord(nil, kindGroupHello, 1, 2),
		appendRecord(nil, kindGroupHello, 1, 2, 0), appendRecord(nil, kindGroupBye), appendRecord(nil, kindEvent, 1),
	}
	for _, record := range bad {
		check(t, acks.SendAll(ctx, record))
	}
	check(t, acks.SendAll(ctx, appendRecord(nil, kindUpTo, 0, p.core.parts[0].epoch, 99))) // of somebody who does not own it
	await(t, "all to be counted", func() bool { st := p.Stats(); return st.Malformed == uint64(len(bad)) && st.Late == 1 })
}

func TestEventsRefuseBadConfig(t *testing.T) {
	ctx, n := testContext(t), openNode(t, directory.NewRegistry(), "n")
	for _, cfg := range []EventPublisherConfig[int]{
		{Partitions: -1}, {Partitions: maxPartitions + 1}, {Unacknowledged: fabric.HighWaterMark{Messages: -1}}, {Unacknowledged: fabric.HighWaterMark{Bytes: -1}},
	} {
		cfg.Channel = "orders"
		if _, err := OpenEventPublisher(ctx, n, cfg); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	for _, cfg := range []EventMemberConfig[int]{{InFlight: -1}, {InFlight: maxInFlight + 1}, {MaxAttempts: -1}, {Publishers: -1}} {
		cfg.Channel = "orders"
		if _, err := OpenEventMember(ctx, n, cfg); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
