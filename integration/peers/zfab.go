package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// zfabBenchTime bounds one run of zfab bench, which decides for itself how long it measures.
const zfabBenchTime = 60 * time.Second

// zfab is the fabric, measured by the command's own bench in two processes.
type zfab struct {
	path string
}

// benchReport is what is used of zfab bench --format json.
type benchReport struct {
	Size              int     `json:"size"`
	Seconds           float64 `json:"seconds"`
	Messages          int64   `json:"messages"`
	MessagesPerSecond float64 `json:"messages_per_second"`
	RoundTrip         struct {
		P50 float64 `json:"p50_us"`
		P99 float64 `json:"p99_us"`
		Max float64 `json:"max_us"`
	} `json:"round_trip"`
}

func (z *zfab) name() string { return "zfab" }

func (z *zfab) throughput(ctx context.Context, size int, _ time.Duration) (throughput, error) {
	report, err := z.bench(ctx, size, anywhere)
	if err != nil {
		return throughput{}, err
	}
	return throughput{report.MessagesPerSecond}, nil
}

func (z *zfab) roundTrip(ctx context.Context, on placement, _ time.Duration) (roundTrip, error) {
	report, err := z.bench(ctx, pingSize, on)
	if err != nil {
		return roundTrip{}, err
	}
	if report.RoundTrip.P50 <= 0 {
		return roundTrip{}, errors.New("zfab bench reports no round trip")
	}
	us := func(f float64) time.Duration { return time.Duration(f * float64(time.Microsecond)) }
	return roundTrip{p50: us(report.RoundTrip.P50), p99: us(report.RoundTrip.P99), max: us(report.RoundTrip.Max)}, nil
}

func (z *zfab) bench(ctx context.Context, size int, on placement) (benchReport, error) {
	ctx, cancel := context.WithTimeout(ctx, zfabBenchTime)
	defer cancel()
	var stderr tail
	args := append([]string{"bench", "--size", strconv.Itoa(size), "--procs", strconv.Itoa(procs), "--format", "json"}, on.flag()...)
	cmd := exec.CommandContext(ctx, z.path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has processes of its own to end
	cmd.WaitDelay = killAfter
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return benchReport{}, fmt.Errorf("%s: %w; it said: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	var report benchReport
	if err := json.Unmarshal(out, &report); err != nil {
		return benchReport{}, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	if report.Size != size || report.MessagesPerSecond <= 0 {
		return benchReport{}, fmt.Errorf("%s: reports %g messages/s of %d bytes", strings.Join(cmd.Args, " "), report.MessagesPerSecond, report.Size)
	}
	return report, nil
}
