package link

import (
	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Flow is a channel as one node's ends of its streams see it.
type Flow struct {
	Channel string
	Mark    flow.Mark
}

// quantum is what deficit round robin gives a stream at its turn, in bytes:
// one full record.
const quantum = 64 << 10

// SendStream is the producer's end of a stream.
//
//	         Open record                 limit reached
//	unbound ------------> ready/active <---------------> blocked
//	   ^                      |                             |
//	   +---- link cut --------+-----------------------------+--- cancel, lost ---> failed
//
// Its fields are under its link's mu.
type SendStream struct {
	flow     flow.Sender
	to       *Flow
	link     *Link
	q        *queue      // nil while nothing is held
	next     *SendStream // in the core's ring of active streams
	waiters  *waiter     // Sends that wait at the high-water mark
	failure  error
	blocked  int64  // nanoseconds that Sends have waited
	acked    uint64 // messages stored by the consumer's end
	instance uint64 // of the stream at the consumer's end; with sendUsed
	index    uint32 // of the consumer at its node
	label    uint32 // valid while bound
	largest  uint32 // message accepted, in bytes
	deficit  int32
	class    uint8 // of the next packed chunk
	announce uint8 // backlog flags to be told
	flags    sendFlags
	quiet    uint8  // ticks without a change
	away     uint16 // ticks that it waits for a consumer that has left the directory
}

type sendFlags uint16

const (
	sendBound     sendFlags = 1 << iota // the consumer's end has opened it
	sendRewind                          // the next state says where to go on
	sendActive                          // in the ring
	sendListed                          // in the list of those with something to tell
	sendAnnounced                       // backlog told since the limit last rose
	sendReset                           // a reset record is due
	sendGone                            // and says that the position is not held
	sendUsed                            // it was bound before
	sendLeaving                         // its consumer takes what was accepted, and no more
	sendDelisted                        // its consumer is in the directory no more
	sendTold                            // the application was told what is in doubt
)

// push takes a message: a copy of body, or c, which holds it or marks a producer's end.
func (s *SendStream) push(producer uint32, body []byte, c *chunk) {
	if s.q == nil {
		s.q = queuePool.Get().(*queue)
	}
	s.quiet = 0
	switch tail := s.q.tail(); {
	case c != nil:
		c.own(producer, len(c.buf))
		s.largest = max(s.largest, uint32(c.bytes))
		c.first = s.flow.Accepted.Messages
		s.q.push(c)
		s.q.held += c.bytes
		s.flow.Accept(c.bytes)
		return
	case tail != nil && tail.kind == packed && tail.pack(producer, body):
	default:
		if tail != nil && tail.kind == packed && s.class < packClass {
			s.class += min(2, packClass-s.class)
		}
		c = newChunk(packed, max(s.class, minClass, classOf(len(body)+wire.MessageHeaderMax)))
		c.first = s.flow.Accepted.Messages
		c.pack(producer, body)
		s.q.push(c)
	}
	s.q.held += len(body)
	s.flow.Accept(len(body))
	s.largest = max(s.largest, uint32(len(body)))
}

// emit puts the stream's next record into b, at most most bytes of bodies
// unless one message is larger, and returns how many it put; 0 with no
// progress when the limit admits nothing.
func (s *SendStream) emit(b *batch, most int) (n int, progress bool) {
	q := s.q
	q.step()
	c := q.chunks[q.cur]
	messages, bytes := s.flow.Room()
	if messages == 0 {
		return 0, false
	}
	switch c.kind {
	case finish:
		b.record(wire.EndSize)
		b.scratch = wire.AppendEnd(b.scratch, s.label, c.runs[0].producer, c.first)
		q.count = 1
		s.flow.Sent.Messages++
		return 0, true
	case single:
		return s.emitSingle(b, c, bytes)
	default:
		return s.emitRun(b, c, messages, bytes, most)
	}
}

func (s *SendStream) emitSingle(b *batch, c *chunk, room uint64) (n int, progress bool) {
	q := s.q
	n = len(c.buf) - q.off
	if q.off == 0 && n <= wire.MaxFragment {
		if uint64(n) > room {
			return 0, false
		}
		b.record(wire.DataHeaderSize + wire.MessageHeaderSize(n) + n)
		b.scratch = wire.AppendDataHeader(b.scratch, s.label, c.runs[0].producer, c.first, 1)
		b.scratch = wire.AppendMessageHeader(b.scratch, n)
	} else {
		n = min(n, wire.MaxFragment, int(min(room, wire.MaxFragment)))
		if n == 0 {
			return 0, false
		}
		b.close() // a packet of its own, which can be read right to its place
		b.record(wire.FragmentHeaderSize + n)
		b.scratch = wire.AppendFragmentHeader(b.scratch, s.label, c.runs[0].producer, c.first,
			uint32(len(c.buf)), uint32(q.off), n)
	}
	b.refer(c, c.buf[q.off:q.off+n])
	q.off, q.bytes = q.off+n, q.bytes+n
	s.flow.Sent.Bytes += uint64(n)
	if q.off == len(c.buf) {
		q.count = 1
		s.flow.Sent.Messages++
	}
	return n, true
}

func (s *SendStream) emitRun(b *batch, c *chunk, messages, room uint64, most int) (n int, progress bool) {
	q := s.q
	q.settle(c)
	start, first := q.off, q.count
	of := c.runs[q.run]
	left := min(uint64(of.end-first), messages)
	if n = c.bytes - q.bytes; q.run == len(c.runs)-1 && left == uint64(of.end-first) &&
		uint64(n) <= room && n <= most {
		// All that is left of the chunk: no need to look at each message.
		q.off, q.count, q.bytes = len(c.buf), c.count, c.bytes
	} else {
		n = 0
		for ; left > 0; left-- {
			body, rest := wire.NextMessage(c.buf[q.off:])
			if uint64(n+len(body)) > room || n > 0 && n+len(body) > most {
				break
			}
			n += len(body)
			q.off = len(c.buf) - len(rest)
			q.count++
		}
		if q.count == first {
			return 0, false
		}
		q.bytes += n
	}
	p := c.buf[start:q.off:q.off]
	b.record(wire.DataHeaderSize + len(p))
	b.scratch = wire.AppendDataHeader(b.scratch, s.label, of.producer, c.first+uint64(first), int(q.count-first))
	if len(p) <= copyMax {
		b.scratch = append(b.scratch, p...)
	} else {
		b.refer(c, p)
	}
	s.flow.Sent.Messages += uint64(q.count - first)
	s.flow.Sent.Bytes += uint64(n)
	return n, true
}

// backlog is the record that tells what waits.
func (s *SendStream) backlog() wire.Backlog {
	g := wire.Backlog{
		Stream: s.label, Epoch: s.flow.Epoch, Flags: s.announce,
		EndMessages: s.flow.Accepted.Messages, EndBytes: s.flow.Accepted.Bytes,
	}
	if s.flow.Backlog() {
		g.NextSize = uint32(s.q.nextSize())
	}
	return g
}
