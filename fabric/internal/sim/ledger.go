package sim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric/internal/link"
)

// entry is one message of a stream, or a producer's end.
type entry struct {
	at       int32 // where its body lies in the noise
	size     int32 // bytes, or finished
	producer uint32
}

const finished = -1

func (e entry) body() []byte {
	if e.size <= 0 {
		return nil
	}
	return noise[e.at : e.at+e.size : e.at+e.size]
}

func (e entry) String() string {
	if e.size == finished {
		return fmt.Sprintf("the end of producer %d", e.producer)
	}
	b := e.body()
	return fmt.Sprintf("%d bytes % x of producer %d", e.size, b[:min(len(b), 8)], e.producer)
}

// ledger is what was accepted on a producer's end of a stream: the truth that
// everything else is held against.
type ledger struct {
	id       int
	peer     *peer
	s        *link.SendStream
	made     time.Duration
	entries  []entry
	bytes    uint64 // of bodies
	largest  int    // body
	ends     uint64 // of entries that are producers' ends
	pair     *pairing
	instance uint64 // of the consumer's end

	bound    bool // its consumer has said where to go on, once
	delisted bool
	leaving  bool // its consumer takes no more
	ended    bool // it has failed
	flushes  []flush
}

type flush struct {
	until uint64
	done  <-chan struct{}
}

func (g *ledger) String() string {
	return fmt.Sprintf("s%d (%s to %s/%d at %s)", g.id, g.s.Channel(), g.peer.host.name, g.s.Index(), g.peer.node)
}

// intake is a consumer's end of a stream, and what was handled of it.
type intake struct {
	id       int
	peer     *peer
	consumer *consumer
	r        *link.RecvStream
	pair     *pairing
	made     time.Duration
	got      int // entries handled
	gotBytes uint64
	largest  uint64 // message in bytes

	asked    bool // began while the consumer drains
	given    bool // the consumer has given it up
	draining bool
	over     bool // the core has ended it
	told     bool // and the consumer knows
}

func (k *intake) String() string {
	return fmt.Sprintf("r%d (%s from %s to %s consumer %d)", k.id, k.consumer.ch.plan.name, k.peer.host.name, k.peer.node, k.consumer.index)
}

// pairing is a consumer's end with the producers' ends that it may get its
// messages from: the one that it was bound to, or, as long as it has got
// nothing, another one after that.
type pairing struct {
	intake  *intake
	ledgers []*ledger
}

// pairKey names a consumer's end as the producer's node can.
type pairKey struct {
	consumer int // node
	producer int // host
	instance uint64
}

func (n *node) ledgerOf(p *peer, s *link.SendStream) *ledger {
	g := n.ledgers[s]
	if g == nil {
		w := n.w
		g = &ledger{id: len(w.ledgers), peer: p, s: s, made: w.now}
		n.ledgers[s] = g
		w.ledgers = append(w.ledgers, g)
		p.sends = append(p.sends, g)
	}
	return g
}

func (n *node) intakeOf(p *peer, c *consumer, r *link.RecvStream) *intake {
	w := n.w
	k := &intake{id: len(w.intakes), peer: p, consumer: c, r: r, made: w.now}
	k.pair = w.pairOf(pairKey{n.id, p.host.index, r.View().Instance})
	k.pair.intake = k
	n.intakes[r] = k
	w.intakes = append(w.intakes, k)
	p.recvs = append(p.recvs, k)
	c.all = append(c.all, k)
	return k
}

func (w *world) pairOf(key pairKey) *pairing {
	pair := w.pairs[key]
	if pair == nil {
		pair = new(pairing)
		w.pairs[key] = pair
	}
	return pair
}

// meet notes which consumer's end has opened g.
func (g *ledger) meet() {
	p, v := g.peer, g.s.View()
	w, instance := p.node.w, v.Instance
	if instance == g.instance && !v.Bound {
		return
	}
	key := pairKey{p.life.id, p.node.host.index, instance}
	if instance == g.instance && w.pairs[key] == g.pair {
		return // else it is another life's, which counts its instances anew
	}
	pair := w.pairOf(key)
	if pair.intake == nil {
		w.fail("%s is opened as instance %d by %s, which has none", g, instance, p.life)
		return
	}
	if g.instance != 0 && g.s.View().Acknowledged > 0 {
		w.fail("%s goes on with %s, and was opened by %s before", g, pair.intake, g.pair.intake)
	}
	g.instance, g.pair = instance, pair
	pair.ledgers = append(pair.ledgers, g)
	w.log(p.node, "%s is opened for %s", g, pair.intake)
}

// accept notes an entry that the stream has just accepted.
func (g *ledger) accept(e entry) {
	w := g.peer.node.w
	g.entries = append(g.entries, e)
	if e.size == finished {
		g.ends++
	} else {
		g.bytes += uint64(e.size)
		g.largest = max(g.largest, int(e.size))
	}
	w.counts.add(messages, 1)
	w.moved = w.now
	v := g.s.View()
	if v.Accepted.Messages != uint64(len(g.entries)) || v.Accepted.Bytes != g.bytes {
		w.fail("%s has accepted %v, and says %v", g, len(g.entries), v.Accepted)
	}
	if e.size == finished {
		return
	}
	mark := g.peer.node.channelOf(g.s.Channel()).plan.mark
	held := v.Accepted.Messages - v.Consumed.Messages
	heldBytes := v.Accepted.Bytes - v.Consumed.Bytes
	if held > 1 && (held > mark.Messages+g.ends || heldBytes > mark.Bytes) {
		w.fail("%s holds %d messages, %d bytes over its mark %v", g, held, heldBytes, mark)
	}
}

// flush begins a Flush.
func (g *ledger) flush() {
	if done := g.s.BeginFlush(); done != nil {
		g.flushes = append(g.flushes, flush{uint64(len(g.entries)), done})
		g.peer.node.w.counts.add(flushes, 1)
	}
	g.peer.touched()
}

// failed takes the word that the stream's consumer is gone, or leaving.
func (g *ledger) failed(leaving bool) {
	w := g.peer.node.w
	g.meet()
	if leaving {
		g.leaving = true
		if !g.drained() {
			w.fail("%s is told that its consumer is leaving, which is not so", g)
		}
		return
	}
	if g.ended {
		if !g.drained() {
			w.fail("%s fails twice", g)
		}
		return // left and lost in one step
	}
	g.ended = true
	err, _ := g.s.Failure()
	w.log(g.peer.node, "%s ends: %v", g, err)
	w.counts.add(sendsLost, 1)
	var lost *link.LostError
	if !errors.As(err, &lost) {
		w.fail("%s fails with %v", g, err)
		return
	}
	if lost.Accepted != uint64(len(g.entries)) {
		w.fail("%s: %d messages were accepted, and the error says %d", g, len(g.entries), lost.Accepted)
	}
	if lost.Left && lost.Acknowledged != lost.Accepted {
		w.fail("%s: its consumer has left in order, and %d of %d messages are acknowledged", g, lost.Acknowledged, lost.Accepted)
	}
	if lost.Acknowledged > 0 {
		if g.pair == nil {
			w.fail("%s: %d messages are acknowledged by nobody", g, lost.Acknowledged)
		} else if r := g.pair.intake.r.View(); lost.Acknowledged > r.Received.Messages {
			w.fail("%s: %d messages are acknowledged, and %s has %d", g, lost.Acknowledged, g.pair.intake, r.Received.Messages)
		}
	}
	if v := g.s.View(); v.Held != 0 {
		w.fail("%s has failed and holds %d bytes", g, v.Held)
	}
	g.checkReason(err)
}

// drained reports whether the stream's consumer drains, or did, or is in the
// directory no more.
func (g *ledger) drained() bool { return g.delisted || g.pair != nil && g.pair.intake.draining }

// checkReason makes sure that a stream is lost only with a reason that the
// promises allow.
func (g *ledger) checkReason(err error) {
	w, p := g.peer.node.w, g.peer
	switch {
	case p.excused >= g.made:
	case g.delisted:
	case g.largest > w.plan.largest[p.host.index]:
	case g.pair != nil:
		k := g.pair.intake
		if k.given || k.draining || k.consumer.node.gone || k.consumer.node.leaving || k.peer.excused >= min(g.made, k.made) {
			return
		}
		w.fail("%s is lost without a reason: %v", g, err)
	default:
		w.fail("%s is lost without a reason: %v", g, err)
	}
}

// take holds an entry that was handed to the consumer against what was accepted.
func (k *intake) take(e entry, body []byte) {
	w := k.peer.node.w
	w.moved = w.now
	switch {
	case k.told:
		w.fail("%s gets a message after its end", k)
		return
	case k.pair == nil || len(k.pair.ledgers) == 0:
		w.fail("%s gets a message, and no stream was opened for it", k)
		return
	}
	var fits []*ledger
	for _, g := range k.pair.ledgers {
		if k.got < len(g.entries) {
			o := g.entries[k.got]
			if o.size == e.size && o.producer == e.producer && bytes.Equal(o.body(), body) {
				fits = append(fits, g)
			}
		}
	}
	if len(fits) == 0 {
		w.fail("%s gets as message %d %s; %s", k, k.got, describe(e, body), expected(k.pair.ledgers, k.got))
		return
	}
	k.pair.ledgers = fits
	k.got++
	if e.size > 0 {
		k.gotBytes += uint64(e.size)
		k.largest = max(k.largest, uint64(e.size))
	}
	w.counts.add(delivered, 1)
}

func describe(e entry, body []byte) string {
	if e.size == finished {
		return e.String()
	}
	return fmt.Sprintf("%d bytes % x of producer %d", len(body), body[:min(len(body), 8)], e.producer)
}

func expected(ledgers []*ledger, at int) string {
	s := ""
	for _, g := range ledgers {
		if at < len(g.entries) {
			s += fmt.Sprintf("%s has %s there", g, g.entries[at])
		} else {
			s += fmt.Sprintf("%s has accepted only %d", g, len(g.entries))
		}
	}
	return s
}

// lost takes the word that no more comes, because of err if something is
// missing.
func (k *intake) lost(err error) {
	w := k.peer.node.w
	w.log(k.peer.node, "%s ends after %d: %v", k, k.got, err)
	if k.told {
		w.fail("%s ends twice", k)
	}
	k.told = true
	w.counts.add(recvsLost, 1)
	if err == nil {
		k.checkComplete()
		return
	}
	var lost *link.LostError
	if !errors.As(err, &lost) || !lost.Receiving {
		w.fail("%s ends with %v", k, err)
		return
	}
	if lost.Acknowledged != uint64(k.got) {
		w.fail("%s has got %d messages, and its end says %d", k, k.got, lost.Acknowledged)
	}
	if k.peer.excused >= k.made || k.draining && !k.complete() {
		return
	}
	for _, g := range k.pair.ledgers {
		if g.delisted || g.peer.node.gone || g.peer.node.leaving || g.peer.excused >= min(g.made, k.made) {
			return
		}
	}
	w.fail("%s is lost without a reason: %v", k, err)
}

// complete reports whether everything was handled that was accepted, and the
// producer's end knows.
func (k *intake) complete() bool {
	for _, g := range k.pair.ledgers {
		if k.got == len(g.entries) && g.ended && g.s.View().Acknowledged == uint64(k.got) {
			return true
		}
	}
	return false
}

// checkComplete makes sure that an orderly end is behind the last message.
func (k *intake) checkComplete() {
	for _, g := range k.pair.ledgers {
		if k.got == len(g.entries) {
			return
		}
	}
	if len(k.pair.ledgers) == 0 && k.got == 0 {
		return
	}
	k.peer.node.w.fail("%s ends in order after %d messages; %s", k, k.got, expected(k.pair.ledgers, k.got))
}
