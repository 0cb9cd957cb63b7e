package link

import "github.com/zfab/zfab/fabric/internal/planted"

// ends is the instances of streams that have ended lately at the producer's
// end. The reset that says so may be lost with its connection; then the
// consumer's end opens the stream again on the next one, and is told once more,
// instead of being taken for the begin of another stream.
type ends struct {
	last  map[endKey]uint64 // the latest instance that has ended
	order []endKey          // oldest first
}

// endKey is a consumer, as the producer's end calls it.
type endKey struct {
	channel string
	index   uint32
}

// maxEnds bounds what is remembered: as much as may end within one connection
// before its resets are heard. Of those beyond it a consumer's end may hear that
// its position is no longer held.
const maxEnds = 1 << 12

func (e *ends) add(s *SendStream) {
	key := endKey{s.to.Channel, s.index}
	if e.last == nil {
		e.last = make(map[endKey]uint64)
	}
	if _, ok := e.last[key]; !ok {
		if len(e.order) == maxEnds {
			delete(e.last, e.order[0])
			e.order = e.order[1:]
		}
		e.order = append(e.order, key)
	}
	e.last[key] = max(e.last[key], s.instance)
}

// has reports whether the stream has ended, or one that came after it.
func (e *ends) has(channel string, index uint32, instance uint64) bool {
	last, ok := e.last[endKey{channel, index}]
	return ok && instance <= last && !planted.Is(planted.EndForgotten)
}
