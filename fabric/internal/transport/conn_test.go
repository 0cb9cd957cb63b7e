package transport

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// A ROUTER that connects to a bound DEALER is how two nodes meet.
func TestMessagesPassBothWaysOverEveryScheme(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			d, r := connect(t, addr, Config{Identity: "n1"}, Config{Identity: "n2"})
			if d.PeerType() != Router || r.PeerType() != Dealer || d.PeerIdentity() != "n2" || r.PeerIdentity() != "n1" {
				t.Fatalf("peers: %s %q, %s %q", d.PeerType(), d.PeerIdentity(), r.PeerType(), r.PeerIdentity())
			}
			for _, pair := range [][2]*Conn{{d, r}, {r, d}} {
				from, to := pair[0], pair[1]
				sizes := []int{0, 1, 255, 256, 2045, 2046, 2047, 2048, 4096, 65536, 262143, 262144, 1 << 20}
				sent := make(chan error, 1)
				go func() {
					for i, size := range sizes {
						if err := from.WriteMessage(payload(i, size)); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				for i, size := range sizes {
					p, _, err := to.ReadPacket()
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(p, payload(i, size)) {
						t.Fatalf("message %d of %d bytes arrived wrong, as %d bytes", i, size, len(p))
					}
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// payload is size bytes that no other seed has.
func payload(seed, size int) []byte {
	p := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}
