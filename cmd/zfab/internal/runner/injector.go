package runner

import (
	"context"
	"sync"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/faultproxy"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// An injector makes the faults of links and processes happen, and watches what
// they do. One occurrence goes like this:
//
//  1. At its time it draws its target (draw.go).
//  2. When it hits, the nodes at both ends of every link concerned say what
//     they have in flight. A cut has stopped the link before it asks, so that
//     what they say is what the reset meets.
//  3. The fault begins and, if it lasts, ends. One that lasts meets what is sent
//     meanwhile, too. When it ends they say once more what is in flight.
//  4. It has recovered when every stream that had messages in flight goes on: more
//     of it is delivered. After a cut that must have come over a new connection.
//     The time counts from the end of the fault.
//
// Stalls are not its business: they are inside of a node (timeline.go).
type injector struct {
	topology *topology.Topology
	cluster  cluster
	proxy    *faultproxy.Proxy // nil without faults of links
	clock    clock
	ended    <-chan struct{} // closed at the end of the load

	schedules sync.WaitGroup
	underWay  sync.WaitGroup
	slots     chan struct{} // one word per occurrence under way

	mu     sync.Mutex
	events [][]event // by fault
}

// maxUnderWay bounds the occurrences that have not recovered; further ones come
// late.
const maxUnderWay = 128

// An event is one occurrence.
type event struct {
	target    string
	at        time.Duration
	hit       bool           // it met something in flight
	inFlight  uint64         // messages, when it began
	recovered *time.Duration // after its end; nil: never, or not hit
	detected  *time.Duration // a black hole: until both ends had given the connection up
}

func newInjector(t *topology.Topology, c cluster, p *faultproxy.Proxy, clk clock) *injector {
	return &injector{
		topology: t, cluster: c, proxy: p, clock: clk,
		slots: make(chan struct{}, maxUnderWay), events: make([][]event, len(t.Faults)),
	}
}

// run lets faults come until ended is closed, and returns when all have gone
// and recovered, or ctx ended. What lasts ends then.
func (in *injector) run(ctx context.Context, ended <-chan struct{}) {
	in.ended = ended
	for i, f := range in.topology.Faults {
		if f.Kind != topology.Stall {
			in.schedules.Go(func() { in.schedule(ctx, i) })
		}
	}
	in.schedules.Wait()
	in.underWay.Wait()
}

// schedule lets one of the file's faults come at its times.
func (in *injector) schedule(ctx context.Context, i int) {
	f := in.topology.Faults[i]
	for n := 0; ; n++ {
		at := f.At + time.Duration(n)*f.Every
		over := n > 0 && (f.Every == 0 || f.Times > 0 && n >= f.Times || f.Until > 0 && at >= f.Until)
		if over || !in.clock.untilOr(ctx, at, in.ended) {
			return
		}
		select {
		case in.slots <- struct{}{}:
		case <-in.ended:
			return
		case <-ctx.Done():
			return
		}
		in.underWay.Go(func() {
			defer func() { <-in.slots }()
			e := in.occur(ctx, f, newDraw(in.topology, i, n))
			in.mu.Lock()
			defer in.mu.Unlock()
			in.events[i] = append(in.events[i], e)
		})
	}
}

// occur is one occurrence from begin to end.
func (in *injector) occur(ctx context.Context, f topology.Fault, d draw) event {
	switch f.Kind {
	case topology.Cut:
		return in.cut(ctx, d)
	case topology.Pause:
		return in.pause(ctx, d)
	case topology.Kill:
		return in.kill(ctx, f, d)
	}
	return in.impair(ctx, f, d)
}

// cutPatience is how long a cut waits for its byte on a link that is idle.
const cutPatience = 250 * time.Millisecond

func (in *injector) cut(ctx context.Context, d draw) event {
	e := event{target: targetName(d.links)}
	seen := newSights(in.cluster, d.links)
	connected := make([]bool, len(d.links))
	var each sync.WaitGroup
	for i, l := range d.links {
		each.Go(func() {
			link := in.proxy.Link(l.names())
			connected[i] = link.Cut(ctx, d.direction, d.bytes, cutPatience, func() { seen.look(ctx, i) })
		})
	}
	each.Wait()
	e.at = in.clock.now()
	for i := range d.links {
		if !connected[i] {
			seen.drop(i)
		}
	}
	e.meet(seen)
	if e.hit {
		e.recovered = seen.recovery(ctx, reconnected, e.at)
	}
	return e
}

// meet takes what a fault met when it began.
func (e *event) meet(seen *sights) {
	e.inFlight = seen.inFlight()
	e.hit = e.inFlight > 0
}

// impair is a fault of links that lasts.
func (in *injector) impair(ctx context.Context, f topology.Fault, d draw) event {
	before := lookAll(ctx, in.cluster, d.links, 0)
	e := event{target: targetName(d.links), at: in.clock.now()}
	e.meet(before)
	var ends []func()
	for _, l := range d.links {
		ends = append(ends, impairment(in.proxy.Link(l.names()), f, d.ways))
	}
	return in.last(ctx, e, d, lasting{
		before: before,
		holed:  f.Kind == topology.Blackhole,
		end: func() {
			for _, end := range ends {
				end()
			}
		},
	})
}

func impairment(l *faultproxy.Link, f topology.Fault, ways []faultproxy.Direction) (end func()) {
	switch f.Kind {
	case topology.Delay:
		return l.Delay(f.Amount, ways...)
	case topology.Rate:
		return l.Limit(int64(f.BytesPerSecond), ways...)
	}
	return l.Blackhole(ways...)
}

// pause stops a node's process for a while.
func (in *injector) pause(ctx context.Context, d draw) event {
	links := linksOf(d.node, in.topology.Nodes)
	before := lookAll(ctx, in.cluster, links, 0)
	e := event{target: topology.NodeName(d.node), at: in.clock.now()}
	e.meet(before)
	resume, err := in.cluster.(mortal).pause(d.node)
	if err != nil {
		return event{target: e.target, at: e.at} // there was nobody to pause
	}
	return in.last(ctx, e, d, lasting{before: before, stopped: d.node, end: resume})
}

// kill ends a node's process and starts another one. It has recovered when all
// streams from and to the new life carry something, counted from its start.
func (in *injector) kill(ctx context.Context, f topology.Fault, d draw) event {
	nodes := in.cluster.(mortal)
	before := lookAll(ctx, in.cluster, linksOf(d.node, in.topology.Nodes), 0)
	e := event{target: topology.NodeName(d.node), at: in.clock.now()}
	if nodes.kill(d.node) != nil {
		return e // somebody else has killed it
	}
	e.meet(before)
	in.endure(ctx, f.RestartAfter)
	began := in.clock.now()
	if nodes.revive(ctx, d.node) != nil {
		return e // run tells why
	}
	if at, err := nodes.reached(ctx, d.node); err == nil {
		took := at - began
		e.recovered = &took
	}
	return e
}

// linksOf are the links of one node.
func linksOf(node, nodes int) []nodePair {
	var links []nodePair
	for other := 1; other <= nodes; other++ {
		if other != node {
			links = append(links, pairOf(node, other))
		}
	}
	return links
}

// forever is longer than any run.
const forever = 1000 * time.Hour

// lasting is a fault that has begun.
type lasting struct {
	before  *sights
	holed   bool
	stopped int // the node that is; 0: none
	end     func()
}

// last lets a fault last, ends it, and watches.
func (in *injector) last(ctx context.Context, e event, d draw, l lasting) event {
	meanwhile, over := context.WithCancel(ctx)
	defer over()
	var watching sync.WaitGroup
	if l.holed {
		watching.Go(func() { e.detected = l.before.detection(meanwhile, e.at) })
	}
	if !e.hit {
		l.before.stopped = l.stopped
		watching.Go(func() { e.hit = l.before.busy(meanwhile) })
	}
	if d.length > 0 {
		in.endure(ctx, d.length)
	} else {
		in.endure(ctx, forever)
	}
	over()
	watching.Wait()
	after := lookAll(ctx, in.cluster, l.before.links, l.stopped)
	for i := range after.ends {
		for side, end := range after.ends[i] {
			if end == nil {
				after.ends[i][side] = l.before.ends[i][side] // it is stopped; that has to be passed still
			}
		}
	}
	l.end()
	if e.hit {
		e.recovered = after.recovery(ctx, passed, in.clock.now())
	}
	return e
}

// endure waits for the length of a fault, or the end of the load.
func (in *injector) endure(ctx context.Context, length time.Duration) {
	in.clock.untilOr(ctx, in.clock.now()+length, in.ended)
}
