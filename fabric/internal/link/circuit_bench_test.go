package link

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// sockets returns the two ends of a connection over addr.
func sockets(b *testing.B, addr string) (dialled, accepted *transport.Conn) {
	b.Helper()
	ln, err := transport.Listen(addr, transport.Config{SocketType: transport.Dealer, MaxFrame: wire.MaxPacket})
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	if dialled, err = transport.Dial(b.Context(), ln.Addr(), transport.Config{SocketType: transport.Router, MaxFrame: wire.MaxPacket}); err != nil {
		b.Fatal(err)
	}
	if accepted, err = ln.Accept(b.Context()); err != nil {
		b.Fatal(err)
	}
	return dialled, accepted
}

// BenchmarkAttachedThroughput is BenchmarkThroughput between two workers: over a unix
// socket, TCP and another unix socket.
func BenchmarkAttachedThroughput(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			mark := flow.Mark{Messages: 1 << 16, Bytes: 2 << 20}
			config := func(node string, called func(*Link, *Call)) *Config {
				c := testConfig(mark)
				c.Node, c.PingTicks, c.DeadTicks = node, 1<<30, 1<<30
				c.Hooks.Called = called
				c.Hooks.Cut = func(*Link, error) (uint8, string) { return wire.CodeBusy, "cut" }
				return c
			}
			var h1h2, h2w2 *Link
			taken := make(chan *Circuit, 1)
			w1 := New(config("w1", nil), "h1")
			h1w1 := New(config("h1", func(_ *Link, k *Call) { k.Pass(h1h2) }), "w1")
			h1h2 = New(config("h1", nil), "h2")
			h2h1 := New(config("h2", func(_ *Link, k *Call) { k.Pass(h2w2) }), "h1")
			h2w2 = New(config("h2", nil), "w2")
			w2 := New(config("w2", func(_ *Link, k *Call) { taken <- k.Take() }), "h2")
			dir := b.TempDir()
			for i, two := range [][2]*Link{{w1, h1w1}, {h1h2, h2h1}, {w2, h2w2}} {
				addr := "tcp://127.0.0.1:0"
				if i != 1 {
					addr = "ipc://" + filepath.Join(dir, fmt.Sprint(i))
				}
				x, y := sockets(b, addr)
				two[0].Attach(x, 1<<20)
				two[1].Attach(y, 1<<20)
			}
			near, err := w1.Dial("w1", "w2", "h2")
			if err == nil {
				err = near.Accepted(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
			p, c := New(config("p", nil), "c"), New(config("c", nil), "p")
			p.Attach(near, 1<<20)
			c.Attach(<-taken, 1<<20)
			b.Cleanup(func() {
				for _, l := range []*Link{p, c, w1, h1w1, h1h2, h2h1, h2w2, w2} {
					l.Close(time.Second, true)
				}
			})
			in := NewInbox(&Flow{Channel: "bench", Mark: mark}, 0, nil)
			c.Receive(in)
			out := p.Stream("bench", 0, mark)
			body := make([]byte, size)
			ctx := context.Background()
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range b.N {
					if body, _, err := in.Next(ctx); err != nil || len(body) != size {
						b.Error(err, len(body))
						return
					}
				}
			}()
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
			_, nodes := h1h2.Stats(nil)
			b.ReportMetric(float64(nodes.BytesOut)/float64(nodes.PacketsOut), "bytes/write")
		})
	}
}
