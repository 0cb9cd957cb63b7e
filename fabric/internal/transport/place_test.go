package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// However packets arrive and whichever of them are placed, head and placed end together are the packet.
func TestPlacedPacketsArriveWhole(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 6))
		var stream []byte
		var want [][]byte
		for len(stream) < 1<<20 {
			p := payload(len(want), rng.IntN([]int{100, 20_000, 70_000, 300_000}[rng.IntN(4)]))
			if rng.IntN(8) == 0 {
				stream = append(stream, frame(flagCommand, []byte("\x04NEWS"))...)
			}
			stream = append(stream, frame(0, p)...)
			want = append(want, p)
		}
		most := []int{40, 1000, 10_000, 100_000, 1 << 20}[seed%5]
		c := streamConn(stream, rng, most, Config{})
		var placed []byte
		placements := 0
		c.SetPlacer(func(head []byte, size int) []byte {
			if len(head) < placeHead || len(head) >= size || size < placeMin {
				t.Fatalf("seed %d: asked with %d bytes of %d", seed, len(head), size)
			}
			if rng.IntN(4) == 0 {
				return nil
			}
			placed = make([]byte, size-rng.IntN(placeHead))
			placements++
			return placed
		})
		for i, w := range want {
			placed = nil
			p, b, err := c.ReadPacket()
			if err != nil {
				t.Fatalf("seed %d packet %d: %v", seed, i, err)
			}
			if b == nil || !bytes.Equal(append(bytes.Clone(p), placed...), w) {
				t.Fatalf("seed %d packet %d of %d bytes arrived wrong, %d of them placed", seed, i, len(w), len(placed))
			}
			if rng.IntN(4) == 0 {
				b.Retain()
				defer func(i int) {
					if n := len(p); !bytes.Equal(p, want[i][:n]) {
						t.Errorf("seed %d: retained packet %d was overwritten", seed, i)
					}
					b.Release()
				}(i)
			}
		}
		if _, _, err := c.ReadPacket(); err != io.EOF {
			t.Fatalf("seed %d: want io.EOF at the end, have %v", seed, err)
		}
		if placements == 0 {
			t.Fatalf("seed %d: nothing was placed", seed)
		}
	}
}

func TestPlacingOverEveryScheme(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			d, r := connect(t, addr, Config{}, Config{})
			const size, packets, head = 64 << 10, 50, 20
			place := make([]byte, size-head)
			r.SetPlacer(func([]byte, int) []byte { return place })
			sent := make(chan error, 1)
			go func() {
				for i := range packets {
					if err := d.WriteMessage(payload(i, size)); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			for i := range packets {
				p, _, err := r.ReadPacket()
				if err != nil {
					t.Fatal(err)
				}
				got := p
				if len(p) == head { // not placed if it was there at once
					got = append(bytes.Clone(p), place...)
				}
				if !bytes.Equal(got, payload(i, size)) {
					t.Fatalf("packet %d arrived wrong", i)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A frame that is cut while it is placed ends the connection: its beginning is not kept here.
func TestACutInsideAPlacedPacketIsFinal(t *testing.T) {
	for name, end := range map[string]func(*Conn, io.Closer) error{
		"closed": func(_ *Conn, nc io.Closer) error { nc.Close(); return io.ErrUnexpectedEOF },
		"deadline": func(c *Conn, _ io.Closer) error {
			c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
			return os.ErrDeadlineExceeded
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, nc := rawPeer(t, memAddress(), Config{})
			c.SetPlacer(func(_ []byte, size int) []byte { return make([]byte, size-10) })
			header := binary.BigEndian.AppendUint64([]byte{flagLong}, 50_000)
			if _, err := nc.Write(append(header, make([]byte, 1000)...)); err != nil {
				t.Fatal(err)
			}
			want := end(c, nc)
			_, _, err := c.ReadPacket()
			if !errors.Is(err, want) {
				t.Fatalf("want %v, have %v", want, err)
			}
			c.SetReadDeadline(time.Time{})
			if _, _, again := c.ReadPacket(); again != err {
				t.Fatalf("a later read: %v", again)
			}
		})
	}
}
