// Command peers runs the same work through zfab and through what others use for it, in one run and interleaved, and says
// whether the project's bars are met.
//
// Every measurement is made by two processes, a producer and a consumer, over TCP on loopback: this command starts itself
// again for the peers written in Go, and compiles those that need libzmq when it starts. A round measures every peer at
// every size once, then every round trip; since a machine's speed drifts by more than the peers differ, what is reported
// is the median of the rounds, and a ratio is the median of the ratios within each round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zfab/zfab/integration/peers/internal/child"
)

// goPeers are the ones that this very program plays, by name.
var goPeers = map[string]child.Roles{
	"raw":       rawRoles,
	"yamux":     yamuxRoles,
	"nats":      natsRoles,
	"go-zeromq": goZeroMQRoles,
	calls:       callRoles,
}

// childCommand as the first argument makes this process one of a measurement's: peers child PEER ROLE ...
const childCommand = "child"

func main() {
	if len(os.Args) > 2 && os.Args[1] == childCommand {
		if err := child.Run(goPeers[os.Args[2]], os.Args[3:], os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[2], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := execute(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func execute(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	found, skipped, cleanup, err := findPeers(ctx, opt)
	if err != nil {
		return err
	}
	defer cleanup()
	for _, s := range skipped {
		fmt.Fprintf(stderr, "skipped %s: %s\n", s.Peer, s.Reason)
	}
	m, err := measureAll(ctx, found, opt, stderr)
	if err != nil {
		return err
	}
	r := m.report(opt, skipped)
	if opt.format == "json" {
		err = r.writeJSON(stdout)
	} else {
		err = r.writeText(stdout)
	}
	if err == nil && len(r.Failed) > 0 {
		err = fmt.Errorf("%d measurements failed", len(r.Failed))
	}
	return err
}

type options struct {
	duration time.Duration // of one measurement
	rounds   int
	sizes    []int    // bytes
	peers    []string // by name, in the table's order
	zfabPath string
	format   string // text or json
}

// peerNames is every peer, in the table's order.
var peerNames = []string{"zfab", calls, "raw", "yamux", "libzmq", "pebbe", "go-zeromq", "nats"}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var opt options
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	fs.SetOutput(stderr)
	seconds := fs.Float64("seconds", 1, "how long one measurement takes; zfab bench keeps its own time")
	fs.IntVar(&opt.rounds, "rounds", 3, "how often everything is measured; the median is reported")
	sizes := fs.String("sizes", "64,1024,65536,1048576", "bytes per message")
	peers := fs.String("peers", strings.Join(peerNames, ","), "which ones to run: two are enough while tuning for one bar")
	fs.StringVar(&opt.zfabPath, "zfab", "../bin/zfab", "the zfab command")
	fs.StringVar(&opt.format, "format", "text", "text or json")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	if fs.NArg() > 0 {
		return options{}, fmt.Errorf("argument %q: there are flags only", fs.Arg(0))
	}
	if *seconds < 0.01 || *seconds > 60 {
		return options{}, fmt.Errorf("-seconds %g: want 0.01 to 60", *seconds)
	}
	opt.duration = time.Duration(*seconds * float64(time.Second))
	if opt.rounds < 1 {
		return options{}, fmt.Errorf("-rounds %d: want at least 1", opt.rounds)
	}
	if opt.format != "text" && opt.format != "json" {
		return options{}, fmt.Errorf("-format %q: want text or json", opt.format)
	}
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1<<20 {
			return options{}, fmt.Errorf("-sizes %q: want numbers from 1 to 1048576, the most that NATS takes", *sizes)
		}
		opt.sizes = append(opt.sizes, n)
	}
	asked := strings.Split(*peers, ",")
	for _, name := range asked {
		if !slices.Contains(peerNames, name) {
			return options{}, fmt.Errorf("-peers: %q is not one of %s", name, strings.Join(peerNames, ", "))
		}
	}
	for _, name := range peerNames {
		if slices.Contains(asked, name) {
			opt.peers = append(opt.peers, name)
		}
	}
	return opt, nil
}

// procs is GOMAXPROCS of every process that is measured, zfab's and the Go
// peers': the two ends share the machine, and each gets its half.
var procs = max(1, runtime.NumCPU()/2)
