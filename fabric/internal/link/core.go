package link

import (
	"maps"
	"math"
	"slices"

	"github.com/zfab/zfab/fabric/internal/circuit"
	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Limits of one link.
const (
	// DefaultMaxStreams is how many streams one node may open towards another:
	// each costs some hundred bytes at either end.
	DefaultMaxStreams = 1 << 16
)

// Retainer is received memory that may be kept: transport.Buffer.
type Retainer interface {
	Retain()
	Release()
	Cap() int
}

// core is all streams of one pair of nodes, as one of them sees it: pure
// bookkeeping, without I/O, clock, lock or goroutine. Link drives it under its
// mu. It outlives connections.
type core struct {
	cfg  *Config
	link *Link
	peer string

	// Producer's ends.
	out   []*SendStream       // by label; the peer chooses them
	flows map[string]*outFlow // by channel
	ring  *SendStream         // last of the active ones, in turn
	say   []*SendStream       // those with backlog or reset to tell
	in    []*RecvStream       // consumer's ends, by label; ours to choose
	free  []uint32            // labels to use again
	leave []*SendStream       // producer ends whose consumers are leaving
	ended ends                // instances that have ended lately, for consumers' ends that have not heard of it
	given uint64              // instances given to consumer ends
	tells struct {            // consumer's ends with something to tell
		first, last *RecvStream
	}

	// Circuits that run over the link, and whose turn it is: see gatherBoth.
	circuits circuit.Table
	active   int  // streams in the ring
	turns    int  // that are left before the others'
	carrying bool // circuits have their turns

	// Control without a stream.
	ping, pong bool
	nonce      uint64 // of the ping to answer
	bye        *wire.Record
	parted     bool // the peer has said that it closes: all streams are lost, or about to be

	placing placing // what the reader is just reading

	// What a step leaves behind for Link to do outside the lock.
	deliveries []delivery
	moves      []move
	cut        []*circuit.End // circuits that ended with the connection
	events     []event
	flushers   []*flusher                    // who waits for acknowledgements
	parting    map[*RecvStream]chan struct{} // closed when they are forgotten; those that somebody waits for

	fast    bool // the connection took the last batch at once
	uptime  int  // ticks of this connection in which the peer was heard
	maxBody int  // the largest message that the peer takes
	closed  bool // no stream may begin
	stats   Counters
}

// event is what the node is to be told of a stream, in the order in which it
// happened.
type event struct {
	send   *SendStream // opened by its consumer, or failed
	opened bool
	recv   *RecvStream // ended by the producer's end
}

// outFlow is a channel of which this node is a producer.
type outFlow struct {
	Flow
	streams []*SendStream // by index of the consumer, sorted
}

type delivery struct {
	stream *RecvStream
	item   item
}

// attach begins a connection: the consumer's ends open every stream anew and
// say where they are. Those that were given up come first, as others may have
// taken their place.
func (c *core) attach(maxBody int) {
	c.maxBody, c.parted, c.fast = maxBody, false, false
	c.circuits.Begin(c.cfg.Node > c.peer)
	for _, s := range c.leave {
		s.away = 0
	}
	c.tells.first, c.tells.last = nil, nil
	for _, given := range []recvFlags{recvCancel, 0} {
		for _, r := range c.in {
			if r != nil && r.flags&recvCancel == given {
				r.flags &^= recvListed
				c.tell(r, recvState)
			}
		}
	}
}

// detach ends a connection. Streams stay; what was told on it is forgotten.
func (c *core) detach() {
	for _, s := range c.out {
		if s != nil {
			c.unbind(s)
		}
	}
	c.out, c.ring, c.say, c.active = nil, nil, nil, 0
	c.cut = c.circuits.End()
	c.tells.first, c.tells.last = nil, nil
	for label, r := range c.in {
		if r == nil {
			continue
		}
		r.next = nil
		switch given := r.flags&(recvCancel|recvCancelled) != 0; {
		case given && r.flags&recvKnown == 0:
			c.forget(uint32(label)) // the peer has never heard of it
		case given:
			r.flags = recvCancel | recvKnown // the peer may not have heard the last of it
		default:
			r.flags &= recvDraining | recvKnown
		}
	}
	c.ping, c.pong, c.bye = false, false, nil
	c.uptime = 0
}

// unbind takes a producer's end off its label.
func (c *core) unbind(s *SendStream) {
	s.flags &= sendUsed | sendLeaving | sendDelisted | sendTold
	s.announce, s.deficit, s.next = 0, 0, nil
	s.away = 0
	if s.flags&sendDelisted != 0 && s.failure == nil && !c.parted {
		c.depart(s)
	}
}

// stream returns the producer's end of the stream to the consumer index of a
// channel, made if there is none.
func (c *core) stream(channel string, index uint32) *SendStream {
	f := c.flow(channel)
	i, found := f.find(index)
	if found {
		return f.streams[i]
	}
	s := &SendStream{to: &f.Flow, link: c.link, index: index}
	if c.closed {
		s.failure = ErrClosed
		return s
	}
	f.streams = append(f.streams, nil)
	copy(f.streams[i+1:], f.streams[i:])
	f.streams[i] = s
	return s
}

func (c *core) flow(channel string) *outFlow {
	f := c.flows[channel]
	if f == nil {
		f = &outFlow{Flow: Flow{Channel: channel, Mark: c.cfg.Mark}}
		c.flows[channel] = f
	}
	return f
}

func (f *outFlow) find(index uint32) (int, bool) {
	lo, hi := 0, len(f.streams)
	for lo < hi {
		if mid := (lo + hi) / 2; f.streams[mid].index < index {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(f.streams) && f.streams[lo].index == index
}

// fail ends a producer's end: what it holds is dropped, Sends get err.
func (c *core) fail(s *SendStream, err error) {
	if s.failure != nil {
		return
	}
	s.failure = err
	c.unlist(s)
	c.leave = slices.DeleteFunc(c.leave, func(t *SendStream) bool { return t == s })
	if s.flags&sendActive != 0 {
		c.leaveRing(s)
	}
	if s.q != nil {
		s.q.free()
		s.q = nil
	}
	for s.waiters != nil {
		s.pop()
	}
	c.events = append(c.events, event{send: s})
	c.flushed()
}

// unlist takes s out of its channel: the next one who looks for the consumer
// gets another stream.
func (c *core) unlist(s *SendStream) {
	f := c.flows[s.to.Channel]
	if i, found := f.find(s.index); found && f.streams[i] == s {
		f.streams = slices.Delete(f.streams, i, i+1)
	}
}

// depart makes s take no more messages: its consumer is leaving, and waits for
// those that were accepted.
func (c *core) depart(s *SendStream) {
	if s.flags&sendLeaving == 0 {
		s.flags |= sendLeaving
		s.away = 0
		c.unlist(s)
		c.leave = append(c.leave, s)
		for s.waiters != nil {
			s.pop()
		}
		c.events = append(c.events, event{send: s})
	}
	c.departed(s)
}

// departed ends s if its consumer is leaving and has everything.
func (c *core) departed(s *SendStream) {
	if s.flags&(sendBound|sendLeaving|sendRewind|sendReset) != sendBound|sendLeaving {
		return
	}
	if s.acked < s.flow.Accepted.Messages && !(planted.Is(planted.DrainForgetsTheRoad) && !s.flow.Backlog()) {
		if !s.flow.Backlog() {
			c.mention(s, wire.BacklogAsk)
		}
		return
	}
	c.ended.add(s)
	c.fail(s, c.left(s))
	s.flags |= sendReset
	c.mention(s, 0)
}

// giveUp ends s, which is not bound: its consumer is in the directory no more,
// and not to be heard of.
func (c *core) giveUp(s *SendStream) {
	if s.acked < s.flow.Accepted.Messages {
		c.fail(s, c.lost(s, "the consumer has left the directory"))
	} else {
		c.fail(s, c.left(s))
	}
}

// age counts a tick for the producer's ends whose consumers are leaving and have
// not been heard of on this connection, and gives those up that have waited long
// enough: less if there is a connection, on which a consumer opens its streams
// at once.
func (c *core) age(attached bool) {
	most := min(c.cfg.ResumeTicks, math.MaxUint16-1)
	if attached {
		most = min(most, c.cfg.DeadTicks)
	}
	for i := 0; i < len(c.leave); {
		s := c.leave[i]
		if s.flags&sendBound == 0 {
			s.away++
		}
		if s.flags&sendBound == 0 && int(s.away) > most {
			c.giveUp(s) // takes it off the list
		} else {
			i++
		}
	}
}

// refusal is why s takes no messages, nil if it does.
func (c *core) refusal(s *SendStream) error {
	if s.failure != nil {
		return s.failure
	}
	if s.flags&sendLeaving != 0 {
		return c.left(s)
	}
	return nil
}

// failAll ends every producer's end for which why has an error.
func (c *core) failAll(why func(*SendStream) error) {
	// In order, so that the same history always ends in the same way.
	for _, channel := range slices.Sorted(maps.Keys(c.flows)) {
		for _, s := range slices.Clone(c.flows[channel].streams) {
			if err := why(s); err != nil {
				c.fail(s, err)
			}
		}
	}
	for _, s := range slices.Clone(c.leave) {
		if err := why(s); err != nil {
			c.fail(s, err)
		}
	}
}

// lost is the error of a stream whose consumer's end is gone.
func (c *core) lost(s *SendStream, reason string) error {
	return &LostError{
		Node: c.peer, Channel: s.to.Channel, Index: int(s.index), Reason: reason,
		Acknowledged: s.acked, Accepted: s.flow.Accepted.Messages,
	}
}

// left is the error of a stream whose consumer leaves, or has left, in order.
func (c *core) left(s *SendStream) error {
	return &LostError{
		Node: c.peer, Channel: s.to.Channel, Index: int(s.index), Reason: "the consumer has left",
		Acknowledged: s.acked, Accepted: s.flow.Accepted.Messages, Left: true,
	}
}

// receive makes the consumer's end of a stream.
func (c *core) receive(in *Inbox) *RecvStream {
	c.given++
	r := &RecvStream{link: c.link, inbox: in, instance: c.given}
	if n := len(c.free); n > 0 {
		r.label, c.free = c.free[n-1], c.free[:n-1]
		c.in[r.label] = r
	} else {
		r.label = uint32(len(c.in))
		c.in = append(c.in, r)
	}
	c.tell(r, recvState)
	return r
}

// cancel gives a consumer's end up. The peer is told, on the next connection if
// there is none: it may hold messages for it.
func (c *core) cancel(r *RecvStream, attached bool) {
	if c.in[r.label] != r || r.flags&(recvCancel|recvCancelled) != 0 {
		return
	}
	c.drop(r)
	if !attached && r.flags&recvKnown == 0 {
		c.forget(r.label) // the peer has never heard of it
		return
	}
	c.tell(r, recvCancel)
}

// forget frees a label.
func (c *core) forget(label uint32) {
	r := c.in[label]
	c.drop(r)
	if gone, ok := c.parting[r]; ok {
		close(gone)
		delete(c.parting, r)
	}
	r.flags = recvCancelled | r.flags&recvListed
	c.in[label] = nil
	c.free = append(c.free, label)
}

// tell puts r into the list of those with something to tell.
func (c *core) tell(r *RecvStream, what recvFlags) {
	r.flags |= what
	if r.flags&recvListed != 0 {
		return
	}
	r.flags |= recvListed
	r.next = nil
	if c.tells.last == nil {
		c.tells.first = r
	} else {
		c.tells.last.next = r
	}
	c.tells.last = r
}

// mention puts s into the list of producer's ends with something to tell.
func (c *core) mention(s *SendStream, announce uint8) {
	if s.flags&sendBound == 0 {
		return
	}
	s.announce |= announce
	if s.flags&sendListed == 0 {
		s.flags |= sendListed
		c.say = append(c.say, s)
	}
}

func (c *core) deliver(r *RecvStream, it item) {
	c.deliveries = append(c.deliveries, delivery{r, it})
}

// ready puts s into the ring of active streams if it has something to send and
// is not known to be blocked.
func (c *core) ready(s *SendStream) {
	if s.flags&(sendBound|sendRewind|sendActive|sendAnnounced) != sendBound || !s.flow.Backlog() {
		return
	}
	s.flags |= sendActive
	c.active++
	if c.ring == nil {
		s.next = s
	} else {
		s.next = c.ring.next
		c.ring.next = s
	}
	c.ring = s
}

// leaveRing takes s out of the ring; the cost of the search is paid only when
// a stream fails.
func (c *core) leaveRing(s *SendStream) {
	s.flags &^= sendActive
	c.active--
	prev := s
	for prev.next != s {
		prev = prev.next
	}
	if prev == s {
		c.ring = nil
	} else {
		prev.next = s.next
		if c.ring == s {
			c.ring = prev
		}
	}
	s.next = nil
}

// gather fills b with what is to be sent now: control first, then the active
// streams in turn, each up to its deficit. It reports whether there was
// anything.
func (c *core) gather(b *batch) bool {
	if c.ring == nil || !planted.Is(planted.ControlBehindData) {
		c.gatherControl(b)
	}
	if c.circuits.Active() > 0 {
		c.gatherBoth(b)
	}
	for c.ring != nil && !b.full() {
		s := c.ring.next
		c.serve(s, b)
	}
	c.gatherControl(b) // streams found to be blocked say so
	return b.header >= 0 || b.size > 0
}

// serve gives s, the first of the ring, its turn.
func (c *core) serve(s *SendStream, b *batch) {
	if s.deficit <= 0 {
		s.deficit += quantum
	}
	for !b.full() {
		most := int(s.deficit)
		if s.next == s {
			most = math.MaxInt // nobody waits for a turn: records are not cut short
			b.wide = c.fast && c.circuits.Active() == 0 && s.q.large()
		}
		n, progress := s.emit(b, most)
		s.deficit -= int32(max(n, endCost))
		if !progress {
			s.flags |= sendAnnounced
			c.mention(s, wire.BacklogBlocked)
		}
		if !s.flow.Backlog() && (s.flags&sendLeaving != 0 || c.flushing(s)) {
			c.mention(s, wire.BacklogAsk) // behind the last message
		}
		if !progress || !s.flow.Backlog() {
			s.deficit = 0
			if c.ring.next = s.next; c.ring == s {
				c.ring = nil
			}
			s.flags &^= sendActive
			c.active--
			s.next = nil
			return
		}
		if s.deficit <= 0 {
			c.ring = s // the next one's turn
			return
		}
	}
}

// endCost is what a record without bodies costs of a deficit, in bytes.
const endCost = 64

// tick is called once per tick interval. Blocked streams announce themselves
// again, progress that was not worth a record of its own is told, and streams
// that were idle for a while give their credit back.
func (c *core) tick() {
	for _, s := range c.out {
		if s == nil || s.flags&(sendBound|sendRewind) != sendBound {
			continue
		}
		s.quiet++
		switch {
		case s.flow.Backlog() && s.flags&sendAnnounced != 0:
			c.mention(s, wire.BacklogBlocked)
		case s.waiters != nil:
			c.mention(s, wire.BacklogWaiting)
		case s.q == nil && s.quiet > idleTicks:
			s.quiet, s.class = 0, 0
			if s.flow.Limit.Bytes > s.flow.Sent.Bytes {
				s.flow.Release()
				c.mention(s, wire.BacklogRelease)
			}
		}
	}
	for _, r := range c.in {
		if r != nil && r.flags&recvOpen != 0 && (r.flow.Untold() || r.toldNext != r.flow.Received.Messages) {
			c.tell(r, recvState)
		}
	}
}

// alive counts a tick in which the peer was heard. Its consumers' ends open all
// that they have as soon as there is a connection; producer's ends that they
// have not opened again long after that were given up while there was none.
func (c *core) alive() {
	if c.uptime++; c.uptime != c.cfg.ResumeTicks || planted.Is(planted.GivenUpAlone) {
		return
	}
	c.failAll(func(s *SendStream) error {
		if s.flags&(sendUsed|sendBound|sendLeaving) != sendUsed {
			return nil
		}
		return c.lost(s, "the consumer's end was given up while there was no connection")
	})
}

// idleTicks is after how many ticks without a message a stream gives its
// unused credit back.
const idleTicks = 10

// busy reports whether gather would find anything.
func (c *core) busy() bool {
	return c.ring != nil || c.tells.first != nil || len(c.say) > 0 || c.ping || c.pong || c.bye != nil || c.circuits.Busy()
}

// mark is the high-water mark of the channel that s belongs to.
func (s *SendStream) mark() flow.Mark { return s.to.Mark }
