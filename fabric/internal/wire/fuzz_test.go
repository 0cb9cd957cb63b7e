package wire_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// FuzzNext reads any bytes as a packet. Whatever Next accepts must be a part of
// the packet, must be what the reference library reads there, and must come out
// the same when it is written and read again.
func FuzzNext(f *testing.F) {
	for _, s := range samples() {
		if p := appendRecord(nil, &s); len(p) < 4<<10 { // long ones only slow the search down
			f.Add(p)
		}
	}
	for _, c := range malformed {
		if len(c.p) < 4<<10 {
			f.Add(c.p)
		}
	}
	for name := range goldens {
		text, err := os.ReadFile(filepath.Join(goldenDir, name+".golden"))
		if err != nil {
			f.Fatal(err)
		}
		for _, block := range parseGolden(f, string(text)) {
			f.Add(block)
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		p := packet[:len(packet):len(packet)]
		for len(p) > 0 {
			var r, again wire.Record
			rest, err := wire.Next(p, len(packet)-len(p), &r)
			if err != nil {
				var fe *wire.FormatError
				if !errors.As(err, &fe) || fe.Reason == "" {
					t.Fatalf("error %v is not a *FormatError with a reason", err)
				}
				if fe.Offset < len(packet)-len(p) || fe.Offset > len(packet) {
					t.Fatalf("%v: offset is not in the record", err)
				}
				return
			}
			if len(rest) >= len(p) || len(rest) > 0 && unsafe.SliceData(rest) != &p[len(p)-len(rest)] {
				t.Fatalf("%d bytes of rest are not a proper suffix of %d", len(rest), len(p))
			}
			checkInside(t, p, &r)
			checkRun(t, &r)

			value, size := decodeMsgpack(t, p[:len(p)-len(rest)])
			if size != len(p)-len(rest) {
				t.Fatalf("%s record of %d bytes, %d for msgpack", r.Kind, len(p)-len(rest), size)
			}
			if !sameValue(value, elements(&r)) {
				t.Fatalf("read as %s, by msgpack as %s", short(elements(&r)), short(value))
			}
			if left, err := wire.Next(appendRecord(nil, &r), 0, &again); err != nil || len(left) != 0 {
				t.Fatalf("written again: %v, %d bytes left", err, len(left))
			}
			if d := differ(&again, &r); d != "" && !textRewritten(&r) {
				t.Fatalf("written again: %s", d)
			}
			p = rest
		}
	})
}

// textRewritten reports whether r holds a text that is not UTF-8: such a one is
// read as it is, but never written.
func textRewritten(r *wire.Record) bool {
	for _, text := range [][]byte{r.Text, r.Hello.Node, r.From, r.Via} {
		if !utf8.Valid(text) {
			return true
		}
	}
	return false
}

// checkRun fails unless a data record's messages are as many, and as many
// bytes, as the record says.
func checkRun(t *testing.T, r *wire.Record) {
	t.Helper()
	if r.Kind != wire.KindData {
		return
	}
	count, sum := 0, 0
	for body := r.Body; len(body) > 0; count++ {
		m, rest := wire.NextMessage(body)
		if len(rest) >= len(body) {
			t.Fatal("a message takes no bytes")
		}
		sum += len(m)
		body = rest
	}
	if count != r.Count || sum != r.Bytes {
		t.Fatalf("%d messages of %d bytes, the record says %d of %d", count, sum, r.Count, r.Bytes)
	}
	if count < 1 || count > wire.MaxRun || sum > wire.MaxFragment {
		t.Fatalf("%d messages of %d bytes are over the limits", count, sum)
	}
}

// FuzzNextMessage cuts bytes into messages, codes each with a header of a width
// that the fuzzer picks, and wants them back.
func FuzzNextMessage(f *testing.F) {
	f.Add([]byte("hello world"), []byte{5, 1, 5})
	f.Add([]byte{}, []byte{0})
	f.Add(make([]byte, 300), []byte{0, 255, 0x80, 45})
	f.Fuzz(func(t *testing.T, bodies, cuts []byte) {
		if len(cuts) == 0 || len(cuts) > wire.MaxRun || len(bodies) > wire.MaxFragment {
			return
		}
		var want [][]byte
		p := wire.AppendDataHeader(nil, 1, 2, 3, len(cuts))
		left := bodies
		for i, c := range cuts {
			n := min(int(c), len(left))
			if i == len(cuts)-1 {
				n = len(left)
			}
			m := left[:n]
			left = left[n:]
			want = append(want, m)
			switch width := c >> 6; {
			case width == 1 && n < 1<<16:
				p = append(p, 0xc5, byte(n>>8), byte(n))
			case width == 2:
				p = append(p, 0xc6, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
			default:
				p = wire.AppendMessageHeader(p, n)
			}
			p = append(p, m...)
		}
		var r wire.Record
		rest, err := wire.Next(p, 0, &r)
		if err != nil || len(rest) != 0 {
			t.Fatalf("%v, %d bytes left over", err, len(rest))
		}
		checkInside(t, p, &r)
		checkRun(t, &r)
		got := messagesOf(r.Body)
		if len(got) != len(want) {
			t.Fatalf("%d messages, want %d", len(got), len(want))
		}
		for i := range want {
			if string(got[i]) != string(want[i]) {
				t.Fatalf("message %d is %q, want %q", i, got[i], want[i])
			}
		}
	})
}
