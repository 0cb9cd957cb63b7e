package flow

import "fmt"

// Position is an absolute place in a stream: so many messages, and so many
// bytes of message bodies, lie before it.
type Position struct {
	Messages uint64
	Bytes    uint64
}

func (p Position) String() string { return fmt.Sprintf("%d messages (%d bytes)", p.Messages, p.Bytes) }

// Mark is a high-water mark: the most that one stream may hold, both ends and
// the way between them taken together.
type Mark struct {
	Messages uint64
	Bytes    uint64
}
