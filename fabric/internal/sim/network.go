package sim

import (
	"fmt"
	"time"
)

// network is what lies between the nodes: connections, and the holes in which
// their bytes disappear from sight.
type network struct {
	w     *world
	conns []*conn                  // that are not over
	dug   map[[2]int]time.Duration // when a hole was there last
	holes map[[2]int]bool          // from host, to host: nothing passes
	lag   [2]time.Duration         // the range of a packet's way
	made  int
}

// conn is a connection as TCP makes them: what one end writes arrives at the
// other in order, until the connection breaks; then any end of it may be lost.
type conn struct {
	id   int
	ends [2]*end // the first one has dialled
}

func (c *conn) String() string { return fmt.Sprintf("c%d", c.id) }

// parcel is one packet under way, or the end of the connection.
type parcel struct {
	due   time.Duration
	data  []byte
	part  int  // bytes of data that arrive, if not all do
	short bool // only part of data arrives
	final bool // nothing follows: the connection has ended
}

// pipe is one direction of a connection.
type pipe struct {
	from, to *end
	queue    []parcel
	bytes    int  // in queue
	broken   bool // what is written is lost
	armed    bool // the first parcel's arrival is scheduled
}

// connect makes a connection between two nodes.
func (t *network) connect(dialler, acceptor *node) *conn {
	t.made++
	c := &conn{id: t.made}
	a := &end{conn: c, node: dialler, w: t.w, dialled: true}
	b := &end{conn: c, node: acceptor, w: t.w}
	a.other, b.other = b, a
	a.out, b.out = pipe{from: a, to: b}, pipe{from: b, to: a}
	c.ends = [2]*end{a, b}
	t.conns = append(t.conns, c)
	return c
}

// over forgets connections of which both ends are closed.
func (t *network) over() {
	kept := t.conns[:0]
	for _, c := range t.conns {
		if !c.ends[0].closed || !c.ends[1].closed {
			kept = append(kept, c)
		}
	}
	clear(t.conns[len(kept):])
	t.conns = kept
}

// passes reports whether packets pass from one host to another.
func (t *network) passes(from, to int) bool { return !t.holes[[2]int{from, to}] }

// dig makes a hole, and fill ends it.
func (t *network) dig(from, to int) { t.holes[[2]int{from, to}] = true }

func (t *network) fill(from, to int) {
	if t.holes[[2]int{from, to}] {
		t.dug[[2]int{from, to}] = t.w.now
	}
	delete(t.holes, [2]int{from, to})
	for _, c := range t.conns {
		for _, e := range c.ends {
			e.out.arm()
		}
	}
}

// holed reports whether there is a hole on the way to an end or from it, or was
// not long ago.
func (t *network) holed(e *end) bool {
	a, b := e.node.host.index, e.other.node.host.index
	for _, way := range [][2]int{{a, b}, {b, a}} {
		if at, ok := t.dug[way]; t.holes[way] || ok && at > t.w.now-2*t.w.silence() {
			return true
		}
	}
	return false
}

// write puts a packet on its way.
func (p *pipe) write(data []byte) {
	if p.broken {
		return
	}
	p.push(parcel{data: data})
}

func (p *pipe) push(it parcel) {
	w := p.from.w
	it.due = w.now + w.dice.span(w.net.lag[0], w.net.lag[1])
	if n := len(p.queue); n > 0 {
		it.due = max(it.due, p.queue[n-1].due)
	}
	p.queue = append(p.queue, it)
	p.bytes += len(it.data)
	p.arm()
}

// arm schedules the arrival of the first parcel, if it can arrive.
func (p *pipe) arm() {
	w := p.from.w
	if p.armed || len(p.queue) == 0 || !p.to.reading && !p.to.closed {
		return
	}
	if !w.net.passes(p.from.node.host.index, p.to.node.host.index) {
		w.counts.add(heldInHole, 1)
		return
	}
	p.armed = true
	w.at(p.queue[0].due, p.to.node, p.arrive)
}

// arrive gives the first parcel to the end that reads.
func (p *pipe) arrive() {
	p.armed = false
	e, w := p.to, p.from.w
	if e.closed {
		w.counts.add(latePackets, len(p.queue))
		p.queue, p.bytes = nil, 0
		return
	}
	if !e.reading || len(p.queue) == 0 || !w.net.passes(p.from.node.host.index, e.node.host.index) {
		return
	}
	it := p.queue[0]
	p.queue[0] = parcel{}
	if p.queue = p.queue[1:]; len(p.queue) == 0 {
		p.queue = nil
	}
	p.bytes -= len(it.data)
	e.arrived(it)
	p.arm()
	p.from.roomier()
}

// lose breaks the pipe: a random end of what is under way is lost, perhaps in
// the middle of a packet. The reader is told of the end, behind the rest, if
// told. It returns how many bytes were lost.
func (p *pipe) lose(told bool) (lost int) {
	if p.broken {
		return 0
	}
	p.broken = true
	p.from.shaken, p.to.shaken = true, true
	keep := 0
	if p.bytes > 0 {
		keep = p.from.w.dice.IntN(p.bytes + 1)
	}
	lost = p.bytes - keep
	for i, it := range p.queue {
		if keep >= len(it.data) {
			keep -= len(it.data)
			continue
		}
		p.queue = p.queue[:i]
		if keep > 0 {
			it.part, it.short = keep, true
			p.queue = append(p.queue, it)
		}
		break
	}
	p.bytes = 0
	for _, it := range p.queue {
		p.bytes += len(it.data)
	}
	if told {
		p.push(parcel{final: true})
	}
	return lost
}
