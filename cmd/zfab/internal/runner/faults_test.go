package runner

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
)

// breaking is a run of three nodes whose links the given faults break.
func breaking(faults string) string {
	return `zfab: v1
name: breaking
nodes: {count: 3, heartbeat_interval: 50ms, heartbeat_timeout: 400ms}
channels: {a: {pattern: exchange, producers: 1, consumers: 1, high_water_mark: 16KiB}}
load: {channel: a, duration: 2500ms, size: 64B, rate: 3000}
faults: [` + faults + `]
expect: [lost == 0, duplicated == 0, reordered == 0, corrupted == 0, errors == 0]
`
}

// A fault of links is in the report with what it met and how long it took, and
// nobody who sends or receives notices.
func TestFaultsOfLinks(t *testing.T) {
	for name, c := range map[string]struct {
		faults string
		count  int
		check  func(*report.Faults) bool
	}{
		"cut":       {"{at: 200ms, every: 100ms, times: 8, cut: random}", 8, nil},
		"cut all":   {"{at: 300ms, cut: all}", 1, func(f *report.Faults) bool { return f.Items[0].Events[0].Target == "all" }},
		"blackhole": {"{at: 200ms, for: 1500ms, blackhole: n1-n2}", 1, func(f *report.Faults) bool { return f.Detection.Count == 1 && f.Detection.Max >= 300 }},
		"one way":   {"{at: 200ms, for: 1500ms, blackhole: n3->n2}", 1, func(f *report.Faults) bool { return f.Detection.Count == 1 && f.Items[0].Events[0].Target == "n2-n3" }},
		"short":     {"{at: 200ms, for: 100ms, blackhole: n1-n2}", 1, func(f *report.Faults) bool { return f.Detection.Count == 0 }},
		"delay":     {"{at: 0s, delay: n1-n2, amount: 20ms}, {at: 300ms, every: 300ms, for: 100ms, times: 2, delay: random, amount: 50ms}", 3, nil},
		"rate":      {"{at: 300ms, for: 500ms, rate: n1-n2, bytes_per_second: 64KiB}", 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runEmbedded(t, breaking(c.faults), PlantNothing)
			if !r.Passed {
				t.Errorf("%s: %+v, %v, %v", r.Outcome, r.Messages, r.Problems, r.Doubts)
			}
			if f := r.Faults; f == nil || f.Occurrences != c.count || f.Recovery.Count != f.Hit || c.check != nil && !c.check(f) {
				t.Errorf("%+v", f)
			}
		})
	}
}

// A fault that met nothing has shown nothing.
func TestFaultsThatHitNothing(t *testing.T) {
	quiet := strings.Replace(breaking("{at: 600ms, cut: n1-n2}"), "duration: 2500ms", "messages: 10", 1)
	for name, text := range map[string]string{
		"came too late":  quiet,
		"nothing to hit": strings.Replace(breaking("{at: 200ms, cut: n1-n2}"), "rate: 3000", "rate: 1", 1),
		"too few":        breaking("{at: 200ms, every: 400ms, times: 20, cut: n1-n2}"),
	} {
		if r := runEmbedded(t, text, PlantNothing); r.Outcome != report.Inconclusive || len(r.Doubts) != 1 {
			t.Errorf("%s: %s, doubts %q", name, r.Outcome, r.Doubts)
		}
	}
}

// A cut does not hide a loss.
func TestPlantedFaultsFailUnderCuts(t *testing.T) {
	for _, plant := range ordered {
		if r := runEmbedded(t, breaking("{at: 50ms, every: 100ms, cut: all}"), plant); r.Outcome != report.Failed {
			t.Errorf("%s planted: %s, %+v", plant, r.Outcome, r.Messages)
		}
	}
}

func TestEmbeddedRunnerRefusesFaultsOfProcesses(t *testing.T) {
	_, err := Run(context.Background(), parse(t, breaking("{at: 1s, for: 1s, pause: n2}")), Options{Kind: Embedded, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	if want := "test.yaml:6:35: the embedded runner has all nodes in one process and cannot pause one of them: use --runner process"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// The same seed makes the same choices; another one makes others.
func TestDrawsAreRepeatable(t *testing.T) {
	draws := func(seed string) (all []draw) {
		top := parse(t, strings.Replace(breaking("{at: 1s, cut: random}, {at: 1s, for: 1s..3s, every: 3s, pause: random}"), "name:", "seed: "+seed+"\nname:", 1))
		for n := range 50 {
			all = append(all, newDraw(top, 0, n), newDraw(top, 1, n))
		}
		return all
	}
	one, again, other := draws("1"), draws("1"), draws("2")
	if !reflect.DeepEqual(one, again) {
		t.Error("the same seed chose otherwise")
	}
	if reflect.DeepEqual(one, other) {
		t.Error("another seed chose the same")
	}
	links, nodes, sizes := map[nodePair]bool{}, map[int]bool{}, map[int]bool{}
	for i, d := range one {
		if i%2 == 1 {
			nodes[d.node] = true
			if d.length < time.Second || d.length >= 3*time.Second {
				t.Errorf("drew a length of %s from 1s..3s", d.length)
			}
			continue
		}
		links[d.links[0]] = true
		sizes[d.bytes] = true
		if d.bytes < 1 || d.bytes > mostBytes {
			t.Errorf("drew %d bytes", d.bytes)
		}
	}
	if len(links) != 3 || len(nodes) != 3 || len(sizes) < 30 {
		t.Errorf("50 draws chose %d links of 3, %d nodes of 3, and %d different bytes", len(links), len(nodes), len(sizes))
	}
}

func TestPassedStreams(t *testing.T) {
	before := []position{{"a", 0, 10, 5}}
	for name, c := range map[string]struct {
		now  []position
		want bool
	}{
		"as before":         {[]position{{"a", 0, 12, 5}}, false},
		"further":           {[]position{{"a", 0, 12, 6}}, true},
		"ended":             {nil, true},
		"begun anew":        {[]position{{"a", 0, 2, 0}}, true},
		"another one":       {[]position{{"a", 1, 20, 20}}, true},
		"another's advance": {[]position{{"a", 1, 20, 20}, {"a", 0, 10, 5}}, false},
	} {
		if got := beyond(c.now, before); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	now := &sight{Connections: 2, Up: true, Sending: []position{{"a", 0, 12, 6}}}
	for _, c := range []struct {
		q    question
		want bool
	}{
		{question{}, true},
		{question{Until: passed, Sending: before, Connections: 2}, true},
		{question{Until: passed, Receiving: []position{{"a", 0, 3, 3}}, Sending: before}, true}, // that stream has ended
		{question{Until: reconnected, Sending: before, Connections: 1}, true},
		{question{Until: reconnected, Sending: before, Connections: 2}, false},
		{question{Until: down, Connections: 2}, false},
		{question{Until: down, Connections: 1}, true},
	} {
		if got := now.meets(c.q); got != c.want {
			t.Errorf("%+v: %v", c.q, got)
		}
	}
}
