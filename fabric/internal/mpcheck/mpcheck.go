// Package mpcheck walks MessagePack that a peer sent before anything is decoded from it.
//
// A decoder that trusts the lengths in its input can be made to ask for gigabytes with five bytes, or to recurse
// until the stack ends. What Check lets pass claims no more than it carries: a string's or bin's bytes, an array's or
// map's elements are all there. A decoder's memory is then bounded by the input's length times a constant.
//
// The format is https://github.com/msgpack/msgpack/blob/master/spec.md.
package mpcheck

import (
	"encoding/binary"
	"fmt"
)

// Error says what is wrong with the input, and where.
type Error struct {
	Offset int // of the value at fault, in bytes
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("msgpack: %s at byte %d", e.Reason, e.Offset) }

// Check reports whether b is exactly one well-formed value that nests at most maxDepth arrays and maps. The error is
// an *Error. It allocates nothing otherwise, and takes time linear in len(b).
func Check(b []byte, maxDepth int) error {
	// Open arrays and maps, as elements that each still lacks. Depths beyond the array are refused with the rest.
	var open [64]int
	depth, missing := 0, 0 // missing: the sum over all open ones
	for at := 0; ; {
		if at >= len(b) {
			return &Error{at, "input ends within a value"}
		}
		size, elements := header(b[at:])
		switch {
		case size < 0:
			return &Error{at, fmt.Sprintf("byte 0x%02x begins no value", b[at])}
		case size > len(b)-at:
			return &Error{at, fmt.Sprintf("%d bytes claimed, %d left", size, len(b)-at)}
		}
		start := at
		at += size
		if depth > 0 {
			open[depth-1]--
			missing--
		}
		if elements > 0 {
			if depth >= min(maxDepth, len(open)) {
				return &Error{start, fmt.Sprintf("nested deeper than %d", min(maxDepth, len(open)))}
			}
			// An element takes a byte or more, and so do those that the outer ones still lack.
			if elements > len(b)-at-missing {
				return &Error{start, fmt.Sprintf("%d elements claimed, %d bytes left", elements, len(b)-at)}
			}
			open[depth] = elements
			depth++
			missing += elements
		}
		for depth > 0 && open[depth-1] == 0 {
			depth--
		}
		if depth == 0 {
			if at != len(b) {
				return &Error{at, fmt.Sprintf("%d bytes after the value", len(b)-at)}
			}
			return nil
		}
	}
}

// header returns how many bytes the value at the start of b takes, without an array's or map's elements, and how
// many elements follow it. The size is negative for the one code that is no value; it may be over len(b), which is
// then for the caller to see. b is not empty.
func header(b []byte) (size, elements int) {
	switch c := b[0]; {
	case c <= 0x7f, c >= 0xe0: // fixint
		return 1, 0
	case c <= 0x8f: // fixmap
		return 1, 2 * int(c&0x0f)
	case c <= 0x9f: // fixarray
		return 1, int(c & 0x0f)
	case c <= 0xbf: // fixstr
		return 1 + int(c&0x1f), 0
	}
	switch b[0] {
	case 0xc0, 0xc2, 0xc3: // nil, false, true
		return 1, 0
	case 0xc4, 0xd9: // bin 8, str 8
		return length(b, 1, 0)
	case 0xc5, 0xda: // bin 16, str 16
		return length(b, 2, 0)
	case 0xc6, 0xdb: // bin 32, str 32
		return length(b, 4, 0)
	case 0xc7: // ext 8; an ext has a type byte
		return length(b, 1, 1)
	case 0xc8:
		return length(b, 2, 1)
	case 0xc9:
		return length(b, 4, 1)
	case 0xcc, 0xd0: // uint 8, int 8
		return 2, 0
	case 0xcd, 0xd1:
		return 3, 0
	case 0xca, 0xce, 0xd2: // float 32, uint 32, int 32
		return 5, 0
	case 0xcb, 0xcf, 0xd3:
		return 9, 0
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8: // fixext 1, 2, 4, 8, 16
		return 2 + 1<<(b[0]-0xd4), 0
	case 0xdc: // array 16
		return 3, number(b, 2)
	case 0xdd:
		return 5, number(b, 4)
	case 0xde: // map 16
		return 3, 2 * number(b, 2)
	case 0xdf:
		return 5, 2 * number(b, 4)
	}
	return -1, 0 // 0xc1
}

// length is the size of a value whose width bytes after the code say how many bytes follow, besides extra ones.
func length(b []byte, width, extra int) (size, elements int) {
	return 1 + width + extra + number(b, width), 0
}

// number reads the width bytes after the code; 0 if they are not all there, which the size then shows. A 32-bit
// platform's int holds no number over 2^31-1, and no input of that size: it saturates.
func number(b []byte, width int) int {
	if len(b) < 1+width {
		return 0
	}
	switch width {
	case 1:
		return int(b[1])
	case 2:
		return int(binary.BigEndian.Uint16(b[1:]))
	}
	const most = 1<<30 - 8 // doubled, with a header, it is still an int
	n := binary.BigEndian.Uint32(b[1:])
	if ^uint(0)>>32 == 0 && n > most {
		return most
	}
	return int(n)
}
