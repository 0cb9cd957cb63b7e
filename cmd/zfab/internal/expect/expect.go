// Package expect reads and judges the expectations of a topology: one
// comparison of a metric with a value per line, like
//
//	lost == 0
//	links <= 28
//	memory.stream_bytes <= 1MiB
//	latency.p99_us < 5ms
//
// A value is a number, a size, or (for a metric in microseconds, milliseconds or
// seconds) a duration. There are no conjunctions: a second line says 'and'.
package expect

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// An Expression is one comparison.
type Expression struct {
	Metric report.Metric
	Op     string
	Value  float64
	text   string
}

// operators are tried in this order: the longer of two that begin alike first.
var operators = []struct {
	text  string
	holds func(a, b float64) bool
}{
	{"==", func(a, b float64) bool { return a == b }},
	{"!=", func(a, b float64) bool { return a != b }},
	{"<=", func(a, b float64) bool { return a <= b }},
	{">=", func(a, b float64) bool { return a >= b }},
	{"<", func(a, b float64) bool { return a < b }},
	{">", func(a, b float64) bool { return a > b }},
}

// Parse reads one expression. Its errors say what could have been written.
func Parse(text string) (Expression, error) {
	at := strings.IndexAny(text, "=!<>")
	if at < 0 {
		return Expression{}, fmt.Errorf("%q has no comparison: write `metric op value`, like `lost == 0`; op is one of %s", text, operatorList())
	}
	name := strings.TrimSpace(text[:at])
	metric, ok := report.FindMetric(name)
	if !ok {
		return Expression{}, fmt.Errorf("unknown metric %q; known are: %s", name, metricList())
	}
	op, rest := cutOperator(text[at:])
	if op == "" {
		return Expression{}, fmt.Errorf("%q has no operator that is known; known are: %s", text, operatorList())
	}
	value, err := parseValue(name, strings.TrimSpace(rest))
	if err != nil {
		return Expression{}, fmt.Errorf("in %q: %w", text, err)
	}
	return Expression{Metric: metric, Op: op, Value: value, text: strings.Join(strings.Fields(text), " ")}, nil
}

func cutOperator(text string) (op, rest string) {
	for _, o := range operators {
		if rest, ok := strings.CutPrefix(text, o.text); ok {
			return o.text, rest
		}
	}
	return "", text
}

func parseValue(metric, text string) (float64, error) {
	if v, err := strconv.ParseFloat(text, 64); err == nil && v == v {
		return v, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		switch {
		case strings.HasSuffix(metric, "_us"):
			return float64(d) / float64(time.Microsecond), nil
		case strings.HasSuffix(metric, "_ms"):
			return float64(d) / float64(time.Millisecond), nil
		case metric == "seconds":
			return d.Seconds(), nil
		}
		return 0, fmt.Errorf("%s is not a time, and %q is", metric, text)
	}
	size, err := units.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number, a size or a duration", text)
	}
	if !strings.Contains(metric, "bytes") {
		return 0, fmt.Errorf("%s is not in bytes, and %q is", metric, text)
	}
	return float64(size), nil
}

// String is the expression as it was written, its spaces made one.
func (e Expression) String() string { return e.text }

// Judge compares the report's metric with the value. Where the metric was not
// measured the verdict has no value, and the run is inconclusive for it.
func (e Expression) Judge(r *report.Report) report.Expectation {
	verdict := report.Expectation{Expression: e.text}
	value, measured := e.Metric.Value(r)
	if !measured {
		return verdict
	}
	verdict.Value = &value
	for _, o := range operators {
		if o.text == e.Op {
			verdict.Passed = o.holds(value, e.Value)
		}
	}
	return verdict
}

func operatorList() string {
	var all []string
	for _, o := range operators {
		all = append(all, o.text)
	}
	return strings.Join(all, " ")
}

func metricList() string {
	var all []string
	for _, m := range report.Metrics {
		all = append(all, m.Name)
	}
	return strings.Join(all, ", ")
}
