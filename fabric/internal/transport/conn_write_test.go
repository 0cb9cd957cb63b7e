package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// readExactly reads what must come next below ZMTP.
func readExactly(t testing.TB, nc net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("have % x, %v, want % x", got[:n], err, want)
	}
}

func TestHeadersAsTheSpecificationHasThem(t *testing.T) {
	for _, tt := range []struct {
		size int
		more bool
		want string
	}{
		{0, false, "\x00\x00"},
		{0, true, "\x01\x00"},
		{255, false, "\x00\xff"},
		{256, false, "\x02\x00\x00\x00\x00\x00\x00\x01\x00"},
		{1 << 32, true, "\x03\x00\x00\x00\x01\x00\x00\x00\x00"},
	} {
		if got := string(AppendFrameHeader([]byte("x"), tt.size, tt.more)); got != "x"+tt.want {
			t.Errorf("%d, %v: % x", tt.size, tt.more, got)
		}
	}
	header := bytes.Repeat([]byte{0xee}, 10)
	PutLongHeader(header, 7)
	if string(header) != "\x02\x00\x00\x00\x00\x00\x00\x00\x07\xee" {
		t.Errorf("long: % x", header)
	}
}

func TestBuffersAreWrittenInOrderAndWhole(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			var bufs [][]byte
			var want []byte
			for i := range 3000 { // more than one writev takes
				p := payload(i, i%97)
				bufs = append(bufs, AppendFrameHeader(nil, len(p), false), p)
				want = append(append(want, byte(0), byte(len(p))), p...)
			}
			sent := make(chan error, 1)
			go func() { sent <- c.WriteBuffers(bufs) }()
			readExactly(t, nc, want)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A write that failed may have left half a frame behind, so nothing may follow it: the peer sees a cut connection and not
// other bytes in the place of the missing ones.
func TestAWriteThatTimedOutIsTheLast(t *testing.T) {
	for scheme, addr := range addresses(t) {
		t.Run(scheme, func(t *testing.T) {
			c, nc := rawPeer(t, addr, Config{})
			message := frame(0, payload(1, 16<<20)) // more than any socket buffer
			c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			err := c.WriteMessage(message[LongHeaderSize:])
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("want the deadline, have %v", err)
			}
			c.SetWriteDeadline(time.Time{})
			if again := c.WriteMessage([]byte("b")); again != err {
				t.Fatalf("a later write: %v", again)
			}
			got, _ := io.ReadAll(nc) // io.EOF or a reset
			if len(got) == len(message) || !bytes.HasPrefix(message, got) {
				t.Fatalf("%d bytes arrived that are not the beginning of the message", len(got))
			}
		})
	}
}

func TestAMessageHasAtLeastOneFrame(t *testing.T) {
	d, r := connect(t, memAddress(), Config{}, Config{})
	if err := d.WriteMessage(); !errors.Is(err, errNoFrames) {
		t.Fatal(err)
	}
	if err := d.WriteMessage(nil); err != nil { // this did not end the connection
		t.Fatal(err)
	}
	if p, _, err := r.ReadPacket(); err != nil || len(p) != 0 {
		t.Fatalf("%q, %v", p, err)
	}
}

func TestWritingAllocatesNothing(t *testing.T) {
	d, r := connect(t, "tcp://127.0.0.1:0", Config{}, Config{})
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for {
			if _, _, err := r.ReadPacket(); err != nil {
				return
			}
		}
	}()
	header, body := AppendFrameHeader(nil, 2000, false), make([]byte, 2000)
	bufs := make([][]byte, 2)
	if n := testing.AllocsPerRun(1000, func() {
		bufs[0], bufs[1] = header, body
		if err := d.WriteBuffers(bufs); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteMessage(body); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
	d.Close()
	<-drained
}
