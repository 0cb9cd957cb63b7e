package mpcheck

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

func TestCheckAccepts(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	list := make([]int, 70_000)
	table := make(map[int]string)
	for i := range 70_000 {
		table[i] = ""
	}
	for name, v := range map[string]any{
		"nil": nil, "true": true, "zero": 0, "negative": -5, "int8": -100, "int16": -1000, "int32": -100_000,
		"int64": int64(-1) << 40, "uint8": uint8(200), "uint16": uint16(60_000), "uint32": uint32(4e9), "uint64": ^uint64(0),
		"float32": float32(1.5), "float64": 1.5, "empty string": "", "fixstr": "abc", "str8": long[:200], "str16": long[:300], "str32": long,
		"bin8": []byte(long[:200]), "bin16": []byte(long[:300]), "bin32": []byte(long), "empty array": []int{}, "fixarray": []int{1, 2},
		"array16": list[:20], "array32": list, "fixmap": map[string]int{"a": 1}, "map16": map[string]any{"a": []any{map[string]any{}, nil, "x"}}, "map32": table,
	} {
		b, err := msgpack.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(b, 4); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, cut := range []int{1, len(b) / 2, len(b) - 1} { // no strict prefix is a whole value
			if cut < len(b) && Check(b[:cut], 4) == nil {
				t.Errorf("%s: cut to %d of %d bytes is accepted", name, cut, len(b))
			}
		}
		if Check(append(b, 0), 4) == nil {
			t.Errorf("%s: a byte too many is accepted", name)
		}
	}
	for _, ext := range []string{
		"\xd4\x01a", "\xd5\x01ab", "\xd6\x01abcd", "\xd7\x01abcdefgh", "\xd8\x01abcdefghabcdefgh",
		"\xc7\x02\x01ab", "\xc7\x00\x01", "\xc8\x00\x02\x01ab", "\xc9\x00\x00\x00\x02\x01ab",
	} {
		if err := Check([]byte(ext), 1); err != nil {
			t.Errorf("ext %x: %v", ext, err)
		}
		if Check([]byte(ext[:len(ext)-1]), 1) == nil {
			t.Errorf("ext %x: cut is accepted", ext)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		input  string
		offset int
	}{
		"nothing":                         {"", 0},
		"the unused code":                 {"\xc1", 0},
		"the unused code within":          {"\x92\x01\xc1", 2},
		"array of 4 G":                    {"\xdd\xff\xff\xff\xff", 0},
		"map of 4 G":                      {"\xdf\xff\xff\xff\xff", 0},
		"str of 4 G":                      {"\xdb\xff\xff\xff\xff", 0},
		"bin of 4 G":                      {"\xc6\xff\xff\xff\xff", 0},
		"ext of 4 G":                      {"\xc9\xff\xff\xff\xff\x01", 0},
		"header cut":                      {"\xdd\x00", 0},
		"map that lacks a value":          {"\x81\x01", 0},
		"array that claims its outer's":   {"\x93\x92\x01\x02\x03", 1},
		"elements that borrow from later": {"\x92\x93\x01\x02\x03", 1},
		"value after the value":           {"\x01\x02", 1},
		"string over the end in an array": {"\x91\xa5ab", 1},
	} {
		err := Check([]byte(test.input), 8)
		var e *Error
		if !errors.As(err, &e) || e.Offset != test.offset {
			t.Errorf("%s: got %v, want an error at byte %d", name, err, test.offset)
		}
	}
}

func TestCheckBoundsDepth(t *testing.T) {
	nest := func(depth int) []byte { return append(bytes.Repeat([]byte{0x91}, depth), 0xc0) }
	for _, depth := range []int{0, 1, 5, 64} {
		if err := Check(nest(depth), depth); err != nil {
			t.Errorf("depth %d within the bound: %v", depth, err)
		}
		if Check(nest(depth+1), depth) == nil {
			t.Errorf("depth %d over the bound is accepted", depth+1)
		}
	}
	if Check(nest(1_000_000), 1<<30) == nil {
		t.Error("a million levels are accepted")
	}
	if err := Check([]byte{0x90}, 0); err != nil {
		t.Errorf("an empty array nests nothing: %v", err)
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	b, _ := msgpack.Marshal(map[string]any{"a": []any{1, "two", 3.0, map[string]any{"x": nil}}})
	if n := testing.AllocsPerRun(100, func() {
		if Check(b, 8) != nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What Check accepts the library decodes without an error about lengths and within a bounded memory.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"\xc0", "\x81\xa1a\x92\x01\x02", "\xdd\xff\xff\xff\xff", "\xd4\x01a", "\xc7\x00\x01"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Check(b, 8) != nil {
			return
		}
		d := msgpack.NewDecoder(bytes.NewReader(b))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := d.Skip(); err != nil {
			t.Fatalf("%x: accepted, but the library says: %v", b, err)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20+64*uint64(len(b)) {
			t.Fatalf("%x: skipping took %d bytes", b, grown)
		}
		if n := d.Buffered().(*bytes.Reader).Len(); n != 0 {
			t.Fatalf("%x: the library left %d bytes", b, n)
		}
	})
}
