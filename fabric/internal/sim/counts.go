package sim

import (
	"fmt"
	"strings"
)

// counter names something that is counted over seeds.
type counter int

const (
	steps counter = iota
	messages
	delivered
	packets
	links
	dials
	silences
	expiries
	confirmations
	fenced
	duplicates
	replaced
	placed
	latePackets
	heldInHole
	sendsLost
	recvsLost
	sendsWaited
	sendsAbandoned
	highWaters
	tooLarge
	flushes
	finishes
	resent
	repeated
	lateRecords
	lives
	streams
	stayedDead
	stayedCut
	stayedStalled
	numCounters
)

var counterNames = [numCounters]string{
	"steps", "messages accepted", "messages handled", "packets", "links", "dials", "silent peers given up",
	"resume windows over", "directory asked", "fenced", "duplicate dials refused", "connections replaced",
	"packets read to their place", "packets too late", "packets held in a hole", "producers' ends lost",
	"consumers' ends ended", "Sends that waited", "Sends abandoned", "Sends at the high-water mark", "messages over a peer's maximum", "flushes",
	"producers finished", "messages sent again", "messages dropped as repeated", "late records dropped",
	"lives", "streams", "nodes dead for ever", "pairs without a way for ever", "consumers stalled for ever",
}

// Counts says what happened, of one seed or many.
type Counts struct {
	of         [numCounters]uint64
	tried, hit [numFaults]uint64
}

func (c *Counts) add(what counter, n int) { c.of[what] += uint64(n) }

func (c *Counts) struck(f fault, hit bool) {
	c.tried[f]++
	if hit {
		c.hit[f]++
	}
}

// Add adds what happened elsewhere.
func (c *Counts) Add(o *Counts) {
	for i := range c.of {
		c.of[i] += o.of[i]
	}
	for i := range c.tried {
		c.tried[i] += o.tried[i]
		c.hit[i] += o.hit[i]
	}
}

// Steps is how many events there were.
func (c *Counts) Steps() uint64 { return c.of[steps] }

// String is a table of all counts.
func (c *Counts) String() string {
	var b strings.Builder
	for i, n := range c.of {
		fmt.Fprintf(&b, "%14d %s\n", n, counterNames[i])
	}
	fmt.Fprintf(&b, "%14s %14s\n", "faults", "that hit")
	for i := range c.tried {
		fmt.Fprintf(&b, "%14d %14d %s\n", c.tried[i], c.hit[i], fault(i))
	}
	return b.String()
}
