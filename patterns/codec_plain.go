package patterns

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"math"
	"reflect"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
)

// plain writes and reads structs of numbers, booleans and strings by itself, in the
// bytes that the library writes, in a fraction of its time. What it reads is what it
// writes, with fields in any order or missing; all else it leaves to the library.
type plain struct {
	fields []plainField
	head   []byte // of the map or array
	array  bool
}

type plainField struct {
	index int
	kind  reflect.Kind
	name  string
	key   []byte // the name as it is written; nothing in an array
}

// newPlain returns the plan of a type, nil if it is of another kind: if it has fields of
// other types, or of types with names, whose methods might do the encoding; if it has
// such methods itself; or if its tags ask for anything but a name.
func newPlain(t reflect.Type) *plain {
	if t.Kind() != reflect.Struct || ownsCoding(t) {
		return nil
	}
	p := &plain{}
	names := make(map[string]bool)
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("msgpack")
		switch {
		case f.Name == "_msgpack":
			if tag != ",as_array" {
				return nil
			}
			p.array = true
			continue
		case f.Anonymous || strings.ContainsAny(tag, `,:'\ `) || tag == "-" || f.Type.PkgPath() != "":
			return nil
		case !f.IsExported():
			continue
		}
		switch f.Type.Kind() {
		case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
			reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
			reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		default:
			return nil
		}
		name := tag
		if name == "" {
			name = f.Name
		}
		if names[name] {
			return nil
		}
		names[name] = true
		p.fields = append(p.fields, plainField{index: i, kind: f.Type.Kind(), name: name, key: appendString(nil, name)})
	}
	if len(p.fields) > 15 {
		return nil // whose heads are longer
	}
	p.head = []byte{0x80 | byte(len(p.fields))}
	if p.array {
		p.head = appendArray(nil, len(p.fields))
		for i := range p.fields {
			p.fields[i].key = nil
		}
	}
	if !p.agrees(t) {
		return nil
	}
	return p
}

// agrees reports whether the library writes the same, which it does not if the program
// has registered the type with it.
func (p *plain) agrees(t reflect.Type) bool {
	var out appender
	enc := msgpack.NewEncoder(&out)
	enc.UseCompactInts(true)
	zero := reflect.New(t)
	return enc.Encode(zero.Interface()) == nil && bytes.Equal(out.b, p.append(nil, zero.Elem()))
}

// ownsCoding reports whether a type has methods that the library calls.
func ownsCoding(t reflect.Type) bool {
	for _, i := range []reflect.Type{
		reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.CustomDecoder](),
		reflect.TypeFor[msgpack.Marshaler](), reflect.TypeFor[msgpack.Unmarshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](),
		reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
	} {
		if reflect.PointerTo(t).Implements(i) {
			return true
		}
	}
	return false
}

// append writes a struct.
func (p *plain) append(b []byte, v reflect.Value) []byte {
	b = append(b, p.head...)
	for i := range p.fields {
		f := &p.fields[i]
		b = append(b, f.key...)
		switch v := v.Field(f.index); f.kind {
		case reflect.Bool:
			if v.Bool() {
				b = append(b, 0xc3)
			} else {
				b = append(b, 0xc2)
			}
		case reflect.String:
			b = appendString(b, v.String())
		case reflect.Float32:
			b = binary.BigEndian.AppendUint32(append(b, 0xca), math.Float32bits(float32(v.Float())))
		case reflect.Float64:
			b = binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v.Float()))
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			b = appendSigned(b, v.Int())
		default:
			b = appendNumber(b, v.Uint())
		}
	}
	return b
}

// appendSigned writes the shortest form.
func appendSigned(b []byte, n int64) []byte {
	switch {
	case n >= 0:
		return appendNumber(b, uint64(n))
	case n >= -32:
		return append(b, byte(n))
	case n >= math.MinInt8:
		return append(b, 0xd0, byte(n))
	case n >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(b, 0xd1), uint16(n))
	case n >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(b, 0xd2), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(n))
}

// appendString writes a string of any length.
func appendString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 1<<5:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

// read reads a struct, and reports false if it is not written as it would be here: v
// may be half set then.
func (p *plain) read(b []byte, v reflect.Value) bool {
	if len(b) == 0 {
		return false
	}
	head := b[0]
	b = b[1:]
	if p.array {
		if head != p.head[0] || len(p.fields) == 0 {
			return false
		}
		for i := range p.fields {
			var ok bool
			if b, ok = p.fields[i].read(b, v); !ok {
				return false
			}
		}
		return len(b) == 0
	}
	if head&0xf0 != 0x80 {
		return false
	}
	next := 0
	for range head & 0x0f {
		name, rest, ok := readString(b)
		if !ok {
			return false
		}
		f := p.find(name, next)
		if f < 0 {
			return false
		}
		if b, ok = p.fields[f].read(rest, v); !ok {
			return false
		}
		next = f + 1
	}
	return len(b) == 0
}

// find is the field of that name, -1 if there is none. It looks at the next one first.
func (p *plain) find(name []byte, next int) int {
	if next < len(p.fields) && p.fields[next].name == string(name) {
		return next
	}
	for i := range p.fields {
		if p.fields[i].name == string(name) {
			return i
		}
	}
	return -1
}

// read reads one field, and returns what is behind it.
func (f *plainField) read(b []byte, v reflect.Value) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	field := v.Field(f.index)
	switch f.kind {
	case reflect.Bool:
		field.SetBool(b[0] == 0xc3)
		return b[1:], b[0]&0xfe == 0xc2
	case reflect.String:
		s, rest, ok := readString(b)
		if ok {
			field.SetString(string(s))
		}
		return rest, ok
	case reflect.Float32:
		if b[0] != 0xca || len(b) < 5 {
			return nil, false
		}
		field.SetFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(b[1:]))))
		return b[5:], true
	case reflect.Float64:
		if b[0] != 0xcb || len(b) < 9 {
			return nil, false
		}
		field.SetFloat(math.Float64frombits(binary.BigEndian.Uint64(b[1:])))
		return b[9:], true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, rest, ok := readSigned(b)
		if ok {
			field.SetInt(n)
		}
		return rest, ok
	}
	n, rest, ok := readUnsigned(b)
	if ok {
		field.SetUint(n)
	}
	return rest, ok
}

// readString reads a string where it lies.
func readString(b []byte) (s, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	code, n := b[0], 0
	b = b[1:]
	switch {
	case code&0xe0 == 0xa0:
		n = int(code & 0x1f)
	case code == 0xd9 && len(b) >= 1:
		n, b = int(b[0]), b[1:]
	case code == 0xda && len(b) >= 2:
		n, b = int(binary.BigEndian.Uint16(b)), b[2:]
	default:
		return nil, nil, false
	}
	if n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// readUnsigned reads what appendNumber writes.
func readUnsigned(b []byte) (n uint64, rest []byte, ok bool) {
	if b[0] < 0x80 {
		return uint64(b[0]), b[1:], true
	}
	size := 1 << (b[0] & 0x03)
	if b[0]&0xfc != 0xcc || len(b) <= size {
		return 0, nil, false
	}
	for _, c := range b[1 : 1+size] {
		n = n<<8 | uint64(c)
	}
	return n, b[1+size:], true
}

// readSigned reads what appendSigned writes.
func readSigned(b []byte) (n int64, rest []byte, ok bool) {
	if b[0] >= 0xe0 {
		return int64(int8(b[0])), b[1:], true
	}
	size := 1 << (b[0] & 0x03)
	if b[0]&0xfc != 0xd0 {
		u, rest, ok := readUnsigned(b)
		return int64(u), rest, ok
	}
	if len(b) <= size {
		return 0, nil, false
	}
	n = int64(int8(b[1]))
	for _, c := range b[2 : 1+size] {
		n = n<<8 | int64(c)
	}
	return n, b[1+size:], true
}
