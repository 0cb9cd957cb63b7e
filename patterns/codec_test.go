package patterns

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// reading is a small struct, as people send them.
type reading struct {
	Sensor uint64
	Site   string
	Value  float64
	Flags  uint32
}

// compact is the same as an array.
type compact struct {
	//lint:ignore U1000 the library reads its tag
	_msgpack struct{} `msgpack:",as_array"`
	Sensor   uint64
	Site     string
	Value    float64
	Flags    uint32
}

var (
	aReading = reading{Sensor: 70_000, Site: "north tower", Value: 21.5, Flags: 3}
	aCompact = compact{Sensor: 70_000, Site: "north tower", Value: 21.5, Flags: 3}
)

// roundTrip encodes v behind a prefix, and decodes it.
func roundTrip[T any](t *testing.T, codec Codec[T], v T) {
	t.Helper()
	c := newCoder(codec)
	b, err := c.append([]byte("head"), v)
	if err != nil || !bytes.HasPrefix(b, []byte("head")) {
		t.Fatalf("%T: %q, %v", v, b, err)
	}
	var got T
	if err := c.decode(b[4:], &got); err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%T: got %+v, %v, want %+v", v, got, err, v)
	}
}

func TestCodecsRoundTrip(t *testing.T) {
	roundTrip(t, nil, aReading)
	roundTrip(t, nil, &aReading)
	roundTrip(t, nil, compact{Sensor: 1, Site: "x", Value: -1, Flags: 9})
	roundTrip(t, nil, []byte{0, 1, 2, 255})
	roundTrip(t, nil, []byte{})
	roundTrip(t, MessagePack[[]byte](), []byte{0, 1, 2, 255})
	roundTrip(t, nil, "text")
	roundTrip(t, nil, -7)
	roundTrip(t, nil, uint64(math.MaxUint64))
	roundTrip(t, nil, math.Pi)
	roundTrip(t, nil, map[string][]int{"a": {1, 2}, "b": {}})
	roundTrip(t, nil, []any{int8(1), "two", nil, true})
	roundTrip(t, nil, time.Unix(1_700_000_000, 5).Local())
	roundTrip(t, nil, struct{}{})
}

// The default for []byte is the bytes themselves; for all else it is what other
// languages' MessagePack libraries write.
func TestDefaultCodecs(t *testing.T) {
	body := []byte("body")
	b, err := newCoder[[]byte](nil).append(nil, body)
	if err != nil || !bytes.Equal(b, body) {
		t.Errorf("%q, %v", b, err)
	}
	var v []byte
	if err := newCoder[[]byte](nil).decode(b, &v); err != nil || &v[0] != &b[0] {
		t.Errorf("%q is a copy, or %v", v, err)
	}
	var fields map[string]any
	b, err = newCoder[reading](nil).append(nil, aReading)
	if err != nil || msgpack.Unmarshal(b, &fields) != nil || len(fields) != 4 || fields["Site"] != "north tower" {
		t.Errorf("%x is %v, %v", b, fields, err)
	}
}

// Fields may come and go; those that are there must be of the same type.
func TestMessagePackToleratesOtherFieldsOnly(t *testing.T) {
	type newer struct {
		Sensor uint64
		Unit   string
	}
	c := newCoder[newer](nil)
	b, err := newCoder[reading](nil).append(nil, aReading)
	check(t, err)
	var v newer
	if err := c.decode(b, &v); err != nil || v != (newer{Sensor: 70_000}) {
		t.Errorf("%+v, %v", v, err)
	}
	for name, other := range map[string]any{
		"field": map[string]any{"Sensor": 1, "Unit": 2}, "number": 5, "text": "x", "array": []int{1, 2},
	} {
		b, err := msgpack.Marshal(other)
		check(t, err)
		var v newer
		var e *CodecError
		if err := c.decode(b, &v); !errors.As(err, &e) || !e.Decoding || e.Type != "patterns.newer" || v != (newer{}) {
			t.Errorf("another %s: %+v, %v", name, v, err)
		}
	}
}

// What a peer sends costs memory in proportion to its length, and no panic.
func TestMessagePackDistrustsItsInput(t *testing.T) {
	deep := string(bytes.Repeat([]byte{0x91}, maxDepth+1)) + "\xc0"
	for name, body := range map[string]string{
		"nothing": "", "claims an array of 4 G": "\xdd\xff\xff\xff\xff", "claims a map of 4 G": "\xdf\xff\xff\xff\xff",
		"claims a string of 4 G": "\xdb\xff\xff\xff\xff", "too deep": deep, "two values": "\x01\x01", "cut": "\x92\x01",
		"no value": "\xc1", "key that no map can have": "\x81\x90\x01",
	} {
		var v map[any]any
		var e *CodecError
		err := newCoder[map[any]any](nil).decode([]byte(body), &v)
		if !errors.As(err, &e) || v != nil {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	if n := testing.AllocsPerRun(10, func() {
		var v []int
		_ = newCoder[[]int](nil).decode([]byte("\xdd\x7f\xff\xff\xff"), &v)
	}); n > 50 {
		t.Errorf("%v allocations to refuse five bytes", n)
	}
}

func FuzzMessagePack(f *testing.F) {
	for _, v := range []any{aReading, map[string]any{"Site": []int{1}}, []any{nil, "x"}} {
		b, err := msgpack.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	typed, untyped := newCoder[reading](nil), newCoder[any](nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r reading
		if typed.decode(b, &r) == nil {
			again, err := typed.append(nil, r)
			var same reading
			if err != nil || typed.decode(again, &same) != nil || same != r && r.Value == r.Value {
				t.Errorf("%+v became %+v (%v)", r, same, err)
			}
		}
		var v any
		_ = untyped.decode(b, &v)
	})
}

// failing is a codec of a program that has mistakes.
type failing struct{}

func (failing) Append(dst []byte, v string) ([]byte, error) {
	switch v {
	case "panics":
		panic("no idea")
	case "fails":
		return append(dst, "half"...), errors.New("refused")
	}
	return append(dst, v...), nil
}

func (failing) Decode(src []byte, v *string) error {
	*v = "half"
	switch string(src) {
	case "panics at the other end":
		panic(fmt.Errorf("no idea"))
	case "fails at the other end":
		return errors.New("refused")
	}
	*v = string(src)
	return nil
}

func TestCodecThatFailsOrPanics(t *testing.T) {
	c := newCoder[string](failing{})
	for v, want := range map[string]string{
		"panics": "string cannot be encoded: the codec panicked: no idea",
		"fails":  "string cannot be encoded: refused",
	} {
		b, err := c.append([]byte("head"), v)
		if string(b) != "head" || err == nil || err.Error() != want {
			t.Errorf("%s: %q, %v", v, b, err)
		}
		var got string
		err = c.decode([]byte(v+" at the other end"), &got)
		if got != "" || err == nil || !strings.HasPrefix(err.Error(), "message is no string: ") {
			t.Errorf("%s: %q, %v", v, got, err)
		}
	}
	type channel struct{ C chan int }
	var e *CodecError
	if _, err := newCoder[channel](nil).append(nil, channel{make(chan int)}); !errors.As(err, &e) || e.Decoding {
		t.Errorf("a type that MessagePack has not: %v", err)
	}
}

func TestMessagePackIsForManyGoroutines(t *testing.T) {
	c := newCoder[reading](nil)
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			want := reading{Sensor: uint64(i), Site: strings.Repeat("x", i)}
			for range 200 {
				b, err := c.append(nil, want)
				var got reading
				if err == nil {
					err = c.decode(b, &got)
				}
				if err != nil || got != want {
					t.Errorf("%+v, %v", got, err)
					return
				}
			}
		})
	}
	work.Wait()
}

func TestEncodingAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 256)
	body := []byte("body")
	bytesCoder, readings := newCoder[[]byte](nil), newCoder[reading](nil)
	var v []byte
	var r reading
	encoded, err := readings.append(nil, aReading)
	check(t, err)
	for name, c := range map[string]struct {
		max float64
		run func()
	}{
		"raw, both ways":     {0, func() { buf, _ = bytesCoder.append(buf[:0], body); _ = bytesCoder.decode(buf, &v) }},
		"MessagePack":        {0, func() { buf, _ = readings.append(buf[:0], aReading) }},
		"MessagePack's back": {1, func() { r = reading{}; _ = readings.decode(encoded, &r) }}, // the string
	} {
		if n := testing.AllocsPerRun(200, c.run); n > c.max && !raceEnabled {
			t.Errorf("%s: %v allocations, want %v", name, n, c.max)
		}
	}
}

// BenchmarkCodec is what a codec adds to a message: raw bytes nothing, the
// library's own Marshal and Unmarshal for comparison.
func BenchmarkCodec(b *testing.B) {
	encoded, err := newCoder[reading](nil).append(nil, aReading)
	if err != nil {
		b.Fatal(err)
	}
	benchCoder(b, "raw", newCoder[[]byte](nil), encoded)
	benchCoder(b, "msgpack", newCoder[reading](nil), aReading)
	benchCoder(b, "msgpack-array", newCoder[compact](nil), aCompact)
	benchCoder(b, "library", newCoder[reading](library{}), aReading)
}

func benchCoder[T any](b *testing.B, name string, c coder[T], v T) {
	buf, err := c.append(nil, v)
	if err != nil {
		b.Fatal(err)
	}
	b.Run(name+"/append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if buf, err = c.append(buf[:0], v); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(buf)), "bytes")
	})
	got := new(T)
	b.Run(name+"/decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			*got = *new(T)
			if err := c.decode(buf, got); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// library is msgpack without pools and without a walk.
type library struct{}

func (library) Append(dst []byte, v reading) ([]byte, error) {
	b, err := msgpack.Marshal(&v)
	return append(dst, b...), err
}

func (library) Decode(src []byte, v *reading) error { return msgpack.Unmarshal(src, v) }
