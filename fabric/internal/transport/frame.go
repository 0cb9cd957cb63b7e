package transport

import (
	"encoding/binary"
	"errors"
	"math"
)

// A ZMTP 3 frame (https://rfc.zeromq.org/spec/23/, Framing):
//
//	flags  size            body
//	%x00   1 octet         message frame, last; %x01 more to come
//	%x02   8 octets, BE    the same, long form; %x03 more to come
//	%x04   1 octet         command; %x06 long form
//
// The long form is legal for every size; the short one holds up to 255 bytes.
const (
	flagMore    = 0x01
	flagLong    = 0x02
	flagCommand = 0x04
	flagsKnown  = flagMore | flagLong | flagCommand

	shortHeader = 2

	// LongHeaderSize is the size of the frame header that PutLongHeader writes.
	LongHeaderSize = 9

	maxShortFrame = 255
)

// AppendFrameHeader appends the header of a message frame whose body is size bytes: 2 bytes, or 9 if size is over 255.
// more says that another frame of the same message follows.
func AppendFrameHeader(dst []byte, size int, more bool) []byte {
	var flags byte
	if more {
		flags = flagMore
	}
	return appendHeader(dst, flags, size)
}

// PutLongHeader writes the header of a message's only frame, of size bytes, into the first LongHeaderSize bytes of dst.
// It is for a batch whose size is known only when it is sealed.
func PutLongHeader(dst []byte, size int) {
	_ = dst[LongHeaderSize-1]
	dst[0] = flagLong
	binary.BigEndian.PutUint64(dst[1:], uint64(size))
}

func appendHeader(dst []byte, flags byte, size int) []byte {
	if size <= maxShortFrame {
		return append(dst, flags, byte(size))
	}
	return binary.BigEndian.AppendUint64(append(dst, flags|flagLong), uint64(size))
}

// appendCommand appends a whole command frame.
func appendCommand(dst []byte, name string, body []byte) []byte {
	dst = appendHeader(dst, flagCommand, 1+len(name)+len(body))
	dst = append(dst, byte(len(name)))
	dst = append(dst, name...)
	return append(dst, body...)
}

// splitCommand takes a command frame's body apart.
func splitCommand(frame []byte) (name, body []byte, ok bool) {
	if len(frame) == 0 || frame[0] == 0 || int(frame[0]) > len(frame)-1 {
		return nil, nil, false
	}
	n := 1 + int(frame[0])
	return frame[1:n], frame[n:], true
}

// badFlags says what is wrong with a frame's flags, or is empty.
func badFlags(flags byte) string {
	switch {
	case flags&^flagsKnown != 0:
		return "reserved bits set in a frame's flags"
	case flags&flagCommand != 0 && flags&flagMore != 0:
		return "a command frame that announces more frames"
	}
	return ""
}

// FrameHeader reads the header of a message's only frame: its size, and the bytes that the header takes.
func FrameHeader(p []byte) (size, header int, err error) {
	switch {
	case len(p) >= shortHeader && p[0] == 0:
		return int(p[1]), shortHeader, nil
	case len(p) >= LongHeaderSize && p[0] == flagLong && binary.BigEndian.Uint64(p[1:]) <= math.MaxInt32:
		return int(binary.BigEndian.Uint64(p[1:])), LongHeaderSize, nil
	}
	return 0, 0, errNoFrame
}

var errNoFrame = errors.New("not the header of a message's only frame")
