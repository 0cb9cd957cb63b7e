package sim

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// host is a place where one node lives after another.
type host struct {
	index int
	name  string
	node  *node // the life that is registered, nil while there is none
	lives int
	dead  bool // for ever
}

// node is one life of a node: all that a process holds, and is lost with it.
type node struct {
	w           *world
	host        *host
	id          int // of all lives of all hosts
	incarnation uint64
	endpoint    string
	cfg         *link.Config
	began       time.Duration

	peers    []*peer // by host; nil for its own
	channels []*channel
	ends     []*end // that are not closed, as far as is known here

	gone     bool // the process is no more
	died     time.Duration
	paused   bool
	deferred []func() // what happens when it goes on
	ticks    int
	skip     time.Duration // before the next tick
	shaken   time.Duration // when it was stopped, or its clock went wrong, last
	leaving  bool
	outdated time.Duration // when another life took the name; never if none has

	ledgers   map[*link.SendStream]*ledger
	intakes   map[*link.RecvStream]*intake
	producers []*producer
	consumers []*consumer
	coming    int           // producers and consumers that will be made
	waits     []*producer   // of which a Send waits
	word      time.Duration // when the last of the directory's events arrives
}

func (n *node) String() string {
	if n == nil {
		return "world"
	}
	return fmt.Sprintf("%s.%d", n.host.name, n.incarnation)
}

var discard = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1}))

// start begins a life on a host.
func (w *world) start(h *host) *node {
	n := &node{
		w: w, host: h, id: len(w.nodes), began: w.now, outdated: never,
		ledgers: make(map[*link.SendStream]*ledger), intakes: make(map[*link.RecvStream]*intake),
	}
	w.nodes = append(w.nodes, n)
	h.lives++
	n.cfg = &link.Config{
		MaxMessage: w.plan.largest[h.index], MaxStreams: 1 << 16, Mark: flow.Mark{Messages: 1 << 16, Bytes: 1 << 20},
		Budget:    flow.NewBudget(w.plan.budget),
		PingTicks: w.plan.pingTicks, DeadTicks: w.plan.deadTicks, Logger: discard,
		ResumeTicks:  int(w.plan.window / w.plan.interval),
		CheckChannel: func(string) error { return nil },
		Hooks: link.Hooks{
			Opened: func(l *link.Link, s *link.SendStream) { n.opened(l, s) },
			Failed: func(l *link.Link, s *link.SendStream) { n.failed(l, s) },
			Ended:  func(l *link.Link, r *link.RecvStream) { n.ended(l, r) },
			Down:   func(*link.Link, error) { panic("sim: a driven link has no goroutines") },
		},
	}
	n.peers = make([]*peer, len(w.hosts))
	for _, other := range w.hosts {
		if other != h {
			n.peers[other.index] = newPeer(n, other)
		}
	}
	for i := range w.plan.channels {
		n.channels = append(n.channels, newChannel(n, &w.plan.channels[i]))
	}
	w.dir.join(n)
	w.log(n, "starts")
	n.populate()
	n.after(w.dice.span(0, w.plan.interval), n.tick)
	return n
}

// after schedules what the node does.
func (n *node) after(wait time.Duration, do func()) { n.w.at(n.w.now+wait, n, do) }

// soon is the time that another goroutine takes to go on.
func (n *node) soon() time.Duration { return n.w.dice.span(0, n.w.plan.wakeTime) }

// tick looks after all links at every heartbeat interval.
func (n *node) tick() {
	n.beat()
	wait := n.w.plan.interval + n.skip
	n.skip = 0
	n.after(wait, n.tick)
}

func (n *node) beat() {
	w := n.w
	n.ticks++
	for _, p := range n.peers {
		if p == nil {
			continue
		}
		if p.drv.Tick() {
			w.counts.add(silences, 1)
			p.end.checkSilence()
			p.end.close("nothing was heard of the peer")
		}
		if p.end != nil && n.ticks-p.end.heard > w.plan.deadTicks+1 {
			w.fail("%s has heard nothing of %s for %d ticks, and does not give it up", n, p.life, n.ticks-p.end.heard)
		}
		p.touched()
	}
	for _, p := range n.peers {
		if p != nil {
			p.expire()
		}
	}
}

// hello is what the node says of itself.
func (n *node) hello(connection uint64) []byte {
	return wire.AppendHello(nil, &wire.Hello{
		Version: wire.Version, Node: n.host.name, Incarnation: n.incarnation,
		MaxMessage: uint32(n.cfg.MaxMessage), Connection: connection,
	})
}

// pause stops all that the node does.
func (n *node) pause() { n.paused = true }

// shake notes that the node does not keep time from now on.
func (n *node) shake(wait time.Duration) { n.shaken = max(n.shaken, n.w.now+wait) }

func (n *node) resume() {
	n.paused = false
	n.shake(0)
	list := n.deferred
	n.deferred = nil
	for _, do := range list {
		n.w.at(n.w.now, n, do)
	}
}

// die ends the life. Its peers are told by their network, or, if silently, find
// out.
func (n *node) die(silently bool) {
	w := n.w
	n.gone, n.died, n.paused, n.deferred = true, w.now, false, nil
	if n.host.node == n {
		n.host.node = nil
	}
	for _, e := range n.ends {
		if e.closed {
			continue
		}
		e.closed, e.reading = true, false
		e.out.lose(!silently)
		e.other.out.queue, e.other.out.bytes = nil, 0
	}
	n.ends = nil
	w.net.over()
	w.dir.died(n)
}

// populate has the node's producers and consumers made, now or later.
func (n *node) populate() {
	h := n.host.index
	for _, ch := range n.channels {
		for i, plan := range ch.plan.consumers[h] {
			n.later(max(0, plan.from-n.w.now), func() { n.consume(ch, i, plan) })
		}
		for i, plan := range ch.plan.producers[h] {
			if n.host.lives > 1 {
				plan.messages /= 2
			}
			n.later(max(0, plan.from-n.w.now), func() { n.produce(ch, i, plan) })
		}
	}
}

// later has something made after a while.
func (n *node) later(wait time.Duration, do func()) {
	n.coming++
	n.after(n.soon()+wait, func() {
		n.coming--
		do()
	})
}

// leave ends the life in order: producers finish, what they sent is
// acknowledged, and all links say bye. Then another life begins.
func (n *node) leave() {
	n.w.log(n, "drains, to leave")
	n.coming++ // another life
	for _, p := range n.producers {
		p.finish()
	}
	until := n.w.now + n.w.dice.span(0, n.w.plan.window)
	var look func()
	look = func() {
		if n.pending() && n.w.now < until {
			n.after(n.w.plan.interval, look)
			return
		}
		n.close()
	}
	n.after(n.soon(), look)
}

// close is the end of a life that others are told of.
func (n *node) close() {
	if n.leaving {
		return
	}
	w := n.w
	w.log(n, "leaves")
	n.leaving = true
	w.dir.leave(n)
	for _, c := range n.consumers {
		c.inbox.Close()
		c.closed = true
		for _, k := range c.all {
			k.given = true
		}
	}
	for _, p := range n.peers {
		if p == nil {
			continue
		}
		p.drv.Shut(!p.link.Pending())
		p.touched()
		for _, e := range n.ends {
			if e.peer == nil {
				e.close("the node is closing")
			}
		}
	}
	began := w.now
	var look func()
	look = func() {
		for _, p := range n.peers {
			if p != nil && p.end != nil && w.now < began+time.Second {
				n.after(10*time.Millisecond, look)
				return
			}
		}
		n.die(false)
		w.restart(n.host, w.dice.span(0, time.Second))
	}
	n.after(n.soon(), look)
}

// address is one who can be dialled.
func (w *world) address(endpoint string) *node {
	for _, n := range w.nodes {
		if !n.gone && n.endpoint == endpoint {
			return n
		}
	}
	return nil
}
