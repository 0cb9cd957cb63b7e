package fabric

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// Buffers of every size arrive as they were filled, between copied messages and
// in their order; one that was not taken is still the caller's.
func TestSendBuffer(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	a, b := openNode(t, dir, "a"), openNode(t, dir, "b")
	mark := HighWaterMark{Bytes: 100_000}
	c := newConsumer(t, b, "x", ConsumerConfig{HighWaterMark: mark})
	p := newProducer(t, a, "x", ProducerConfig{HighWaterMark: mark})
	to, err := p.To(c.Address())
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{0, 1, 600, 8 << 10, 64 << 10, 64<<10 + 1, 300_000}
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			for i, size := range sizes {
				buf := NewBuffer(size)
				for k := range buf.Bytes() {
					buf.Bytes()[k] = byte(i + k)
				}
				if err := to.SendBuffer(ctx, buf); err != nil {
					return err
				}
				if err := to.Send(ctx, []byte{byte(i)}); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	for i, size := range sizes {
		want := make([]byte, size)
		for k := range want {
			want[k] = byte(i + k)
		}
		if m, err := c.Receive(ctx); err != nil || !bytes.Equal(m.Body, want) {
			t.Fatalf("buffer of %d bytes: got %d, %v", size, len(m.Body), err)
		}
		if m, err := c.Receive(ctx); err != nil || len(m.Body) != 1 || m.Body[0] != byte(i) {
			t.Fatalf("behind the buffer of %d bytes: %v, %v", size, m.Body, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for to.TrySend(make([]byte, 1000)) == nil {
	}
	kept := NewBuffer(2000)
	kept.Bytes()[0] = 42
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := to.SendBuffer(ended, kept); !errors.Is(err, context.Canceled) {
		t.Fatalf("at the mark: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := to.SendBuffer(ctx, kept); err != ErrClosed {
		t.Fatalf("after Close: %v", err)
	}
	if kept.Bytes()[0] != 42 {
		t.Error("a buffer that was not sent has changed")
	}
	kept.Release()
}
