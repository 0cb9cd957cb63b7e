package sim

import "math/rand/v2"

// maxMessage is the most, in bytes, that a node takes.
const maxMessage = 512 << 10

// noise is what all messages are cut from: their bytes say where, so that a
// message is known by its content.
var noise = func() []byte {
	b := make([]byte, 2*maxMessage)
	rand.NewChaCha8([32]byte{'n', 'o', 'i', 's', 'e'}).Read(b)
	return b
}()

// message draws a message of a producer.
func (w *world) message(plan *channelPlan, producer uint32) entry {
	size := w.dice.IntN(plan.largest + 1)
	if w.dice.IntN(3) > 0 {
		size = w.dice.IntN(min(plan.largest, 100) + 1)
	}
	if w.sent += size; w.sent > w.plan.bytes {
		size = min(size, 20)
	}
	return entry{at: int32(w.dice.IntN(len(noise) - size)), size: int32(size), producer: producer}
}

// scratch returns the body of a message in memory that the next one overwrites:
// a Send copies it.
func (w *world) scratch(e entry) []byte {
	if w.pad == nil {
		w.pad = make([]byte, maxMessage)
	}
	b := w.pad[:e.size:e.size]
	copy(b, e.body())
	return b
}

// scribble writes over a message that was handed out: that is allowed until the
// next one is asked for, and must not show anywhere else.
func scribble(body []byte) {
	for i := range body[:min(len(body), 256)] {
		body[i] ^= 0xff
	}
}
