package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// WriteTable prints the report for people: the verdict first, then what was
// measured, then the expectations, then what was wrong.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s\t%s\n", r.Name, r.Outcome)
	fmt.Fprintf(t, "runner\t%s, %.2f s\n", r.Runner, r.Seconds)
	fmt.Fprintf(t, "messages\t%d sent, %d received\n", r.Messages.Sent, r.Messages.Received)
	fmt.Fprintf(t, "\t%d lost, %d duplicated, %d reordered, %d corrupted\n",
		r.Messages.Lost, r.Messages.Duplicated, r.Messages.Reordered, r.Messages.Corrupted)
	if m := r.Messages; m.Redelivered+m.Unanswered > 0 {
		fmt.Fprintf(t, "\t%d redelivered, %d unanswered\n", m.Redelivered, m.Unanswered)
	}
	if m := r.Messages; m.InDoubt+m.Unpromised+m.Buried > 0 {
		fmt.Fprintf(t, "\t%d in doubt, %d unpromised, %d buried\n", m.InDoubt, m.Unpromised, m.Buried)
	}
	fmt.Fprintf(t, "links\t%d open%s; one per process pair would take %d\n", r.Links.Open, r.socketText(), r.Links.ProcessPairs)
	fmt.Fprintf(t, "streams\t%d\n", r.Streams)
	fmt.Fprintf(t, "throughput\t%s messages/s, %s/s\n", units.Count(r.Throughput.MessagesPerSecond), units.Approximate(r.Throughput.BytesPerSecond))
	fmt.Fprintf(t, "latency\tp50 %.0f us, p99 %.0f us, max %.0f us\n", r.Latency.P50, r.Latency.P99, r.Latency.Max)
	fmt.Fprintf(t, "memory\t%s at the peak, at most %s in one stream\n", units.Approximate(float64(r.Memory.PeakBytes)), units.Approximate(float64(r.Memory.StreamBytes)))
	if r.Stall != nil {
		fmt.Fprintf(t, "during the stall\t%s messages/s to the others%s\n", units.Count(r.Stall.Others), r.Stall.ratioText())
	}
	fmt.Fprintln(t)
	r.writeFaults(t)
	r.writeChannels(t)
	r.writeExpectations(t)
	for _, p := range r.Problems {
		fmt.Fprintf(t, "problem\t%s\n", p)
	}
	for _, d := range r.Doubts {
		fmt.Fprintf(t, "doubt\t%s\n", d)
	}
	return t.Flush()
}

func (r *Report) socketText() string {
	if r.Links.Sockets == nil {
		return ""
	}
	return fmt.Sprintf(" (%d counted by the operating system)", *r.Links.Sockets)
}

func (s *Stall) ratioText() string {
	if s.ThroughputRatio == nil {
		return ""
	}
	return fmt.Sprintf(", %.2f of the run without it", *s.ThroughputRatio)
}

// writeChannels prints a line per channel, and one per consumer only for those
// of which there is something to say: with hundreds of consumers the healthy
// ones would hide the others.
func (r *Report) writeChannels(w io.Writer) {
	fmt.Fprintln(w, "channel\tsent\treceived\tconsumers\tmessages/s\tp99 us")
	for _, c := range r.Channels {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%.0f\n", c.Name, c.Messages.Sent, c.Messages.Received, len(c.Consumers),
			units.Count(c.Throughput.MessagesPerSecond), c.Latency.P99)
		if c.FirstError != "" {
			fmt.Fprintf(w, "  first error\t%s\n", c.FirstError)
		}
		for _, k := range c.Consumers {
			if k.Stalled {
				fmt.Fprintf(w, "  %s\t\t%d\tstalled\n", k.Consumer, k.Received)
			}
			if m := k.Messages; m.Lost+m.Duplicated+m.Reordered+m.Corrupted > 0 {
				fmt.Fprintf(w, "  %s\t\t%d\t%d lost, %d duplicated, %d reordered, %d corrupted\n",
					k.Consumer, k.Received, m.Lost, m.Duplicated, m.Reordered, m.Corrupted)
			}
		}
	}
	fmt.Fprintln(w)
}

func (r *Report) writeExpectations(w io.Writer) {
	if len(r.Expectations) == 0 {
		return
	}
	fmt.Fprintln(w, "expectation\tvalue\t")
	for _, e := range r.Expectations {
		value, verdict := "not measured", "inconclusive"
		if e.Value != nil {
			value, verdict = fmt.Sprintf("%.6g", *e.Value), "failed"
			if e.Passed {
				verdict = "passed"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.Expression, value, verdict)
	}
}
