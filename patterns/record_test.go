package patterns

import (
	"math"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// Records are what a MessagePack library reads and writes.
func TestRecordsAreMessagePack(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, n := range []uint64{0, 127, 128, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64} {
		for _, text := range []string{"", "short", long[:31], long[:32], long[:255], long} {
			b := appendText(appendNumber(appendArray(nil, 3), 7), text)
			b = append(appendNumber(b, n), "body"...)
			want := text
			if len(want) > maxText {
				want = long[:maxText-3] + "..."
			}
			kind, f := readRecord(b)
			if got, num := f.text(), f.number(); kind != 7 || got != want || num != n || !f.end() || string(f.rest) != "body" {
				t.Errorf("%d, %d bytes: read kind %d, %q, %d, %+v", n, len(text), kind, got, num, f)
			}
			var list []any
			if err := msgpack.Unmarshal(b, &list); err != nil || len(list) != 3 || list[1] != want {
				t.Errorf("the library reads %v, %v", list, err)
			}
			lib, err := msgpack.Marshal([]any{uint8(7), want, n}) // with its widest forms
			check(t, err)
			kind, f = readRecord(lib)
			if got, num := f.text(), f.number(); kind != 7 || got != want || num != n || !f.end() || len(f.rest) != 0 {
				t.Errorf("what the library writes: kind %d, %q, %d, %+v", kind, got, num, f)
			}
		}
	}
	if b := appendRecord(nil, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64); len(appendText(b, long)) != maxHead {
		t.Errorf("the longest head has %d bytes, maxHead is %d", len(appendText(b, long)), maxHead)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(appendText(appendRecord(nil, 1, 2, 3), "text"))
	f.Add([]byte{0x92, 1, 0xd9})
	f.Add([]byte{0x9f})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, f := readRecord(b)
		f.text()
		f.number()
		if f.end() && (b[0] != 0x93 || len(f.rest) > len(b)-4) {
			t.Errorf("%x is read as a record of three", b)
		}
	})
}

// Each cut of a record is refused, and so is one with too few or too many
// elements.
func TestRecordsCutOrOfAnotherShape(t *testing.T) {
	whole := appendText(appendNumber(appendNumber(appendArray(nil, 3), 7), 1<<40), strings.Repeat("x", 40))
	for cut := range whole {
		_, f := readRecord(whole[:cut])
		f.number()
		f.text()
		if f.end() {
			t.Errorf("%x is read as whole", whole[:cut])
		}
	}
	for name, b := range map[string][]byte{
		"more": appendRecord(nil, 1, 2, 3), "fewer": appendRecord(nil, 1), "text": appendText(appendNumber(appendArray(nil, 2), 1), "2"),
		"map": {0x82, 1, 2}, "negative": {0x92, 1, 0xff},
	} {
		_, f := readRecord(b)
		f.number()
		if f.end() {
			t.Errorf("%s: read as a record of two numbers", name)
		}
	}
}
