package runner

import (
	"context"
	"slices"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// A moment is a begin or an end of a fault.
type moment struct {
	at    time.Duration
	fault int
	ends  bool
}

// moments are those of all faults by time; of two at one time the end is first,
// so that a fault can follow another of the same target at once.
func moments(faults []topology.Fault) []moment {
	var all []moment
	for i, f := range faults {
		if from, to, bounded := f.Window(); bounded {
			all = append(all, moment{from, i, false}, moment{to, i, true})
		}
	}
	slices.SortStableFunc(all, func(a, b moment) int {
		switch {
		case a.at != b.at:
			return int(a.at - b.at)
		case a.ends == b.ends:
			return 0
		case a.ends:
			return -1
		}
		return 1
	})
	return all
}

// A timeline makes the workers of one node stall and counts, at the begin and the
// end of every fault, what each consumer of the node has received: from other
// nodes only, where the fault is one of links or processes. Every node does so at
// the same moments.
type timeline struct {
	faults    []topology.Fault
	receivers []*receiver
	local     func(topology.Consumer) *receiver // nil: the consumer is another node's
	clock     clock
	windows   [][][2]uint64 // by receiver, by fault
}

func newTimeline(faults []topology.Fault, receivers []*receiver, local func(topology.Consumer) *receiver, c clock) *timeline {
	t := &timeline{faults: faults, receivers: receivers, local: local, clock: c}
	for range receivers {
		t.windows = append(t.windows, make([][2]uint64, len(faults)))
	}
	return t
}

// run goes along the moments until the last, or until ctx ends. No fault is
// left behind.
func (t *timeline) run(ctx context.Context) {
	gates := make([]*gate, len(t.faults))
	for _, m := range moments(t.faults) {
		reached := t.clock.until(ctx, m.at)
		t.count(m)
		stall := t.faults[m.fault].Kind == topology.Stall
		target := t.local(t.faults[m.fault].Consumer)
		switch {
		case target == nil || !stall:
		case m.ends && gates[m.fault] != nil:
			target.gate.CompareAndSwap(gates[m.fault], nil)
			close(gates[m.fault].open)
		case !m.ends && reached:
			gates[m.fault] = &gate{make(chan struct{})}
			target.gate.Store(gates[m.fault])
		}
	}
}

func (t *timeline) count(m moment) {
	side := 0
	if m.ends {
		side = 1
	}
	for i, r := range t.receivers {
		count := &r.received
		if t.faults[m.fault].Kind != topology.Stall {
			count = &r.abroad
		}
		t.windows[i][m.fault][side] = count.Load()
	}
}
