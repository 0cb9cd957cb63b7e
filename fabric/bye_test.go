package fabric

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// A node that closes while its peer is sending is heard all the same: what the
// peer has on its way does not make the kernel throw the last word away.
func TestCloseIsHeardByAPeerThatSends(t *testing.T) {
	for range 20 {
		ctx, dir := testContext(t), directory.NewRegistry()
		leaver, stays := openNode(t, dir, "leaver"), openNode(t, dir, "stays")
		c := newConsumer(t, stays, "there", ConsumerConfig{})
		p := newProducer(t, leaver, "there", ProducerConfig{})
		back := newConsumer(t, leaver, "back", ConsumerConfig{})
		q := newProducer(t, stays, "back", ProducerConfig{})
		if err := p.Send(ctx, c.Address(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		if err := q.WaitConsumers(ctx, 1); err != nil {
			t.Fatal(err)
		}
		to, err := q.To(back.Address())
		if err != nil {
			t.Fatal(err)
		}
		sent, cancel := context.WithCancel(ctx)
		var sending sync.WaitGroup
		first := make(chan struct{})
		sending.Go(func() {
			for i := 0; to.Send(sent, make([]byte, 1000)) == nil; i++ {
				if i == 0 {
					close(first)
				}
			}
		})
		<-first
		began := time.Now()
		if err := leaver.Close(); err != nil {
			t.Fatal(err)
		}
		var lost *PeerLostError
		if _, err := c.Receive(ctx); !errors.As(err, &lost) || !strings.Contains(lost.Reason, "the node has closed") {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		cancel()
		sending.Wait()
	}
}
