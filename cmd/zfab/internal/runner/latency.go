package runner

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
)

// latency collects times in microseconds up to ten minutes, to two digits: some
// 20 KiB each, for there is one per consumer. It travels as JSON.
type latency struct {
	h *hdrhistogram.Histogram
}

const longestLatency = int64(10 * time.Minute / time.Microsecond)

func newLatency() latency { return latency{hdrhistogram.New(1, longestLatency, 2)} }

func (l latency) record(d time.Duration) {
	l.h.RecordValue(min(max(d.Microseconds(), 0), longestLatency))
}

func (l latency) merge(o latency) {
	if o.h != nil {
		l.h.Merge(o.h)
	}
}

func (l latency) report() report.Latency {
	return report.Latency{
		P50:   float64(l.h.ValueAtQuantile(50)),
		P99:   float64(l.h.ValueAtQuantile(99)),
		Max:   float64(l.h.Max()),
		Count: l.h.TotalCount(),
	}
}

func (l latency) MarshalJSON() ([]byte, error) {
	if l.h == nil || l.h.TotalCount() == 0 {
		return []byte("null"), nil
	}
	text, err := l.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(text))
}

func (l *latency) UnmarshalJSON(text []byte) error {
	*l = newLatency()
	if string(text) == "null" {
		return nil
	}
	var encoded string
	if err := json.Unmarshal(text, &encoded); err != nil {
		return err
	}
	if _, err := base64.StdEncoding.DecodeString(encoded); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	h, err := hdrhistogram.Decode([]byte(encoded))
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	l.h = h
	return nil
}
