// Package runner runs topologies: it opens the nodes, lets the producers send
// and the consumers check, applies the faults, and makes the report.
//
// One run goes like this, whatever holds the nodes:
//
//  1. A cluster opens all nodes, each with its part in the exchange of every
//     channel, which opens when all nodes are there (member.go).
//  2. When all are ready they start at one moment, the start of the run, from
//     which all times count.
//  3. Producers send what their load says and finish (sender.go); consumers
//     check until every producer has finished (receiver.go); faults come and go
//     by the clock (timeline.go).
//  4. When all ended, or the deadline passed, each node tells its result; only
//     then nodes close, so that links can be counted while all are there.
//  5. The results become the report (judge.go): what a producer sent to a
//     consumer and that consumer did not see is lost.
//
// embedded.go holds all nodes in this process; process.go starts a process for
// each and talks to it over its standard input and output (child.go).
package runner

import (
	"fmt"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// A Spec is all that one node has to know. It is JSON on the way to a node's
// process.
type Spec struct {
	Node     int                `json:"node"`  // 1-based
	Nodes    int                `json:"nodes"` // in all
	Channels []topology.Channel `json:"channels"`
	Loads    []topology.Load    `json:"loads"`
	Faults   []topology.Fault   `json:"faults"`
	// Harmless counts at the faults' moments and applies none: the run beside
	// which the faults are judged.
	Harmless bool  `json:"harmless,omitempty"`
	Plant    Plant `json:"plant,omitempty"`
	// Directory is the address of the directory; empty where it is in the process.
	Directory string             `json:"directory,omitempty"`
	Heartbeat topology.Heartbeat `json:"heartbeat"`
	// Via is where the node finds peers whose links go through proxies, by name.
	Via map[string]string `json:"via,omitempty"`
}

// A Plant breaks one message on purpose, so that it can be seen that a run
// which loses, repeats, swaps or damages one does fail.
type Plant string

const (
	PlantNothing    Plant = ""
	PlantLost       Plant = "lost"
	PlantDuplicated Plant = "duplicated"
	PlantReordered  Plant = "reordered"
	PlantCorrupted  Plant = "corrupted"
)

// Plants are those that are known.
var Plants = []Plant{PlantLost, PlantDuplicated, PlantReordered, PlantCorrupted}

// plantedAt is the number of the message that is broken, of the stream from the
// first producer of the first node to the first consumer of the last one.
const plantedAt = 1

// specs divides a topology among its nodes.
func specs(t *topology.Topology, plant Plant, harmless bool) []Spec {
	all := make([]Spec, t.Nodes)
	for i := range all {
		all[i] = Spec{Node: i + 1, Nodes: t.Nodes, Channels: t.Channels, Loads: t.Loads, Faults: t.Faults, Plant: plant, Harmless: harmless, Heartbeat: t.Heartbeat}
	}
	return all
}

// number counts the workers of a channel over all nodes: node is 1-based,
// index 0-based.
func number(node, index, perNode int) int { return (node-1)*perNode + index }

// A Result is what one node has to tell at its end.
type Result struct {
	Node      int              `json:"node"`
	Producers []ProducerResult `json:"producers"`
	Consumers []ConsumerResult `json:"consumers"`
	Peers     []string         `json:"peers"`         // nodes it is linked with
	Memory    uint64           `json:"memory"`        // peak of its process, in bytes
	Stream    int64            `json:"stream_memory"` // most that one stream held at its producer's end
	Problems  []string         `json:"problems,omitempty"`
}

// A ProducerResult is what one producer sent.
type ProducerResult struct {
	Channel string   `json:"channel"`
	Number  int      `json:"number"`
	Sent    []uint64 `json:"sent"` // by consumer number
	// OthersUntil is when it had nothing left to send but to consumers that a
	// fault stalls, in seconds of the run.
	OthersUntil float64 `json:"others_until"`
}

// A ConsumerResult is what one consumer saw.
type ConsumerResult struct {
	Channel string              `json:"channel"`
	Number  int                 `json:"number"`
	Counts  check.Counts        `json:"counts"`
	Streams []check.StreamState `json:"streams"` // by producer number
	Ended   float64             `json:"ended"`   // in seconds of the run
	Stalled float64             `json:"stalled"` // for so many seconds
	Latency latency             `json:"latency"`
	// Windows says how many messages it had at the start and at the end of each
	// fault.
	Windows [][2]uint64 `json:"windows,omitempty"`
}

func workerName(channel string, n, perNode int) string {
	return fmt.Sprintf("%s/%s/%d", channel, topology.NodeName(n/perNode+1), n%perNode)
}
