package report

// A Metric is a number of a report that an expectation can name.
type Metric struct {
	Name string
	Help string
	// Value is false where the run did not measure it.
	Value func(*Report) (float64, bool)
	// SideBySide is set where the metric needs the run without its faults beside it.
	SideBySide bool
	// Needs is which faults it is about.
	Needs Subject
}

// A Subject is what a metric is about, apart from the run as a whole.
type Subject string

const (
	OfRun        Subject = ""
	OfStalls     Subject = "stall"
	OfFaults     Subject = "fault of a link or a process"
	OfBlackholes Subject = "blackhole"
	// OfOrder, OfRedeliveries and OfAnswers are about patterns; see package topology.
	OfOrder        Subject = "channel whose messages have an order"
	OfRedeliveries Subject = "channel whose messages may come again"
	OfAnswers      Subject = "channel whose messages are answered"
	OfTurns        Subject = "second fault of a link or a process some time after the first one has ended"
)

// Metrics are all of them, in the order in which help and errors list them.
var Metrics = []Metric{
	{Name: "lost", Help: "messages that Send accepted and no consumer received, or questions without an answer", Value: ofMessages(func(m Messages) uint64 { return m.Lost })},
	{Name: "duplicated", Help: "messages received again", Value: ofMessages(func(m Messages) uint64 { return m.Duplicated })},
	{Name: "reordered", Help: "messages received after a later one of their stream", Value: ofMessages(func(m Messages) uint64 { return m.Reordered }), Needs: OfOrder},
	{Name: "corrupted", Help: "messages whose checksum is wrong, or that came to the wrong consumer, and answers of another question", Value: ofMessages(func(m Messages) uint64 { return m.Corrupted })},
	{Name: "redelivered", Help: "messages received again that were marked so, as the pattern promises them at least once", Value: ofMessages(func(m Messages) uint64 { return m.Redelivered }), Needs: OfRedeliveries},
	{Name: "unanswered", Help: "questions that ended with an error in the place of the answer, which are a part of the lost ones", Value: ofMessages(func(m Messages) uint64 { return m.Unanswered }), Needs: OfAnswers},
	{Name: "in_doubt", Help: "messages that a typed error named as in doubt: their consumer was killed", Value: always(func(r *Report) float64 { return float64(r.Messages.InDoubt) })},
	{Name: "unpromised", Help: "messages accepted by a producer that was killed before they were acknowledged", Value: always(func(r *Report) float64 { return float64(r.Messages.Unpromised) })},
	{Name: "buried", Help: "messages stored for a consumer that was killed before it said that it has them", Value: always(func(r *Report) float64 { return float64(r.Messages.Buried) })},
	{Name: "links", Help: "pairs of different nodes that are linked", Value: always(func(r *Report) float64 { return float64(r.Links.Open) })},
	{Name: "links.process_pairs", Help: "connections that one per pair of processes would take", Value: always(func(r *Report) float64 { return float64(r.Links.ProcessPairs) })},
	{Name: "links.sockets", Help: "TCP connections between the nodes, counted by the operating system (process runner)", Value: sockets},
	{Name: "streams", Help: "flows from one producer to one consumer", Value: always(func(r *Report) float64 { return float64(r.Streams) })},
	{Name: "messages.sent", Help: "messages accepted by Send, once for each consumer", Value: always(func(r *Report) float64 { return float64(r.Messages.Sent) })},
	{Name: "messages.received", Help: "messages handed to consumers", Value: always(func(r *Report) float64 { return float64(r.Messages.Received) })},
	{Name: "throughput.messages_per_second", Help: "messages received per second", Value: always(func(r *Report) float64 { return r.Throughput.MessagesPerSecond })},
	{Name: "throughput.bytes_per_second", Help: "bytes of messages received per second", Value: always(func(r *Report) float64 { return r.Throughput.BytesPerSecond })},
	{Name: "latency.p50_us", Help: "median latency in microseconds", Value: latency(func(l Latency) float64 { return l.P50 })},
	{Name: "latency.p99_us", Help: "99th percentile of latency in microseconds", Value: latency(func(l Latency) float64 { return l.P99 })},
	{Name: "latency.max_us", Help: "largest latency in microseconds", Value: latency(func(l Latency) float64 { return l.Max })},
	{Name: "seconds", Help: "length of the run", Value: always(func(r *Report) float64 { return r.Seconds })},
	{Name: "stall.throughput_ratio", Help: "throughput of the consumers that were not stalled, to the same without the stall", Value: ratio, SideBySide: true, Needs: OfStalls},
	{Name: "faults.occurrences", Help: "faults of links and processes that came", Value: ofFaults(func(f *Faults) float64 { return float64(f.Occurrences) }), Needs: OfFaults},
	{Name: "faults.hit", Help: "those that met messages in flight: accepted and not acknowledged", Value: ofFaults(func(f *Faults) float64 { return float64(f.Hit) }), Needs: OfFaults},
	{Name: "faults.hit_ratio", Help: "the same, as a part of all that came", Value: ofFaults(func(f *Faults) float64 { return f.HitRatio }), Needs: OfFaults},
	{Name: "faults.unrecovered", Help: "those after which a stream with messages in flight did not go on", Value: ofFaults(func(f *Faults) float64 { return float64(f.Unrecovered) }), Needs: OfFaults},
	{Name: "faults.throughput_ratio", Help: "messages from node to node per second while faults came, to that just before and after; the median", Value: faultsRatio, Needs: OfTurns},
	{Name: "recovery.p50_ms", Help: "median time in milliseconds from a fault's end until all streams it hit went on", Value: quantile(recoveryOf, p50), Needs: OfFaults},
	{Name: "recovery.p99_ms", Help: "its 99th percentile", Value: quantile(recoveryOf, p99), Needs: OfFaults},
	{Name: "recovery.max_ms", Help: "the largest", Value: quantile(recoveryOf, most), Needs: OfFaults},
	{Name: "detection.max_ms", Help: "the longest time in milliseconds until both ends had given up a connection that was black-holed", Value: quantile(detectionOf, most), Needs: OfBlackholes},
	{Name: "errors", Help: "errors that producers and consumers got", Value: always(func(r *Report) float64 { return float64(r.Errors) })},
	{Name: "memory.peak_bytes", Help: "memory in use by the nodes' processes at its peak", Value: always(func(r *Report) float64 { return float64(r.Memory.PeakBytes) })},
	{Name: "memory.stream_bytes", Help: "the most that one stream held at its producer's end", Value: always(func(r *Report) float64 { return float64(r.Memory.StreamBytes) })},
}

// FindMetric looks a metric up by its name.
func FindMetric(name string) (Metric, bool) {
	for _, m := range Metrics {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// ofMessages is what was found of messages: nothing says anything if none was sent.
func ofMessages(f func(Messages) uint64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) { return float64(f(r.Messages)), r.Messages.Sent > 0 }
}

func always(value func(*Report) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) { return value(r), true }
}

func latency(value func(Latency) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) { return value(r.Latency), r.Latency.Count > 0 }
}

func sockets(r *Report) (float64, bool) {
	if r.Links.Sockets == nil {
		return 0, false
	}
	return float64(*r.Links.Sockets), true
}

func ratio(r *Report) (float64, bool) {
	if r.Stall == nil || r.Stall.ThroughputRatio == nil {
		return 0, false
	}
	return *r.Stall.ThroughputRatio, true
}

func ofFaults(value func(*Faults) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) {
		if r.Faults == nil || r.Faults.Occurrences == 0 {
			return 0, false
		}
		return value(r.Faults), true
	}
}

func faultsRatio(r *Report) (float64, bool) {
	if r.Faults == nil || r.Faults.ThroughputRatio == nil {
		return 0, false
	}
	return *r.Faults.ThroughputRatio, true
}

func quantile(of func(*Faults) Quantiles, which func(Quantiles) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) {
		if r.Faults == nil || of(r.Faults).Count == 0 {
			return 0, false
		}
		return which(of(r.Faults)), true
	}
}

func recoveryOf(f *Faults) Quantiles  { return f.Recovery }
func detectionOf(f *Faults) Quantiles { return f.Detection }
func p50(q Quantiles) float64         { return q.P50 }
func p99(q Quantiles) float64         { return q.P99 }
func most(q Quantiles) float64        { return q.Max }
