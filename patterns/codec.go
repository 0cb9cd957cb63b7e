package patterns

import (
	"fmt"
	"reflect"
)

// Codec turns a program's values into messages and back. Its methods may be
// called by several goroutines at once.
//
// What comes from a peer is not to be trusted: Decode must not believe a length
// that it reads, or ask for more memory than its input is worth. A codec that
// panics does not end the program: the panic becomes a *CodecError.
type Codec[T any] interface {
	// Append appends the encoding of v to dst, and returns the longer slice, as
	// append does. It keeps neither.
	Append(dst []byte, v T) ([]byte, error)
	// Decode sets *v, which is zero before, from the whole of src. The value may
	// refer to src: it is then valid for as long as the pattern says that a
	// message is.
	Decode(src []byte, v *T) error
}

// Raw is the codec of messages that are bytes: no conversion, no copy, no
// allocation. It is the default for []byte. A received value is the message
// itself.
func Raw() Codec[[]byte] { return raw{} }

type raw struct{}

func (raw) Append(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }

func (raw) Decode(src []byte, v *[]byte) error {
	*v = src
	return nil
}

// CodecError: a value could not be turned into a message, or a message into a
// value. At the receiving end it may mean that the other end has another type,
// or another codec.
type CodecError struct {
	Decoding bool
	Type     string // the Go type here
	Err      error
}

func (e *CodecError) Error() string {
	if e.Decoding {
		return fmt.Sprintf("message is no %s: %v", e.Type, e.Err)
	}
	return fmt.Sprintf("%s cannot be encoded: %v", e.Type, e.Err)
}

func (e *CodecError) Unwrap() error { return e.Err }

// coder is a codec as the patterns use it: what fails is a *CodecError, and
// what panics as well.
type coder[T any] struct {
	codec   Codec[T]
	copying bool // decoded values never refer to the message
}

// newCoder returns the coder of a codec, the default one if it is nil.
func newCoder[T any](c Codec[T]) coder[T] {
	if c == nil {
		if r, ok := any(raw{}).(Codec[T]); ok {
			c = r
		} else {
			c = MessagePack[T]()
		}
	}
	_, copying := c.(*messagePack[T])
	return coder[T]{codec: c, copying: copying}
}

// append appends v to dst, which stays as it is if there is an error.
func (c coder[T]) append(dst []byte, v T) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = dst, codecError[T](false, fmt.Errorf("the codec panicked: %v", r))
		}
	}()
	if out, err = c.codec.Append(dst, v); err != nil {
		return dst, codecError[T](false, err)
	}
	return out, nil
}

// decode sets *v, which must be zero, and is so again if there is an error.
func (c coder[T]) decode(src []byte, v *T) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = codecError[T](true, fmt.Errorf("the codec panicked: %v", r))
			*v = *new(T)
		}
	}()
	if err := c.codec.Decode(src, v); err != nil {
		*v = *new(T)
		return codecError[T](true, err)
	}
	return nil
}

func codecError[T any](decoding bool, err error) *CodecError {
	return &CodecError{Decoding: decoding, Type: reflect.TypeFor[T]().String(), Err: err}
}
