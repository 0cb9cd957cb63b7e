package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Faults is what the faults of links and processes met, and how long it took
// until delivery went on. (A stall is one of a worker; see Stall.)
type Faults struct {
	FaultCounts
	// ThroughputRatio is how many messages went from one node to another per
	// second while faults came, to that in the times beside without: the median
	// of all such times; absent where the file leaves no time between two.
	ThroughputRatio *float64 `json:"throughput_ratio,omitempty"`
	Items           []Fault  `json:"items"` // by the file's order
}

// A Fault is one of the file's faults with all its occurrences.
type Fault struct {
	Fault string `json:"fault"` // kind and target, as in the file
	FaultCounts
	// Events are the occurrences one by one, in order; left out where they are
	// more than MaxFaultEvents.
	Events []FaultEvent `json:"events,omitempty"`
}

// FaultCounts sums occurrences up.
type FaultCounts struct {
	Occurrences int     `json:"occurrences"`
	Hit         int     `json:"hit"`       // those that met messages in flight
	HitRatio    float64 `json:"hit_ratio"` // of the occurrences
	// InFlight is how many messages were accepted and not acknowledged, on the
	// links concerned, when a fault began.
	InFlight Quantiles `json:"in_flight"`
	// Recovery is the time from a fault's end until of every stream that had
	// messages in flight more was acknowledged. Only hits count.
	Recovery    Quantiles `json:"recovery_ms"`
	Unrecovered int       `json:"unrecovered"` // hits after which delivery did not go on
	// Detection is the time from the begin of a black hole until both ends had
	// given the connection up. Holes that ended before do not count.
	Detection Quantiles `json:"detection_ms"`
}

// A FaultEvent is one occurrence. Times are in milliseconds.
type FaultEvent struct {
	Target    string   `json:"target"`
	At        float64  `json:"at_ms"` // of the run
	InFlight  uint64   `json:"in_flight"`
	Hit       bool     `json:"hit"`
	Recovery  *float64 `json:"recovery_ms,omitempty"`
	Detection *float64 `json:"detection_ms,omitempty"`
}

// MaxFaultEvents is how many occurrences of one fault are told one by one.
const MaxFaultEvents = 20

// Quantiles are of a set of values, exact; zeros if there is none.
type Quantiles struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// CountFaults sums events up.
func CountFaults(events []FaultEvent) FaultCounts {
	c := FaultCounts{Occurrences: len(events)}
	var inFlight, recovery, detection []float64
	for _, e := range events {
		inFlight = append(inFlight, float64(e.InFlight))
		if e.Detection != nil {
			detection = append(detection, *e.Detection)
		}
		switch {
		case !e.Hit:
		case e.Recovery == nil:
			c.Hit++
			c.Unrecovered++
		default:
			c.Hit++
			recovery = append(recovery, *e.Recovery)
		}
	}
	if len(events) > 0 {
		c.HitRatio = float64(c.Hit) / float64(len(events))
	}
	c.InFlight, c.Recovery, c.Detection = quantiles(inFlight), quantiles(recovery), quantiles(detection)
	return c
}

func quantiles(values []float64) Quantiles {
	if len(values) == 0 {
		return Quantiles{}
	}
	slices.Sort(values)
	rank := func(q float64) float64 { return values[int(math.Ceil(q*float64(len(values))))-1] }
	return Quantiles{Count: len(values), P50: rank(0.50), P99: rank(0.99), Max: values[len(values)-1]}
}

// Milliseconds is d as the report has it.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// writeFaults prints a line per fault of the file, and one for all where there
// are several.
func (r *Report) writeFaults(w io.Writer) {
	f := r.Faults
	if f == nil {
		return
	}
	fmt.Fprintln(w, "fault\toccurred\thit\tin flight p50/max\trecovery ms p50/p99/max\tdetected ms p50/max")
	for _, item := range f.Items {
		item.write(w, item.Fault)
	}
	if len(f.Items) > 1 {
		f.write(w, "all")
	}
	if f.ThroughputRatio != nil {
		fmt.Fprintf(w, "from node to node\t%.3f of the times between\n", *f.ThroughputRatio)
	}
	fmt.Fprintln(w)
}

func (c *FaultCounts) write(w io.Writer, name string) {
	recovery, detection := "-", "-"
	if q := c.Recovery; q.Count > 0 {
		recovery = fmt.Sprintf("%.1f/%.1f/%.1f", q.P50, q.P99, q.Max)
	}
	if c.Unrecovered > 0 {
		recovery += fmt.Sprintf(", %d never", c.Unrecovered)
	}
	if q := c.Detection; q.Count > 0 {
		detection = fmt.Sprintf("%.0f/%.0f", q.P50, q.Max)
	}
	fmt.Fprintf(w, "%s\t%d\t%d\t%.0f/%.0f\t%s\t%s\n", name, c.Occurrences, c.Hit, c.InFlight.P50, c.InFlight.Max, recovery, detection)
}
