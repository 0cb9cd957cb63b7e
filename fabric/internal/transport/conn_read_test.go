package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// frame is a frame with any flags.
func frame(flags byte, body []byte) []byte {
	return append(appendHeader(nil, flags, len(body)), body...)
}

// streamSource gives a stream in pieces of random sizes, and waits at random.
type streamSource struct {
	stream []byte
	rng    *rand.Rand
	most   int
}

func (s *streamSource) read(in *inbox) (int, error) {
	if s.rng.IntN(4) == 0 {
		in.idle()
	}
	if len(s.stream) == 0 {
		return 0, io.EOF
	}
	return s.readTo(in.space(), nil)
}

func (s *streamSource) readTo(p, more []byte) (int, error) {
	switch {
	case len(s.stream) == 0:
		return 0, io.EOF
	case len(p) == 0:
		panic("no space to read into")
	}
	most := 1 + s.rng.IntN(s.most)
	n := copy(p[:min(len(p), most)], s.stream)
	if n == len(p) {
		n += copy(more[:min(len(more), most-n)], s.stream[n:])
	}
	s.stream = s.stream[n:]
	return n, nil
}

func streamConn(stream []byte, rng *rand.Rand, most int, cfg Config) *Conn {
	cfg.SocketType, cfg.Logger = Dealer, quiet
	cfg, _ = cfg.withDefaults()
	near, _ := memPipe("stream")
	return &Conn{nc: near, cfg: cfg, remote: "stream", in: inbox{src: &streamSource{stream: stream, rng: rng, most: most}}}
}

// Packets of all sizes, however they arrive, come out whole; retained ones stay whole while others are read.
func TestPacketsSurviveEveryWayToArrive(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		largest := []int{10, 300, 3000, 70_000, 400_000}[seed%5]
		var stream []byte
		var want [][]byte
		for len(stream) < 6*largest {
			p := payload(len(want), rng.IntN(largest))
			header := AppendFrameHeader(nil, len(p), false)
			if rng.IntN(2) == 0 {
				header = make([]byte, LongHeaderSize)
				PutLongHeader(header, len(p))
			}
			if rng.IntN(8) == 0 {
				stream = append(stream, frame(flagCommand, []byte("\x04NEWS"))...)
			}
			stream = append(append(stream, header...), p...)
			want = append(want, p)
		}
		most := []int{3, 1000, 10_000, 100_000, 1 << 20}[rng.IntN(5)]
		if largest > 10_000 {
			most = max(most, 1000)
		}
		c := streamConn(stream, rng, most, Config{})
		type held struct {
			p, want []byte
			b       *Buffer
		}
		var holding []held
		for i, w := range want {
			p, b, err := c.ReadPacket()
			if err != nil {
				t.Fatalf("seed %d packet %d: %v", seed, i, err)
			}
			if !bytes.Equal(p, w) {
				t.Fatalf("seed %d packet %d of %d bytes arrived wrong", seed, i, len(w))
			}
			if b.Cap() < len(p) {
				t.Fatalf("seed %d: a packet of %d bytes in a buffer of %d", seed, len(p), b.Cap())
			}
			if rng.IntN(3) == 0 {
				b.Retain()
				holding = append(holding, held{p, w, b})
			}
			for len(holding) > 0 && rng.IntN(3) == 0 {
				k := rng.IntN(len(holding))
				h := holding[k]
				if !bytes.Equal(h.p, h.want) {
					t.Fatalf("seed %d: a retained packet was overwritten before packet %d", seed, i)
				}
				h.b.Release()
				holding = append(holding[:k], holding[k+1:]...)
			}
		}
		if _, _, err := c.ReadPacket(); err != io.EOF {
			t.Fatalf("seed %d: want io.EOF at the end, have %v", seed, err)
		}
		for _, h := range holding {
			if !bytes.Equal(h.p, h.want) {
				t.Fatalf("seed %d: a retained packet was overwritten", seed)
			}
			h.b.Release()
		}
	}
}

// A steady stream of equal packets is cut at their boundaries: nothing is moved.
func TestAlignedReadsMoveNothing(t *testing.T) {
	size := 64 << 10
	one := append(AppendFrameHeader(nil, size, false), make([]byte, size)...)
	c := streamConn(bytes.Repeat(one, 40), rand.New(rand.NewPCG(1, 1)), 1<<30, Config{})
	straddled := 0
	for i := range 40 {
		p, b, err := c.ReadPacket()
		if err != nil {
			t.Fatal(err)
		}
		if c.in.r == c.in.w && c.in.w > 3*len(one) {
			t.Fatalf("packet %d ends at %d of %d", i, c.in.w, b.Cap())
		}
		if i > 4 && c.in.w-c.in.r > 0 && (c.in.w-c.in.r)%len(one) != 0 {
			straddled++
		}
		if len(p) != size {
			t.Fatalf("packet of %d bytes", len(p))
		}
	}
	if straddled > 0 {
		t.Fatalf("%d reads ended inside a packet", straddled)
	}
}

func TestViolationsAfterTheHandshakeEndTheConnection(t *testing.T) {
	long := func(flags byte, size uint64) []byte {
		return binary.BigEndian.AppendUint64([]byte{flags | flagLong}, size)
	}
	for _, tt := range []struct {
		name   string
		bytes  []byte
		reason string
	}{
		{"header bomb", long(0, 1<<62), "a frame of 4611686018427387904 bytes"},
		{"header bomb, largest", long(0, 1<<64-1), "a frame of 18446744073709551615 bytes"},
		{"one byte over MaxFrame", long(0, 1025), "a frame of 1025 bytes, at most 1024"},
		{"a command over MaxFrame", long(flagCommand, 1025), "a frame of 1025 bytes, at most 1024"},
		{"reserved flag", []byte{0x08, 0}, "reserved bits"},
		{"command with more", []byte{0x05, 0}, "announces more"},
		{"several frames", append(frame(flagMore, []byte("a")), frame(0, []byte("b"))...), "several frames"},
		{"empty command", frame(flagCommand, nil), "malformed command"},
		{"command without a name", frame(flagCommand, []byte{0}), "malformed command"},
		{"command name beyond the frame", frame(flagCommand, []byte("\x05PING")), "malformed command"},
		{"PING without TTL", frame(flagCommand, []byte("\x04PING\x00")), "without its TTL"},
		{"PING with a context of 17 bytes", frame(flagCommand, []byte("\x04PING\x00\x0112345678901234567")), "more than 16 bytes"},
		{"ERROR", frame(flagCommand, []byte("\x05ERROR\x07go away")), `"go away"`},
		{"ERROR, long", frame(flagCommand, append([]byte("\x05ERROR\xff"), strings.Repeat("\n", 255)...)), "first 128 of 255 bytes"},
		{"ERROR, malformed", frame(flagCommand, []byte("\x05ERROR\x07go")), "malformed reason"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, nc := rawPeer(t, memAddress(), Config{MaxFrame: 1024})
			if _, err := nc.Write(append(frame(0, []byte("before")), tt.bytes...)); err != nil {
				t.Fatal(err)
			}
			if p, _, err := c.ReadPacket(); err != nil || string(p) != "before" {
				t.Fatalf("have %q, %v", p, err)
			}
			_, _, err := c.ReadPacket()
			p := protocolError(t, err)
			if !strings.Contains(p.Reason, tt.reason) || p.Op != "read" || p.Remote != c.RemoteAddr() {
				t.Fatalf("want %q, have %v", tt.reason, err)
			}
			if p.FromPeer != strings.HasPrefix(tt.name, "ERROR") {
				t.Fatalf("FromPeer is %v", p.FromPeer)
			}
			if _, _, again := c.ReadPacket(); again != err {
				t.Fatalf("the error is not final: %v", again)
			}
			if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("the connection is not closed: %v", err)
			}
		})
	}
}

func TestMessagesOfSeveralFrames(t *testing.T) {
	d, r := connect(t, memAddress(), Config{}, Config{})
	want := [][]byte{nil, []byte("a"), payload(1, 70_000), {}, []byte("z")}
	sent := make(chan error, 1)
	go func() { sent <- r.WriteMessage(want...) }()
	got, err := d.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d frames", len(got))
	}
	for i := range want {
		if got[i] == nil || !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d: %d bytes", i, len(got[i]))
		}
	}
}

// libzmq's heartbeat may come between two frames of a message.
func TestACommandMayComeBetweenFrames(t *testing.T) {
	c, nc := rawPeer(t, memAddress(), Config{})
	stream := append(frame(flagMore, []byte("a")), frame(flagCommand, []byte("\x04PING\x00\x00"))...)
	if _, err := nc.Write(append(stream, frame(0, []byte("b"))...)); err != nil {
		t.Fatal(err)
	}
	got, err := c.ReadMessage()
	if err != nil || len(got) != 2 || string(got[0])+string(got[1]) != "ab" || !c.ControlPending() {
		t.Fatalf("have %q, %v, control pending: %v", got, err, c.ControlPending())
	}
}

// ReadMessage gave up in the middle of a message: its rest is no packet.
func TestTheRestOfAMessageIsNoPacket(t *testing.T) {
	c, nc := rawPeer(t, memAddress(), Config{})
	nc.Write(frame(flagMore, []byte("a")))
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := c.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	nc.Write(frame(0, []byte("b")))
	_, _, err := c.ReadPacket()
	if p := protocolError(t, err); !strings.Contains(p.Reason, "several frames") {
		t.Fatal(err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	for name, stream := range map[string][]byte{
		"a message of more than 1000 bytes":  bytes.Repeat(frame(flagMore, make([]byte, 300)), 4),
		"a message of more than 1024 frames": bytes.Repeat(frame(flagMore, nil), 1025),
	} {
		c := streamConn(stream, rand.New(rand.NewPCG(1, 2)), 50, Config{MaxMessage: 1000})
		_, err := c.ReadMessage()
		if p := protocolError(t, err); !strings.Contains(p.Reason, name) {
			t.Errorf("want %q, have %v", name, err)
		}
	}
}

// An announced size alone brings no memory: it grows with what arrives.
func TestMemoryFollowsWhatArrives(t *testing.T) {
	announce := binary.BigEndian.AppendUint64([]byte{flagLong}, 1<<30)
	stream := append(announce, make([]byte, 3<<20)...)
	c := streamConn(stream, rand.New(rand.NewPCG(1, 3)), 100_000, Config{MaxFrame: 1 << 30})
	src := c.in.src.(*streamSource)
	for len(src.stream) > 0 {
		if err := c.in.fill(LongHeaderSize + 1<<30); err != nil {
			t.Fatal(err)
		}
		if arrived, held := len(stream)-len(src.stream), len(c.in.buf.mem); held > max(bigBuffer, 4*arrived) {
			t.Fatalf("%d bytes arrived, %d held", arrived, held)
		}
	}
}

func TestAnIdleConnectionHoldsLittle(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			d, r := connect(t, addr, Config{}, Config{})
			size := 200 << 10
			sent := make(chan error, 1)
			go func() {
				for range 20 {
					if err := d.WriteMessage(make([]byte, size)); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			for range 20 {
				if _, _, err := r.ReadPacket(); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			r.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, _, err := r.ReadPacket(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			if b := r.in.buf; b != nil && b.Cap() > smallBuffer {
				t.Fatalf("idle with %d bytes", b.Cap())
			}
		})
	}
}

// What has arrived of a message when the deadline passes is not lost.
func TestReadingGoesOnAfterItsDeadline(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			want := payload(3, 100_000)
			stream := frame(0, want)
			for _, cut := range [][2]int{{0, 1}, {1, 5}, {5, 50_000}} {
				if _, err := nc.Write(stream[cut[0]:cut[1]]); err != nil {
					t.Fatal(err)
				}
				c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				if _, _, err := c.ReadPacket(); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("want the deadline, have %v", err)
				}
			}
			c.SetReadDeadline(time.Now().Add(patience))
			if _, err := nc.Write(stream[50_000:]); err != nil {
				t.Fatal(err)
			}
			p, _, err := c.ReadPacket()
			if err != nil || !bytes.Equal(p, want) {
				t.Fatalf("%d bytes, %v", len(p), err)
			}
		})
	}
}

func TestTheEndOfAConnection(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme+", between messages", func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			nc.Close()
			if _, _, err := c.ReadPacket(); err != io.EOF {
				t.Fatalf("want io.EOF, have %v", err)
			}
		})
		if scheme == "mem" {
			addr = memAddress()
		}
		t.Run(scheme+", inside a frame", func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			nc.Write([]byte{0, 5, 'h'})
			nc.Close()
			if _, _, err := c.ReadPacket(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("want io.ErrUnexpectedEOF, have %v", err)
			}
		})
		t.Run(scheme+", inside a message", func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			nc.Write(frame(flagMore, []byte("a")))
			nc.Close()
			if _, err := c.ReadMessage(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("want io.ErrUnexpectedEOF, have %v", err)
			}
		})
	}
}

func TestCloseEndsAReadAndAWriteThatWait(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			ended := make(chan error, 2)
			go func() {
				for {
					if _, _, err := c.ReadPacket(); err != nil {
						ended <- err
						return
					}
				}
			}()
			go func() {
				for {
					if err := c.WriteMessage(make([]byte, 60_000)); err != nil {
						ended <- err
						return
					}
				}
			}()
			if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil { // the writer is at work
				t.Fatal(err)
			}
			for range 3 {
				c.Close()
			}
			for range 2 {
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("want net.ErrClosed, have %v", err)
				}
			}
			if err := c.WriteBuffers(nil); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	for _, size := range []int{10, 3000, 64 << 10} {
		packet := frame(0, make([]byte, size))
		c := streamConn(nil, nil, 0, Config{})
		c.in.src = &loopSource{stream: bytes.Repeat(packet, 1+(1<<20)/size)}
		for range 100 { // memory is borrowed and hints are learned
			c.ReadPacket()
		}
		if n := testing.AllocsPerRun(1000, func() {
			if _, _, err := c.ReadPacket(); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%d bytes: %v allocations", size, n)
		}
	}
}

// FuzzFrames holds the parser against one that has everything in one piece.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x02hi\x02\x00\x00\x00\x00\x00\x00\x00\x01x\x04\x07\x04PING\x00\x00"), uint64(1))
	f.Add([]byte("\x01\x01a\x00\x01b"), uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 5))
		c := streamConn(data, rng, 1+rng.IntN(40), Config{MaxFrame: 1000})
		rest := data
		for {
			want, left, ok := wholePacket(rest)
			p, _, err := c.ReadPacket()
			if (err == nil) != ok || !bytes.Equal(p, want) {
				t.Fatalf("have %q %v, want %q %v", p, err, want, ok)
			}
			if err != nil {
				return
			}
			rest = left
		}
	})
}

// wholePacket takes the first packet from b, stepping over commands.
func wholePacket(b []byte) (p, rest []byte, ok bool) {
	for len(b) >= 2 {
		flags, size, header := b[0], uint64(b[1]), 2
		if flags > 7 || flags&5 == 5 {
			return nil, nil, false
		}
		if flags&2 != 0 {
			if len(b) < 9 {
				return nil, nil, false
			}
			size, header = binary.BigEndian.Uint64(b[1:]), 9
		}
		if size > 1000 || uint64(len(b)-header) < size {
			return nil, nil, false
		}
		body := b[header : header+int(size)]
		b = b[header+int(size):]
		switch {
		case flags&1 != 0:
			return nil, nil, false
		case flags&4 == 0:
			return body, b, true
		}
		if len(body) == 0 || body[0] == 0 || int(body[0]) >= len(body) {
			return nil, nil, false
		}
		name, rest := string(body[1:1+body[0]]), body[1+body[0]:]
		if name == "ERROR" || name == "PING" && (len(rest) < 2 || len(rest) > 18) {
			return nil, nil, false
		}
	}
	return nil, nil, false
}

func ExampleAppendFrameHeader() {
	fmt.Printf("% x\n", AppendFrameHeader(nil, 5, false))
	fmt.Printf("% x\n", AppendFrameHeader(nil, 300, true))
	// Output:
	// 00 05
	// 03 00 00 00 00 00 00 01 2c
}
