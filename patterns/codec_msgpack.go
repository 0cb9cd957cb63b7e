package patterns

import (
	"bytes"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric"
)

// maxDepth is how many arrays and maps may lie within each other in a message
// that is decoded: what people build, and far from the stack's end.
const maxDepth = 32

// MessagePack is the codec for any type that github.com/vmihailenco/msgpack/v5
// takes: the default for all types but []byte. A struct is a map from its
// fields' names (or `msgpack:"name"`) to their values; with the tag
// `msgpack:",as_array"` on a field of type struct{} called _msgpack it is an
// array, which is shorter and faster, and can have no field added later. Fields
// that this end does not know are ignored, and those that the other end did not
// send are zero. A field of another type is an error.
//
// A message is walked before it is decoded, and refused if it claims more than
// it holds or nests deeper than 32. A decoded value refers to nothing in the
// message.
func MessagePack[T any]() Codec[T] { return &messagePack[T]{plain: newPlain(reflect.TypeFor[T]())} }

type messagePack[T any] struct {
	plain    *plain    // nil: all is the library's
	encoders sync.Pool // of *encoder[T]
	decoders sync.Pool // of *decoder
}

// encoder is an encoder with the value it is at: a pointer into the pool is
// passed on, so that no value has to be allocated.
type encoder[T any] struct {
	out   appender
	enc   *msgpack.Encoder
	value T
}

// appender is the writer of an encoder.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func (a *appender) WriteByte(c byte) error {
	a.b = append(a.b, c)
	return nil
}

func (m *messagePack[T]) Append(dst []byte, v T) ([]byte, error) {
	e, _ := m.encoders.Get().(*encoder[T])
	if e == nil {
		e = new(encoder[T])
		e.enc = msgpack.NewEncoder(&e.out)
		e.enc.UseCompactInts(true)
	}
	e.out.b, e.value = dst, v
	if m.plain != nil {
		dst = m.plain.append(dst, reflect.ValueOf(&e.value).Elem())
		e.out.b, e.value = nil, *new(T)
		m.encoders.Put(e)
		return dst, nil
	}
	if err := e.enc.Encode(&e.value); err != nil {
		return dst, err // and e, which is in the middle of something, is not used again
	}
	dst = e.out.b
	e.out.b, e.value = nil, *new(T)
	m.encoders.Put(e)
	return dst, nil
}

type decoder struct {
	in  bytes.Reader
	dec *msgpack.Decoder
}

func (m *messagePack[T]) Decode(src []byte, v *T) error {
	if m.plain != nil {
		if m.plain.read(src, reflect.ValueOf(v).Elem()) {
			return nil
		}
		*v = *new(T)
	}
	if err := fabric.CheckMessagePack(src, maxDepth); err != nil {
		return err
	}
	d, _ := m.decoders.Get().(*decoder)
	if d == nil {
		d = new(decoder)
		d.dec = msgpack.NewDecoder(&d.in)
	}
	d.in.Reset(src)
	if err := d.dec.Decode(v); err != nil {
		return err
	}
	d.in.Reset(nil)
	m.decoders.Put(d)
	return nil
}
