package patterns

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// BenchmarkPipeline is jobs from one pusher to two workers at other nodes, over
// TCP, each acknowledged: as raw bytes, and as a struct in as many bytes of
// MessagePack. allocs/op is what both ends allocate for a job.
func BenchmarkPipeline(b *testing.B) {
	encoded, err := newCoder[reading](nil).append(nil, aReading)
	check(b, err)
	for _, d := range []Delivery{AtLeastOnce, AtMostOnce} {
		b.Run(d.String()+"/raw", func(b *testing.B) { benchPipeline(b, d, encoded) })
		b.Run(d.String()+"/msgpack", func(b *testing.B) { benchPipeline(b, d, aReading) })
		b.Run(d.String()+"/msgpack-array", func(b *testing.B) { benchPipeline(b, d, aCompact) })
	}
}

func benchPipeline[T any](b *testing.B, d Delivery, job T) {
	push, end := pipelineOf(b, d, job)
	b.ReportAllocs()
	b.ResetTimer()
	push(b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.StopTimer()
	end()
}

// pipelineOf opens a pipeline with two workers at other nodes. push pushes so many
// of the job, and returns when all are acknowledged, or taken with at most once.
func pipelineOf[T any](b *testing.B, d Delivery, job T) (push func(jobs int), end func()) {
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
	push = func(jobs int) {
		for range jobs {
			if err := p.Push(ctx, job); err != nil {
				b.Fatal(err)
			}
		}
		check(b, p.Flush(ctx))
	}
	end = func() {
		check(b, p.Drain(ctx))
		for range workers {
			check(b, <-done)
		}
	}
	return push, end
}

// BenchmarkTypedPipeline is what MessagePack costs: a pipeline of a small struct
// beside one of the same bytes, as they are. They take turns, so that both see the
// same machine; the median rate of each is reported, and the ratio, which is promised
// to be at least 0.5. What each takes of the processors is told beside it, both ends
// together, as a busy machine changes that little: raw-cpu-ns and cpu-ns for a job, and
// codec-cpu-ns for encoding and decoding it alone.
func BenchmarkTypedPipeline(b *testing.B) {
	b.Run("map", func(b *testing.B) { benchTyped(b, aReading) })
	b.Run("array", func(b *testing.B) { benchTyped(b, aCompact) })
}

func benchTyped[T any](b *testing.B, job T) {
	c := newCoder[T](nil)
	encoded, err := c.append(nil, job)
	check(b, err)
	pushRaw, endRaw := pipelineOf(b, AtLeastOnce, encoded)
	pushTyped, endTyped := pipelineOf(b, AtLeastOnce, job)
	const turn = 20_000
	var raws, typed, codec turns
	buf, got := encoded, new(T)
	for b.Loop() {
		raws.take(turn, func() { pushRaw(turn) })
		typed.take(turn, func() { pushTyped(turn) })
		codec.take(turn, func() {
			for range turn {
				buf, _ = c.append(buf[:0], job)
				*got = *new(T)
				check(b, c.decode(buf, got))
			}
		})
	}
	endRaw()
	endTyped()
	raw, rawCPU := raws.median()
	all, allCPU := typed.median()
	_, codecCPU := codec.median()
	b.ReportMetric(1e9/raw, "raw-jobs/s")
	b.ReportMetric(1e9/all, "jobs/s")
	b.ReportMetric(raw/all, "ratio")
	b.ReportMetric(rawCPU, "raw-cpu-ns")
	b.ReportMetric(allCPU, "cpu-ns")
	b.ReportMetric(codecCPU, "codec-cpu-ns")
	b.ReportMetric(0, "ns/op") // of a turn: says nothing
}

// turns is what some turns took for each of their parts, in ns.
type turns struct{ clock, cpu []float64 }

// take takes a turn of so many parts.
func (t *turns) take(parts int, turn func()) {
	began, cpu := time.Now(), cpuTime()
	turn()
	t.clock = append(t.clock, float64(time.Since(began).Nanoseconds())/float64(parts))
	t.cpu = append(t.cpu, float64((cpuTime()-cpu).Nanoseconds())/float64(parts))
}

func (t *turns) median() (clock, cpu float64) {
	slices.Sort(t.clock)
	slices.Sort(t.cpu)
	return t.clock[len(t.clock)/2], t.cpu[len(t.cpu)/2]
}
