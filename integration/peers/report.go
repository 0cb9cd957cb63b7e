package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
)

// report is the outcome of a run. Pointers are null where nothing was measured.
type report struct {
	Seconds    float64         `json:"seconds"` // of one measurement
	Rounds     int             `json:"rounds"`
	Go         string          `json:"go"`
	CPUs       int             `json:"cpus"`
	Throughput []throughputRow `json:"throughput"`
	RoundTrips []roundTripRow  `json:"round_trips"`
	Skipped    []skip          `json:"skipped"`
	Failed     []failure       `json:"failed"`
	Bars       []barResult     `json:"bars"`
}

type throughputRow struct {
	Size              int        `json:"size"` // bytes
	Peer              string     `json:"peer"`
	MessagesPerSecond *float64   `json:"messages_per_second"`
	BytesPerSecond    *float64   `json:"bytes_per_second"` // of messages, without what a protocol adds
	Ratio             *float64   `json:"ratio"`            // zfab/peer
	RoundsPerSecond   []*float64 `json:"rounds_messages_per_second"`
}

type roundTripRow struct {
	Size  int       `json:"size"` // bytes
	On    placement `json:"on"`
	Peer  string    `json:"peer"`
	P50   *float64  `json:"p50_us"`
	P99   *float64  `json:"p99_us"`
	Max   *float64  `json:"max_us"`
	Ratio *float64  `json:"ratio"` // of the medians, zfab/peer
}

func (m *measurements) report(opt options, skipped []skip) report {
	r := report{
		Seconds:    opt.duration.Seconds(),
		Rounds:     opt.rounds,
		Go:         runtime.Version(),
		CPUs:       runtime.NumCPU(),
		Throughput: []throughputRow{},
		RoundTrips: []roundTripRow{},
		Skipped:    append([]skip{}, skipped...),
		Failed:     append([]failure{}, m.failed...),
	}
	for _, size := range opt.sizes {
		for _, name := range opt.peers {
			s, ok := m.perSecond[point{name, size}]
			if !ok {
				continue
			}
			row := throughputRow{
				Size:              size,
				Peer:              name,
				MessagesPerSecond: number(s.median()),
				BytesPerSecond:    number(s.median() * float64(size)),
				Ratio:             number(ratio(m.perSecond[point{"zfab", size}], s)),
			}
			for _, v := range s {
				row.RoundsPerSecond = append(row.RoundsPerSecond, number(v))
			}
			r.Throughput = append(r.Throughput, row)
		}
	}
	for _, on := range placements() {
		for _, name := range opt.peers {
			t := trip{name, on}
			if m.p50[t] == nil {
				continue
			}
			r.RoundTrips = append(r.RoundTrips, roundTripRow{
				Size:  pingSize,
				On:    on,
				Peer:  name,
				P50:   number(m.p50[t].median()),
				P99:   number(m.p99[t].median()),
				Max:   number(m.max[t].median()),
				Ratio: number(ratio(m.p50[trip{"zfab", on}], m.p50[t])),
			})
		}
	}
	for _, b := range bars {
		r.Bars = append(r.Bars, b.judge(m))
	}
	return r
}

func (r report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func (r report) writeText(out io.Writer) error {
	w := bufio.NewWriter(out) // keeps its first error for Flush
	fmt.Fprintf(w, "two processes over loopback TCP, median of %d rounds of %g s, %s, %d CPUs\n\n", r.Rounds, r.Seconds, r.Go, r.CPUs)
	fmt.Fprintf(w, "%-8s %-10s %12s %10s %10s\n", "size", "peer", "messages/s", "MB/s", "zfab/peer")
	for i, row := range r.Throughput {
		if i > 0 && row.Size != r.Throughput[i-1].Size {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%-8s %-10s %12s %10s %10s\n", bytesText(row.Size), row.Peer,
			numberText(row.MessagesPerSecond, 1, 0), numberText(row.BytesPerSecond, 1e-6, 1), numberText(row.Ratio, 1, 2))
	}
	fmt.Fprintf(w, "\nround trip of %s\n%-11s %-10s %10s %10s %10s %10s\n", bytesText(pingSize), "processes", "peer", "p50 us", "p99 us", "max us", "zfab/peer")
	for i, row := range r.RoundTrips {
		if i > 0 && row.On != r.RoundTrips[i-1].On {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%-11s %-10s %10s %10s %10s %10s\n", row.On, row.Peer,
			numberText(row.P50, 1, 1), numberText(row.P99, 1, 1), numberText(row.Max, 1, 0), numberText(row.Ratio, 1, 2))
	}
	fmt.Fprintln(w)
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "skipped %s: %s\n", s.Peer, s.Reason)
	}
	for _, f := range r.Failed {
		fmt.Fprintf(w, "failed %s, %s, round %d: %s\n", f.Peer, f.What, f.Round, f.Reason)
	}
	if len(r.Skipped)+len(r.Failed) > 0 {
		fmt.Fprintln(w)
	}
	for _, b := range r.Bars {
		fmt.Fprintf(w, "%-11s %-58s %8s\n", b.State, b.Bar, numberText(b.Ratio, 1, 2))
	}
	return w.Flush()
}

// number is nil for what was not measured.
func number(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

func numberText(f *float64, scale float64, digits int) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, *f*scale)
}

func bytesText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
