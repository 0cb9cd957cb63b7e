package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/bench"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// benchCommandName is what a benchmark starts itself with for each of its ends.
const benchCommandName = "bench-run"

func (c *command) benchCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:  "bench",
		Usage: "measure throughput and round trips between two processes",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "size", Value: "64B", Usage: "`bytes` of a message, like 64, 1KiB or 1MiB"},
			&cli.DurationFlag{Name: "duration", Value: 2 * time.Second, Usage: "`duration` of each of the two measurements; a fifth is warm-up"},
			&cli.StringFlag{Name: "transport", Value: string(bench.TCP), Usage: "`tcp|ipc`: over loopback or a Unix socket"},
			&cli.StringFlag{Name: "high-water-mark", Usage: "`bytes` that the stream may hold (default: the fabric's)"},
			&cli.BoolFlag{Name: "copy", Usage: "send bodies that are copied also from 8KiB on, instead of buffers that are handed over"},
			&cli.BoolFlag{Name: "attach", Usage: "measure beside it two workers that are attached to two nodes: four processes"},
			&cli.IntFlag{Name: "procs", Usage: "GOMAXPROCS of each of the processes (default: half of the processors)"},
			&cli.StringFlag{Name: "cpus", Usage: "`A,B`: keep the consumer's process on CPU A, the producer's on CPU B (default: where the system puts them; Linux)"},
			verboseFlag,
		},
		Action: c.bench,
	})
}

func (c *command) bench(ctx *cli.Context) error {
	if ctx.NArg() > 0 {
		return usagef("bench takes no arguments")
	}
	o := bench.Options{
		Duration: ctx.Duration("duration"), Transport: bench.Transport(ctx.String("transport")),
		Copy: ctx.Bool("copy"), Procs: ctx.Int("procs"), Attach: ctx.Bool("attach"),
		Stderr: c.stderr, Logger: logs.New(c.stderr, ctx.Bool("verbose")),
	}
	size, err := units.ParseSize(ctx.String("size"))
	if err != nil {
		return usageError{fmt.Errorf("bench: %w", err)}
	}
	if size < 1 || size > topology.MaxMessage {
		return usagef("bench: the size must be from 1B to %s", topology.MaxMessage)
	}
	o.Size = int(size)
	if mark := ctx.String("high-water-mark"); mark != "" {
		v, err := units.ParseSize(mark)
		if err != nil || v < 1 {
			return usagef("bench: %q is no high-water mark: give a size, like 1MiB", mark)
		}
		o.Mark = int64(v)
	}
	if o.Procs < 0 {
		return usagef("bench: --procs is %d: give 1 or more", o.Procs)
	}
	if cpus := ctx.String("cpus"); cpus != "" {
		if o.CPUs, err = parseCPUs(cpus); err != nil {
			return err
		}
	}
	if o.Duration < 100*time.Millisecond {
		return usagef("bench: measure for 100ms at least")
	}
	if !slices.Contains(bench.Transports, o.Transport) {
		return usagef("bench: unknown transport %q; known are: %s", o.Transport, words(bench.Transports))
	}
	if o.Command, err = c.self(ctx, benchCommandName); err != nil {
		return err
	}
	progress := c.newProgress("measured, ms", o.Time().Milliseconds())
	o.Progress = func(spent time.Duration) { progress.set(uint64(spent.Milliseconds())) }
	r, err := bench.Run(ctx.Context, o)
	progress.end()
	if err != nil {
		return err
	}
	return c.answer(ctx, r, func(w io.Writer) error { return writeBench(w, r) })
}

// parseCPUs reads the numbers of two CPUs, which may be one and the same.
func parseCPUs(s string) ([]int, error) {
	first, second, _ := strings.Cut(s, ",")
	a, errA := strconv.ParseUint(first, 10, 10)
	b, errB := strconv.ParseUint(second, 10, 10)
	if errA != nil || errB != nil {
		return nil, usagef("bench: --cpus is %q: give two numbers, like 0,1", s)
	}
	return []int{int(a), int(b)}, nil
}

func writeBench(w io.Writer, r *bench.Result) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "message\t%s over %s, one producer, one consumer, a process each\n", units.Size(r.Size), r.Transport)
	writeMeasured(t, r)
	if r.Attached != nil {
		fmt.Fprintf(t, "attached\tthe same two as workers, attached to a node each: %.2f of the throughput\n", r.AttachedShare)
		writeMeasured(t, r.Attached)
	}
	return t.Flush()
}

func writeMeasured(t io.Writer, r *bench.Result) {
	fmt.Fprintf(t, "throughput\t%s messages/s, %s/s (%d in %.2f s)\n", units.Count(r.MessagesPerSecond), units.Approximate(r.BytesPerSecond), r.Messages, r.Seconds)
	fmt.Fprintf(t, "round trip\tp50 %.1f us, p99 %.1f us, max %.1f us\n", r.RoundTrip.P50, r.RoundTrip.P99, r.RoundTrip.Max)
	fmt.Fprintf(t, "allocations\t%.4f per message at the producer, %.4f at the consumer\n", r.Allocs.Producer, r.Allocs.Consumer)
	if r.CPUPerMessage > 0 {
		fmt.Fprintf(t, "CPU\t%.0f ns per message, in all processes\n", r.CPUPerMessage)
	}
}

// self is the command line that starts this program again as a hidden command.
func (c *command) self(ctx *cli.Context, name string) ([]string, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	line := []string{executable, name}
	if ctx.Bool("verbose") {
		line = append(line, "--verbose")
	}
	return line, nil
}

// benchEndCommand is one end of a benchmark: not for people.
func (c *command) benchEndCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:   benchCommandName,
		Hidden: true,
		Flags:  []cli.Flag{verboseFlag},
		Action: func(ctx *cli.Context) error {
			return bench.Child(ctx.Context, c.stdin, c.stdout, logs.New(c.stderr, ctx.Bool("verbose")))
		},
	})
}
