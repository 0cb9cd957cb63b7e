// Package runner runs topologies: it opens the nodes, lets the producers send
// and the consumers check, applies the faults, and makes the report.
//
// One run goes like this, whatever holds the nodes:
//
//  1. A cluster opens all nodes, each with its part in every channel, which opens
//     when all nodes are there (member.go, open.go).
//  2. When all are ready they start at one moment, the start of the run, from
//     which all times count.
//  3. Producers send what their load says and finish (sender.go); consumers
//     check until every producer has finished (receiver.go); faults come and go
//     by the clock: stalls inside of each node (timeline.go), all others from
//     outside (injector.go).
//  4. When all ended, or the deadline passed, each node tells its result; only
//     then nodes close, so that links can be counted while all are there.
//  5. The results become the report (judge.go): what a producer sent to a
//     consumer and that consumer did not see is lost.
//
// What is different between patterns is how a node's part in a channel is opened, how
// its producers send (way.go), and how its consumers receive; each pattern has a file.
//
// # What counts
//
// In exchanges, rounds, pubsub, broadcasts and gatherings every consumer checks the
// streams that producers have to it (check.Checker); in rounds a message that came in
// another round than its own is reordered, too. Where consumers share what is sent, each
// tells which numbers it has (check.Sharer), and what none has is lost:
//
//   - pipeline: a job that came to two consumers, or twice to one, is duplicated unless
//     it was marked as redelivered, which counts by itself. There is no order. That
//     every job was settled once is the pusher's word, and else a problem;
//   - request: a call without an answer is lost, and unanswered if the call said so with
//     an error. An answer that is damaged, or another call's, is corrupted. A request
//     that came to two servers, or twice to one, is duplicated, and so is a second
//     answer. Latency is from the call's time to its answer;
//   - survey: a question counts once for each respondent, of which each is to answer it.
//     What counts as what is the same as with a request, but that the answer has to
//     be that respondent's, and that a question is duplicated that came to one twice;
//   - events: as in a pipeline, but that the events of each key have an order at the
//     member that has them. One that is marked as redelivered may go back, as all
//     behind it come again, too; one that is not marked may not.
//
// # Kills
//
// A node's process that is killed takes its results with it. So in a run with
// kills every node tells its results so far again and again (progress.go), and
// the last word of a killed life counts as its result. The next life of the node
// begins with producers and a checker of its own (lives.go); stamps name the life
// and which of its streams to that consumer it is (check.Epoch). The load ends
// when its time is over, no node is dead, and every producer's last life has
// reached every consumer's last life: a stream that does not come back ends the
// run at its timeout, and that is a problem.
//
// Then each stream is accounted for (account.go). Nothing may come twice, out of
// order or behind a gap, whoever was killed. Beyond that, of what Send accepted
//
//   - all must have come where the stream never ended;
//   - where it ended at its producer with a *fabric.PeerLostError, what that
//     names as acknowledged must have come, and the rest up to what was accepted
//     must be named as in doubt, exactly. The end must have a cause: streams to a
//     consumer end no more often than its node was killed;
//   - of a killed producer, all must have come of which its node knew that it was
//     acknowledged. The rest was never promised: it is counted as unpromised;
//   - what must have come to a killed consumer's node may have died there before
//     the consumer could say that it has it: that is counted as buried.
//
// embedded.go holds all nodes in this process; process.go starts a process for
// each and talks to it over its standard input and output (child.go).
package runner

import (
	"fmt"
	"slices"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// A Spec is all that one node has to know. It is JSON on the way to a node's
// process.
type Spec struct {
	Node     int                `json:"node"`           // 1-based
	Life     int                `json:"life,omitempty"` // of the node, from 0
	Nodes    int                `json:"nodes"`          // in all
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
// which loses, repeats, swaps or damages one, or answers it wrongly, does fail.
type Plant string

const (
	PlantNothing     Plant = ""
	PlantLost        Plant = "lost"
	PlantDuplicated  Plant = "duplicated"
	PlantReordered   Plant = "reordered"
	PlantCorrupted   Plant = "corrupted"
	PlantMisanswered Plant = "misanswered"
)

// Plants are those that are known.
var Plants = []Plant{PlantLost, PlantDuplicated, PlantReordered, PlantCorrupted, PlantMisanswered}

// plantable says why a break would not be seen in a run, whatever is done about it; nil
// if it would.
func plantable(t *topology.Topology, p Plant) error {
	loaded := func(is func(topology.Pattern) bool) bool {
		return slices.ContainsFunc(t.Loads, func(l topology.Load) bool {
			c, _ := t.Channel(l.Channel)
			return is(c.Pattern)
		})
	}
	switch {
	case p == PlantReordered && !loaded(topology.Pattern.Ordered):
		return fmt.Errorf("%s cannot be planted: no channel with a load has an order", p)
	case p == PlantMisanswered && !loaded(topology.Pattern.Answers):
		return fmt.Errorf("%s cannot be planted: no channel with a load has answers", p)
	}
	return nil
}

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

// kills reports whether nodes are killed in this run.
func (s *Spec) kills() bool {
	return slices.ContainsFunc(s.Faults, func(f topology.Fault) bool { return f.Kind == topology.Kill })
}

// number counts the workers of a channel over all nodes: node is 1-based,
// index 0-based.
func number(node, index, perNode int) int { return (node-1)*perNode + index }

// A Result is what one life of a node has to tell at its end.
type Result struct {
	Node      int              `json:"node"`
	Life      int              `json:"life,omitempty"`
	Producers []ProducerResult `json:"producers"`
	Consumers []ConsumerResult `json:"consumers"`
	Peers     []string         `json:"peers"`         // nodes it is linked with
	Memory    uint64           `json:"memory"`        // peak of its process, in bytes
	Stream    int64            `json:"stream_memory"` // most that one stream held at its producer's end
	Problems  []string         `json:"problems,omitempty"`
	Errors    int              `json:"errors,omitempty"` // that are no problems: peers that were killed

	span span // of the life; the parent's
}

// A span is when a life began and, if it was killed, when it ended and the next
// one began.
type span struct {
	began, ended, renewed time.Duration // of the run
	killed                bool
}

// A ProducerResult is what one producer sent.
type ProducerResult struct {
	Channel string   `json:"channel"`
	Number  int      `json:"number"`
	Sent    []uint64 `json:"sent,omitempty"` // by consumer number
	// Flows are what was sent to whichever consumer takes it, by key where messages have
	// keys; see check.Sharer.
	Flows   []uint64       `json:"flows,omitempty"`
	Answers *AnswersResult `json:"answers,omitempty"` // where messages are questions
	// Streams are those of an open exchange, which may have several to one consumer.
	Streams []SentStream `json:"streams,omitempty"`
	// OthersUntil is when it had nothing left to send but to consumers that a
	// fault stalls, in seconds of the run.
	OthersUntil float64 `json:"others_until"`
}

// A SentStream is one stream as its producer knows it.
type SentStream struct {
	Consumer     int         `json:"consumer"` // its number
	Epoch        check.Epoch `json:"epoch"`
	Accepted     uint64      `json:"accepted"` // messages
	Acknowledged uint64      `json:"acknowledged"`
	// Over says that the stream ended before the load did, and InDoubtTo what its
	// *fabric.PeerLostError said; Accepted where nothing is in doubt.
	Over      bool   `json:"over,omitempty"`
	InDoubtTo uint64 `json:"in_doubt_to,omitempty"`
}

// A ConsumerResult is what one consumer saw.
type ConsumerResult struct {
	Channel string              `json:"channel"`
	Number  int                 `json:"number"`
	Counts  check.Counts        `json:"counts"`
	Streams []check.StreamState `json:"streams"`
	Shares  []check.Share       `json:"shares,omitempty"` // where consumers share what is sent
	Ended   float64             `json:"ended"`            // in seconds of the run
	Stalled float64             `json:"stalled"`          // for so many seconds
	Latency latency             `json:"latency"`
	// Windows says how many messages it had at the start and at the end of each
	// fault.
	Windows [][2]uint64 `json:"windows,omitempty"`
}

func workerName(channel string, n, perNode int) string {
	return fmt.Sprintf("%s/%s/%d", channel, topology.NodeName(n/perNode+1), n%perNode)
}
