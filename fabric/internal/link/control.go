package link

import (
	"fmt"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// gatherControl writes what is to be told, as far as b has room. None of it
// waits for credit, and none of it can pile up: a stream that has more to tell
// before it was heard tells the newest.
func (c *core) gatherControl(b *batch) {
	if b.full() {
		return
	}
	if c.pong {
		c.pong = false
		b.put(wire.AppendPong(b.space(), c.nonce))
	}
	if c.ping {
		c.ping = false
		c.stats.Pings++
		b.put(wire.AppendPing(b.space(), c.stats.Pings))
	}
	for !b.full() && c.circuits.Telling() {
		b.put(c.circuits.Say(b.space()))
	}
	for c.tells.first != nil && !b.full() {
		r := c.tells.first
		if c.tells.first = r.next; r.next == nil {
			c.tells.last = nil
		}
		r.next = nil
		r.flags &^= recvListed
		c.tellStream(r, b)
	}
	n := 0
	for n < len(c.say) && !b.full() {
		s := c.say[n]
		n++
		s.flags &^= sendListed
		c.sayStream(s, b)
	}
	if n > 0 {
		rest := copy(c.say, c.say[n:])
		clear(c.say[rest:])
		c.say = c.say[:rest]
	}
	if c.bye != nil && !b.full() {
		b.put(wire.AppendBye(b.space(), c.bye.Code, string(c.bye.Text)))
		c.bye = nil
	}
}

// tellStream writes what the consumer's end r has to tell.
func (c *core) tellStream(r *RecvStream, b *batch) {
	switch {
	case r.flags&recvCancelled != 0:
		// It is gone; nobody is interested any more.
	case r.flags&recvCancel != 0:
		r.flags = r.flags&^(recvCancel|recvState) | recvCancelled
		if r.flags&recvKnown == 0 {
			c.forget(r.label) // the peer has never heard of it
			return
		}
		c.openStream(r, b)
		st := r.state() // the last word on what is in doubt
		b.put(wire.AppendState(b.space(), &st))
		b.put(wire.AppendCancel(b.space(), r.label, wire.CodeDone, ""))
		if planted.Is(planted.LabelReusedTooEarly) {
			c.forget(r.label)
		}
	default:
		anew := r.flags&recvOpen == 0
		c.openStream(r, b)
		r.flags &^= recvState
		st := r.state()
		if anew && planted.Is(planted.LimitNotRestated) {
			st.LimitMessages, st.LimitBytes = 0, 0
		}
		b.put(wire.AppendState(b.space(), &st))
		r.told()
		c.stats.States++
		if r.flags&(recvDraining|recvDrainTold) == recvDraining {
			r.flags |= recvDrainTold
			b.put(wire.AppendCancel(b.space(), r.label, wire.CodeDrain, ""))
		}
	}
}

// openStream opens r, once on each connection.
func (c *core) openStream(r *RecvStream, b *batch) {
	if r.flags&recvOpen == 0 {
		r.flags |= recvOpen | recvKnown
		b.put(wire.AppendOpen(b.space(), r.label, r.inbox.flow.Channel, r.inbox.index, r.instance))
	}
}

// sayStream writes what the producer's end s has to tell.
func (c *core) sayStream(s *SendStream, b *batch) {
	switch {
	case s.flags&sendBound == 0:
	case s.flags&sendReset != 0:
		code, text := uint8(wire.CodeDone), ""
		if s.flags&sendGone != 0 {
			code, text = wire.CodeLost, "the position asked for is no longer held"
		}
		b.put(wire.AppendReset(b.space(), s.label, code, text))
		c.out[s.label] = nil
		c.unbind(s)
	case s.failure != nil || s.flags&sendRewind != 0:
		// Nothing to say of it, or not yet.
	default:
		g := s.backlog()
		s.announce = 0
		b.put(wire.AppendBacklog(b.space(), &g))
		c.stats.Backlogs++
	}
}

// space is where the next record is appended; put takes it with what was.
func (b *batch) space() []byte {
	b.record(0)
	return b.scratch
}

func (b *batch) put(scratch []byte) {
	b.packet += len(scratch) - len(b.scratch)
	b.scratch = scratch
}

// handle takes a packet that lies in from. An error is the peer's fault, and
// the connection's end.
func (c *core) handle(p []byte, from Retainer) error {
	var rec wire.Record
	total := len(p)
	for len(p) > 0 {
		rest, err := wire.Next(p, total-len(p), &rec)
		if err != nil {
			return &ProtocolError{Node: c.peer, Reason: err.Error()}
		}
		p = rest
		if err := c.record(&rec, from); err != nil {
			return err
		}
	}
	return nil
}

func (c *core) record(rec *wire.Record, from Retainer) error {
	if c.closed && rec.Kind != wire.KindBye {
		return nil // all streams have ended
	}
	switch rec.Kind {
	case wire.KindData, wire.KindFragment, wire.KindEnd, wire.KindBacklog, wire.KindReset:
		return c.forward(rec, from)
	case wire.KindState, wire.KindCancel:
		return c.back(rec)
	case wire.KindOpen:
		return c.open(rec)
	case wire.KindPacket, wire.KindCredit, wire.KindCircuit, wire.KindAccept, wire.KindClose:
		return c.circuit(rec, from)
	case wire.KindPing:
		c.pong, c.nonce = !planted.Is(planted.PongForgotten), rec.Nonce
		return nil
	case wire.KindPong:
		return nil
	case wire.KindBye:
		c.parted = rec.Code == wire.CodeDone || rec.Code == wire.CodeLost
		return &ByeError{Node: c.peer, Code: rec.Code, Text: string(rec.Text)}
	default:
		return c.violation("a %s record on an open link", rec.Kind)
	}
}

// forward takes a record that comes from a producer's end.
func (c *core) forward(rec *wire.Record, from Retainer) error {
	if uint64(rec.Stream) >= uint64(len(c.in)) {
		return c.violation("%s record of stream %d, which was never opened", rec.Kind, rec.Stream)
	}
	r := c.in[rec.Stream]
	if r == nil {
		c.stats.Late++
		return nil
	}
	if rec.Kind == wire.KindReset {
		if r.flags&(recvCancel|recvCancelled) == 0 {
			c.endReceive(r, resetReason(rec), rec.Code == wire.CodeDone, true)
			c.events = append(c.events, event{recv: r})
		}
		c.forget(r.label)
		return nil
	}
	if r.flags&(recvCancel|recvCancelled) != 0 {
		c.stats.Late++
		return nil
	}
	if r.flags&recvOpen == 0 {
		return c.violation("%s record of stream %d, which is not open", rec.Kind, rec.Stream)
	}
	switch rec.Kind {
	case wire.KindData:
		return c.data(r, rec, from)
	case wire.KindFragment:
		return c.fragment(r, rec)
	case wire.KindEnd:
		return c.end(r, rec)
	default:
		return c.backlog(r, &rec.Backlog)
	}
}

func resetReason(rec *wire.Record) string {
	if len(rec.Text) > 0 {
		return string(rec.Text)
	}
	return "the producer's node has left"
}

// endReceive tells the consumer that no more will come from r: nothing is
// missing if the end is orderly.
// Stated says that the peer has said so itself.
func (c *core) endReceive(r *RecvStream, reason string, orderly, stated bool) {
	if orderly {
		c.deliver(r, item{kind: lostItem})
		return
	}
	c.deliver(r, item{kind: lostItem, err: &LostError{
		Node: c.peer, Channel: r.inbox.flow.Channel, Index: int(r.inbox.index), Reason: reason,
		Acknowledged: r.flow.Received.Messages, Accepted: r.flow.Received.Messages, Receiving: true, Stated: stated,
	}})
}

// back takes a record that comes from a consumer's end.
func (c *core) back(rec *wire.Record) error {
	if uint64(rec.Stream) >= uint64(len(c.out)) {
		return c.violation("%s record of stream %d, which was never opened", rec.Kind, rec.Stream)
	}
	s := c.out[rec.Stream]
	if s == nil || s.failure != nil {
		c.stats.Late++
		return nil
	}
	if rec.Kind == wire.KindState {
		return c.granted(s, &rec.State)
	}
	if rec.Code == wire.CodeDrain {
		c.depart(s)
		return nil
	}
	c.ended.add(s)
	c.fail(s, c.lost(s, "the consumer has closed"))
	s.flags |= sendReset
	c.mention(s, 0)
	return nil
}

// open binds a producer's end to the label that the consumer's end gave it.
func (c *core) open(rec *wire.Record) error {
	label := rec.Stream
	if uint64(label) >= uint64(c.cfg.MaxStreams) {
		return c.violation("stream label %d, at most %d streams are allowed", label, c.cfg.MaxStreams)
	}
	if uint64(label) < uint64(len(c.out)) && c.out[label] != nil {
		return c.violation("stream label %d opened twice", label)
	}
	channel := string(rec.Text)
	if err := c.cfg.CheckChannel(channel); err != nil {
		return c.violation("stream opened on a bad channel: %v", err)
	}
	if f := c.flows[channel]; f == nil && len(c.flows) >= c.cfg.MaxStreams {
		return c.violation("more than %d channels", c.cfg.MaxStreams)
	}
	s := c.reopened(channel, rec)
	if s == nil {
		c.stub(label, &Flow{Channel: channel}, 0)
		return nil
	}
	if s.flags&sendBound != 0 {
		return c.violation("stream of channel %s to consumer %d opened twice", channel, rec.Index)
	}
	for int(label) >= len(c.out) {
		c.out = append(c.out, nil)
	}
	c.out[label] = s
	s.label = label
	s.flags |= sendBound | sendRewind
	if s.flags&sendLeaving == 0 {
		c.events = append(c.events, event{send: s, opened: true})
	}
	return nil
}

// reopened is the stream that a consumer opens: the one that it opened before,
// or else one that begins now. It is nil if that stream has ended, and another
// one may have taken its place. Those that cannot go on are lost.
func (c *core) reopened(channel string, rec *wire.Record) *SendStream {
	for {
		s := c.leaving(channel, rec.Index, rec.Instance)
		if s == nil && c.ended.has(channel, rec.Index, rec.Instance) {
			return nil
		}
		if s == nil && !c.opened(channel, rec.Index, rec.Instance) {
			// What was accepted for a consumer that had not opened its stream yet
			// when it left the directory comes first.
			s = c.leaving(channel, rec.Index, 0)
		}
		if s == nil {
			s = c.stream(channel, rec.Index)
		}
		switch {
		case s.failure != nil:
			return s // the link is closing
		case s.flags&sendUsed != 0 && s.instance > rec.Instance:
			return nil
		case s.flags&sendUsed != 0 && s.instance != rec.Instance && !planted.Is(planted.ResumeWithoutName):
			// Nothing of what the consumer before had counts.
			c.fail(s, c.lost(s, "the consumer was made anew"))
		case s.q != nil && int64(s.largest) > int64(c.maxBody):
			c.fail(s, c.lost(s, fmt.Sprintf("the consumer's node takes messages of up to %d bytes, and one of up to %d waits", c.maxBody, s.largest)))
		default:
			s.instance = rec.Instance
			return s
		}
		if s.flags&sendBound != 0 {
			s.flags |= sendReset
			c.mention(s, 0)
		}
	}
}

// opened reports whether the stream that takes messages for a consumer is that
// which it has opened as instance.
func (c *core) opened(channel string, index uint32, instance uint64) bool {
	f := c.flows[channel]
	if f == nil {
		return false
	}
	i, found := f.find(index)
	return found && f.streams[i].instance == instance
}

// leaving is the stream of a consumer that is leaving and has opened it as
// instance, or has never opened it if that is 0; nil if there is none.
func (c *core) leaving(channel string, index uint32, instance uint64) *SendStream {
	for _, s := range c.leave {
		if s.to.Channel == channel && s.index == index && s.instance == instance {
			return s
		}
	}
	return nil
}

// granted takes a state record: acknowledgement, settlement, credit and, for
// the first one after open, the place from which to go on.
func (c *core) granted(s *SendStream, st *wire.State) error {
	consumed := flow.Position{Messages: st.ConsumedMessages, Bytes: st.ConsumedBytes}
	limit := flow.Position{Messages: st.LimitMessages, Bytes: st.LimitBytes}
	if s.flags&sendRewind != 0 {
		switch {
		case s.flags&sendUsed == 0 && (st.Next != 0 || st.Offset != 0):
			// The consumer's end goes on with a stream that was given up here
			// meanwhile. This one is another, and waits for its open.
			c.disown(s)
			return nil
		case !c.rewind(s, st):
			c.fail(s, c.lost(s, "the consumer's end asks for messages that are no longer held"))
			s.flags |= sendReset | sendGone
			c.mention(s, 0)
			return nil
		}
		s.flags = s.flags&^sendRewind | sendUsed
		// What was told may have been lost with the connection.
		if s.waiters != nil {
			c.mention(s, wire.BacklogWaiting)
		}
		if st.Epoch != s.flow.Epoch {
			c.mention(s, wire.BacklogRelease)
		}
	}
	if st.Next > s.flow.Sent.Messages || consumed.Messages > st.Next || consumed.Bytes > s.flow.Sent.Bytes {
		return c.violation("state record of stream %d acknowledges what was not sent", st.Stream)
	}
	if st.Next > s.acked {
		s.acked = st.Next
		if s.q != nil && s.q.acknowledge(st.Next) {
			s.q.free()
			s.q = nil
		}
		c.flushed()
	}
	// What is handled lies before next, so in no chunk but the first that is held.
	// A consumer's end that says more would free room that is taken.
	if s.q != nil && consumed.Bytes > s.flow.Accepted.Bytes-uint64(s.q.held-s.q.chunks[s.q.head].bytes) {
		return c.violation("state record of stream %d settles bytes that it does not acknowledge", st.Stream)
	}
	raised, progressed := s.flow.Grant(st.Epoch, consumed, limit)
	if raised && !planted.Is(planted.BlockedOnlyOnce) {
		s.flags &^= sendAnnounced
	}
	if progressed {
		c.admit(s)
	}
	c.ready(s)
	c.departed(s)
	return nil
}

// disown takes s off its label, which is reset: the position asked for is that
// of a stream that is gone.
func (c *core) disown(s *SendStream) {
	label := s.label
	c.unbind(s)
	c.stub(label, s.to, sendGone)
}

// stub stands for a stream that is gone until the label that its consumer's end
// has given it is reset.
func (c *core) stub(label uint32, to *Flow, why sendFlags) {
	for int(label) >= len(c.out) {
		c.out = append(c.out, nil)
	}
	s := &SendStream{to: to, link: c.link, label: label, flags: sendBound | sendReset | why, failure: ErrClosed}
	c.out[label] = s
	c.mention(s, 0)
}

// rewind puts s back to where its consumer's end is. It reports false if that
// is before what s still holds, or beyond what it ever sent.
func (c *core) rewind(s *SendStream, st *wire.State) bool {
	if st.Next < s.acked || st.Next > s.flow.Accepted.Messages {
		return false
	}
	if s.q == nil {
		return st.Next == s.flow.Accepted.Messages && st.Offset == 0
	}
	if planted.Is(planted.RewindTooFar) && st.Next < s.flow.Accepted.Messages {
		st.Next, st.Offset = st.Next+1, 0
	}
	base := s.flow.Accepted.Bytes - uint64(s.q.held)
	n, ok := s.q.seek(st.Next, int(st.Offset))
	if !ok {
		return false
	}
	if planted.Is(planted.EndLostOnCut) && s.q.chunks[s.q.cur].kind == finish {
		st.Next, s.q.count = st.Next+uint64(1-s.q.count), 1
	}
	if st.Next < s.flow.Sent.Messages {
		c.stats.Resent += s.flow.Sent.Messages - st.Next
	}
	if planted.Is(planted.RewindForgetsBytes) {
		n = int(s.flow.Sent.Bytes - base)
	}
	s.flow.Rewind(flow.Position{Messages: st.Next, Bytes: base + uint64(n)})
	return true
}

// admit lets the first Send that waits go on, if there is room again, or says
// once more that one waits.
func (c *core) admit(s *SendStream) {
	if s.waiters == nil {
		return
	}
	if s.flow.Admits(s.mark(), s.waiters.size) {
		s.pop()
	} else {
		c.mention(s, wire.BacklogWaiting)
	}
}
