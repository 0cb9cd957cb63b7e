package runner

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
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
		Problems: []string{},
		Doubts:   []string{},
		Channels: []report.Channel{}, Expectations: []report.Expectation{},
	}
	judgeChannels(main, r)
	r.Problems = append(r.Problems, main.problems...)
	for _, n := range main.results {
		r.Problems = append(r.Problems, n.Problems...)
		r.Errors += len(n.Problems) + n.Errors
		r.Memory.PeakBytes += n.Memory
		r.Memory.StreamBytes = max(r.Memory.StreamBytes, n.Stream)
	}
	if len(r.Problems) > maxProblems {
		more := len(r.Problems) - maxProblems
		r.Problems = append(r.Problems[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	if s := main.sockets; s != nil && *s != r.Links.Open && !breaksLinks(main.topology.Faults) {
		r.Problems = append(r.Problems, fmt.Sprintf("the nodes tell of %d links, the operating system of %d connections between them", r.Links.Open, *s))
	}
	judgeStalls(runs, r)
	judgeFaults(main, r)
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
	out := report.Channel{Name: c.Name, Pattern: string(c.Pattern), Streams: c.Streams(run.topology.Nodes)}
	seen := seenBy(run, c)
	sent := producersOf(run, c)
	messages, common := judgeMessages(run, c, sent, seen)
	out.Messages.Add(common)
	seconds, all := 0.0, share{latency: newLatency()}
	for _, p := range sent {
		if p.Answers != nil {
			all.latency.merge(p.Answers.Latency)
			out.FirstError = cmp.Or(out.FirstError, p.Answers.First)
		}
	}
	for i, k := range seen {
		m := messages[i]
		m.Received, m.Duplicated, m.Reordered, m.Corrupted = k.Counts.Received, k.Counts.Duplicated, k.Counts.Reordered, k.Counts.Corrupted
		m.Redelivered = k.Counts.Redelivered
		out.Consumers = append(out.Consumers, report.Consumer{
			Consumer: workerName(c.Name, i, c.Consumers), Received: k.Counts.Received, Stalled: k.Stalled > 0, Messages: m,
		})
		out.Messages.Add(m)
		seconds = max(seconds, k.Ended)
		all.bytes += k.Counts.Bytes
		all.latency.merge(k.Latency)
	}
	out.Throughput = throughput(out.Messages.Received, all.bytes, seconds)
	out.Latency = all.latency.report()
	return out, seconds, all
}

// seenBy is what the consumers of a channel saw, all lives of each together.
func seenBy(run *oneRun, c topology.Channel) []ConsumerResult {
	seen := make([]ConsumerResult, c.AllConsumers(run.topology.Nodes))
	for _, n := range run.results {
		for _, k := range n.Consumers {
			if k.Channel == c.Name {
				k.Counts.Add(seen[k.Number].Counts)
				seen[k.Number] = k
			}
		}
	}
	return seen
}

// producersOf is what the producers of a channel sent; of several lives of one the last.
func producersOf(run *oneRun, c topology.Channel) []ProducerResult {
	sent := make([]ProducerResult, run.topology.Nodes*c.Producers)
	for _, n := range run.results {
		for _, p := range n.Producers {
			if p.Channel == c.Name {
				sent[p.Number] = p
			}
		}
	}
	return sent
}

// judgeMessages says of each consumer what was sent to it and did not come, and of all
// in common what was not sent to one of them.
func judgeMessages(run *oneRun, c topology.Channel, sent []ProducerResult, seen []ConsumerResult) (messages []report.Messages, common report.Messages) {
	if c.Pattern == topology.OpenExchange {
		l := newLedger(c, run.results)
		messages = l.settle(len(seen))
		run.problems = append(run.problems, l.problems...)
		return messages, common
	}
	messages = make([]report.Messages, len(seen))
	for i, k := range seen {
		messages[i] = judgeConsumer(i, k, sent)
	}
	return messages, judgeShared(sent, seen)
}

// judgeShared holds what producers sent to whichever consumer takes it against what all
// consumers saw together, or against the answers.
func judgeShared(sent []ProducerResult, seen []ConsumerResult) (m report.Messages) {
	shares := make(map[[2]int][]check.Share) // by producer and key
	for _, k := range seen {
		for _, s := range k.Shares {
			id := [2]int{s.Producer, s.Key}
			shares[id] = append(shares[id], s)
		}
	}
	for i, p := range sent {
		for key, n := range p.Flows {
			lost, duplicated := check.Settle(n, shares[[2]int{i, key}])
			if p.Answers != nil {
				lost = n - min(n, p.Answers.Came[0])
			}
			m.Sent += n
			m.Lost += lost
			m.Duplicated += duplicated
		}
		if p.Answers != nil {
			m.Corrupted += p.Answers.Wrong
			m.Duplicated += p.Answers.Twice
			m.Unanswered += p.Answers.Failed
		}
	}
	return m
}

// judgeConsumer holds what a consumer saw, or answered, against what the producers sent
// to it. A consumer that told nothing lost all of it.
func judgeConsumer(number int, k ConsumerResult, sent []ProducerResult) (m report.Messages) {
	streams := make([]check.StreamState, len(sent))
	for _, s := range k.Streams {
		streams[s.Producer] = s
	}
	for i, p := range sent {
		if number >= len(p.Sent) {
			continue // no load, or no result of the producer's node
		}
		m.Sent += p.Sent[number]
		if p.Answers != nil {
			m.Lost += p.Sent[number] - min(p.Sent[number], p.Answers.Came[number])
			continue
		}
		m.Lost += streams[i].Lost(p.Sent[number])
	}
	return m
}

func throughput(messages, bytes uint64, seconds float64) report.Throughput {
	if seconds <= 0 {
		return report.Throughput{}
	}
	return report.Throughput{MessagesPerSecond: float64(messages) / seconds, BytesPerSecond: float64(bytes) / seconds}
}
