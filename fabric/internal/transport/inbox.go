package transport

import "io"

// inbox is the reading half's memory: bytes that have arrived and are not parsed yet.
//
//	buf.mem   [ handed out | r  unparsed  w | free ]
//
// Memory is borrowed only once there are bytes to read (see source), so that an idle connection holds none, or one small
// buffer. Frames are parsed where they arrived. Two things would cost a copy, and are avoided where they can be: a frame
// that straddles the end of the memory, and a frame that outgrows a small buffer. All fields belong to the reader.
type inbox struct {
	src    source
	onIdle func() // nil, or what is to be done before a wait
	buf    *Buffer
	r, w   int
	need   int  // bytes from r that the frame at r is known to have, header included
	frame  int  // bytes of the latest whole frame: a guess at the next one's size
	eager  bool // the latest read brought much: borrow big memory for the next one
	brief  bool // the latest large frame was placed, and the next one may be: read no more than its head
}

// tailRoom is the least free room that is worth another read into memory that others retain.
const tailRoom = smallBuffer / 4

// alignFrom is the frame size from which reads are cut at the expected frame boundaries. A read of small frames takes
// all it can: moving a part of one costs less than another read.
const alignFrom = 4 << 10

// unparsed is what has arrived.
func (in *inbox) unparsed() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.mem[in.r:in.w]
}

// take steps over n bytes.
func (in *inbox) take(n int) {
	in.r += n
	in.frame = n
}

// fill waits for more bytes; need says how many, from r on, the next frame is known to take. Bytes handed out before may
// be overwritten unless they are retained.
func (in *inbox) fill(need int) error {
	in.need = need
	if in.buf != nil {
		in.makeRoom()
	}
	n, err := in.src.read(in)
	if n > 0 {
		in.w += n
		in.eager = n >= smallBuffer || in.w == len(in.buf.mem)
		if n >= briefRoom {
			in.brief = false // there is more: a frame that is placed will say so again
		}
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if err == io.EOF && in.r < in.w {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// makeRoom sees to it that the frame at r can be completed in one piece of memory.
func (in *inbox) makeRoom() {
	mem, have := in.buf.mem, in.w-in.r
	if have == 0 {
		switch {
		case in.eager && len(mem) < bigBuffer:
			in.drop()
		case in.buf.sole():
			in.r, in.w = 0, 0
		case len(mem)-in.w < max(tailRoom, min(in.frame, len(mem)/2)):
			in.drop()
		}
		return
	}
	fits := len(mem)-in.r >= in.need
	growing := in.r == 0 && len(mem) >= bigBuffer // a frame over bigBuffer: first fill what is here
	if in.w < len(mem) && (fits || growing) {
		return
	}
	if in.need <= len(mem) && in.buf.sole() {
		copy(mem, mem[in.r:in.w])
	} else {
		// Not more than four times what has arrived: an announcement alone costs the peer nothing.
		next := newBuffer(min(in.need, max(bigBuffer, 4*have)))
		copy(next.mem, mem[in.r:in.w])
		in.buf.Release()
		in.buf = next
	}
	in.r, in.w = 0, have
}

// space lends the source memory to read into: now is the time to borrow it, as there may be something to read.
func (in *inbox) space() []byte {
	if in.buf == nil {
		size := smallBuffer
		if in.eager {
			size = bigBuffer
		}
		in.buf = newBuffer(size)
		in.r, in.w = 0, 0
	}
	end := len(in.buf.mem)
	size := in.need
	if in.r == in.w {
		size = in.frame
	}
	if size >= alignFrom && len(in.buf.mem) >= bigBuffer {
		if aligned := in.r + (end-in.r)/size*size; aligned > in.w {
			end = aligned
		}
	}
	if in.brief {
		end = min(end, in.w+briefRoom)
	}
	return in.buf.mem[in.w:end]
}

// waits tells the reader's owner that the source may be about to wait.
func (in *inbox) waits() {
	if in.onIdle != nil {
		in.onIdle()
	}
}

// idle gives back what an idle connection should not hold: the source is about to wait.
func (in *inbox) idle() {
	in.waits()
	if in.buf != nil && in.r == in.w && len(in.buf.mem) > smallBuffer {
		in.drop()
	}
}

// drop lets go of the memory.
func (in *inbox) drop() {
	if in.buf != nil {
		in.buf.Release()
		in.buf = nil
	}
	in.r, in.w = 0, 0
}
