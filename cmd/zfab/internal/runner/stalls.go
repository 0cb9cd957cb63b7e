package runner

import (
	"fmt"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// judgeStalls says what the stalls cost the other consumers: what those
// received while it lasted, and what the same ones received meanwhile in the
// run beside it. A stall that had no effect, and one that outlasted the load so
// that there is nothing to compare, is a doubt.
func judgeStalls(runs []*oneRun, r *report.Report) {
	var others, baseline, seconds float64
	comparable := len(runs) > 1
	for i, f := range runs[0].topology.Faults {
		if f.Kind != topology.Stall {
			continue
		}
		if !stalled(r, f.Consumer) {
			r.Doubts = append(r.Doubts, fmt.Sprintf("the stall of %s at %s had no effect: there was nothing to receive then; let the load last longer", f.Consumer, f.At))
			comparable = false
			continue
		}
		for _, run := range runs {
			if end := othersUntil(run); comparable && end < (f.At+f.For).Seconds() {
				r.Doubts = append(r.Doubts, fmt.Sprintf("the load ended at %.2f s, before the stall of %s did at %s: the throughput is not compared; let the load last longer", end, f.Consumer, f.At+f.For))
				comparable = false
			}
		}
		seconds += f.For.Seconds()
		others += receivedByOthers(runs[0], i)
		if len(runs) > 1 {
			baseline += receivedByOthers(runs[1], i)
		}
	}
	if seconds == 0 {
		return
	}
	r.Stall = &report.Stall{Others: others / seconds}
	if comparable && baseline > 0 {
		rate, ratio := baseline/seconds, others/baseline
		r.Stall.BaselineOthers, r.Stall.ThroughputRatio = &rate, &ratio
	}
}

func stalled(r *report.Report, c topology.Consumer) bool {
	for _, channel := range r.Channels {
		for _, k := range channel.Consumers {
			if k.Consumer == c.String() {
				return k.Stalled
			}
		}
	}
	return false
}

// othersUntil is how long every producer had something to send to consumers
// without a fault.
func othersUntil(run *oneRun) float64 {
	until, found := 0.0, false
	for _, n := range run.results {
		for _, p := range n.Producers {
			if !found || p.OthersUntil < until {
				until, found = p.OthersUntil, true
			}
		}
	}
	return until
}

// receivedByOthers is what all consumers without a fault received during one.
func receivedByOthers(run *oneRun, fault int) float64 {
	faulty := make(map[string]bool)
	for _, f := range run.topology.Faults {
		faulty[f.Consumer.String()] = true
	}
	total := uint64(0)
	for _, n := range run.results {
		for _, k := range n.Consumers {
			c, _ := run.topology.Channel(k.Channel)
			if fault < len(k.Windows) && !faulty[workerName(k.Channel, k.Number, c.Consumers)] {
				total += k.Windows[fault][1] - k.Windows[fault][0]
			}
		}
	}
	return float64(total)
}
