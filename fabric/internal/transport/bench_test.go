package transport

import (
	"fmt"
	"io"
	"net"
	"testing"
)

var benchSizes = []int{64, 1 << 10, 16 << 10, 64 << 10}

// BenchmarkRawTCP is what the kernel takes: the same bytes, written whole, read with io.ReadFull.
func BenchmarkRawTCP(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			out, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer out.Close()
			in, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer in.Close()
			done := make(chan error, 1)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				p := make([]byte, size)
				for range b.N {
					if _, err := out.Write(p); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			p := make([]byte, size)
			for range b.N {
				if _, err := io.ReadFull(in, p); err != nil {
					b.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkPackets sends each packet by itself, as header and body.
func BenchmarkPackets(b *testing.B) {
	for _, scheme := range []string{"tcp", "ipc", "mem"} {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%d", scheme, size), func(b *testing.B) {
				d, r := connect(b, addresses(b)[scheme], Config{}, Config{})
				done := make(chan error, 1)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				go func() {
					header, body := AppendFrameHeader(nil, size, false), make([]byte, size)
					bufs := make([][]byte, 2)
					for range b.N {
						bufs[0], bufs[1] = header, body
						if err := d.WriteBuffers(bufs); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
				for range b.N {
					if _, _, err := r.ReadPacket(); err != nil {
						b.Fatal(err)
					}
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkRetained keeps the latest eight packets, as consumers with a backlog do.
func BenchmarkRetained(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d, r := connect(b, "tcp://127.0.0.1:0", Config{}, Config{})
			done := make(chan error, 1)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				packet := append(AppendFrameHeader(nil, size, false), make([]byte, size)...)
				bufs := make([][]byte, 1)
				for range b.N {
					bufs[0] = packet
					if err := d.WriteBuffers(bufs); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			var kept [8]*Buffer
			for i := range b.N {
				_, buf, err := r.ReadPacket()
				if err != nil {
					b.Fatal(err)
				}
				buf.Retain()
				if old := kept[i%len(kept)]; old != nil {
					old.Release()
				}
				kept[i%len(kept)] = buf
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkParse reads small packets that arrived many at a time: the cost of a frame without the kernel's.
func BenchmarkParse(b *testing.B) {
	packet := append(AppendFrameHeader(nil, 64, false), make([]byte, 64)...)
	var stream []byte
	for len(stream) < 64<<10 {
		stream = append(stream, packet...)
	}
	c := &Conn{cfg: Config{MaxFrame: defaultMaxFrame}, in: inbox{src: &loopSource{stream: stream}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.ReadPacket(); err != nil {
			b.Fatal(err)
		}
	}
}

// loopSource is the same bytes for ever.
type loopSource struct {
	stream []byte
	at     int
}

func (s *loopSource) read(in *inbox) (int, error) {
	return s.readTo(in.space(), nil)
}

func (s *loopSource) readTo(p, _ []byte) (int, error) {
	n := copy(p, s.stream[s.at:])
	s.at = (s.at + n) % len(s.stream)
	return n, nil
}

// BenchmarkRoundTrip sends a packet there and back.
func BenchmarkRoundTrip(b *testing.B) {
	for scheme, addr := range addresses(b) {
		b.Run(scheme, func(b *testing.B) {
			d, r := connect(b, addr, Config{}, Config{})
			packet := append(AppendFrameHeader(nil, 64, false), make([]byte, 64)...)
			go func() {
				bufs := make([][]byte, 1)
				for {
					if _, _, err := r.ReadPacket(); err != nil {
						return
					}
					bufs[0] = packet
					if r.WriteBuffers(bufs) != nil {
						return
					}
				}
			}()
			bufs := make([][]byte, 1)
			b.ReportAllocs()
			for b.Loop() {
				bufs[0] = packet
				if err := d.WriteBuffers(bufs); err != nil {
					b.Fatal(err)
				}
				if _, _, err := d.ReadPacket(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
