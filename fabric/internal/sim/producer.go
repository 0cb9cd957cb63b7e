package sim

import (
	"errors"
	"time"

	"github.com/zfab/zfab/fabric/internal/link"
)

// producer sends messages to the consumers of a channel, each to one of them at
// random, and finishes.
type producer struct {
	node   *node
	ch     *channel
	plan   producerPlan
	sender link.Sender
	quota  int // messages to be sent yet
	member member

	wait    *link.Waiting // a Send that waits
	sending entry         // of that Send
	to      *ledger
	since   time.Duration
	woken   bool
	left    bool // it has finished

	scheduled bool
}

// produce makes a producer.
func (n *node) produce(ch *channel, index int, plan producerPlan) {
	if n.leaving {
		return
	}
	p := &producer{node: n, ch: ch, plan: plan, sender: link.Sender{Index: uint32(index)}, quota: plan.messages}
	n.producers = append(n.producers, p)
	n.w.log(n, "makes producer %d of %s, with %d messages", index, ch.plan.name, plan.messages)
	for _, t := range ch.targets {
		ch.reach(t)
	}
	p.member = member{n, ch.plan.index, index, false}
	n.w.dir.add(p.member)
	p.schedule(n.soon())
}

func (p *producer) schedule(wait time.Duration) {
	if p.scheduled || p.left {
		return
	}
	p.scheduled = true
	p.node.after(wait, p.step)
}

// step sends some messages.
func (p *producer) step() {
	p.scheduled = false
	if p.left || p.wait != nil || p.node.leaving {
		return
	}
	w := p.node.w
	if w.settling && w.now > w.plan.safety+w.plan.window+30*time.Second {
		p.quota = 0 // too many wait for who will not come
	}
	least := time.Microsecond
	for range 1 + w.dice.IntN(p.plan.burst) {
		if p.quota == 0 {
			p.finish()
			return
		}
		g := p.choose()
		if g == nil {
			least = 100 * time.Millisecond
			break
		}
		if !p.send(g) {
			least = w.dice.span(5*time.Millisecond, 50*time.Millisecond)
			break
		}
	}
	if p.wait == nil {
		p.schedule(max(least, w.dice.span(0, p.plan.pause)))
	}
}

// choose is the stream to a random target.
func (p *producer) choose() *ledger {
	if len(p.ch.targets) == 0 {
		return nil
	}
	return p.ch.targets[p.node.w.dice.IntN(len(p.ch.targets))].stream
}

// send sends one message, and reports whether it was accepted.
func (p *producer) send(g *ledger) bool {
	w := p.node.w
	e := w.message(p.ch.plan, p.sender.Index)
	var err error
	if p.plan.waits {
		p.wait, err = g.s.BeginSend(&p.sender, e.body()) // which must stay as it is
		if p.wait != nil {
			p.sending, p.to, p.since, p.woken = e, g, w.now, false
			p.node.waits = append(p.node.waits, p)
			w.counts.add(sendsWaited, 1)
			p.giveUpLater()
			g.peer.touched()
			return false
		}
	} else {
		err = g.s.TrySend(&p.sender, w.scratch(e))
	}
	g.peer.touched()
	if err == nil {
		p.accepted(g, e)
		return true
	}
	p.refused(g, err)
	return false
}

func (p *producer) accepted(g *ledger, e entry) {
	p.quota--
	g.accept(e)
}

func (p *producer) refused(g *ledger, err error) {
	var lost *link.LostError
	var large *link.TooLargeError
	switch {
	case err == link.ErrHighWater:
		p.node.w.counts.add(highWaters, 1)
	case errors.As(err, &lost) && (g.ended || g.leaving):
	case errors.As(err, &large) && large.Max < maxMessage:
		p.quota-- // it will not get smaller
		p.node.w.counts.add(tooLarge, 1)
	case err == link.ErrClosed && p.node.leaving:
	default:
		p.node.w.fail("%s is refused a message by %s: %v", p.node, g, err)
	}
}

// giveUpLater ends the wait some time: a Send's context may end.
func (p *producer) giveUpLater() {
	wait, w := p.wait, p.node.w
	at := w.dice.span(time.Second, 20*time.Second)
	switch {
	case w.settling:
		at = time.Second
	case w.dice.percent(20):
		at = w.dice.span(0, 100*time.Millisecond)
	}
	p.node.after(at, func() {
		switch {
		case p.wait != wait:
		case p.woken:
			p.giveUpLater()
		default:
			w.counts.add(sendsAbandoned, 1)
			wait.Abandon()
			p.waited()
			p.schedule(p.node.soon())
		}
	})
}

// wake lets a Send that waits go on, if it was told to.
func (p *producer) wake() {
	if p.woken || p.wait == nil || !p.wait.Ready() {
		return
	}
	p.woken = true
	p.node.after(p.node.soon(), func() {
		if p.wait == nil {
			return
		}
		g, e := p.to, p.sending
		p.woken = false
		done, err := p.wait.Poll()
		g.peer.touched()
		if !done {
			return
		}
		p.waited()
		if err == nil {
			p.accepted(g, e)
		} else if !p.left || err != link.ErrClosed {
			p.refused(g, err)
		}
		p.schedule(p.node.soon())
	})
}

// waited ends a wait.
func (p *producer) waited() {
	p.to.peer.touched()
	p.wait = nil
	for i, o := range p.node.waits {
		if o == p {
			p.node.waits = append(p.node.waits[:i], p.node.waits[i+1:]...)
			break
		}
	}
}

// finish tells all consumers that no more will come.
func (p *producer) finish() {
	if p.left || !p.sender.Close() {
		return
	}
	n := p.node
	n.w.log(n, "finishes producer %d of %s", p.sender.Index, p.ch.plan.name)
	for _, t := range p.ch.targets {
		if t.stream == nil {
			continue
		}
		if err := t.stream.s.Finish(&p.sender); err == nil {
			t.stream.accept(entry{size: finished, producer: p.sender.Index})
		}
		t.stream.peer.touched()
	}
	p.left = true
	n.w.dir.remove(p.member)
	if g := p.choose(); g != nil && n.w.dice.percent(50) {
		g.flush()
	}
	n.w.counts.add(finishes, 1)
}
