package sim

import "time"

// fault is something that goes wrong.
type fault int

const (
	faultCut       fault = iota // both ends are told, and any suffix either way is lost
	faultHalfOpen               // one end is told; the other finds out
	faultHole                   // nothing passes one way, for a while
	faultBlackHole              // nor the other
	faultSlow                   // what is under way takes long: it may be late
	faultPause                  // a node does nothing, for a while
	faultKill                   // a node's process dies, and starts anew
	faultCrash                  // a node's machine dies: nobody is told
	faultZombie                 // a node's name is given to a new life while it is only paused
	faultDial                   // a node dials although it has a link
	faultBurst                  // a node's clock ticks many times at once
	faultSkip                   // or not for a while
	faultStall                  // a consumer does not read, for a while
	faultClose                  // a consumer closes, and is made again
	faultDrain                  // a consumer drains, and is made again
	faultFinish                 // a producer finishes early, and is made again
	faultLeave                  // a node leaves in order, and starts anew
	faultSilence                // the directory does not answer, for a while
	numFaults
)

var faultNames = [numFaults]string{
	"cut", "half-open", "hole", "black hole", "slow", "pause", "kill", "crash", "zombie", "double dial",
	"tick burst", "tick gap", "stall", "close", "drain", "finish", "leave", "directory silent",
}

func (f fault) String() string { return faultNames[f] }

// planFaults decides which faults there will be, and how often.
func (pl *plan) planFaults(d dice) {
	if d.percent(10) {
		return
	}
	pl.faultWait = d.span(50*time.Millisecond, 2*time.Second)
	for f := range pl.faults {
		if d.percent(40) {
			pl.faults[f] = d.from(1, 10)
		}
	}
	if d.percent(60) {
		pl.faults[faultCut] = 10
	}
}

// scheduleFaults has one fault after another happen, until the safety phase is
// over.
func (w *world) scheduleFaults() {
	sum := 0
	for _, weight := range w.plan.faults {
		sum += weight
	}
	if sum == 0 || w.plan.faultWait == 0 {
		return
	}
	var next func()
	next = func() {
		if w.settling {
			return
		}
		f, draw := fault(0), w.dice.IntN(sum)
		for draw -= w.plan.faults[f]; draw >= 0; draw -= w.plan.faults[f] {
			f++
		}
		if w.dice.percent(50) {
			w.aims = append(w.aims, f)
		} else if n := w.someNode(); n != nil {
			w.strike(f, n, w.someConn(nil))
		}
		w.at(w.now+w.dice.span(0, 2*w.plan.faultWait), nil, next)
	}
	w.at(w.dice.span(0, 2*w.plan.faultWait), nil, next)
}

// aimed lets a fault that is aimed happen to an end that has just written
// messages, or to the other one, before they have arrived.
func (w *world) aimed(e *end) {
	if len(w.aims) == 0 || w.settling || w.dice.percent(50) {
		return
	}
	f := w.aims[0]
	w.aims = w.aims[1:]
	n := e.node
	if f != faultFinish && (f == faultStall || f == faultClose || f == faultDrain || w.dice.percent(50)) {
		n = e.other.node
	}
	w.at(w.now+w.dice.span(0, w.net.lag[1]), nil, func() {
		if !n.gone && !n.leaving && !w.settling {
			w.strike(f, n, e.conn)
		}
	})
}
