package runner

import (
	"fmt"
	"slices"
	"time"

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
	f.ThroughputRatio = throughputRatio(run)
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

// A stretch is a part of the run with what went from node to node meanwhile.
type stretch struct {
	from, to     time.Duration
	begin, ended uint64 // messages that had come from other nodes
}

// throughputRatio compares what went from node to node while faults came with
// what did in the times between, if there are some. Of each time with faults the
// ones without beside it tell what that moment of the machine was good for; the
// median of all is the answer, so that something else which is busy now and then
// does not decide it.
//
// What goes on inside a node does not count: a producer that cannot reach a peer
// sends the more to the consumers at its own node. Times before the first fault
// and after the last one do not, either: there the load begins and ends.
func throughputRatio(run *oneRun) *float64 {
	all := stretches(run)
	var ratios []float64
	for i, s := range all {
		var beside stretch
		if i > 0 {
			beside.add(all[i-1].to, s.from, s.begin-all[i-1].ended)
		}
		if i < len(all)-1 {
			beside.add(s.to, all[i+1].from, all[i+1].begin-s.ended)
		}
		if with, without := s.rate(), beside.rate(); without > 0 {
			ratios = append(ratios, with/without)
		}
	}
	if len(ratios) == 0 {
		return nil
	}
	slices.Sort(ratios)
	n := len(ratios)
	median := (ratios[(n-1)/2] + ratios[n/2]) / 2
	return &median
}

// add lengthens a stretch by a time in which so many messages came.
func (s *stretch) add(from, to time.Duration, messages uint64) {
	s.to += to - from
	s.ended += messages
}

// rate is in messages per second.
func (s *stretch) rate() float64 {
	if s.to == s.from {
		return 0
	}
	return float64(s.ended-s.begin) / (s.to - s.from).Seconds()
}

// stretches are the times in which faults came, in order and apart from each
// other; none if one of them lasts longer than a load.
func stretches(run *oneRun) (all []stretch) {
	for i, f := range run.topology.Faults {
		from, to, bounded := f.Window()
		if f.Kind == topology.Stall || f.Lasting() {
			continue
		}
		if !bounded || slices.ContainsFunc(run.topology.Loads, func(l topology.Load) bool { return l.Duration < to }) {
			return nil
		}
		s := stretch{from: from, to: to}
		for _, r := range run.results {
			for _, k := range r.Consumers {
				if i < len(k.Windows) {
					s.begin += k.Windows[i][0]
					s.ended += k.Windows[i][1]
				}
			}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b stretch) int { return int(a.from - b.from) })
	return merge(all)
}

// merge makes one of stretches that touch each other.
func merge(all []stretch) (apart []stretch) {
	for _, s := range all {
		if n := len(apart); n > 0 && s.from <= apart[n-1].to {
			if s.to > apart[n-1].to {
				apart[n-1].to, apart[n-1].ended = s.to, s.ended
			}
			continue
		}
		apart = append(apart, s)
	}
	return apart
}
