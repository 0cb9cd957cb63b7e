package patterns

import (
	"context"
	"fmt"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// BenchmarkPipeline is jobs from one pusher to two workers at other nodes, over
// TCP, each acknowledged: as raw bytes, and as a struct in as many bytes of
// MessagePack. allocs/op is what both ends allocate for a job.
func BenchmarkPipeline(b *testing.B) {
	encoded, err := newCoder[reading](nil).append(nil, aReading)
	check(b, err)
	for _, d := range []Delivery{AtLeastOnce, AtMostOnce} {
		name := map[Delivery]string{AtLeastOnce: "at-least-once", AtMostOnce: "at-most-once"}[d]
		b.Run(name+"/raw", func(b *testing.B) { benchPipeline(b, d, encoded) })
		b.Run(name+"/msgpack", func(b *testing.B) { benchPipeline(b, d, aReading) })
		b.Run(name+"/msgpack-array", func(b *testing.B) {
			benchPipeline(b, d, compact{Sensor: 70_000, Site: "north tower", Value: 21.5, Flags: 3})
		})
	}
}

func benchPipeline[T any](b *testing.B, d Delivery, job T) {
	ctx, dir := context.Background(), directory.NewRegistry()
	const workers = 2
	done := make(chan error, workers)
	p := openPusherOf(b, openNode(b, dir, "pusher"), PusherConfig[T]{Delivery: d})
	for i := range workers {
		w := openPullerOf(b, openNode(b, dir, fmt.Sprint("worker", i)), PullerConfig[T]{InFlight: 1024, Pushers: 1})
		go func() {
			for j, err := range w.Jobs(ctx) {
				if err == nil {
					err = j.Ack()
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	check(b, p.WaitWorkers(ctx, workers))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := p.Push(ctx, job); err != nil {
			b.Fatal(err)
		}
	}
	check(b, p.Drain(ctx))
	for range workers {
		check(b, <-done)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}
