package link

import (
	"context"
	"encoding/binary"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// Driver drives a link without connection, goroutines and clock: it does what
// the reader, the writer and the ticker do, one step at a time, when it is told
// to. It is for one goroutine, which also makes all other calls on the link; of
// those none may wait (Send, Flush, Inbox.Next): Driver has their steps.
type Driver struct{ l *Link }

// Drive returns the driver of a link that is never attached to a connection.
func Drive(l *Link) Driver { return Driver{l} }

// driven stands for the connection of a link that is driven: the link only asks
// whether there is one.
var driven = new(transport.Conn)

// Bind is Attach.
func (d Driver) Bind(maxBody int) {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	if d.l.conn != nil {
		panic("link: bound twice")
	}
	d.l.begin(driven, maxBody)
}

// Unbind ends the connection, as the reader does: also the packet that it was
// just reading to its place.
func (d Driver) Unbind() {
	l := d.l
	l.mu.Lock()
	l.conn = nil
	l.core.placed(false)
	l.core.detach()
	events := l.takeEvents()
	l.mu.Unlock()
	l.tellEvents(events)
}

// Bound reports whether there is a connection, and Closed whether Shut was called.
func (d Driver) Bound() bool  { return d.l.Up() }
func (d Driver) Closed() bool { return d.l.closed }

// Busy reports whether a sleeping writer would be woken now.
func (d Driver) Busy() bool {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return d.l.conn != nil && d.l.core.busy()
}

// Outgoing is what one write carries. As with a real write, its memory is the
// streams' own until Done.
type Outgoing struct {
	l *Link
	b *batch
	// Bye says that the link closes the connection after it.
	Bye bool
}

// Gather is the writer's step: what is due now, nil if nothing is. It must be
// done, also after Unbind, before the next Gather.
func (d Driver) Gather() *Outgoing {
	l := d.l
	l.mu.Lock()
	defer l.mu.Unlock()
	o := &Outgoing{l: l, b: batchPool.Get().(*batch), Bye: l.core.bye != nil}
	if !l.core.gather(o.b) {
		batchPool.Put(o.b)
		return nil
	}
	o.b.seal()
	l.core.stats.PacketsOut++
	l.core.stats.BytesOut += uint64(o.b.size)
	return o
}

// Packets is a copy of what the memory holds now.
func (o *Outgoing) Packets() [][]byte {
	all := make([]byte, 0, o.b.size)
	for _, v := range o.b.out {
		all = append(all, v...)
	}
	var packets [][]byte
	for len(all) > 0 {
		end := frameHeaderSize + int(binary.BigEndian.Uint64(all[1:frameHeaderSize]))
		packets = append(packets, all[frameHeaderSize:end:end])
		all = all[end:]
	}
	return packets
}

// Done ends the write.
func (o *Outgoing) Done() {
	o.l.mu.Lock()
	o.b.reset()
	o.l.mu.Unlock()
	batchPool.Put(o.b)
}

// Packet is the reader's step: it takes a packet that lies in from. An error is
// the end of the connection.
func (d Driver) Packet(p []byte, from Retainer) error {
	l := d.l
	l.mu.Lock()
	l.heard = true
	l.core.stats.PacketsIn++
	l.core.stats.BytesIn += uint64(len(p))
	err := l.core.handle(p, from)
	d.afterRead()
	return err
}

// Place asks where the end of a packet of size bytes belongs that begins with
// head. If it is not nil, Placed follows as soon as the bytes are there.
func (d Driver) Place(head []byte, size int) []byte {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return d.l.core.place(head, size)
}

// Placed ends what Place has begun.
func (d Driver) Placed() {
	l := d.l
	l.mu.Lock()
	l.heard = true
	l.core.stats.PacketsIn++
	l.core.placed(true)
	d.afterRead()
}

// afterRead hands on what a packet has brought. It unlocks mu.
func (d Driver) afterRead() {
	l := d.l
	deliveries := l.core.deliveries
	l.core.deliveries = nil
	events := l.takeEvents()
	l.mu.Unlock()
	for _, it := range deliveries {
		it.stream.inbox.put(it.stream, it.item)
	}
	l.tellEvents(events)
}

// Tick is Link.Tick. It reports whether the peer has been silent for too long:
// then the connection is to be closed.
func (d Driver) Tick() (dead bool) {
	l := d.l
	l.mu.Lock()
	l.core.age(l.conn != nil)
	if l.conn != nil {
		if dead = l.silence(); !dead {
			l.core.tick()
		}
	}
	events := l.takeEvents()
	l.mu.Unlock()
	l.tellEvents(events)
	return dead
}

// Shut is Close without its end: a bye is due if there is a connection, which is
// to be closed after it.
func (d Driver) Shut(orderly bool) {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	if !d.l.closed {
		d.l.shut(orderly)
	}
}

// passed is a context that has ended.
var passed = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// TryNext is Next that does not wait: ok is false if nothing has arrived.
func (in *Inbox) TryNext() (body []byte, kind Kind, ok bool, err error) {
	body, kind, err = in.Next(passed)
	if err == context.Canceled {
		return nil, kind, false, nil
	}
	return body, kind, true, err
}

// Waiting is a Send under way that waits for room.
type Waiting struct {
	s    *SendStream
	w    *waiter
	body []byte
	c    *chunk
}

// BeginSend is Send up to the point where it waits: if the message was neither
// accepted nor refused it returns what waits.
func (s *SendStream) BeginSend(from *Sender, body []byte) (*Waiting, error) {
	if s.join(from, body) {
		return nil, nil
	}
	err := s.offer(from, body, nil)
	if err != ErrHighWater {
		return nil, err
	}
	p := &Waiting{s: s, w: waiterPool.Get().(*waiter), body: body}
	p.w.size, p.w.from = len(body), from
	if len(body) >= singleMin {
		p.c = newSingle(body)
	}
	s.link.mu.Lock()
	done, err := p.turn(false)
	if done {
		return nil, err
	}
	return p, nil
}

// Ready reports whether the Send was let go on.
func (p *Waiting) Ready() bool { return len(p.w.ready) > 0 }

// Poll goes on with the Send if it was let to. Done says that it has ended,
// accepted unless there is an error.
func (p *Waiting) Poll() (done bool, err error) {
	select {
	case <-p.w.ready:
	default:
		return false, nil
	}
	p.s.link.mu.Lock()
	return p.turn(true)
}

// turn is one turn of the loop in sendWait. It unlocks mu.
func (p *Waiting) turn(again bool) (done bool, err error) {
	sent, err := p.s.turn(p.w, again, p.body, p.c)
	if !sent && err == nil {
		p.s.link.mu.Unlock()
		return false, nil
	}
	p.s.endWait(p.w, 0)
	if err != nil && p.c != nil {
		p.c.release()
	}
	return true, err
}

// Abandon ends the Send as the end of its context does.
func (p *Waiting) Abandon() {
	p.s.link.mu.Lock()
	if !p.s.removeWaiter(p.w) {
		<-p.w.ready
	}
	p.s.endWait(p.w, 0)
	if p.c != nil {
		p.c.release()
	}
}

// BeginFlush is Flush without the wait: done is closed at its end, and nil if
// there is nothing to wait for.
func (s *SendStream) BeginFlush() (done <-chan struct{}) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.failure != nil || s.acked >= s.flow.Accepted.Messages {
		return nil
	}
	return s.beginFlush().done
}

// SendView is where a producer's end stands.
type SendView struct {
	flow.Sender
	Acknowledged uint64 // messages
	Instance     uint64 // of the consumer's end
	Held         int    // bytes of messages that are not acknowledged
	Waiters      int    // Sends that wait and were not let go on yet
	Admits       bool   // there is room for the first of them
	Bound        bool   // the consumer's end has said, on this connection, where to go on
	Failed       bool
}

// View is where s stands.
func (s *SendStream) View() SendView {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	v := SendView{
		Sender: s.flow, Acknowledged: s.acked, Instance: s.instance,
		Bound: s.flags&(sendBound|sendRewind) == sendBound, Failed: s.failure != nil,
	}
	if s.q != nil {
		v.Held = s.q.held
	}
	v.Admits = s.waiters != nil && s.flow.Admits(s.mark(), s.waiters.size)
	for w := s.waiters; w != nil; w = w.next {
		v.Waiters++
	}
	return v
}

// RecvView is where a consumer's end stands.
type RecvView struct {
	flow.Receiver
	Instance uint64
	Partial  int  // bytes of a message of which the rest is missing
	Gone     bool // given up, or ended by the producer's end
}

// View is where r stands.
func (r *RecvStream) View() RecvView {
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	return RecvView{
		Receiver: r.flow, Instance: r.instance, Partial: int(r.held()),
		Gone: r.flags&(recvCancel|recvCancelled) != 0,
	}
}

// Pending reports whether TryNext would bring something.
func (in *Inbox) Pending() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.items) > 0 || in.pos < len(in.taken) || in.cur.count > 0
}
