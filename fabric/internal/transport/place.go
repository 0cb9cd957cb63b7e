package transport

import "io"

// placeMin is the frame size, in bytes, from which a placer is asked, and placeHead how much of the frame must be there:
// below the one a copy costs less than another system call, and the other holds any header of a record.
const (
	placeMin  = 16 << 10
	placeHead = 64
)

// briefRoom is how much is read at a time, in bytes, where the next frame is likely to be placed: its head, behind some
// control, and not much of its body, as that has to be moved.
const briefRoom = smallBuffer

// Placer says where the end of a large frame belongs, so that it is read right to its place. It gets the begin of the
// frame's body, as much as has arrived, and the body's size; the memory it returns takes the body's last bytes, and
// ReadPacket then returns only what is before them. It returns nil to have the frame read as any other. The memory must
// stay until the next ReadPacket, or the one that is under way, returns.
type Placer func(head []byte, size int) []byte

// SetIdle sets what the reader does before it waits for bytes. It must not wait itself, nor use the connection. Call it
// before the first read, or from the reader.
func (c *Conn) SetIdle(idle func()) { c.in.onIdle = idle }

// SetPlacer sets the placer. Call it before the first read, or from the reader. The connection is then read with ReadPacket
// only, and a deadline that passes while a frame is being placed is final: the frame's beginning is not kept here.
func (c *Conn) SetPlacer(p Placer) { c.placer = p }

// place reads the end of the frame at in.r to where the placer wants it. It reports false if the placer does not.
func (c *Conn) place(header, size int) (head []byte, ok bool, err error) {
	in := &c.in
	have := in.unparsed()[header:]
	if c.placer == nil || size < placeMin || len(have) < placeHead || len(have) >= size {
		return nil, false, nil
	}
	dst := c.placer(have, size)
	if dst == nil {
		return nil, false, nil
	}
	skip := size - len(dst)
	n := copy(dst, have[skip:])
	in.waits()
	// What lies behind the frame comes with the same system call: it mostly is the head of the next one.
	behind := in.buf.mem[in.w:min(in.w+briefRoom, len(in.buf.mem))]
	for n < len(dst) {
		m, err := in.src.readTo(dst[n:], behind)
		if err != nil || m <= 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			// A part of the frame is in memory that this end does not keep: no read can go on from here.
			err = c.readFailed(err)
			c.endReading(err)
			return nil, false, err
		}
		n += m
	}
	in.r = in.w
	in.w += n - len(dst)
	in.frame, in.brief = 0, true
	return have[:skip:skip], true, nil
}
