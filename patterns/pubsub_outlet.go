package patterns

import (
	"github.com/zfab/zfab/fabric"
)

// outlet is a publisher's way to one hub. While the stream has room, copies go
// straight into it; else they wait here, in their order, and a goroutine sends
// them that ends when nothing waits any more. All of it is under the publisher's
// mu.
//
//	      no room            last one sent
//	idle ---------> sending ---------------> idle
//
// What waits is bounded: copies for reliable subscriptions by their room, those that
// give way to newer ones and all others by Backlog and slack each, what is replayed
// by maxReplays, and words about subscriptions by how many there are.
type outlet struct {
	token   uint64         // the hub's name for it
	addr    fabric.Address // of the hub's consumer
	target  *fabric.Target
	subs    map[uint64]*subscription
	gone    bool
	absence absence

	waiting  chain[dispatch]
	sending  bool   // a goroutine sends
	put      uint64 // dispatches that have ever waited
	inHand   uint64 // the number of the one that the goroutine sends, 0 if it has none
	messages int    // that wait, or are in hand
	bytes    int64  // of those that wait

	replays     int // that wait
	replayBytes int64

	// What waited to be replayed at most since nothing waited: so many more live
	// messages may wait, so that one subscriber's past costs no other anything.
	slack      int
	slackBytes int64

	// Those that may be dropped: by age, and those that give way to newer ones of their
	// topic, which others must not push out.
	loose, values looseOnes
	byTopic       map[string]*chainLink[dispatch] // of values

	copies, dropped uint64
	scratch         []byte // the goroutine's
}

// looseOnes are copies that wait and may be dropped.
type looseOnes struct {
	is     func(*dispatch) bool
	len    int
	bytes  int64
	oldest *chainLink[dispatch] // nil if there is none
}

// maxReplays bounds what waits to be replayed to one node.
const maxReplays = 1 << 18

// dispatch is one thing to send to a hub.
type dispatch struct {
	kind   uint64
	turn   uint64        // dispatches that had waited with it
	stop   *stop         // of a message
	sub    *subscription // of anything else that is about one
	topic  string
	body   []byte
	number uint64 // one of the record's
	token  uint64 // of a hello
	// missed is what was dropped before it, for the subscriptions that wanted that.
	missed map[*subscription]uint64
}

func (d *dispatch) isMessage() bool { return d.kind == kindPublished || d.kind == kindReplayed }

func (d *dispatch) isLoose() bool {
	return d.kind == kindPublished && !d.stop.reliable && !d.stop.conflate
}

func (d *dispatch) isValue() bool {
	return d.kind == kindPublished && !d.stop.reliable && d.stop.conflate
}

func newOutlet(addr fabric.Address, target *fabric.Target) *outlet {
	return &outlet{
		addr: addr, target: target, subs: make(map[uint64]*subscription), byTopic: make(map[string]*chainLink[dispatch]),
		loose: looseOnes{is: (*dispatch).isLoose}, values: looseOnes{is: (*dispatch).isValue},
	}
}

// add notes one that was put at the end, if it is one of these.
func (lo *looseOnes) add(l *chainLink[dispatch]) bool {
	if !lo.is(&l.v) {
		return false
	}
	lo.len++
	lo.bytes += int64(len(l.v.body))
	if lo.oldest == nil {
		lo.oldest = l
	}
	return true
}

// remove notes that one is about to be taken out.
func (lo *looseOnes) remove(l *chainLink[dispatch]) {
	if !lo.is(&l.v) {
		return
	}
	lo.len--
	lo.bytes -= int64(len(l.v.body))
	if lo.oldest == l {
		lo.oldest = l.next
		for lo.oldest != nil && !lo.is(&lo.oldest.v) {
			lo.oldest = lo.oldest.next
		}
	}
}

// head is the record, without its body.
func (d *dispatch) head(b []byte) []byte {
	switch d.kind {
	case kindPublished:
		return appendTextRecord(b, d.topic, d.kind)
	case kindReplayed:
		return appendTextRecord(b, d.topic, d.kind, d.sub.id)
	case kindPublishes:
		return appendRecord(b, d.kind, d.number, d.token)
	case kindLastWord:
		return appendRecord(b, d.kind)
	case kindConfirmed, kindMissed:
		return appendRecord(b, d.kind, d.sub.id, d.number)
	case kindEvicted, kindOver, kindDenied:
		return appendRecord(b, d.kind, d.sub.id)
	}
	panic("patterns: a dispatch of no kind")
}

// idle reports whether nothing waits, so that the stream may be tried.
func (o *outlet) idle() bool { return !o.sending }

// passed reports whether none of the first n dispatches waits any more.
func (o *outlet) passed(n uint64) bool {
	first := o.waiting.first
	return o.gone || (first == nil || first.v.turn > n) && (o.inHand == 0 || o.inHand > n)
}

// say sends a word, or lets it wait behind what waits. A node that takes not even
// a message of that size is as one that is not there. Under mu.
func (p *publisher) say(o *outlet, d dispatch) {
	if o.gone {
		return
	}
	if o.idle() {
		var mem [maxHead]byte
		err := o.target.TrySend(d.head(mem[:0]))
		if err == nil {
			return
		}
		if err != fabric.ErrHighWater {
			p.unsaid(o, d.kind, err)
			return
		}
	}
	p.put(o, d)
}

// unsaid is a hub to which something could not be said. One that takes no hello is
// not greeted again until its stream has changed. Under mu.
func (p *publisher) unsaid(o *outlet, kind uint64, err error) {
	if kind == kindPublishes || tooLarge(err) {
		p.forget(o)
	} else {
		p.lose(o)
	}
}

// put lets something wait, and drops what is one too many. Under mu.
func (p *publisher) put(o *outlet, d dispatch) {
	if o.gone {
		return
	}
	if old := o.byTopic[d.topic]; d.isValue() && old != nil {
		p.stats.Conflated++
		after := &d
		if old.next != nil {
			after = &old.next.v
		}
		after.merge(o.take(old).missed)
	}
	o.put++
	d.turn = o.put
	l := o.waiting.append(d)
	if d.isMessage() {
		o.messages++
	}
	o.bytes += int64(len(d.body))
	if d.kind == kindReplayed {
		o.replays++
		o.replayBytes += int64(len(d.body))
		d.sub.replays++
		o.slack, o.slackBytes = max(o.slack, o.replays), max(o.slackBytes, o.replayBytes)
	}
	if o.values.add(l) {
		o.byTopic[d.topic] = l
		p.trim(o, &o.values)
	} else if o.loose.add(l) {
		p.trim(o, &o.loose)
	}
	if !o.sending {
		o.sending = true
		p.wg.Go(func() { p.send(o) })
	}
}

// trim drops what is one too many. Under mu.
func (p *publisher) trim(o *outlet, lo *looseOnes) {
	room := p.cfg.backlog
	for lo.len > 1 && (int64(lo.len-o.slack) > room.Messages || lo.bytes-o.slackBytes > room.Bytes) {
		p.dropOldest(o, lo)
	}
}

// dropOldest drops the copy that has waited longest, and has what is behind it say
// so. There is another one.
func (p *publisher) dropOldest(o *outlet, lo *looseOnes) {
	next := &lo.oldest.next.v
	d := o.take(lo.oldest)
	p.missed(d.stop, len(d.body))
	next.merge(d.missed)
	if next.missed == nil {
		next.missed = make(map[*subscription]uint64, len(d.stop.subs))
	}
	for _, s := range d.stop.subs {
		if !s.gone {
			next.missed[s]++
		}
	}
}

// take takes something out.
func (o *outlet) take(l *chainLink[dispatch]) dispatch {
	o.loose.remove(l)
	o.values.remove(l)
	if o.byTopic[l.v.topic] == l {
		delete(o.byTopic, l.v.topic)
	}
	d := o.waiting.remove(l)
	if d.isMessage() {
		o.messages--
	}
	o.bytes -= int64(len(d.body))
	if d.kind == kindReplayed {
		o.replays--
		o.replayBytes -= int64(len(d.body))
		d.sub.replays--
	}
	return d
}

// unplay takes out what was to be replayed to a subscription. Under mu.
func (p *publisher) unplay(s *subscription) {
	o := s.outlet
	for l := o.waiting.first; l != nil && s.replays > 0; {
		next := l.next
		if l.v.kind == kindReplayed && l.v.sub == s {
			p.tell(o, o.take(l).missed, next)
		}
		l = next
	}
}

// tell has subscriptions know what they missed before l, or at the end if it is
// nil. Under mu.
func (p *publisher) tell(o *outlet, missed map[*subscription]uint64, l *chainLink[dispatch]) {
	if l != nil {
		l.v.merge(missed)
		return
	}
	for s, n := range missed {
		if !s.gone {
			p.say(o, dispatch{kind: kindMissed, sub: s, number: n})
		}
	}
}

// clear drops all that waits: there is nobody to get it.
func (o *outlet) clear() {
	for o.waiting.first != nil {
		o.take(o.waiting.first)
	}
}

// send sends what waits, until nothing does.
func (p *publisher) send(o *outlet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for o.waiting.first != nil && p.ctx.Err() == nil {
		d := o.take(o.waiting.first)
		for s := range d.missed {
			if s.gone {
				delete(d.missed, s)
			}
		}
		o.inHand = d.turn
		if d.isMessage() {
			o.messages++
		}
		p.mu.Unlock()
		err := p.deliver(o, &d)
		p.mu.Lock()
		if err != nil && p.ctx.Err() != nil {
			break // what was in hand counts as left behind
		}
		o.inHand = 0
		if d.isMessage() {
			o.messages--
		}
		switch {
		case err == nil && d.isMessage():
			p.sent(o)
		case err == nil:
		case d.isMessage() && tooLarge(err):
			p.tooLate(o, &d)
		default:
			p.unsaid(o, d.kind, err)
		}
		p.progress()
	}
	o.sending, o.slack, o.slackBytes = false, 0, 0
}

// deliver sends one dispatch, and before it the word of what was missed. It waits
// for room on the stream. Without mu.
func (p *publisher) deliver(o *outlet, d *dispatch) error {
	var mem [maxHead]byte
	for s, n := range d.missed {
		if err := o.target.Send(p.ctx, appendRecord(mem[:0], kindMissed, s.id, n)); err != nil {
			return err
		}
	}
	head := d.head(mem[:0])
	if len(d.body) >= bufferMin {
		return parcel{own: d.body}.send(p.ctx, o.target, head)
	}
	o.scratch = append(append(o.scratch[:0], head...), d.body...)
	return o.target.Send(p.ctx, o.scratch)
}

// tooLate deals with a message that waited, and that the node takes no message as
// large as: who wanted it is told in its place. Under mu.
func (p *publisher) tooLate(o *outlet, d *dispatch) {
	subs := []*subscription{d.sub}
	if d.kind == kindPublished {
		subs = d.stop.subs
		p.missed(d.stop, len(d.body))
	}
	words := make(map[*subscription]uint64)
	for _, s := range subs {
		words[s] = 1
	}
	p.tell(o, words, o.waiting.first)
}

// merge adds what was missed before d. It takes the map over.
func (d *dispatch) merge(missed map[*subscription]uint64) {
	if d.missed == nil {
		d.missed = missed
		return
	}
	for s, n := range missed {
		d.missed[s] += n
	}
}

// progress wakes those who wait for outlets to get on. Under mu.
func (p *publisher) progress() {
	if p.emptied != nil {
		close(p.emptied)
		p.emptied = nil
	}
}
