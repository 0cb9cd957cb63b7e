package fabric

import (
	"context"
	"errors"
	"testing"
)

// A Send that waits when its producer closes has not been accepted: the
// consumers were told that the producer has finished.
func TestProducerClosesWhileItsSendWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	cr := newCrowd(t, ctx, HighWaterMark{Messages: 10}, 1)
	said := waiting(t, ctx, cr)
	if err := cr.producer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cr.receive(ctx, 0, 0, 10); err != nil {
		t.Fatal(err)
	}
	if m, err := cr.consumers[0].Receive(ctx); err != ErrEnd {
		t.Errorf("behind the last message: %q, %v", m.Body, err)
	}
	if err := <-said; !errors.Is(err, ErrClosed) {
		t.Errorf("the Send that waited said %v", err)
	}
}
