package fabric

import (
	"slices"
	"time"

	"github.com/zfab/zfab/fabric/internal/link"
)

// Stats is a node's state at one moment. Counts run from the node's, the
// link's or the stream's begin.
type Stats struct {
	Node         string
	Incarnation  uint64
	Links        []LinkStats   // to other nodes, by name
	Streams      []StreamStats // including those inside the node
	Workers      []WorkerStats // that are attached, by name
	Circuits     []CircuitStats
	MemoryLent   int64 // bytes of room that consumers have lent
	MemoryBudget int64 // bytes
}

// LinkStats is one link.
type LinkStats struct {
	Peer        string
	Up          bool
	Connections uint64 // that it had, the present one included
	PacketsIn   uint64
	Writes      uint64 // each of one packet or more
	BytesIn     uint64 // of packets
	BytesOut    uint64
	States      uint64 // state records sent: acknowledgements and credit
	Backlogs    uint64 // backlog records sent
	Duplicates  uint64 // messages that came twice, and were dropped
	Late        uint64 // records for streams that were gone
	Resent      uint64 // messages sent again after a reconnect
}

// WorkerStats is an attached worker.
type WorkerStats struct {
	Name        string
	Incarnation uint64
	Circuits    int // that its connection carries
	BytesIn     uint64
	BytesOut    uint64
}

// CircuitStats is a circuit as one link sees it that carries it: one that a node
// passes on is on two links.
type CircuitStats struct {
	Link     string // the node or worker at the link's other end
	From, To string // who has called whom
	Via      string // by way of which node
	Open     bool   // from end to end
	Sent     uint64 // bytes over this link, 64 for each packet included
	Received uint64
	Queued   int64 // bytes that wait to be sent
}

// StreamStats is one stream as one of its ends sees it.
type StreamStats struct {
	Peer         string
	Channel      string
	Consumer     int    // the consumer's index at its node
	Receiving    bool   // this node has the consumer's end
	Depth        uint64 // messages held, as far as this end knows
	DepthBytes   uint64
	Limit        uint64 // messages that may be sent in all, by the consumer's word
	LimitBytes   uint64
	Messages     uint64 // accepted, or received
	Bytes        uint64
	Acknowledged uint64        // messages stored by the consumer's end, as far as this end knows; sending end
	Settled      uint64        // messages handled by the consumer, as far as this end knows
	Window       uint64        // bytes of room lent; receiving end
	Blocked      time.Duration // that Sends have waited at the high-water mark in all
	BlockedSends int           // Sends that wait now
}

// Stats returns the node's state. It takes each link's lock once; a call per
// second costs nothing worth mentioning.
func (n *Node) Stats() Stats {
	n.mu.Lock()
	links := n.allLinks()
	n.mu.Unlock()
	st := Stats{
		Node: n.cfg.Name, Incarnation: n.incarnation,
		MemoryLent: n.links.Budget.Lent(), MemoryBudget: n.links.Budget.Total(),
	}
	for _, a := range n.workers.all() {
		_, c := a.link.Stats(nil)
		before := len(st.Circuits)
		st.Circuits = circuitStats(st.Circuits, a.link)
		st.Workers = append(st.Workers, WorkerStats{a.name, a.incarnation, len(st.Circuits) - before, c.BytesIn, c.BytesOut})
	}
	if l := n.trunk.current(); l != nil {
		st.Circuits = circuitStats(st.Circuits, l)
	}
	var streams []link.StreamStats
	for _, l := range links {
		var c link.Counters
		streams, c = l.Stats(streams)
		if l.Peer() == n.cfg.Name {
			continue
		}
		st.Circuits = circuitStats(st.Circuits, l)
		st.Links = append(st.Links, LinkStats{
			Peer: l.Peer(), Up: l.Up(), Connections: c.Connections,
			PacketsIn: c.PacketsIn, Writes: c.PacketsOut, BytesIn: c.BytesIn, BytesOut: c.BytesOut,
			States: c.States, Backlogs: c.Backlogs, Duplicates: c.Duplicates, Late: c.Late, Resent: c.Resent,
		})
	}
	for i := range streams {
		s := &streams[i]
		out := StreamStats{
			Peer: s.Peer, Channel: s.Channel, Consumer: s.Index, Receiving: s.Receiving,
			Depth: s.Depth(), Limit: s.Limit, LimitBytes: s.LimitBytes,
			Messages: s.Accepted, Bytes: s.AcceptedBytes, DepthBytes: s.AcceptedBytes - s.ConsumedBytes,
			Acknowledged: s.Acknowledged, Settled: s.Consumed,
			Window: s.Window, Blocked: s.Blocked, BlockedSends: s.Waiting,
		}
		if s.Receiving {
			out.Messages, out.Bytes, out.DepthBytes = s.Received, s.ReceivedBytes, s.ReceivedBytes-s.ConsumedBytes
		}
		st.Streams = append(st.Streams, out)
	}
	slices.SortFunc(st.Links, func(a, b LinkStats) int { return compareAddress(Address{Node: a.Peer}, Address{Node: b.Peer}) })
	return st
}

// circuitStats appends the circuits that l carries.
func circuitStats(list []CircuitStats, l *link.Link) []CircuitStats {
	for _, v := range l.CircuitViews() {
		list = append(list, CircuitStats{
			Link: l.Peer(), From: v.From, To: v.To, Via: v.Via, Open: v.Open,
			Sent: v.Sent, Received: v.Received, Queued: int64(v.Queued),
		})
	}
	return list
}
