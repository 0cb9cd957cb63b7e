package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func value(v float64) *float64 { return &v }

func TestJudge(t *testing.T) {
	met := Expectation{Passed: true, Value: value(0)}
	missed := Expectation{Value: value(3)}
	unmeasured := Expectation{}
	for name, c := range map[string]struct {
		r    Report
		want Outcome
	}{
		"nothing expected":     {Report{}, Passed},
		"all met":              {Report{Expectations: []Expectation{met, met}}, Passed},
		"one missed":           {Report{Expectations: []Expectation{met, missed, met}}, Failed},
		"one not measured":     {Report{Expectations: []Expectation{met, unmeasured}}, Inconclusive},
		"missed, not measured": {Report{Expectations: []Expectation{missed, unmeasured}}, Failed},
		"not measured, missed": {Report{Expectations: []Expectation{unmeasured, missed}}, Failed},
		"a doubt":              {Report{Expectations: []Expectation{met}, Doubts: []string{"late"}}, Inconclusive},
		"a doubt and a miss":   {Report{Expectations: []Expectation{missed}, Doubts: []string{"late"}}, Failed},
		"a problem":            {Report{Expectations: []Expectation{met}, Problems: []string{"died"}}, Failed},
	} {
		c.r.Judge()
		if c.r.Outcome != c.want || c.r.Passed != (c.want == Passed) {
			t.Errorf("%s: %s, passed %v, want %s", name, c.r.Outcome, c.r.Passed, c.want)
		}
	}
}

// The names are a promise to scripts.
func TestJSONNames(t *testing.T) {
	r := Report{Channels: []Channel{{Consumers: []Consumer{{}}}}, Expectations: []Expectation{{}}}
	text, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	channel := got["channels"].([]any)[0].(map[string]any)
	for where, c := range map[string]struct {
		object any
		names  string
	}{
		"report":      {got, "passed name runner seconds messages links streams throughput latency channels expectations"},
		"messages":    {got["messages"], "sent received lost duplicated reordered corrupted redelivered unanswered"},
		"links":       {got["links"], "open process_pairs"},
		"throughput":  {got["throughput"], "messages_per_second bytes_per_second"},
		"latency":     {got["latency"], "p50_us p99_us max_us"},
		"channel":     {channel, "name messages streams throughput latency consumers"},
		"consumer":    {channel["consumers"].([]any)[0], "consumer received stalled"},
		"expectation": {got["expectations"].([]any)[0], "expression passed value"},
	} {
		object, ok := c.object.(map[string]any)
		if !ok {
			t.Errorf("%s is not an object", where)
			continue
		}
		for _, name := range strings.Fields(c.names) {
			if _, ok := object[name]; !ok {
				t.Errorf("%s has no %q", where, name)
			}
		}
	}
}

func TestTableTellsWhatIsWrong(t *testing.T) {
	r := Report{
		Name: "exchange", Runner: "embedded",
		Messages: Messages{Sent: 10, Received: 9, Lost: 1, Redelivered: 2, Unanswered: 1},
		Channels: []Channel{{Name: "scores", FirstError: "the server is gone", Consumers: []Consumer{
			{Consumer: "scores/n1/0", Received: 4},
			{Consumer: "scores/n2/0", Received: 5, Messages: Messages{Lost: 1}},
			{Consumer: "scores/n3/0", Received: 5, Stalled: true},
		}}},
		Expectations: []Expectation{{Expression: "lost == 0", Value: value(1)}, {Expression: "seconds < 1"}},
		Problems:     []string{"n3 ended early"},
	}
	r.Judge()
	var out bytes.Buffer
	if err := r.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"exchange  ", "failed", "1 lost", "scores/n2/0", "scores/n3/0", "not measured", "n3 ended early", "2 redelivered, 1 unanswered", "the server is gone"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "scores/n1/0") {
		t.Errorf("a healthy consumer has a line in\n%s", out.String())
	}
}
