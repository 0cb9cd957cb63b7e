package runner

import (
	"strings"
	"testing"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// faultRun is a run of one consumer with counts at each fault's begin and end.
func faultRun(faults []topology.Fault, windows ...[2]uint64) *oneRun {
	return &oneRun{
		topology: &topology.Topology{Nodes: 1, Faults: faults, Loads: []topology.Load{{Duration: time.Minute}}},
		results:  []Result{{Consumers: []ConsumerResult{{Windows: windows}}}},
	}
}

func TestThroughputRatio(t *testing.T) {
	const s = time.Second
	cuts := func(at, until time.Duration) topology.Fault {
		return topology.Fault{Kind: topology.Cut, At: at, Every: s, Until: until}
	}
	stall := topology.Fault{Kind: topology.Stall, At: 2 * s, For: s, ForMost: s}
	for name, c := range map[string]struct {
		run  *oneRun
		want float64 // 0: none
	}{
		"by turns":          {faultRun([]topology.Fault{cuts(s, 3*s), cuts(5*s, 7*s)}, [2]uint64{100, 280}, [2]uint64{480, 660}), 0.9},
		"in another order":  {faultRun([]topology.Fault{cuts(5*s, 7*s), cuts(s, 3*s)}, [2]uint64{480, 660}, [2]uint64{100, 280}), 0.9},
		"of unequal length": {faultRun([]topology.Fault{cuts(s, 2*s), cuts(4*s, 8*s)}, [2]uint64{0, 50}, [2]uint64{250, 450}), 0.5},
		"one of them busy":  {faultRun([]topology.Fault{cuts(s, 2*s), cuts(3*s, 4*s), cuts(5*s, 6*s)}, [2]uint64{0, 90}, [2]uint64{190, 195}, [2]uint64{295, 385}), 0.9},
		"nothing between":   {faultRun([]topology.Fault{cuts(s, 2*s), cuts(3*s, 4*s)}, [2]uint64{0, 90}, [2]uint64{90, 180}), 0},
		"overlapping":       {faultRun([]topology.Fault{cuts(s, 3*s), cuts(2*s, 4*s), cuts(5*s, 6*s)}, [2]uint64{0, 200}, [2]uint64{100, 300}, [2]uint64{400, 500}), 1},
		"one in the other":  {faultRun([]topology.Fault{cuts(s, 4*s), cuts(2*s, 3*s), cuts(5*s, 6*s)}, [2]uint64{0, 300}, [2]uint64{100, 200}, [2]uint64{400, 500}), 1},
		"with a stall":      {faultRun([]topology.Fault{stall, cuts(s, 3*s), cuts(5*s, 7*s)}, [2]uint64{1, 2}, [2]uint64{100, 280}, [2]uint64{480, 660}), 0.9},
		"and a slow link":   {faultRun([]topology.Fault{{Kind: topology.Rate}, cuts(s, 3*s), cuts(5*s, 7*s)}, [2]uint64{}, [2]uint64{100, 280}, [2]uint64{480, 660}), 0.9},
		"only one":          {faultRun([]topology.Fault{cuts(s, 3*s)}, [2]uint64{100, 280}), 0},
		"no time between":   {faultRun([]topology.Fault{cuts(s, 3*s), cuts(3*s, 5*s)}, [2]uint64{100, 280}, [2]uint64{280, 460}), 0},
		"without an end":    {faultRun([]topology.Fault{cuts(s, 3*s), cuts(5*s, 0)}, [2]uint64{100, 280}), 0},
		"beyond the load":   {faultRun([]topology.Fault{cuts(s, 3*s), cuts(5*s, 61*s)}, [2]uint64{100, 280}, [2]uint64{480, 660}), 0},
		"no faults":         {faultRun(nil), 0},
	} {
		got := throughputRatio(c.run)
		if (got == nil) != (c.want == 0) || got != nil && (*got < c.want-1e-9 || *got > c.want+1e-9) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestFaultDoubts(t *testing.T) {
	f := topology.Fault{Kind: topology.Cut, Target: "random", At: time.Second, Every: time.Second, Times: 4}
	for _, c := range []struct {
		counts report.FaultCounts
		want   []string
	}{
		{report.FaultCounts{Occurrences: 4, Hit: 1}, nil},
		{report.FaultCounts{}, []string{"the cut random at 1s did not come"}},
		{report.FaultCounts{Occurrences: 4}, []string{"met nothing in flight, 4 times of 4"}},
		{report.FaultCounts{Occurrences: 3, Hit: 3}, []string{"came 3 times of 4"}},
		{report.FaultCounts{Occurrences: 4, Hit: 4, Unrecovered: 2}, []string{"after 2 of the hits"}},
	} {
		got := faultDoubts(f, c.counts)
		if len(got) != len(c.want) {
			t.Errorf("%+v: %q", c.counts, got)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%+v: %q, want %q", c.counts, got[i], c.want[i])
			}
		}
	}
}
