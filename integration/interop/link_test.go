package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/integration/internal/process"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openNode opens a node on loopback TCP that is closed with the test.
func openNode(t *testing.T, name string, dir directory.Service) *fabric.Node {
	t.Helper()
	n, err := fabric.Open(testContext(t), fabric.Config{Name: name, Directory: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// serve serves a directory, and returns its address.
func serve(t *testing.T, registry *directory.Registry) string {
	t.Helper()
	s, err := directory.Serve(testContext(t), registry, "tcp://127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.Addr()
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %v", what, patience)
		}
	}
}

// A libzmq ROUTER joins the link of a node as the consumer's node. It lends room
// for two messages and settles none: with five accepted the producer is at its
// high-water mark, and its Send waits. When the consumer settles, all arrive, one
// larger than any window in fragments.
func TestALibzmqRouterConsumes(t *testing.T) {
	const mark, lent = 5, 2
	ctx := testContext(t)
	n := openNode(t, "p1", nil)
	producer, err := n.Producer(ctx, "scores", fabric.ProducerConfig{HighWaterMark: fabric.HighWaterMark{Messages: mark}})
	if err != nil {
		t.Fatal(err)
	}
	plain := start(t, "consumer", n.Endpoint(), "p1", "c1", "scores")
	if _, node := plain.Await(t, "hello", time.Time{}, patience); node != "p1" {
		t.Fatalf("hello of %q", node)
	}
	if err := producer.WaitConsumers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	bodies := [][]byte{[]byte("hi"), {}, []byte("you"), bytes.Repeat([]byte("f"), 200_000)}
	for i := range 20 {
		bodies = append(bodies, fmt.Appendf(nil, "message %d", i))
	}
	var accepted atomic.Int64
	sent := make(chan error, 1)
	go func() {
		for _, body := range bodies {
			if err := producer.Send(ctx, fabric.Address{Node: "c1", Index: 3}, body); err != nil {
				sent <- err
				return
			}
			accepted.Add(1)
		}
		sent <- producer.Drain(ctx)
	}()

	plain.Await(t, "message", time.Time{}, patience)
	var stream fabric.StreamStats
	until(t, "a Send that waits", func() bool {
		stream = n.Stats().Streams[0]
		return stream.BlockedSends == 1 && stream.Acknowledged == lent
	})
	if got := accepted.Load(); got != mark || stream.Messages != mark || stream.Limit != lent || stream.Settled != 0 {
		t.Errorf("%d messages were accepted with a high-water mark of %d: %+v", got, mark, stream)
	}
	if got := plain.All("message"); len(got) != lent {
		t.Errorf("%d messages have arrived where %d were lent room", len(got), lent)
	}

	plain.Tell(t, "settle")
	plain.Await(t, "finished", time.Time{}, patience)
	plain.Await(t, "reset", time.Time{}, patience)
	plain.Await(t, "done", time.Time{}, patience)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, body := range bodies {
		want = append(want, fmt.Sprintf("%d %d %08x", i, len(body), crc32.ChecksumIEEE(body)))
	}
	if got := plain.All("message"); !slices.Equal(got, want) {
		t.Errorf("messages (number, bytes, checksum):\n%q\nwant\n%q", got, want)
	}
	until(t, "the end of the link", func() bool { return !n.Connected("c1") })
}

// A libzmq DEALER registers as a producer's node in the directory, with a plain
// REQ, and binds; a node with a consumer finds it and dials. It sends what the
// consumer lends room for and no more, until the consumer receives.
func TestALibzmqDealerProduces(t *testing.T) {
	const count, mark = 500, 20
	ctx := testContext(t)
	address := serve(t, directory.NewRegistry())
	client, err := directory.Dial(ctx, address, directory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	n := openNode(t, "c1", client)
	consumer, err := n.Consumer(ctx, "scores", fabric.ConsumerConfig{Producers: 1, HighWaterMark: fabric.HighWaterMark{Messages: mark}})
	if err != nil {
		t.Fatal(err)
	}
	plain := start(t, "producer", address, "p9", "scores", fmt.Sprint(count))
	plain.Await(t, "registered", time.Time{}, patience)
	if _, node := plain.Await(t, "hello", time.Time{}, patience); node != "c1" {
		t.Fatalf("hello of %q", node)
	}
	blockedAt(t, plain, fmt.Sprint(mark))
	if got := plain.All("settled"); len(got) > 0 {
		t.Errorf("settled %v before anything was received", got)
	}

	for i := range count {
		m, err := consumer.Receive(ctx)
		if want := fmt.Sprintf("message %d", i); err != nil || string(m.Body) != want || m.Source() != (fabric.Address{Node: "p9"}) {
			t.Fatalf("%q of %v, %v; want %q", m.Body, m.Source(), err, want)
		}
	}
	if _, err := consumer.Receive(ctx); !errors.Is(err, fabric.ErrEnd) {
		t.Fatal(err)
	}
	if err := consumer.Close(); err != nil {
		t.Fatal(err)
	}
	plain.Await(t, "done", time.Time{}, patience)
}

// blockedAt waits until the plain producer says that the limit holds it up there.
func blockedAt(t *testing.T, plain *process.Process, messages string) {
	t.Helper()
	until(t, "blocked at "+messages+" messages", func() bool { return slices.Contains(plain.All("blocked"), messages) })
}
