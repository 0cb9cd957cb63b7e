package fabric

import (
	"context"

	"github.com/zfab/zfab/fabric/internal/link"
)

// Buffer is memory for the body of one message, to be filled by the program and
// sent without a copy. It is worth it from about 8 KiB on; smaller messages are
// better gathered by Send.
//
// A Buffer belongs to whoever made it until SendBuffer has taken it over or
// Release has given it back, and must not be touched after that.
type Buffer struct{ body *link.Payload }

// NewBuffer returns a buffer of size bytes. They are not zero, but whatever the
// memory held before.
func NewBuffer(size int) Buffer { return Buffer{link.NewPayload(size)} }

// Bytes is the memory.
func (b Buffer) Bytes() []byte { return b.body.Bytes() }

// Release gives the buffer back unsent.
func (b Buffer) Release() { b.body.Release() }

// SendBuffer is Send that takes the buffer over instead of copying a body. If
// there is an error the buffer stays the caller's.
func (t *Target) SendBuffer(ctx context.Context, b Buffer) error {
	if err := t.stream.SendPayload(ctx, &t.producer.sender, b.body); err != nil {
		return public(err)
	}
	return nil
}
