package wire

import (
	"encoding/binary"
	"math"
)

// Next decodes the first record of p into r and returns what follows it. base
// is p's place in the packet, for error messages only. A record of a kind that
// this version does not know is an error, as is anything that claims to be
// longer than p.
func Next(p []byte, base int, r *Record) (rest []byte, err error) {
	d := decoder{p: p}
	n := d.arrayLen()
	k := d.uint(math.MaxUint8)
	r.Kind = Kind(k)
	if d.bad != "" {
		r.Kind = NoKind
	} else {
		switch {
		case k > uint64(LastKind):
			d.fail("unknown kind of record")
		case n != uint(arity[k]):
			d.fail("wrong number of elements")
		default:
			d.record(r)
		}
	}
	if d.bad != "" {
		return nil, &FormatError{Offset: base + d.i, Kind: r.Kind, Reason: d.bad}
	}
	return p[d.i:], nil
}

// FragmentHead decodes a packet of which only the begin p is there, if it is a
// single fragment record of size bytes in all. It returns where the fragment's
// bytes begin, up to the packet's end; r.Count is how many they are.
func FragmentHead(p []byte, size int, r *Record) (skip int, ok bool) {
	d := decoder{p: p}
	if d.arrayLen() != uint(arity[KindFragment]) || Kind(d.uint(math.MaxUint8)) != KindFragment {
		return 0, false
	}
	r.Kind = KindFragment
	r.Stream, r.Producer, r.Seq = d.u32(), d.u32(), d.position()
	r.Total, r.Offset = d.u32(), d.u32()
	var n uint64
	switch d.lead() {
	case bin16:
		n = d.be(2)
	case bin32:
		n = d.be(4)
	default:
		return 0, false
	}
	if d.bad != "" || n > MaxFragment || uint64(d.i)+n != uint64(size) || uint64(r.Offset)+n > uint64(r.Total) {
		return 0, false
	}
	r.Count, r.Bytes, r.Body = int(n), int(n), nil
	return d.i, true
}

// NextMessage takes the first message off a run that Next has checked: the
// Body of a data record, cut after whole messages only.
func NextMessage(run []byte) (body, rest []byte) {
	var i, n int
	switch run[0] {
	case bin8:
		i, n = 2, int(run[1])
	case bin16:
		i, n = 3, int(run[1])<<8|int(run[2])
	default:
		i, n = 5, int(binary.BigEndian.Uint32(run[1:5]))
	}
	return run[i : i+n : i+n], run[i+n:]
}

// decoder walks one record. The first thing that is wrong stays in bad, and
// from then on every step yields zero; so a record's steps read as its table
// in SPEC.md, and one check at the end is enough.
type decoder struct {
	p   []byte
	i   int
	bad string
}

func (d *decoder) fail(reason string) {
	if d.bad == "" {
		d.bad = reason
	}
}

func (d *decoder) record(r *Record) {
	switch r.Kind {
	case KindHello:
		r.Hello.Version = uint8(d.uint(math.MaxInt8))
		r.Hello.Node = d.text()
		r.Hello.Incarnation = d.uint(math.MaxUint64)
		r.Hello.MaxMessage = d.u32()
		r.Hello.Connection = d.uint(math.MaxUint64)
	case KindOpen:
		r.Stream = d.u32()
		r.Text = d.text()
		r.Index = d.u32()
		r.Instance = d.uint(math.MaxUint64)
	case KindData:
		r.Stream, r.Producer, r.Seq = d.u32(), d.u32(), d.position()
		d.run(r)
	case KindFragment:
		r.Stream, r.Producer, r.Seq = d.u32(), d.u32(), d.position()
		r.Total, r.Offset = d.u32(), d.u32()
		r.Body = d.bin()
		if uint64(r.Offset)+uint64(len(r.Body)) > uint64(r.Total) {
			d.fail("fragment reaches beyond its message")
		}
		if len(r.Body) > MaxFragment {
			d.fail("fragment too large")
		}
		if len(r.Body) == 0 {
			d.fail("fragment without bytes")
		}
	case KindEnd:
		r.Stream, r.Producer, r.Seq = d.u32(), d.u32(), d.position()
	case KindState:
		s := &r.State
		s.Stream, s.Epoch = d.u32(), d.u32()
		s.Next, s.Offset = d.position(), d.u32()
		s.ConsumedMessages, s.ConsumedBytes = d.position(), d.position()
		s.LimitMessages, s.LimitBytes = d.position(), d.position()
		r.Stream = s.Stream
	case KindBacklog:
		g := &r.Backlog
		g.Stream, g.Epoch = d.u32(), d.u32()
		g.EndMessages, g.EndBytes = d.position(), d.position()
		g.NextSize, g.Flags = d.u32(), uint8(d.uint(math.MaxInt8))
		r.Stream = g.Stream
	case KindCancel, KindReset, KindClose:
		r.Stream, r.Code, r.Text = d.u32(), uint8(d.uint(math.MaxInt8)), d.text()
	case KindPing, KindPong:
		r.Nonce = d.uint(math.MaxUint64)
	case KindBye:
		r.Code, r.Text = uint8(d.uint(math.MaxInt8)), d.text()
	case KindCircuit:
		r.Stream = d.u32()
		r.From, r.Text, r.Via = d.text(), d.text(), d.text()
		r.Limit = d.position()
	case KindAccept, KindCredit:
		r.Stream, r.Limit = d.u32(), d.position()
	case KindPacket:
		r.Stream, r.Body = d.u32(), d.bin()
		if len(r.Body) == 0 {
			d.fail("packet without bytes")
		}
		if len(r.Body) > MaxCarried {
			d.fail("packet too large")
		}
	}
}

// run checks a data record's messages and sums them up.
func (d *decoder) run(r *Record) {
	n := d.arrayLen()
	if d.bad != "" {
		return
	}
	if n == 0 || n > MaxRun {
		d.fail("data record must hold 1 to 65535 messages")
		return
	}
	p, start, i, sum := d.p, d.i, d.i, 0
	for range n {
		var size uint // not int: four bytes of length do not fit one on 32 bits
		switch {
		case len(p)-i >= 2 && p[i] == bin8:
			size = uint(p[i+1])
			i += 2
		case len(p)-i >= 3 && p[i] == bin16:
			size = uint(binary.BigEndian.Uint16(p[i+1:]))
			i += 3
		case len(p)-i >= 5 && p[i] == bin32:
			size = uint(binary.BigEndian.Uint32(p[i+1:]))
			i += 5
		default:
			d.i = i
			d.fail("message is not a bin, or cut off")
			return
		}
		if size > uint(len(p)-i) {
			d.i = i
			d.fail("message reaches beyond the packet")
			return
		}
		i += int(size)
		sum += int(size)
	}
	if sum > MaxFragment {
		d.fail("data record too large")
		return
	}
	r.Count, r.Bytes, r.Body = int(n), sum, p[start:i:i]
	d.i = i
}

func (d *decoder) left() int { return len(d.p) - d.i }

func (d *decoder) lead() byte {
	if d.bad != "" || d.i >= len(d.p) {
		d.fail("cut off")
		return 0
	}
	c := d.p[d.i]
	d.i++
	return c
}

// be reads n bytes as a big-endian number.
func (d *decoder) be(n int) uint64 {
	if d.bad != "" || d.left() < n {
		d.fail("cut off")
		return 0
	}
	var v uint64
	switch n {
	case 1:
		v = uint64(d.p[d.i])
	case 2:
		v = uint64(binary.BigEndian.Uint16(d.p[d.i:]))
	case 4:
		v = uint64(binary.BigEndian.Uint32(d.p[d.i:]))
	default:
		v = binary.BigEndian.Uint64(d.p[d.i:])
	}
	d.i += n
	return v
}

func (d *decoder) uint(most uint64) uint64 {
	var v uint64
	switch c := d.lead(); {
	case c < 0x80:
		v = uint64(c)
	case c == uint8Tag:
		v = d.be(1)
	case c == u16Tag:
		v = d.be(2)
	case c == u32Tag:
		v = d.be(4)
	case c == u64Tag:
		v = d.be(8)
	case c >= 0xd0 && c <= 0xd3: // int8 to int64: other encoders write them for positive numbers
		v = d.be(1 << (c - 0xd0))
		if v>>(8<<(c-0xd0)-1) != 0 {
			d.fail("negative number")
		}
	default:
		d.fail("not an unsigned integer")
	}
	if v > most {
		d.fail("number out of range")
		return 0
	}
	return v
}

func (d *decoder) u32() uint32 { return uint32(d.uint(math.MaxUint32)) }

// position is a count of messages or bytes. Half the range is kept free so
// that sums of positions cannot overflow.
func (d *decoder) position() uint64 { return d.uint(math.MaxInt64) }

func (d *decoder) arrayLen() uint {
	switch c := d.lead(); {
	case c&0xf0 == fixArray:
		return uint(c & 0x0f)
	case c == array16:
		return uint(d.be(2))
	case c == array32:
		return uint(d.be(4))
	}
	d.fail("not an array")
	return 0
}

func (d *decoder) take(n uint64) []byte {
	if d.bad != "" {
		return nil
	}
	if n > uint64(d.left()) {
		d.fail("reaches beyond the packet")
		return nil
	}
	b := d.p[d.i : d.i+int(n) : d.i+int(n)]
	d.i += int(n)
	return b
}

func (d *decoder) bin() []byte {
	switch d.lead() {
	case bin8:
		return d.take(d.be(1))
	case bin16:
		return d.take(d.be(2))
	case bin32:
		return d.take(d.be(4))
	}
	d.fail("not a bin")
	return nil
}

func (d *decoder) text() []byte {
	var n uint64
	switch c := d.lead(); {
	case c&0xe0 == fixStr:
		n = uint64(c & 0x1f)
	case c == str8:
		n = d.be(1)
	case c == str16:
		n = d.be(2)
	case c == str32:
		n = d.be(4)
	default:
		d.fail("not a string")
		return nil
	}
	if n > MaxText {
		d.fail("string too long")
		return nil
	}
	return d.take(n)
}
