// Package topology reads the file that describes a run: the shape (nodes and
// channels), the load, the faults and what is expected, all in one.
//
// A file is strict YAML. It is read in two steps: node.go and problem.go turn
// the YAML into fields that know where they stand, and build.go, load.go and
// fault.go turn those into a Topology and check one part against another. All
// problems of a file are told at once, each with its line and what to do.
package topology

import (
	"fmt"
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
}

// A Channel is one flow that producers and consumers meet on.
type Channel struct {
	Name                  string
	Pattern               Pattern
	Producers             int        // per node
	Consumers             int        // per node
	HighWaterMark         units.Size // of one stream; 0 is the fabric's default
	HighWaterMarkMessages int64      // of one stream; 0 is the fabric's default
}

// A Pattern is how a channel's producers and consumers meet.
type Pattern string

// Exchange is all to all: every producer has a stream to every consumer.
const Exchange Pattern = "exchange"

// Patterns are those that are known.
var Patterns = []Pattern{Exchange}

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
)

// Spreads are those that are known.
var Spreads = []Spread{Addressed, Keyed, All}

// A Fault is what goes wrong on purpose. Kind says which of the fields below
// its times have a meaning.
type Fault struct {
	Kind FaultKind
	At   time.Duration // after the start of the load
	For  time.Duration

	Consumer Consumer // Stall: it does not read meanwhile
}

// FaultKind names a fault as the file does.
type FaultKind string

// Stall keeps one consumer from reading.
const Stall FaultKind = "stall"

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

// Streams is how many flows from one producer to one consumer a channel has on
// so many nodes, those within a node included.
func (c Channel) Streams(nodes int) int {
	return nodes * c.Producers * nodes * c.Consumers
}

// ProcessPairs is the number of connections that one per pair of producer
// process and consumer process would take: over all channels, all producers
// times all consumers. It is the sum of what DESIGN section 1 counts at one
// host's consumers, m·(m·n), over all n hosts.
func (t *Topology) ProcessPairs() int {
	pairs := 0
	for _, c := range t.Channels {
		pairs += c.Streams(t.Nodes)
	}
	return pairs
}
