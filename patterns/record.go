package patterns

import (
	"encoding/binary"
	"fmt"

	"github.com/zfab/zfab/fabric"
)

// A record is what one end of a pattern says to the other: a MessagePack array
// whose first element is its kind, then a body if the kind has one, up to the
// message's end. PROTOCOL.md has the table.

// maxText bounds a text in a record, in bytes: what a person reads of it.
const maxText = 255

// maxHead is the most that an array of a kind, five numbers and a text takes.
const maxHead = 1 + 6*9 + 2 + maxText

func appendArray(b []byte, elements int) []byte { return append(b, 0x90|byte(elements)) }

// appendNumber writes the shortest form.
func appendNumber(b []byte, n uint64) []byte {
	switch {
	case n < 1<<7:
		return append(b, byte(n))
	case n < 1<<8:
		return append(b, 0xcc, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xcf), n)
}

// appendRecord writes a record of numbers, the first of them its kind.
func appendRecord(b []byte, numbers ...uint64) []byte {
	return appendNumbers(appendArray(b, len(numbers)), numbers)
}

// appendTextRecord writes a record of numbers, the first of them its kind, and a
// text.
func appendTextRecord(b []byte, text string, numbers ...uint64) []byte {
	return appendText(appendNumbers(appendArray(b, len(numbers)+1), numbers), text)
}

func appendNumbers(b []byte, numbers []uint64) []byte {
	for _, n := range numbers {
		b = appendNumber(b, n)
	}
	return b
}

// appendText writes s, or as much of it as a record takes.
func appendText(b []byte, s string) []byte {
	if len(s) > maxText {
		s = s[:maxText-3] + "..."
	}
	return appendString(b, s)
}

// fields reads a record element by element. After one that is not as it should
// be, all others are zero.
type fields struct {
	rest     []byte
	elements int // that are left
	bad      bool
}

// readRecord begins to read a record.
func readRecord(message []byte) (kind uint64, f fields) {
	if len(message) == 0 || message[0]&0xf0 != 0x90 {
		return 0, fields{bad: true}
	}
	f = fields{rest: message[1:], elements: int(message[0] & 0x0f)}
	return f.number(), f
}

func (f *fields) take(n int) []byte {
	if f.bad || n > len(f.rest) {
		f.bad = true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

// element begins the next one, and returns its first byte.
func (f *fields) element() byte {
	if f.elements == 0 {
		f.bad = true
	}
	f.elements--
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) number() uint64 {
	code := f.element()
	if code < 0x80 {
		return uint64(code)
	}
	if code < 0xcc || code > 0xcf {
		f.bad = true
		return 0
	}
	var n uint64
	for _, b := range f.take(1 << (code - 0xcc)) {
		n = n<<8 | uint64(b)
	}
	return n
}

func (f *fields) text() string { return string(f.textBytes()) }

// textBytes is a text where it lies.
func (f *fields) textBytes() []byte {
	code := f.element()
	var size int
	switch {
	case code&0xe0 == 0xa0:
		size = int(code & 0x1f)
	case code == 0xd9:
		if b := f.take(1); b != nil {
			size = int(b[0])
		}
	default:
		f.bad = true
	}
	return f.take(size)
}

// end reports whether all of the record was read, and was right; what is left
// then is its body.
func (f *fields) end() bool { return !f.bad && f.elements == 0 }

// RecordError: a message came that is none of the pattern's: another program uses
// its channel, or another version of the pattern. It was dropped.
type RecordError struct {
	Channel string
	From    fabric.Address
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("channel %s: what %s has sent is no record of this pattern", e.Channel, e.From)
}
