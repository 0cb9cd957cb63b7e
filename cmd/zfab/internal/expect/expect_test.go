package expect

import (
	"strings"
	"testing"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
)

func sample() *report.Report {
	ratio := 0.97
	return &report.Report{
		Seconds:    2.5,
		Messages:   report.Messages{Sent: 100, Received: 99, Lost: 1, InDoubt: 5, Unpromised: 6, Buried: 7},
		Links:      report.Links{Open: 28, ProcessPairs: 1024},
		Streams:    1024,
		Throughput: report.Throughput{MessagesPerSecond: 40, BytesPerSecond: 2 << 20},
		Latency:    report.Latency{P50: 120, P99: 4000, Max: 9000, Count: 10},
		Stall:      &report.Stall{ThroughputRatio: &ratio},
		Faults: &report.Faults{ThroughputRatio: &ratio, FaultCounts: report.FaultCounts{
			Occurrences: 10, Hit: 9, HitRatio: 0.9, Unrecovered: 1,
			Recovery:  report.Quantiles{Count: 8, P50: 20, P99: 150, Max: 690},
			Detection: report.Quantiles{Count: 2, P50: 7500, P99: 7900, Max: 7900},
		}},
		Errors: 4,
		Memory: report.Memory{PeakBytes: 64 << 20, StreamBytes: 1 << 20},
	}
}

func TestJudge(t *testing.T) {
	for text, want := range map[string]bool{
		"lost == 0":                              false,
		"lost == 1":                              true,
		"lost!=0":                                true,
		"lost<1":                                 false,
		"links <= 28":                            true,
		"links < 28":                             false,
		"links.process_pairs >= 1024":            true,
		"messages.received > 98":                 true,
		"messages.received > 99":                 false,
		"throughput.bytes_per_second >= 2MiB":    true,
		"throughput.bytes_per_second >= 2.5MiB":  false,
		"latency.p99_us < 5ms":                   true,
		"latency.p99_us < 3ms":                   false,
		"recovery.max_ms <= 1s":                  true,
		"recovery.p50_ms < 20ms":                 false,
		"faults.hit_ratio >= 0.8":                true,
		"seconds <= 2500ms":                      true,
		"seconds <= 2":                           false,
		"stall.throughput_ratio >= 0.95":         true,
		"stall.throughput_ratio >= 0.98":         false,
		"memory.stream_bytes <= 1MiB":            true,
		"  throughput.messages_per_second >= 40": true,
	} {
		e, err := Parse(text)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		got := e.Judge(sample())
		if got.Value == nil || got.Passed != want {
			t.Errorf("%q: passed %v, value %v, want %v", text, got.Passed, got.Value, want)
		}
	}
}

func TestEveryMetricReadsItsOwnNumber(t *testing.T) {
	n := 27
	r := sample()
	r.Links.Sockets = &n
	for name, want := range map[string]float64{
		"lost": 1, "duplicated": 0, "reordered": 0, "corrupted": 0, "links": 28, "links.process_pairs": 1024,
		"links.sockets": 27, "streams": 1024, "messages.sent": 100, "messages.received": 99,
		"throughput.messages_per_second": 40, "throughput.bytes_per_second": 2 << 20, "latency.p50_us": 120,
		"latency.p99_us": 4000, "latency.max_us": 9000, "seconds": 2.5, "stall.throughput_ratio": 0.97,
		"memory.peak_bytes": 64 << 20, "memory.stream_bytes": 1 << 20,
		"faults.occurrences": 10, "faults.hit": 9, "faults.hit_ratio": 0.9, "faults.unrecovered": 1,
		"faults.throughput_ratio": 0.97, "recovery.p50_ms": 20, "recovery.p99_ms": 150, "recovery.max_ms": 690,
		"detection.max_ms": 7900, "errors": 4, "in_doubt": 5, "unpromised": 6, "buried": 7,
	} {
		m, ok := report.FindMetric(name)
		if !ok {
			t.Errorf("no metric %q", name)
			continue
		}
		if got, measured := m.Value(r); !measured || got != want {
			t.Errorf("%s = %v, %v, want %v", name, got, measured, want)
		}
	}
}

func TestWhatWasNotMeasuredIsNoVerdict(t *testing.T) {
	for _, text := range []string{
		"stall.throughput_ratio >= 0.95", "latency.p50_us < 10", "links.sockets == 1",
		"faults.hit == 0", "faults.throughput_ratio < 1", "recovery.max_ms < 1s", "detection.max_ms < 8s",
	} {
		e, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Judge(&report.Report{}); got.Value != nil || got.Passed {
			t.Errorf("%q of an empty report: %+v", text, got)
		}
	}
}

func TestParseErrorsSayWhatToWrite(t *testing.T) {
	for text, want := range map[string]string{
		"lost":                  "metric op value",
		"":                      "metric op value",
		"lots == 0":             `unknown metric "lots"; known are: lost, duplicated`,
		"lost = 0":              "known are: == != <= >= < >",
		"lost == zero":          `"zero" is not a number`,
		"lost ==":               "is not a number",
		"lost == 0 and links<3": "is not a number",
		"lost == 1MiB":          "lost is not in bytes",
		"lost < 5ms":            "lost is not a time",
		"lost == NaN":           "is not a number",
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", text, err, want)
		}
	}
}
