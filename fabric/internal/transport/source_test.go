package transport

import (
	"bytes"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// anyConn is a connection that the reading half knows nothing about.
type anyConn struct{ net.Conn }

// A connection of another kind, such as one that encrypts, is read through the same inbox.
func TestPacketsArriveOverAnyNetConn(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 4))
		near, far := memPipe("any")
		cfg, _ := Config{SocketType: Dealer, Logger: quiet}.withDefaults()
		c := newConn(anyConn{near}, cfg, "near", "far", Router, "")
		if _, ok := c.in.src.(*probeSource); !ok {
			t.Fatalf("read by %T", c.in.src)
		}
		c.SetReadDeadline(time.Now().Add(patience))
		const packets = 300
		var sizes []int
		for range packets {
			sizes = append(sizes, rng.IntN([]int{10, 3000, 100_000}[rng.IntN(3)]))
		}
		go func() {
			defer far.Close()
			for i, size := range sizes {
				if _, err := far.Write(frame(0, payload(i, size))); err != nil {
					return
				}
			}
		}()
		for i, size := range sizes {
			p, b, err := c.ReadPacket()
			if err != nil || !bytes.Equal(p, payload(i, size)) {
				t.Fatalf("seed %d packet %d: %d bytes of %d, %v", seed, i, len(p), size, err)
			}
			if rng.IntN(4) == 0 {
				b.Retain()
				defer b.Release()
			}
		}
		c.Close()
	}
}
