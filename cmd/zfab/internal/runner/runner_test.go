package runner

import (
	"context"
	"encoding/json"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t *testing.T, text string) *topology.Topology {
	t.Helper()
	top, err := topology.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func runEmbedded(t *testing.T, text string, plant Plant) *report.Report {
	t.Helper()
	r, err := Run(context.Background(), parse(t, text), Options{
		Kind: Embedded, Timeout: time.Minute, Plant: plant, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A consumer that does not read holds up nothing that is for the others,
// although its producers go on to the high-water mark and beyond.
func TestStalledConsumerHoldsUpNobody(t *testing.T) {
	r := runEmbedded(t, `zfab: v1
name: stalled
nodes: {count: 2}
channels: {a: {pattern: exchange, producers: 2, consumers: 2, high_water_mark: 1KiB}}
load: {channel: a, duration: 900ms, size: 64B, rate: 2000}
faults: [{at: 200ms, for: 400ms, stall: a/n1/1}]
side_by_side: true
expect: [lost == 0, duplicated == 0, reordered == 0, corrupted == 0]
`, PlantNothing)
	if !r.Passed || !r.Channels[0].Consumers[1].Stalled {
		t.Fatalf("%s: %+v, %v, %v", r.Outcome, r.Messages, r.Problems, r.Doubts)
	}
	// Without the stall the three others get 3000/s of the producers' 8000/s
	// each second; held up, they would get nothing for almost all of it.
	if s := r.Stall; s == nil || s.ThroughputRatio == nil || *s.ThroughputRatio < 0.6 {
		t.Errorf("the others got %+v", s)
	}
}

func TestFollowingProgressEnds(t *testing.T) {
	top := parse(t, "zfab: v1\nname: a\nnodes: {count: 1}\nchannels: {a: {pattern: exchange, producers: 1, consumers: 1}}\nload: {channel: a, messages: 7, size: 32}\n")
	last := uint64(0)
	_, err := Run(context.Background(), top, Options{Kind: Embedded, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler), Progress: func(n uint64) { last = n }})
	if err != nil || last != 7 {
		t.Errorf("the last progress is %d, %v, want 7", last, err)
	}
}

func TestMomentsEndBeforeTheyBegin(t *testing.T) {
	s := time.Second
	stall := func(at, length time.Duration) topology.Fault {
		return topology.Fault{Kind: topology.Stall, At: at, For: length, ForMost: length}
	}
	got := moments([]topology.Fault{stall(2*s, s), stall(s, s), stall(s, 5*s), {Kind: topology.Cut, At: s, Every: s}})
	want := []moment{{s, 1, false}, {s, 2, false}, {2 * s, 1, true}, {2 * s, 0, false}, {3 * s, 0, true}, {6 * s, 2, true}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestLatencyTravelsAsJSON(t *testing.T) {
	sent := newLatency()
	for us := range 1000 {
		sent.record(time.Duration(us) * time.Microsecond)
	}
	sent.record(24 * time.Hour) // beyond the scale counts as its end
	text, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var came latency
	if err := json.Unmarshal(text, &came); err != nil {
		t.Fatal(err)
	}
	if got, want := came.report(), sent.report(); got != want || want.Count != 1001 || want.P50 < 490 || want.P50 > 510 {
		t.Errorf("%+v, want %+v", got, want)
	}
	var none latency
	if text, err = json.Marshal(newLatency()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &none); err != nil || none.report() != (report.Latency{}) {
		t.Errorf("nothing measured: %s, %v, %+v", text, err, none.report())
	}
}

func TestPacerKeepsTheRate(t *testing.T) {
	p := newPacer(topology.Load{Rate: 1000, Duration: 10 * time.Millisecond, Size: 64}, clock{time.Now().Add(-time.Hour)})
	var planned []time.Duration
	for {
		at, more := p.next(context.Background())
		if !more {
			break
		}
		planned = append(planned, at)
		if len(planned) == 4 {
			p.pass(2) // two turns of targets that were not ready
		}
	}
	ms := time.Millisecond
	if want := []time.Duration{1, ms, 2 * ms, 3 * ms, 6 * ms, 7 * ms, 8 * ms, 9 * ms}; !reflect.DeepEqual(planned, want) {
		t.Errorf("%v, want %v", planned, want)
	}
}

// A later life begins where the time is, and does not make up for what another
// one has sent.
func TestPacerOfALaterLife(t *testing.T) {
	p := newPacer(topology.Load{Rate: 1000, Size: 64}, clock{time.Now().Add(-time.Hour)})
	p.begin()
	if at, more := p.next(context.Background()); !more || at < time.Hour {
		t.Errorf("the first message is due at %s, %v", at, more)
	}
	over := make(chan struct{})
	close(over)
	p.over = over
	if at, more := p.next(context.Background()); more {
		t.Errorf("a message is due at %s after the end", at)
	}
	p = newPacer(topology.Load{Size: 64}, clock{time.Now()}) // without a rate
	p.over = over
	for range 65 { // it looks once in 64
		if _, more := p.next(context.Background()); !more {
			return
		}
	}
	t.Error("it does not end")
}

func TestDivideSharesAllMessages(t *testing.T) {
	for _, messages := range []int{1, 5, 7, 8, 20} {
		for producer := range 5 {
			s := &sender{number: producer, load: topology.Load{Messages: messages}}
			for range 7 {
				s.targets = append(s.targets, &target{})
			}
			s.others = len(s.targets)
			s.divide()
			total, wanting := 0, 0
			for _, target := range s.targets {
				total += target.left
				if target.left > 0 {
					wanting++
				}
				if d := target.left - messages/7; d < 0 || d > 1 {
					t.Errorf("a share of %d in %d messages", target.left, messages)
				}
			}
			if total != messages || s.others != wanting {
				t.Errorf("%d shared of %d; %d want some, counted %d", total, messages, wanting, s.others)
			}
		}
	}
}

// What no result tells of is lost, not forgotten.
func TestJudgeWithoutResults(t *testing.T) {
	top := parse(t, "zfab: v1\nname: a\nnodes: {count: 2}\nchannels: {a: {pattern: exchange, producers: 1, consumers: 1}}\nload: {channel: a, messages: 7, size: 32}\nexpect: [lost == 0]\n")
	r := judge([]*oneRun{{topology: top, results: []Result{{
		Node:      1,
		Producers: []ProducerResult{{Channel: "a", Number: 0, Sent: []uint64{3, 4}}},
		Consumers: []ConsumerResult{{Channel: "a", Number: 0, Counts: check.Counts{Received: 3}, Streams: []check.StreamState{{Next: 3}}, Latency: newLatency()}},
	}}}}, Embedded)
	if r.Messages.Sent != 7 || r.Messages.Lost != 4 || r.Outcome != report.Failed {
		t.Errorf("%s, %+v", r.Outcome, r.Messages)
	}
}
