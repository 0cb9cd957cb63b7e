package link

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// pair returns two links that are connected over addr.
func pair(tb testing.TB, addr string, mark flow.Mark) (producer, consumer *Link) {
	tb.Helper()
	ctx := context.Background()
	ln, err := transport.Listen(addr, transport.Config{SocketType: transport.Dealer})
	if err != nil {
		tb.Fatal(err)
	}
	accepted := make(chan *transport.Conn, 1)
	go func() {
		c, err := ln.Accept(ctx)
		if err != nil {
			tb.Error(err)
		}
		accepted <- c
	}()
	dialed, err := transport.Dial(ctx, ln.Addr(), transport.Config{SocketType: transport.Router})
	if err != nil {
		tb.Fatal(err)
	}
	conn := <-accepted
	consumer = New(testConfig(mark), "producer")
	producer = New(testConfig(mark), "consumer")
	consumer.Attach(dialed, 1<<20)
	producer.Attach(conn, 1<<20)
	tb.Cleanup(func() {
		producer.Close(time.Second, true)
		consumer.Close(time.Second, true)
		ln.Close()
	})
	return producer, consumer
}

func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			mark := flow.Mark{Messages: 1 << 16, Bytes: 4 << 20}
			p, c := pair(b, "tcp://127.0.0.1:0", mark)
			in := NewInbox(&Flow{Channel: "bench", Mark: mark}, 0, nil)
			c.Receive(in)
			out := p.Stream("bench", 0, mark)
			body := make([]byte, size)
			ctx := context.Background()
			done := make(chan struct{})
			warm := 1000
			go func() {
				defer close(done)
				for range b.N + warm {
					if body, _, err := in.Next(ctx); err != nil || len(body) != size {
						b.Error(err, len(body))
						return
					}
				}
			}()
			for range warm {
				out.Send(ctx, testSenders[0], body)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			began := cpuTime()
			for range b.N {
				if err := out.Send(ctx, testSenders[0], body); err != nil {
					b.Fatal(err)
				}
			}
			<-done
			b.StopTimer()
			cpu(b, began)
			_, in1 := c.Stats(nil)
			_, out1 := p.Stats(nil)
			b.ReportMetric(float64(out1.BytesOut)/float64(out1.PacketsOut), "bytes/write")
			b.ReportMetric(float64(in1.States), "states")
			b.ReportMetric(float64(out1.Backlogs), "backlogs")
		})
	}
}

// BenchmarkRawThroughput is what a TCP connection does without us.
func BenchmarkRawThroughput(b *testing.B) {
	for _, size := range []int{64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			r, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, size)
				for range b.N {
					if _, err := io.ReadFull(r, buf); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			body := make([]byte, size)
			b.SetBytes(int64(size))
			b.ResetTimer()
			began := cpuTime()
			for range b.N {
				if _, err := c.Write(body); err != nil {
					b.Fatal(err)
				}
			}
			<-done
			b.StopTimer()
			cpu(b, began)
		})
	}
}

// cpuTime is the processor time that the process has used, and cpu reports it
// per operation: on a machine that others use too it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func cpu(b *testing.B, began time.Duration) {
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
}

func BenchmarkRoundTrip(b *testing.B) {
	mark := flow.Mark{Messages: 1 << 16, Bytes: 4 << 20}
	p, c := pair(b, "tcp://127.0.0.1:0", mark)
	in, back := NewInbox(&Flow{Channel: "a", Mark: mark}, 0, nil), NewInbox(&Flow{Channel: "b", Mark: mark}, 0, nil)
	c.Receive(in)
	p.Receive(back)
	out, reply := p.Stream("a", 0, mark), c.Stream("b", 0, mark)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			body, _, err := in.Next(ctx)
			if err != nil {
				return
			}
			reply.Send(ctx, testSenders[0], body)
		}
	}()
	body := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		out.Send(ctx, testSenders[0], body)
		if _, _, err := back.Next(ctx); err != nil {
			b.Fatal(err)
		}
	}
	_, st := p.Stats(nil)
	b.ReportMetric(float64(st.PacketsOut)/float64(b.N), "writes/op")
	b.ReportMetric(float64(st.States)/float64(b.N), "states/op")
}

// BenchmarkRawRoundTrip is what a TCP connection does without us.
func BenchmarkRawRoundTrip(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
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
			c.Write(buf)
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64)
	for b.Loop() {
		c.Write(buf)
		io.ReadFull(c, buf)
	}
}

// BenchmarkSend is the cost of Send alone: an append under the mutex.
func BenchmarkSend(b *testing.B) {
	w := &Link{cfg: testConfig(flow.Mark{Messages: 1 << 62, Bytes: 1 << 62})}
	w.core = core{cfg: w.cfg, link: w, flows: map[string]*outFlow{}, maxBody: 1 << 20}
	s := w.Stream("x", 0, w.cfg.Mark)
	body := make([]byte, 64)
	b.ReportAllocs()
	var n atomic.Uint64
	for b.Loop() {
		if err := s.TrySend(testSenders[0], body); err != nil {
			b.Fatal(err)
		}
		if n.Add(1)%512 == 0 {
			w.mu.Lock()
			s.flow.Sent = s.flow.Accepted
			s.q.step()
			s.q.acknowledge(s.flow.Accepted.Messages)
			w.mu.Unlock()
		}
	}
}
