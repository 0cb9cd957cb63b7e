package runner

import (
	"fmt"
	"slices"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// judgeFaults sums up what the faults of links and processes did. One that never
// met anything in flight, or did not come as often as the file says, is a doubt:
// the run has not shown what it was made to show.
func judgeFaults(run *oneRun, r *report.Report) {
	var all []report.FaultEvent
	f := &report.Faults{Items: []report.Fault{}}
	for i, fault := range run.topology.Faults {
		if fault.Kind == topology.Stall {
			continue
		}
		var events []report.FaultEvent
		if i < len(run.events) {
			events = faultEvents(run.events[i])
		}
		item := report.Fault{Fault: fault.String(), FaultCounts: report.CountFaults(events)}
		if len(events) <= report.MaxFaultEvents {
			item.Events = events
		}
		f.Items = append(f.Items, item)
		all = append(all, events...)
		r.Doubts = append(r.Doubts, faultDoubts(fault, item.FaultCounts)...)
	}
	if len(f.Items) == 0 {
		return
	}
	f.FaultCounts = report.CountFaults(all)
	r.Faults = f
}

// faultEvents are the occurrences in the order of their times.
func faultEvents(events []event) []report.FaultEvent {
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	var out []report.FaultEvent
	for _, e := range events {
		o := report.FaultEvent{Target: e.target, At: report.Milliseconds(e.at), InFlight: e.inFlight, Hit: e.hit}
		if e.recovered != nil {
			ms := report.Milliseconds(*e.recovered)
			o.Recovery = &ms
		}
		if e.detected != nil {
			ms := report.Milliseconds(*e.detected)
			o.Detection = &ms
		}
		out = append(out, o)
	}
	return out
}

func faultDoubts(f topology.Fault, c report.FaultCounts) (doubts []string) {
	switch {
	case c.Occurrences == 0:
		doubts = append(doubts, fmt.Sprintf("the %s at %s did not come: the load had ended; let it last longer", f, f.At))
	case c.Hit == 0:
		doubts = append(doubts, fmt.Sprintf("the %s met nothing in flight, %d times of %d; let the load last longer or send more", f, c.Occurrences, c.Occurrences))
	}
	if f.Times > c.Occurrences && c.Occurrences > 0 {
		doubts = append(doubts, fmt.Sprintf("the %s came %d times of %d: the load had ended; let it last longer", f, c.Occurrences, f.Times))
	}
	if c.Unrecovered > 0 {
		doubts = append(doubts, fmt.Sprintf("after %d of the hits of %s no more was delivered on some stream; see faults.unrecovered", c.Unrecovered, f))
	}
	return doubts
}

// compareThroughput is for a run with another one beside it.
func compareThroughput(with, without report.Throughput, f *report.Faults) {
	if f == nil || without.MessagesPerSecond <= 0 {
		return
	}
	ratio := with.MessagesPerSecond / without.MessagesPerSecond
	f.ThroughputRatio = &ratio
}
