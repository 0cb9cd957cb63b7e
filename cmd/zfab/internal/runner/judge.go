package runner

import (
	"fmt"
	"slices"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// judge makes the report of the first run; a second one is the same without
// faults, to compare with.
func judge(runs []*oneRun, kind Kind) *report.Report {
	main := runs[0]
	r := &report.Report{
		Name: main.topology.Name, Runner: string(kind),
		Links:    report.Links{Open: openLinks(main.results), ProcessPairs: main.topology.ProcessPairs(), Sockets: main.sockets},
		Problems: append([]string{}, main.problems...),
		Doubts:   []string{},
		Channels: []report.Channel{}, Expectations: []report.Expectation{},
	}
	judgeChannels(main, r)
	for _, n := range main.results {
		r.Problems = append(r.Problems, n.Problems...)
		r.Errors += len(n.Problems)
		r.Memory.PeakBytes += n.Memory
		r.Memory.StreamBytes = max(r.Memory.StreamBytes, n.Stream)
	}
	if len(r.Problems) > maxProblems {
		more := len(r.Problems) - maxProblems
		r.Problems = append(r.Problems[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	if s := main.sockets; s != nil && *s != r.Links.Open {
		r.Problems = append(r.Problems, fmt.Sprintf("the nodes tell of %d links, the operating system of %d connections between them", r.Links.Open, *s))
	}
	judgeStalls(runs, r)
	judgeFaults(main, r)
	if len(runs) > 1 {
		beside := &report.Report{}
		judgeChannels(runs[1], beside)
		compareThroughput(r.Throughput, beside.Throughput, r.Faults)
	}
	for _, e := range main.topology.Expect {
		r.Expectations = append(r.Expectations, e.Judge(r))
	}
	r.Judge()
	return r
}

// judgeChannels fills in what the report says of channels, and of all together.
func judgeChannels(run *oneRun, r *report.Report) {
	overall := newLatency()
	bytes := uint64(0)
	for _, c := range run.topology.Channels {
		channel, seconds, share := judgeChannel(run, c)
		bytes += share.bytes
		overall.merge(share.latency)
		r.Seconds = max(r.Seconds, seconds)
		r.Messages.Add(channel.Messages)
		r.Streams += channel.Streams
		r.Channels = append(r.Channels, channel)
	}
	r.Throughput = throughput(r.Messages.Received, bytes, r.Seconds)
	r.Latency = overall.report()
}

// maxProblems bounds the report: when a node dies, every worker has a problem.
const maxProblems = 20

// openLinks counts the pairs of different nodes of which at least one tells of
// a link.
func openLinks(results []Result) int {
	pairs := make(map[[2]string]struct{})
	for _, n := range results {
		for _, peer := range n.Peers {
			pair := [2]string{topology.NodeName(n.Node), peer}
			slices.Sort(pair[:])
			pairs[pair] = struct{}{}
		}
	}
	return len(pairs)
}

// A share is what one channel adds to the whole.
type share struct {
	bytes   uint64
	latency latency
}

func judgeChannel(run *oneRun, c topology.Channel) (report.Channel, float64, share) {
	nodes := run.topology.Nodes
	out := report.Channel{Name: c.Name, Pattern: string(c.Pattern), Streams: c.Streams(nodes)}
	sent := make([]ProducerResult, nodes*c.Producers)
	seen := make([]ConsumerResult, nodes*c.Consumers)
	for _, n := range run.results {
		for _, p := range n.Producers {
			if p.Channel == c.Name {
				sent[p.Number] = p
			}
		}
		for _, k := range n.Consumers {
			if k.Channel == c.Name {
				seen[k.Number] = k
			}
		}
	}
	seconds, all := 0.0, share{latency: newLatency()}
	for i, k := range seen {
		consumer := report.Consumer{
			Consumer: workerName(c.Name, i, c.Consumers), Received: k.Counts.Received, Stalled: k.Stalled > 0,
			Messages: judgeConsumer(i, k, sent),
		}
		out.Consumers = append(out.Consumers, consumer)
		out.Messages.Add(consumer.Messages)
		seconds = max(seconds, k.Ended)
		all.bytes += k.Counts.Bytes
		all.latency.merge(k.Latency)
	}
	out.Throughput = throughput(out.Messages.Received, all.bytes, seconds)
	out.Latency = all.latency.report()
	return out, seconds, all
}

// judgeConsumer holds what a consumer saw against what the producers sent to
// it. A consumer that told nothing lost all of it.
func judgeConsumer(number int, k ConsumerResult, sent []ProducerResult) report.Messages {
	m := report.Messages{
		Received: k.Counts.Received, Duplicated: k.Counts.Duplicated, Reordered: k.Counts.Reordered, Corrupted: k.Counts.Corrupted,
	}
	for i, p := range sent {
		if number >= len(p.Sent) {
			continue // no load, or no result of the producer's node
		}
		m.Sent += p.Sent[number]
		if i < len(k.Streams) {
			m.Lost += k.Streams[i].Lost(p.Sent[number])
		} else {
			m.Lost += p.Sent[number]
		}
	}
	return m
}

func throughput(messages, bytes uint64, seconds float64) report.Throughput {
	if seconds <= 0 {
		return report.Throughput{}
	}
	return report.Throughput{MessagesPerSecond: float64(messages) / seconds, BytesPerSecond: float64(bytes) / seconds}
}
