// Package topology reads the file that describes a run: the shape (nodes and
// channels), the load, the faults and what is expected, all in one.
//
// A file is strict YAML. It is read in two steps: node.go and problem.go turn
// the YAML into fields that know where they stand, and build.go, load.go,
// fault.go and target.go turn those into a Topology and check one part against another. All
// problems of a file are told at once, each with its line and what to do.
package topology

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/expect"
	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// Version is the value of the field zfab that this package reads.
const Version = "v1"

// Limits keep a typing mistake from asking for more than one machine can hold.
const (
	MaxFile    = 1 << 20 // bytes of a topology file
	MaxNodes   = 1000
	MaxWorkers = 1024 // producers, and consumers, of one channel on one node
	MaxStreams = 4 << 20
	MaxMessage = 64 * units.MiB // the fabric's own default maximum
	MinMessage = 32 * units.Byte
	MaxProxied = 64 // nodes with faults of all or random links: a proxy listens for each ordered pair
	MaxTimes   = 1 << 20
	MaxDelay   = 10 * time.Second
)

// A Topology is a file that has been read and checked.
type Topology struct {
	Name     string
	Nodes    int // named n1, n2 and so on
	Channels []Channel
	Loads    []Load // at most one per channel
	Faults   []Fault
	Expect   []expect.Expression
	// SideBySide runs the same beside itself without the faults, at the same
	// time, so that what a fault costs can be measured.
	SideBySide bool
	// Seed makes what faults pick at random the same in every run.
	Seed uint64
	// Heartbeat is how nodes look after their links; zeros are the fabric's defaults.
	Heartbeat Heartbeat

	file string
}

// A Heartbeat is what a node's configuration says of it.
type Heartbeat struct {
	Interval, Timeout time.Duration
}

// A Channel is one flow that producers and consumers meet on.
type Channel struct {
	Name                  string
	Pattern               Pattern
	Producers             int        // per node
	Consumers             int        // per node; see ConsumersAt
	HighWaterMark         units.Size // of one stream, or what the pattern says; 0 is the default of fabric, or of the pattern
	HighWaterMarkMessages int64      // of the same
	// InFlight is how much a worker has at a time, where the pattern says so; 0 is the
	// pattern's default.
	InFlight int
	// Patience is how long a consumer's node may be without connection until its jobs go
	// to others, or calls to it fail; 0 is two seconds in a pipeline, and for calls a
	// minute.
	Patience time.Duration
	// Keys is how many keys each producer has, where messages go by key; 0 is 16.
	Keys int
	// Round is how many messages of each producer are a round, and OpenRounds how many
	// rounds may be open; 0 is 100 and 2.
	Round, OpenRounds int
}

// A Load is what the producers of one channel send.
type Load struct {
	Channel  string
	Messages int           // per producer; 0 where Duration says how long
	Duration time.Duration // 0 where Messages says how many
	Size     units.Size    // of every message
	Rate     float64       // messages per second per producer, evenly paced; 0 is as fast as it goes
	Spread   Spread
}

// A Spread is how a producer divides its messages among the consumers.
type Spread string

const (
	Addressed Spread = "addressed" // each consumer in turn, one that is at its high-water mark passed over
	Keyed     Spread = "keyed"     // to the owner of the message's key
	All       Spread = "all"       // every message to all consumers
	Any       Spread = "any"       // to whichever consumer takes it
)

// Spreads are those that are known.
var Spreads = []Spread{Addressed, Keyed, All, Any}

// A Fault is what goes wrong on purpose. Kind says which of the fields below
// its times have a meaning.
type Fault struct {
	Kind   FaultKind
	Target string        // as the file has it
	At     time.Duration // after the start of the load
	// For and ForMost bound how long it lasts; they are equal where the file
	// gives no range. 0: to the end of the run, or nothing that lasts.
	For, ForMost time.Duration
	Every        time.Duration // 0: it comes once
	Until        time.Duration // after the start of the load; 0: to the load's end, or Times
	Times        int           // 0: no bound

	Consumer       Consumer      // Stall: it does not read meanwhile
	Link           Link          // Cut, Blackhole, Delay, Rate
	Amount         time.Duration // Delay: on the way in one direction
	BytesPerSecond units.Size    // Rate: in one direction
	Node           int           // Kill, Pause: 1-based; 0: each occurrence picks one
	RestartAfter   time.Duration // Kill

	place Problem // of the target
}

// String is the fault as the file names it, like `cut n1-n2`.
func (f Fault) String() string { return string(f.Kind) + " " + f.Target }

// Window is the time from the first occurrence to the end of the last one; false
// if only the end of the load says when that is.
func (f Fault) Window() (from, to time.Duration, bounded bool) {
	switch {
	case f.Lasting():
		return f.At, 0, false
	case f.Every == 0:
		return f.At, f.At + f.ForMost, true
	case f.Until > 0:
		return f.At, f.Until, true
	case f.Times > 0:
		return f.At, f.At + time.Duration(f.Times)*f.Every, true
	}
	return f.At, 0, false
}

// FaultKind names a fault as the file does.
type FaultKind string

const (
	Stall     FaultKind = "stall"     // one consumer does not read
	Cut       FaultKind = "cut"       // a link's connection is reset in the middle of a record
	Blackhole FaultKind = "blackhole" // a link carries nothing, one way or both, and nobody is told
	Delay     FaultKind = "delay"     // a link takes longer
	Rate      FaultKind = "rate"      // a link carries so many bytes per second
	Kill      FaultKind = "kill"      // a node's process is killed (SIGKILL), and another one started
	Pause     FaultKind = "pause"     // a node's process is stopped and continued (SIGSTOP, SIGCONT)
)

// OfNetwork reports whether the fault is one of links.
func (k FaultKind) OfNetwork() bool {
	return k == Cut || k == Blackhole || k == Delay || k == Rate
}

// OfProcess reports whether the fault is one of a node's process.
func (k FaultKind) OfProcess() bool { return k == Kill || k == Pause }

// A Link is the pair of nodes whose link a fault is about, or one direction of it.
type Link struct {
	From, To int // 1-based; 0 with Any and All
	OneWay   bool
	Any      bool // each occurrence picks one
	All      bool
}

// Has reports whether the topology has a fault of which is holds.
func (t *Topology) Has(is func(FaultKind) bool) bool {
	return slices.ContainsFunc(t.Faults, func(f Fault) bool { return is(f.Kind) })
}

// Lasting reports whether the fault is a condition of the whole run rather than
// something that comes and goes.
func (f Fault) Lasting() bool { return (f.Kind == Delay || f.Kind == Rate) && f.For == 0 }

// faultsTakeTurns reports whether there is a time without faults of links and
// processes between two of them, and each of them has an end.
func (t *Topology) faultsTakeTurns() bool {
	var faults []Fault
	for _, f := range t.Faults {
		if f.Kind != Stall && !f.Lasting() {
			faults = append(faults, f)
		}
	}
	slices.SortFunc(faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	last, apart := time.Duration(0), false
	for i, f := range faults {
		from, to, bounded := f.Window()
		if !bounded {
			return false
		}
		apart = apart || i > 0 && from > last
		last = max(last, to)
	}
	return apart
}

// Refuse is the error for a fault that is well formed and cannot be in this run.
func (t *Topology) Refuse(f Fault, format string, args ...any) error {
	f.place.Message = fmt.Sprintf(format, args...)
	return &Error{File: t.file, Problems: []Problem{f.place}}
}

// A Consumer names one consumer of a channel.
type Consumer struct {
	Channel string
	Node    int // 1-based, as in the node's name
	Index   int // 0-based
}

// String is channel/node/index, like scores/n3/1.
func (c Consumer) String() string {
	return fmt.Sprintf("%s/%s/%d", c.Channel, NodeName(c.Node), c.Index)
}

// NodeName is the name of the number'th node, counted from 1.
func NodeName(number int) string { return fmt.Sprintf("n%d", number) }

// Channel finds a channel by name.
func (t *Topology) Channel(name string) (Channel, bool) {
	for _, c := range t.Channels {
		if c.Name == name {
			return c, true
		}
	}
	return Channel{}, false
}

// Load finds the load of a channel; a channel without one is silent.
func (t *Topology) Load(channel string) (Load, bool) {
	for _, l := range t.Loads {
		if l.Channel == channel {
			return l, true
		}
	}
	return Load{}, false
}

// Streams is how many flows of messages a channel has on so many nodes, those within a
// node included: from one producer to one consumer or, where one copy goes to each
// node, from one node to one node. Those of acknowledgements and answers do not count.
func (c Channel) Streams(nodes int) int {
	if traitsOf[c.Pattern].copyPerNode {
		return nodes * nodes
	}
	return c.pairs(nodes)
}

// ConsumersAt is how many consumers the number'th node has, counted from 1.
func (c Channel) ConsumersAt(node int) int {
	if traitsOf[c.Pattern].single && node > 1 {
		return 0
	}
	return c.Consumers
}

// AllConsumers is how many there are on so many nodes.
func (c Channel) AllConsumers(nodes int) int {
	if traitsOf[c.Pattern].single {
		return c.Consumers
	}
	return nodes * c.Consumers
}

// pairs is how many pairs of a producer and a consumer there are.
func (c Channel) pairs(nodes int) int { return nodes * c.Producers * c.AllConsumers(nodes) }

// ProcessPairs is the number of connections that one per pair of producer
// process and consumer process would take: over all channels, all producers
// times all consumers. It is the sum of what DESIGN section 1 counts at one
// host's consumers, m·(m·n), over all n hosts.
func (t *Topology) ProcessPairs() int {
	pairs := 0
	for _, c := range t.Channels {
		pairs += c.pairs(t.Nodes)
	}
	return pairs
}
