package patterns

import (
	"context"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// parcel is an encoded value, with room before it for a record's head. A parcel
// can be sent any number of times, with another head each time.
type parcel struct {
	mem *[]byte // pooled: headRoom bytes, then the body
	own []byte  // or the body in the program's memory, if mem is nil
}

const (
	// headRoom holds the head of any record without a text.
	headRoom = 56
	// bufferMin is the size from which on raw bytes go into a fabric.Buffer instead
	// of through memory of ours: they are then copied once, as by Target.Send.
	bufferMin = 8 << 10
	// keepMax is the largest memory that is kept for another parcel.
	keepMax = 64 << 10
)

var parcelPool = sync.Pool{New: func() any { b := make([]byte, headRoom, 512); return &b }}

// pack encodes v. If the parcel is kept for longer than v belongs to the
// pattern, keep makes it independent of v.
func (c coder[T]) pack(v T, keep bool) (parcel, error) {
	if !keep {
		if b, ok := any(v).([]byte); ok && len(b) >= bufferMin {
			if _, ok := any(c.codec).(raw); ok {
				return parcel{own: b}, nil
			}
		}
	}
	mem := parcelPool.Get().(*[]byte)
	b, err := c.append((*mem)[:headRoom], v)
	*mem = b
	if err != nil {
		parcel{mem: mem}.release()
		return parcel{}, err
	}
	return parcel{mem: mem}, nil
}

// packKeyed encodes v behind a key. The parcel may be kept.
func (c coder[T]) packKeyed(key []byte, v T) (parcel, error) {
	mem := parcelPool.Get().(*[]byte)
	b, err := c.append(append((*mem)[:headRoom], key...), v)
	*mem = b
	if err != nil {
		parcel{mem: mem}.release()
		return parcel{}, err
	}
	return parcel{mem: mem}, nil
}

// packed is a parcel with a copy of body.
func packed(body []byte) parcel {
	mem := parcelPool.Get().(*[]byte)
	*mem = append((*mem)[:headRoom], body...)
	return parcel{mem: mem}
}

// release gives the parcel's memory back.
func (p parcel) release() {
	if p.mem != nil && cap(*p.mem) <= keepMax {
		parcelPool.Put(p.mem)
	}
}

// body is the encoded value.
func (p parcel) body() []byte {
	if p.mem == nil {
		return p.own
	}
	return (*p.mem)[headRoom:]
}

// send sends a record with this head and the parcel as its body, as Target.Send
// does. Two sends of one parcel must not overlap.
func (p parcel) send(ctx context.Context, to *fabric.Target, head []byte) error {
	if p.mem != nil && len(head) <= headRoom {
		at := headRoom - copy((*p.mem)[headRoom-len(head):], head)
		return to.Send(ctx, (*p.mem)[at:])
	}
	b := fabric.NewBuffer(len(head) + len(p.body()))
	copy(b.Bytes()[copy(b.Bytes(), head):], p.body())
	err := to.SendBuffer(ctx, b)
	if err != nil {
		b.Release()
	}
	return err
}

// trySend is send that returns fabric.ErrHighWater instead of waiting. The parcel
// must have been packed to be kept.
func (p parcel) trySend(to *fabric.Target, head []byte) error {
	at := headRoom - copy((*p.mem)[headRoom-len(head):], head)
	return to.TrySend((*p.mem)[at:])
}
