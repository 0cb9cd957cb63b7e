package patterns

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// everything has a field of each kind that is plain, and one that nobody sees.
type everything struct {
	B   bool
	S   string `msgpack:"name"`
	T   string `msgpack:"t"`
	I   int
	I8  int8
	I16 int16
	I32 int32
	I64 int64
	U   uint
	U8  uint8
	U16 uint16
	U32 uint32
	U64 uint64
	F32 float32
	F64 float64
	_   int
}

// everythingArray is the same as an array.
type everythingArray struct {
	//lint:ignore U1000 the library reads its tag
	_msgpack struct{} `msgpack:",as_array"`
	B        bool
	S        string
	I        int
	U8       uint8
	F32      float32
}

// marshals has its own MessagePack.
type marshals struct{ N int }

func (marshals) MarshalMsgpack() ([]byte, error) { return []byte{0xc0}, nil }

// named is a type with a name, which might have methods.
type named string

// registered is a type of which the program has told the library how it is written.
type registered struct{ N int }

func init() {
	msgpack.Register(registered{}, func(e *msgpack.Encoder, v reflect.Value) error { return e.EncodeInt(v.Field(0).Int()) },
		func(d *msgpack.Decoder, v reflect.Value) error {
			n, err := d.DecodeInt64()
			v.Field(0).SetInt(n)
			return err
		})
}

func TestPlainTypes(t *testing.T) {
	type inner struct{ N int }
	for _, c := range []struct {
		v     any
		plain bool
	}{
		{reading{}, true}, {compact{}, true}, {everything{}, true}, {struct{}{}, true},
		{5, false}, {&reading{}, false}, {marshals{}, false}, {registered{}, false},
		{struct{ N named }{}, false}, {struct{ B []byte }{}, false}, {struct{ P *int }{}, false}, {struct{ inner }{}, false},
		{struct{ In inner }{}, false},
		{struct {
			N int `msgpack:"n,omitempty"`
		}{}, false},
		{struct {
			N int `msgpack:"-"`
		}{}, false},
		{struct{ A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P int }{}, false},
	} {
		if got := newPlain(reflect.TypeOf(c.v)) != nil; got != c.plain {
			t.Errorf("%T is plain: %v", c.v, got)
		}
	}
}

// libraryOf is the codec without its short way.
func libraryOf[T any]() Codec[T] { return new(messagePack[T]) }

// agree holds that what is written is what the library writes, and that it is read.
func agree[T any](t *testing.T, v T) {
	t.Helper()
	short, long := MessagePack[T](), libraryOf[T]()
	b, err := short.Append(nil, v)
	want, errWant := long.Append(nil, v)
	if err != nil || errWant != nil || !bytes.Equal(b, want) {
		t.Fatalf("%+v: %x, %v; the library's %x, %v", v, b, err, want, errWant)
	}
	var got T
	if !short.(*messagePack[T]).plain.read(b, reflect.ValueOf(&got).Elem()) || fmt.Sprint(got) != fmt.Sprint(v) {
		t.Fatalf("%+v: read %+v", v, got)
	}
}

func TestPlainIsTheLibrarys(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	lengths := []int{0, 1, 31, 32, 255, 256, 65_535}
	for i := range 3_000 {
		bits := r.Uint64() >> r.IntN(64)
		signed := int64(bits)
		if i%2 == 0 {
			signed = -signed
		}
		s := strings.Repeat("x", r.IntN(40))
		if i < len(lengths) {
			s = strings.Repeat("y", lengths[i])
		}
		agree(t, everything{
			B: i%3 == 0, S: s, T: "t", I: int(signed), I8: int8(signed), I16: int16(signed), I32: int32(signed), I64: signed,
			U: uint(bits), U8: uint8(bits), U16: uint16(bits), U32: uint32(bits), U64: bits,
			F32: float32(signed), F64: math.Float64frombits(bits),
		})
		agree(t, everythingArray{B: i%3 == 0, S: s, I: int(signed), U8: uint8(bits), F32: float32(bits)})
		agree(t, compact{Sensor: bits, Site: s, Value: float64(signed), Flags: uint32(bits)})
	}
	long := reading{Site: strings.Repeat("z", 1<<16)} // which is written, and left to the library to be read
	b, err := MessagePack[reading]().Append(nil, long)
	want, _ := libraryOf[reading]().Append(nil, long)
	var got reading
	if err != nil || !bytes.Equal(b, want) || MessagePack[reading]().Decode(b, &got) != nil || got != long {
		t.Errorf("a long string: %v", err)
	}
}

// Whatever comes is read as the library reads it, or refused as it refuses it.
func FuzzPlain(f *testing.F) {
	for _, v := range []any{
		aReading, aCompact, everything{I: -1, S: "s"}, everythingArray{I: -200, S: "s"}, map[string]any{"B": nil}, map[string]any{"I8": 300},
		map[string]any{"F64": float32(1)}, map[string]any{"F32": 1}, map[string]any{"U8": -1}, map[string]any{"t": []byte("x")}, map[string]any{"B": true, "no": 1},
	} {
		b, err := msgpack.Marshal(v)
		check(f, err)
		f.Add(b)
	}
	f.Add([]byte("\x82\xa1B\xc3\xa1B\xc2"))
	f.Add([]byte("\x81\xa1U\xcf\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		asTheLibrary[everything](t, b)
		asTheLibrary[everythingArray](t, b)
	})
}

func asTheLibrary[T any](t *testing.T, b []byte) {
	t.Helper()
	var got, want T
	err, errWant := newCoder(MessagePack[T]()).decode(b, &got), newCoder(libraryOf[T]()).decode(b, &want)
	if (err == nil) != (errWant == nil) || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
		t.Errorf("%x: %+v, %v; the library's %+v, %v", b, got, err, want, errWant)
	}
}
