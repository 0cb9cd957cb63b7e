// Package report is what a run of a topology has to say: counts, rates,
// latencies, links, and the verdict on every expectation. The structures are
// the JSON that `zfab run --format json` prints; table.go prints the same for
// people; metric.go names the numbers that expectations may speak of.
package report

// A Report is the answer of one run.
type Report struct {
	Passed  bool    `json:"passed"`
	Outcome Outcome `json:"outcome"`
	Name    string  `json:"name"`
	Runner  string  `json:"runner"`  // "embedded", "process", "remote" or "compose"
	Seconds float64 `json:"seconds"` // from the start of the load to the last consumer's end

	Messages   Messages   `json:"messages"`
	Links      Links      `json:"links"`
	Streams    int        `json:"streams"` // flows from one producer to one consumer
	Throughput Throughput `json:"throughput"`
	Latency    Latency    `json:"latency"`
	Stall      *Stall     `json:"stall,omitempty"`  // only where a stall was measured
	Faults     *Faults    `json:"faults,omitempty"` // only where the file has some
	Errors     int        `json:"errors"`           // that workers got from the fabric
	Memory     Memory     `json:"memory"`

	Channels     []Channel     `json:"channels"`
	Expectations []Expectation `json:"expectations"`

	// Problems are what went wrong apart from expectations: a node that
	// failed, a deadline that passed. A run with problems has not passed.
	Problems []string `json:"problems"`
	// Doubts are why the run says less than it was asked: a fault that came
	// after the load had ended. A run with doubts is inconclusive unless it failed.
	Doubts []string `json:"doubts"`
}

// Outcome is the verdict in a word.
type Outcome string

const (
	Passed       Outcome = "passed"
	Failed       Outcome = "failed"       // an expectation was not met, or the run had a problem
	Inconclusive Outcome = "inconclusive" // too little was measured to say
)

// Messages counts deliveries: a message sent to all of a channel's consumers
// counts once for each. What the words mean for a pattern, package runner says.
type Messages struct {
	Sent       uint64 `json:"sent"`     // accepted by Send
	Received   uint64 `json:"received"` // handed to a consumer, the damaged and the repeated included
	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"` // came after a later one of its stream
	Corrupted  uint64 `json:"corrupted"` // checksum wrong, or not sent to where it came

	// Redelivered came again and were marked so, where the pattern promises messages
	// at least once: they are no duplicates. Unanswered are questions that ended with an
	// error in the place of the answer; they are among the lost ones.
	Redelivered uint64 `json:"redelivered"`
	Unanswered  uint64 `json:"unanswered"`

	// Where nodes are killed (see package runner), what is neither delivered nor
	// lost. InDoubt are those that a typed error named so; some of them came.
	InDoubt    uint64 `json:"in_doubt"`
	Unpromised uint64 `json:"unpromised"` // accepted by a producer that was killed before they were acknowledged
	Buried     uint64 `json:"buried"`     // stored by a consumer's node that was killed before the consumer said it has them
}

// Add sums counts.
func (m *Messages) Add(o Messages) {
	m.Sent += o.Sent
	m.Received += o.Received
	m.Lost += o.Lost
	m.Duplicated += o.Duplicated
	m.Reordered += o.Reordered
	m.Corrupted += o.Corrupted
	m.Redelivered += o.Redelivered
	m.Unanswered += o.Unanswered
	m.InDoubt += o.InDoubt
	m.Unpromised += o.Unpromised
	m.Buried += o.Buried
}

// Links are the connections that carry messages.
type Links struct {
	Open         int `json:"open"`          // pairs of different nodes that are linked
	ProcessPairs int `json:"process_pairs"` // what one connection per pair of producer and consumer would take
	// Sockets is the number of established TCP connections between the nodes'
	// processes as the operating system counts them; absent where every node is
	// in one process, and where there is no /proc.
	Sockets *int `json:"sockets,omitempty"`
}

// Throughput is what the consumers received per second of the run.
type Throughput struct {
	MessagesPerSecond float64 `json:"messages_per_second"`
	BytesPerSecond    float64 `json:"bytes_per_second"`
}

// Latency runs from the planned send time (where the load is paced; else from
// the call of Send) until the consumer has the message, or the producer the answer.
type Latency struct {
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	Max   float64 `json:"max_us"`
	Count int64   `json:"count"` // messages measured: all where paced, else a sample
}

// Stall compares the consumers that were not stalled, while another was, with
// the same consumers of the same run without the stall, side by side.
type Stall struct {
	Others          float64  `json:"others_messages_per_second"`
	BaselineOthers  *float64 `json:"baseline_others_messages_per_second,omitempty"`
	ThroughputRatio *float64 `json:"throughput_ratio,omitempty"`
}

// Memory is what the run held at its worst.
type Memory struct {
	// PeakBytes is the largest sum over the nodes' processes of the memory that
	// the Go runtime had in use, sampled during the load.
	PeakBytes uint64 `json:"peak_bytes"`
	// StreamBytes is the most that any one stream held at its producer's end,
	// sampled during the load: what the high-water mark bounds.
	StreamBytes int64 `json:"stream_bytes"`
}

// A Channel is one channel's share of the report.
type Channel struct {
	Name       string     `json:"name"`
	Pattern    string     `json:"pattern"`
	Messages   Messages   `json:"messages"`
	Streams    int        `json:"streams"`
	Throughput Throughput `json:"throughput"`
	Latency    Latency    `json:"latency"`
	Consumers  []Consumer `json:"consumers"`
	// FirstError is one of the errors that came in the place of answers.
	FirstError string `json:"first_error,omitempty"`
}

// A Consumer is one consumer's share.
type Consumer struct {
	Consumer string   `json:"consumer"` // channel/node/index
	Received uint64   `json:"received"`
	Stalled  bool     `json:"stalled"` // a fault kept it from reading for a while
	Messages Messages `json:"messages"`
}

// An Expectation is one line of the topology's expect with its verdict. Value
// is null where the run did not measure the metric.
type Expectation struct {
	Expression string   `json:"expression"`
	Passed     bool     `json:"passed"`
	Value      *float64 `json:"value"`
}

// Judge sets the outcome from the expectations, problems and doubts. Failure
// wins over doubt: what was measured and wrong stays wrong.
func (r *Report) Judge() {
	r.Outcome = Passed
	if len(r.Doubts) > 0 {
		r.Outcome = Inconclusive
	}
	for _, e := range r.Expectations {
		if e.Value == nil && r.Outcome == Passed {
			r.Outcome = Inconclusive
		}
		if e.Value != nil && !e.Passed {
			r.Outcome = Failed
		}
	}
	if len(r.Problems) > 0 {
		r.Outcome = Failed
	}
	r.Passed = r.Outcome == Passed
}
