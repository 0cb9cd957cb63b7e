package link

import (
	"fmt"
	"math"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// RecvStream is the consumer's end of a stream.
//
//	closed --open told--> open --cancel told--> cancelled --reset--> gone
//	   ^                   |  \--reset--> lost
//	   +----- link cut ----+
//
// Its fields are under its link's mu, but for tail, which is under its inbox's.
type RecvStream struct {
	flow     flow.Receiver
	inbox    *Inbox
	link     *Link
	partial  *chunk      // the message of which some fragments are here
	next     *RecvStream // in the core's list of those with something to tell
	tail     tail
	toldNext uint64 // Received.Messages, when it was last told
	instance uint64 // tells the peer which stream it is, across connections
	waitEnd  uint64 // with recvWaiting: what it waits for, in messages
	label    uint32
	flags    recvFlags
}

type recvFlags uint16

const (
	recvOpen      recvFlags = 1 << iota // open was told on this connection
	recvListed                          // in the list
	recvState                           // a state record is due
	recvCancel                          // a cancel record is due
	recvCancelled                       // cancel was told: what still comes is dropped
	recvWaiting                         // the producer's end waits for consumption
	recvDraining                        // the consumer takes what was accepted, and no more
	recvDrainTold                       // and said so on this connection
	recvKnown                           // the peer has heard of it, on this connection or before
)

func (r *RecvStream) held() uint32 {
	if r.partial == nil {
		return 0
	}
	return uint32(len(r.partial.buf))
}

// data takes a run of messages; what arrived before is dropped. It returns
// what is to be delivered.
func (c *core) data(r *RecvStream, rec *wire.Record, from Retainer) error {
	next := r.flow.Received.Messages
	if planted.Is(planted.NoDedup) {
		rec.Seq = max(rec.Seq, next)
	}
	switch {
	case rec.Seq > next:
		return c.violation("data record at %d of stream %d, expected %d", rec.Seq, r.label, next)
	case rec.Seq+uint64(rec.Count) <= next:
		c.stats.Duplicates += uint64(rec.Count)
		return nil
	case r.partial != nil:
		return c.violation("data record inside a message of stream %d", r.label)
	}
	for ; rec.Seq < next; rec.Seq++ {
		var body []byte
		body, rec.Body = wire.NextMessage(rec.Body)
		rec.Count--
		rec.Bytes -= len(body)
		c.stats.Duplicates++
	}
	if !r.flow.Admits(rec.Count, rec.Bytes) {
		return c.violation("data record beyond the limit of stream %d", r.label)
	}
	r.flow.Receive(rec.Count, rec.Bytes)
	if planted.Is(planted.SettleOnReceipt) {
		c.consumed(r, rec.Count, rec.Bytes)
	}
	c.deliver(r, item{kind: packed, producer: rec.Producer, count: int32(rec.Count), run: rec.Body, from: from})
	return nil
}

// firstPartial is the memory, in bytes, that is taken for a message of which
// the first fragment has arrived, or is just being read on its connection; it
// doubles as more do, so that a peer cannot claim memory that it does not fill.
const firstPartial = 1 << 20

// placing is a fragment whose bytes the connection reads right to their place.
type placing struct {
	stream *RecvStream
	into   *chunk // with a reference of its own
	n      int
}

// place returns where the bytes of a fragment belong of which only the head is
// there yet, or nil if it is not one that is expected: then it is read as any
// other packet, and what is wrong with it is said then.
func (c *core) place(head []byte, size int) []byte {
	var rec wire.Record
	if _, ok := wire.FragmentHead(head, size, &rec); !ok || uint64(rec.Stream) >= uint64(len(c.in)) {
		return nil
	}
	r := c.in[rec.Stream]
	if r == nil || r.flags&recvOpen == 0 || r.flags&(recvCancel|recvCancelled) != 0 ||
		rec.Seq != r.flow.Received.Messages || rec.Offset != r.held() || !r.flow.Admits(1, rec.Bytes) {
		return nil
	}
	switch {
	case r.partial == nil:
		if int64(rec.Total) > int64(c.cfg.MaxMessage) {
			return nil
		}
		c.begin(r, &rec)
	case r.partial.runs[0].producer != rec.Producer || r.partial.bytes != int(rec.Total):
		return nil
	}
	r.partial = r.partial.grown(rec.Bytes)
	r.partial.refs++
	at := len(r.partial.buf)
	c.placing = placing{r, r.partial, rec.Bytes}
	return r.partial.buf[at : at+rec.Bytes : at+rec.Bytes]
}

// placed ends what place has begun. Without ok the connection has ended first.
func (c *core) placed(ok bool) {
	p := c.placing
	c.placing = placing{}
	if p.into == nil {
		return
	}
	if ok {
		c.stats.BytesIn += uint64(p.n)
	}
	ok = ok || planted.Is(planted.PlacedAfterCut)
	switch r := p.stream; {
	case r.partial != p.into:
	case ok:
		p.into.buf = p.into.buf[:len(p.into.buf)+p.n]
		c.arrived(r, p.n)
	case len(p.into.buf) == 0: // nothing of the message is here
		r.partial = nil
		p.into.release()
	}
	p.into.release()
}

// begin makes room for the message of r whose first fragment is rec.
func (c *core) begin(r *RecvStream, rec *wire.Record) {
	r.partial = newChunk(single, classOf(min(int(rec.Total), firstPartial)))
	r.partial.own(rec.Producer, int(rec.Total))
	// It must be whole before its credit can come back: lend room for it.
	if r.flow.Demand(r.inbox.flow.Mark, c.cfg.Budget, int(rec.Total), false) {
		c.tell(r, recvState)
	}
}

// arrived counts n bytes more of r's partial message, and delivers it when it
// is whole.
func (c *core) arrived(r *RecvStream, n int) {
	k := r.partial
	r.flow.Received.Bytes += uint64(n)
	if len(k.buf) == k.bytes {
		r.flow.Received.Messages++
		c.deliver(r, item{kind: single, producer: k.runs[0].producer, count: 1, run: k.buf, own: k})
		r.partial = nil
	}
}

// fragment takes a piece of a message, and delivers the message when it is
// whole.
func (c *core) fragment(r *RecvStream, rec *wire.Record) error {
	next := r.flow.Received.Messages
	switch {
	case rec.Seq < next || rec.Seq == next && uint64(rec.Offset)+uint64(len(rec.Body)) <= uint64(r.held()):
		c.stats.Duplicates++
		return nil
	case rec.Seq > next || rec.Offset > r.held():
		return c.violation("fragment at %d+%d of stream %d, expected %d+%d", rec.Seq, rec.Offset, r.label, next, r.held())
	case int64(rec.Total) > int64(c.cfg.MaxMessage):
		return c.violation("message of %d bytes on stream %d, at most %d are taken", rec.Total, r.label, c.cfg.MaxMessage)
	case r.partial != nil && (r.partial.runs[0].producer != rec.Producer || r.partial.bytes != int(rec.Total)):
		return c.violation("fragments of stream %d disagree", r.label)
	}
	body := rec.Body[r.held()-rec.Offset:]
	if planted.Is(planted.OffsetIgnored) {
		body = rec.Body
	}
	if !r.flow.Admits(1, len(body)) {
		return c.violation("fragment beyond the limit of stream %d", r.label)
	}
	if r.partial == nil {
		c.begin(r, rec)
	}
	r.partial = r.partial.grown(len(body))
	r.partial.buf = append(r.partial.buf, body...)
	c.arrived(r, len(body))
	return nil
}

// end takes a producer's end, which counts as a message without bytes.
func (c *core) end(r *RecvStream, rec *wire.Record) error {
	switch next := r.flow.Received.Messages; {
	case rec.Seq < next:
		c.stats.Duplicates++
		return nil
	case rec.Seq > next || r.partial != nil:
		return c.violation("end at %d of stream %d, expected %d", rec.Seq, r.label, next)
	case !r.flow.Admits(1, 0):
		return c.violation("end beyond the limit of stream %d", r.label)
	}
	r.flow.Receive(1, 0)
	c.deliver(r, item{kind: finish, producer: rec.Producer, count: 1})
	return nil
}

// backlog takes the producer's end's word of what waits there.
func (c *core) backlog(r *RecvStream, g *wire.Backlog) error {
	if int64(g.NextSize) > int64(c.cfg.MaxMessage) {
		return c.violation("message of %d bytes announced on stream %d, at most %d are taken", g.NextSize, r.label, c.cfg.MaxMessage)
	}
	if g.Epoch-r.flow.Epoch-1 < 1<<31 { // newer, in the arithmetic of a counter that wraps
		r.flow.Released(c.cfg.Budget, g.Epoch)
	}
	mark := r.inbox.flow.Mark
	if g.Flags&wire.BacklogBlocked != 0 {
		// Blocked is evidence that the window is what held the stream up, even
		// if more was lent since: the word of it came too late.
		if r.flow.Demand(mark, c.cfg.Budget, int(g.NextSize), true) ||
			r.flow.Admits(1, int(g.NextSize)) && !planted.Is(planted.LimitNotRestated) {
			c.tell(r, recvState)
		}
	}
	if g.Flags&(wire.BacklogBlocked|wire.BacklogWaiting) != 0 {
		// It waits for the handling of all that it could send. Less is worth
		// telling only by the quarter, or the two would wake each other for
		// every message.
		end := g.EndMessages
		if g.Flags&wire.BacklogBlocked != 0 {
			end = r.flow.Received.Messages
		}
		if r.flags&recvWaiting != 0 && !planted.Is(planted.WaitingHidesBlocked) {
			end = min(end, r.waitEnd) // which is not told yet, and still waited for
		}
		r.flags |= recvWaiting
		r.waitEnd = end
		if r.flow.Untold() && r.flow.Consumed.Messages >= r.waitEnd {
			c.tell(r, recvState)
		}
	}
	if g.Flags&wire.BacklogAsk != 0 {
		c.tell(r, recvState)
	}
	return nil
}

// consumed notes that the consumer has handled messages of r.
func (c *core) consumed(r *RecvStream, messages, bytes int) {
	until := uint64(math.MaxUint64)
	if r.flags&recvWaiting != 0 {
		until = r.waitEnd
	}
	if r.flow.Consume(r.inbox.flow.Mark, c.cfg.Budget, messages, bytes, until) {
		c.tell(r, recvState)
	}
}

// state is the record that says how r stands.
func (r *RecvStream) state() wire.State {
	st := wire.State{
		Stream: r.label, Epoch: r.flow.Epoch,
		Next: r.flow.Received.Messages, Offset: r.held(),
		ConsumedMessages: r.flow.Consumed.Messages, ConsumedBytes: r.flow.Consumed.Bytes,
		LimitMessages: r.flow.Limit.Messages, LimitBytes: r.flow.Limit.Bytes,
	}
	if planted.Is(planted.AckBeforeStore) && r.partial != nil {
		st.Next, st.Offset = st.Next+1, 0
	}
	return st
}

// told notes that state was just written.
func (r *RecvStream) told() {
	if r.flow.Untold() {
		r.flags &^= recvWaiting
	}
	r.toldNext = r.flow.Received.Messages
	r.flow.Told()
}

// drop gives back what r holds apart from what its inbox has.
func (c *core) drop(r *RecvStream) {
	if r.partial != nil {
		r.partial.release()
		r.partial = nil
	}
	if !planted.Is(planted.CreditLostOnCancel) {
		r.flow.Close(c.cfg.Budget)
	}
}

func (c *core) violation(format string, args ...any) error {
	return &ProtocolError{Node: c.peer, Reason: fmt.Sprintf(format, args...)}
}
