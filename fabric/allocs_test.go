package fabric

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// A message allocates nothing, at neither end: what grows and what is pooled has been got when so many have passed. The
// collector, which empties pools, does not run meanwhile.
func TestMessagesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and pools keep less")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, tt := range []struct{ size, count int }{{64, 50_000}, {1 << 10, 20_000}, {64 << 10, 2_000}} {
		t.Run(fmt.Sprint(tt.size), func(t *testing.T) {
			ctx, dir := testContext(t), directory.NewRegistry()
			c := newConsumer(t, openNode(t, dir, "consumer"), "x", ConsumerConfig{})
			p := newProducer(t, openNode(t, dir, "producer"), "x", ProducerConfig{})
			if err := p.WaitConsumers(ctx, 1); err != nil {
				t.Fatal(err)
			}
			to, err := p.To(c.Address())
			if err != nil {
				t.Fatal(err)
			}
			body := make([]byte, tt.size)
			pass := func(count int) {
				sent := make(chan error, 1)
				go func() {
					var err error
					for range count {
						if tt.size >= 8<<10 {
							err = to.SendBuffer(ctx, NewBuffer(tt.size))
						} else {
							err = to.Send(ctx, body)
						}
						if err != nil {
							break
						}
					}
					sent <- err
				}()
				for range count {
					if m, err := c.Receive(context.Background()); err != nil || len(m.Body) != tt.size {
						t.Fatalf("%d bytes, %v", len(m.Body), err)
					}
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
			pass(tt.count)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			pass(tt.count)
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; n > uint64(tt.count)/20 {
				t.Errorf("%d allocations for %d messages", n, tt.count)
			} else {
				t.Logf("%d allocations for %d messages", n, tt.count)
			}
		})
	}
}
