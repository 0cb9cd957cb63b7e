package sim

import (
	"fmt"
	"io"
	"runtime/debug"
	"time"
)

// Result is what a seed came to.
type Result struct {
	Seed    uint64
	Failure error // nil if all that is promised was kept
	Counts  Counts
}

// Run lives through the history that seed decides. Its trace, an event per
// line, goes to trace if that is not nil.
func Run(seed uint64, trace io.Writer) (result Result) {
	w := newWorld(seed, trace)
	result.Seed = seed
	defer func() {
		if r := recover(); r != nil {
			w.fail("panic: %v\n%s", r, debug.Stack())
		}
		result.Failure, result.Counts = w.failure, w.counts
	}()
	w.run()
	return
}

// world is everything that there is, driven by one goroutine.
type world struct {
	clock
	dice    dice
	plan    plan
	net     network
	dir     directory
	hosts   []*host
	nodes   []*node         // every life that there was
	broken  map[[2]int]bool // pairs of hosts that have no way to each other, for ever
	ledgers []*ledger
	intakes []*intake
	pairs   map[pairKey]*pairing

	settling bool // the liveness phase has begun
	dirty    []*peer
	moved    time.Duration // when a message was accepted or handled last
	sent     int           // bytes of messages
	pad      []byte
	said     said    // in the quiet at the end
	aims     []fault // that wait for messages to be under way

	trace   io.Writer
	failure error
	counts  Counts
}

func newWorld(seed uint64, trace io.Writer) *world {
	w := &world{
		dice: newDice(seed), trace: trace,
		broken: make(map[[2]int]bool), pairs: make(map[pairKey]*pairing),
	}
	w.plan = newPlan(w.dice)
	w.net = network{w: w, holes: make(map[[2]int]bool), dug: make(map[[2]int]time.Duration), lag: w.plan.lag}
	w.dir = directory{w: w, last: make([]uint64, w.plan.hosts)}
	for i := range w.plan.hosts {
		w.hosts = append(w.hosts, &host{index: i, name: fmt.Sprintf("n%d", i+1)})
	}
	return w
}

func (w *world) run() {
	w.tracePlan()
	for _, h := range w.hosts {
		w.start(h)
	}
	w.scheduleFaults()
	w.until(w.plan.safety, nil)
	w.settle()
	w.until(w.now+w.patience(), w.done)
	w.checkDone()
	w.quiet()
	w.tearDown()
	w.tally()
}

// maxSteps is far beyond what any seed needs.
const maxSteps = 1_000_000

// until lets things happen until a time, or until over says so, which is asked
// once per heartbeat.
func (w *world) until(end time.Duration, over func() bool) {
	ask := w.now
	for w.failure == nil && len(w.heap) > 0 && w.heap[0].at <= end {
		if w.step(); w.counts.of[steps] > maxSteps {
			w.fail("there is no end: more than %d steps", maxSteps)
		}
		if over != nil && w.now >= ask {
			if over() {
				return
			}
			ask = w.now + w.plan.interval
		}
	}
	if w.failure == nil {
		w.now = max(w.now, end)
	}
}

// step lets the next thing happen, and looks whether all is well.
func (w *world) step() {
	e := w.pop()
	if n := e.node; n != nil {
		if n.gone {
			return
		}
		if n.paused {
			n.deferred = append(n.deferred, e.do)
			return
		}
	}
	w.counts.of[steps]++
	e.do()
	for i := 0; i < len(w.dirty); i++ {
		p := w.dirty[i]
		p.dirty = false
		if p.node.gone {
			continue
		}
		p.check()
		if p.end != nil {
			p.end.poke()
		}
		for _, s := range p.node.waits {
			s.wake()
		}
	}
	for _, p := range w.dirty {
		if !p.node.gone {
			p.node.checkBudget()
			p.checkPrompt()
			if p.end != nil && p.end.other.peer != nil {
				p.end.other.peer.checkPrompt()
			}
		}
	}
	w.dirty = w.dirty[:0]
}

func (w *world) hostOf(name string) *host {
	for _, h := range w.hosts {
		if h.name == name {
			return h
		}
	}
	panic("sim: no host " + name)
}

// fail notes what is wrong; the first thing counts, and ends the run.
func (w *world) fail(format string, args ...any) {
	if w.failure != nil {
		return
	}
	w.failure = fmt.Errorf("step %d, %v: %w", w.counts.of[steps], w.now, fmt.Errorf(format, args...))
	w.log(nil, "FAILED: %v", w.failure)
}

// think is how long a consumer thinks between messages.
func (w *world) think(plan consumerPlan) time.Duration {
	if w.settling {
		return w.dice.span(0, min(plan.think, time.Millisecond))
	}
	return w.dice.span(0, plan.think)
}
