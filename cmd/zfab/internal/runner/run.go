package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// Kind names what holds the nodes.
type Kind string

const (
	Embedded Kind = "embedded" // all nodes in this process
	Process  Kind = "process"  // a process for each
)

// Kinds are those that are known.
var Kinds = []Kind{Embedded, Process}

// Options are how to run a topology.
type Options struct {
	Kind    Kind
	Timeout time.Duration // from the start of the load; then what is not there is lost
	Plant   Plant
	Logger  *slog.Logger
	// Command starts a node's process; see Child. Process only.
	Command []string
	Stderr  io.Writer // takes what the children write there
	// Progress is told now and then how many messages were received. It is
	// called by one goroutine at a time.
	Progress func(received uint64)
}

// openTimeout bounds the opening of all nodes.
const openTimeout = 60 * time.Second

// A cluster holds the nodes of one run.
type cluster interface {
	// open returns when every node is ready to start.
	open(ctx context.Context) error
	// run starts all nodes at one moment of the wall clock and returns when all
	// have told their results. Those of nodes that did not are missing.
	run(ctx context.Context, start time.Time) ([]Result, []string)
	received() uint64
	// sockets is the number of connections between the nodes' processes, by the
	// operating system's word; false where it cannot be told.
	sockets() (int, bool)
	// close ends the nodes and waits for them.
	close() error
}

func newRun(t *topology.Topology, o Options, harmless bool) *oneRun {
	specs := specs(t, o.Plant, harmless)
	if o.Kind == Process {
		return &oneRun{topology: t, cluster: newProcessCluster(specs, o)}
	}
	return &oneRun{topology: t, cluster: newEmbeddedCluster(specs, o)}
}

// Run runs a topology and reports. An error means that there is nothing to
// report: the nodes could not be opened, or ctx ended.
func Run(ctx context.Context, t *topology.Topology, o Options) (*report.Report, error) {
	runs := []*oneRun{newRun(t, o, false)}
	if t.SideBySide {
		runs = append(runs, newRun(t, o, true))
	}
	defer func() {
		logs.Hush(o.Logger)
		for _, r := range runs {
			r.cluster.close()
		}
	}()
	if err := each(runs, func(r *oneRun) error { return r.open(ctx) }); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	stop := follow(runs[0].cluster, o.Progress)
	start := time.Now().Add(startDelay)
	each(runs, func(r *oneRun) error { return r.run(limited, start) })
	stop()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if limited.Err() != nil {
		runs[0].problems = append([]string{fmt.Sprintf("not all had ended after %s", o.Timeout)}, runs[0].problems...)
	}
	return judge(runs, o.Kind), nil
}

// startDelay is the time for the word to start to reach every node.
const startDelay = 100 * time.Millisecond

// A oneRun is a topology with its cluster and what came of it.
type oneRun struct {
	topology *topology.Topology
	cluster  cluster
	results  []Result
	problems []string
	sockets  *int
}

func (r *oneRun) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return r.cluster.open(ctx)
}

func (r *oneRun) run(ctx context.Context, start time.Time) error {
	r.results, r.problems = r.cluster.run(ctx, start)
	if n, ok := r.cluster.sockets(); ok {
		r.sockets = &n
	}
	return nil
}

// each does the same for all runs at once.
func each(runs []*oneRun, do func(*oneRun) error) error {
	var all sync.WaitGroup
	errs := make([]error, len(runs))
	for i, r := range runs {
		all.Go(func() { errs[i] = do(r) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// progressInterval is how often progress is told.
const progressInterval = 200 * time.Millisecond

// follow tells progress until the function that it returns is called.
func follow(c cluster, progress func(uint64)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	done := make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				progress(c.received())
			case <-done:
				progress(c.received())
				return
			}
		}
	})
	return func() { close(done); following.Wait() }
}
