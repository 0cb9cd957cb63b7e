package patterns

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// BenchmarkRoundTrip is a call of 64 bytes to a server at another node, over TCP,
// beside the same bytes there and back over a plain TCP connection between two
// goroutines, all in one process, where a raw round trip often changes no thread at
// all. They take turns, so that both see the same machine; p50 of each is reported, and
// the ratio. p10 is what they take when nothing else wants the processors. Between two
// processes, integration/peers measures both (zfab-calls).
func BenchmarkRoundTrip(b *testing.B) {
	ping, end := rawPing(b)
	defer end()
	ctx, dir := context.Background(), directory.NewRegistry()
	echo := func(_ context.Context, q []byte) ([]byte, error) { return q, nil }
	openReplierOf(b, openNode(b, dir, "server"), ReplierConfig[[]byte, []byte]{}, echo)
	r := openRequesterOf(b, openNode(b, dir, "client"), RequesterConfig[[]byte, []byte]{})
	check(b, r.WaitServers(ctx, 1))
	body := make([]byte, 64)
	call := func() {
		if a, err := r.Call(ctx, body); err != nil || len(a) != len(body) {
			b.Fatal(err)
		}
	}
	var raws, calls []time.Duration
	const turn = 100
	b.ReportAllocs()
	for b.Loop() {
		for range turn {
			began := time.Now()
			ping()
			raws = append(raws, time.Since(began))
		}
		for range turn {
			began := time.Now()
			call()
			calls = append(calls, time.Since(began))
		}
	}
	slices.Sort(raws)
	slices.Sort(calls)
	for _, p := range []int{10, 50} {
		at := func(list []time.Duration) float64 { return float64(list[len(list)*p/100].Nanoseconds()) / 1e3 }
		b.ReportMetric(at(raws), fmt.Sprintf("raw-p%d-us", p))
		b.ReportMetric(at(calls), fmt.Sprintf("p%d-us", p))
		b.ReportMetric(at(calls)/at(raws), fmt.Sprintf("p%d-ratio", p))
	}
	b.ReportMetric(0, "ns/op") // of a turn: says nothing
}

// rawPing sends 64 bytes there and back.
func rawPing(b *testing.B) (ping, end func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 64)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64)
	return func() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}, func() {
			c.Close()
			ln.Close()
			wg.Wait()
		}
}

// BenchmarkCalls is calls of a small struct from many goroutines at a time.
func BenchmarkCalls(b *testing.B) {
	ctx, dir := context.Background(), directory.NewRegistry()
	echo := func(_ context.Context, q reading) (reading, error) { return q, nil }
	openReplierOf(b, openNode(b, dir, "server"), ReplierConfig[reading, reading]{}, echo)
	r := openRequesterOf(b, openNode(b, dir, "client"), RequesterConfig[reading, reading]{})
	check(b, r.WaitServers(ctx, 1))
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var calling sync.WaitGroup
	for range 256 {
		calling.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := r.Call(ctx, aReading); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	calling.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkStream is the items of one stream.
func BenchmarkStream(b *testing.B) {
	ctx, dir := context.Background(), directory.NewRegistry()
	openStreamReplierOf(b, openNode(b, dir, "server"), ReplierConfig[int, []byte]{}, counting(make([]byte, 64)))
	r := openRequesterOf(b, openNode(b, dir, "client"), RequesterConfig[int, []byte]{StreamWindow: 1024})
	check(b, r.WaitServers(ctx, 1))
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for _, err := range r.Stream(ctx, b.N, CallOptions{}) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	if n != b.N {
		b.Fatalf("%d items, want %d", n, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}
