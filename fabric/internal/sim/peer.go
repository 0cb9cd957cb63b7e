package sim

import (
	"time"

	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// peer is another node as one node knows it: the link and the peering are the
// product's, and what is around them does the same as fabric's node, in steps.
type peer struct {
	node    *node
	host    *host
	link    *link.Link
	drv     link.Driver
	peering *peering.Peering
	wanted  map[int]bool // channels on which it produces and this node consumes

	eager bool // it dials in any case, until there is a link

	end     *end     // that the link is bound to
	life    *node    // the peer's life at its other end; stays
	waiting []func() // accepted connections that wait for the slot

	latest  uint64        // incarnation that the directory has told
	dirty   bool          // touched in this step
	since   time.Duration // when the link was unbound last, or bound
	excused time.Duration // when streams of the link were lost for a good reason; -1: never
	sends   []*ledger     // of this link
	recvs   []*intake
	windows uint64 // of recvs, bytes, after the last check
	floors  uint64 // bytes that these may be over the budget
}

// patience is what a hello, an answer of the directory or the end of a
// connection may take.
const patience = 5 * time.Second

func newPeer(n *node, h *host) *peer {
	p := &peer{node: n, host: h, wanted: make(map[int]bool), excused: -1}
	p.link = link.New(n.cfg, h.name)
	p.drv = link.Drive(p.link)
	p.peering = peering.New(n.host.name, h.name)
	return p
}

func (p *peer) now() time.Time { return time.Unix(0, 0).Add(p.node.w.now) }

// touched has the link checked after this step, and its writer woken.
func (p *peer) touched() {
	if !p.dirty {
		p.dirty = true
		p.node.w.dirty = append(p.node.w.dirty, p)
	}
}

// needs reports whether the node needs a connection, and dials whether it looks
// for one.
func (p *peer) needs() bool { return len(p.wanted) > 0 || p.link.Receiving() }
func (p *peer) dials() bool { return !p.node.leaving && (p.eager || p.needs()) }

// want starts dialling if the node wants a connection and nobody does so already.
func (p *peer) want() {
	if wait, ok := p.peering.StartDialing(p.dials(), p.node.w.dice.Float64()); ok {
		p.node.after(wait, p.dial)
	}
}

func (p *peer) dial() {
	n, w := p.node, p.node.w
	endpoint, ok := p.peering.NextDial(p.dials())
	if !ok {
		return
	}
	w.log(n, "dials %s at %s", p.host.name, endpoint)
	w.counts.add(dials, 1)
	to := w.address(endpoint)
	there, back := w.net.passes(n.host.index, p.host.index), w.net.passes(p.host.index, n.host.index)
	switch {
	case to == nil:
		n.after(w.dice.span(0, 4*w.net.lag[1]), p.dialFailed)
	case !there || !back:
		n.after(w.dice.span(patience/2, patience), p.dialFailed)
	default:
		n.after(w.dice.span(2*w.net.lag[0], 2*w.net.lag[1]), func() {
			if to.gone {
				p.dialFailed()
				return
			}
			p.greet(to)
		})
	}
}

func (p *peer) dialFailed() {
	wait := p.peering.DialFailed(p.node.w.dice.Float64())
	p.node.after(wait, p.dial)
}

// greet says hello on a new connection and waits for the answer.
func (p *peer) greet(to *node) {
	n := p.node
	c := n.w.net.connect(n, to)
	e := c.ends[0]
	n.ends = append(n.ends, e)
	to.accept(c.ends[1])
	connection, ok := p.peering.Greet()
	if !ok {
		e.refuse(wire.CodeDuplicate, "there is a connection already")
		p.dial() // which ends the dialling
		return
	}
	over := false
	done := func(failed bool) {
		if over {
			return
		}
		over = true
		e.over, e.hear = nil, nil
		p.peering.GreetingOver()
		if failed {
			e.close("the greeting has failed")
			p.dialFailed()
		} else {
			p.dial()
		}
	}
	e.over = func() { done(true) }
	e.hear = func(rec *wire.Record) {
		e.reading = false
		if rec.Kind != wire.KindHello || string(rec.Hello.Node) != p.host.name {
			done(true)
			return
		}
		h := helloOf(rec)
		p.answered(e, &h, peering.NotAsked, done)
	}
	e.say(n.hello(connection))
	e.read()
	n.after(patience, func() { done(true) })
}

// answered decides about the peer that has answered a hello.
func (p *peer) answered(e *end, h *wire.Hello, word peering.Word, done func(failed bool)) {
	if e.closed {
		return
	}
	v := p.peering.Answered(h, word)
	p.node.w.log(p.node, "is answered by %s.%d on %s, number %d: %s %s", h.Node, h.Incarnation, e.conn, h.Connection, v.Do, v.Reason)
	switch v.Do {
	case peering.Confirm:
		p.node.w.dir.ask(p, func(word peering.Word) { p.answered(e, h, word, done) })
	case peering.Admit:
		e.over = nil
		p.install(e, int(h.MaxMessage), v, false, done)
	default:
		e.refuse(v.Code, v.Reason)
		done(true)
	}
}

// accept takes a connection that another node has dialled.
func (n *node) accept(e *end) {
	n.ends = append(n.ends, e)
	heard := false
	e.hear = func(rec *wire.Record) {
		heard, e.reading = true, false
		e.hear = nil
		if rec.Kind != wire.KindHello {
			e.close("the dialler has said bye")
			return
		}
		h := helloOf(rec)
		n.judge(e, &h, peering.NotAsked)
	}
	e.read()
	n.after(patience, func() {
		if !heard && !e.closed {
			e.close("no hello")
		}
	})
}

// judge decides about a peer that has dialled and says hello.
func (n *node) judge(e *end, h *wire.Hello, word peering.Word) {
	w := n.w
	if e.closed {
		return
	}
	if n.leaving {
		e.refuse(wire.CodeDone, "the node is closing")
		return
	}
	p := n.peers[w.hostOf(h.Node).index]
	v := p.peering.Accept(h, word)
	w.log(n, "is dialled by %s.%d on %s, number %d: %s %s", h.Node, h.Incarnation, e.conn, h.Connection, v.Do, v.Reason)
	w.judged(v)
	switch v.Do {
	case peering.Confirm:
		w.dir.ask(p, func(word peering.Word) { n.judge(e, h, word) })
	case peering.Replace:
		p.waiting = append(p.waiting, func() { n.judge(e, h, word) })
		if p.end != nil {
			p.end.close(v.Reason)
		}
	case peering.Admit:
		p.install(e, int(h.MaxMessage), v, true, func(bool) {})
	default:
		e.refuse(v.Code, v.Reason)
	}
}

// install makes an admitted connection the link's. The peer takes messages of
// up to most bytes.
func (p *peer) install(e *end, most int, v peering.Verdict, answer bool, done func(failed bool)) {
	n := p.node
	if life := e.other.node; life.incarnation < p.latest {
		n.w.fail("%s admits %s, and was told of incarnation %d", n, life, p.latest)
	}
	if v.Anew {
		p.excuse()
		p.lose(p.peering.Anew())
	}
	if answer {
		e.say(n.hello(v.Connection))
	}
	n.after(n.soon(), func() {
		if n.leaving || !p.peering.Up() {
			e.close("it was overtaken")
			p.free()
			done(true)
			return
		}
		e.hear, e.over, p.eager = nil, nil, false
		e.peer, p.end, p.life, p.since = p, e, e.other.node, n.w.now
		n.w.log(n, "has a link with %s on %s, number %d", p.life, e.conn, v.Connection)
		n.w.counts.add(links, 1)
		e.heard = n.ticks
		p.drv.Bind(min(most, n.cfg.MaxMessage))
		p.touched()
		done(false)
		if e.closed { // meanwhile
			p.ended(e, nil)
		} else {
			e.read()
		}
	})
}

// ended is the end of the link's connection.
func (p *peer) ended(e *end, said *link.ByeError) {
	n := p.node
	p.end, p.since = nil, n.w.now
	p.drv.Unbind()
	if e.writing != nil {
		e.writing.Done()
		e.writing = nil
	}
	p.touched()
	n.after(n.soon(), func() {
		var bye *peering.Bye
		if said != nil {
			bye = &peering.Bye{Code: said.Code, Text: said.Text}
		}
		loss, lost := p.peering.Ended(p.now(), bye)
		if lost && !n.leaving {
			p.excuse()
			p.lose(loss)
		}
		n.after(n.soon(), p.free)
	})
}

// free gives the slot back.
func (p *peer) free() {
	p.peering.Free()
	waiting := p.waiting
	p.waiting = nil
	for _, again := range waiting {
		p.node.after(p.node.soon(), again)
	}
	p.node.after(p.node.soon(), p.want)
}

func (p *peer) lose(l peering.Loss) {
	p.node.w.log(p.node, "loses all streams with %s: %s", p.host.name, l.Reason)
	p.link.Lose(l.Reason, l.Orderly, l.Stated)
	p.touched()
	p.node.wakeConsumers()
}

// expire looks whether the resume window is over.
func (p *peer) expire() {
	w := p.node.w
	loss, over := p.peering.Expired(p.now(), w.plan.window)
	if !over {
		return
	}
	if p.end != nil || w.now-p.since <= w.plan.window {
		w.fail("%s gives up %s after %v, its resume window is %v", p.node, p.host.name, w.now-p.since, w.plan.window)
	}
	w.counts.add(expiries, 1)
	p.excuse()
	p.lose(loss)
	p.free()
}

// listed takes the directory's word of who lives on the host.
func (p *peer) listed(incarnation uint64, endpoint string) {
	p.latest = max(p.latest, incarnation)
	switch p.peering.Listed(incarnation, endpoint) {
	case peering.Cut:
		if p.end != nil {
			p.end.close("the directory names another incarnation")
		}
	case peering.Lose:
		p.excuse()
		p.lose(p.peering.Anew())
		p.free()
	}
}

// excuse notes that all streams of the link are lost now, for a good reason.
func (p *peer) excuse() { p.excused = p.node.w.now }

func helloOf(rec *wire.Record) wire.Hello {
	return wire.Hello{
		Version: rec.Hello.Version, Node: string(rec.Hello.Node), Incarnation: rec.Hello.Incarnation,
		MaxMessage: rec.Hello.MaxMessage, Connection: rec.Hello.Connection,
	}
}

// judged counts the verdicts on connections.
func (w *world) judged(v peering.Verdict) {
	switch {
	case v.Do == peering.Replace:
		w.counts.add(replaced, 1)
	case v.Do == peering.Refuse && v.Code == wire.CodeFenced:
		w.counts.add(fenced, 1)
	case v.Do == peering.Refuse && v.Code == wire.CodeDuplicate:
		w.counts.add(duplicates, 1)
	}
}
