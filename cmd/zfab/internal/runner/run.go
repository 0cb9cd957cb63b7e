package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/faultproxy"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric/directory"
)

// Kind names what holds the nodes.
type Kind string

const (
	Embedded Kind = "embedded" // all nodes in this process
	Process  Kind = "process"  // a process for each
	Remote   Kind = "remote"   // a process for each, which others start: they dial
	Compose  Kind = "compose"  // the same in containers; Run is then called inside of one of them
)

// Kinds are those that are known.
var Kinds = []Kind{Embedded, Process, Remote, Compose}

// Options are how to run a topology.
type Options struct {
	Kind    Kind
	Timeout time.Duration // from the start of the load; then what is not there is lost
	Plant   Plant
	Logger  *slog.Logger
	// Command starts a node's process; see Child. Process only.
	Command []string
	// Control is where members dial, host:port; see CheckControl. Remote only.
	Control string
	// Waiting is told where it waits for members, and for how many. Remote only.
	Waiting func(addr string, members int)
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
	// start tells all nodes at which moment they start.
	start(at time.Time)
	// run returns when all nodes have told their results. Those of nodes that did
	// not are missing.
	run(ctx context.Context) ([]Result, []string)
	// answer asks a node, counted from 1, after start and until close.
	answer(ctx context.Context, node int, q question) (*sight, error)
	// directory is where the nodes are registered.
	directory() directory.Service
	received() uint64
	// sockets is the number of connections between the nodes' processes, by the
	// operating system's word; false where it cannot be told.
	sockets() (int, bool)
	// close ends the nodes and waits for them.
	close() error
}

// A mortal cluster has nodes that can be stopped and killed one by one.
type mortal interface {
	// pause stops a node until resume is called; an error if it is not there.
	pause(node int) (resume func(), err error)
	// kill ends a node at once, and revive begins its next life; errNotAlive if it
	// has ended already.
	kill(node int) error
	revive(ctx context.Context, node int) error
	// reached waits until all producers have reached all consumers, as far as they
	// are of a node (0: of any), and says when.
	reached(ctx context.Context, node int) (time.Duration, error)
	// finish ends the load, where nothing else does.
	finish()
}

func newRun(t *topology.Topology, o Options, harmless bool) (*oneRun, error) {
	r := &oneRun{topology: t, specs: specs(t, o.Plant, harmless), harmless: harmless, host: o.host(), patience: openTimeout}
	switch o.Kind {
	case Remote:
		cluster, err := newRemoteCluster(r.specs, o)
		if err != nil {
			return nil, err
		}
		r.cluster, r.patience = cluster, openTimeout+gatherTimeout
	case Process:
		r.cluster = newProcessCluster(r.specs, o)
	default:
		r.cluster = newEmbeddedCluster(r.specs, o)
	}
	return r, nil
}

// Run runs a topology and reports. An error means that there is nothing to
// report: the nodes could not be opened, or ctx ended.
func Run(ctx context.Context, t *topology.Topology, o Options) (*report.Report, error) {
	if err := Possible(t, o.Kind); err != nil {
		return nil, err
	}
	if err := plantable(t, o.Plant); err != nil {
		return nil, err
	}
	if breaksLinks(t.Faults) {
		logs.Hush(o.Logger)
	}
	var runs []*oneRun
	defer func() {
		logs.Hush(o.Logger)
		for _, r := range runs {
			r.close()
		}
	}()
	kinds := []bool{false}
	if t.SideBySide {
		kinds = append(kinds, true)
	}
	for _, harmless := range kinds {
		r, err := newRun(t, o, harmless)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
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

// Possible refuses what a runner cannot do.
func Possible(t *topology.Topology, kind Kind) error {
	if kind == Remote || kind == Compose {
		return possibleFor(t, kind)
	}
	for _, f := range t.Faults {
		if kind == Embedded && f.Kind.OfProcess() {
			return t.Refuse(f, "the %s runner has all nodes in one process and cannot %s one of them: use --runner %s", kind, f.Kind, Process)
		}
	}
	return nil
}

// breaksLinks reports whether nodes will see links go, as they are meant to.
func breaksLinks(faults []topology.Fault) bool {
	return slices.ContainsFunc(faults, func(f topology.Fault) bool { return f.Kind != topology.Stall })
}

// startDelay is the time for the word to start to reach every node.
const startDelay = 100 * time.Millisecond

// A oneRun is a topology with its cluster and what came of it.
type oneRun struct {
	topology *topology.Topology
	specs    []Spec
	cluster  cluster
	harmless bool              // no fault happens
	host     string            // where nodes reach this process
	patience time.Duration     // with the opening of the nodes
	proxy    *faultproxy.Proxy // nil where no fault is one of links
	results  []Result
	problems []string
	events   [][]event // by fault
	sockets  *int
}

func (r *oneRun) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	if pairs := proxied(r.topology); len(pairs) > 0 {
		proxy, err := faultproxy.Listen(r.host, pairs, r.endpoint)
		if err != nil {
			return err
		}
		r.proxy = proxy
		for i := range r.specs {
			r.specs[i].Via = proxy.Endpoints(topology.NodeName(r.specs[i].Node))
		}
	}
	return r.cluster.open(ctx)
}

// endpoint is where a node really is.
func (r *oneRun) endpoint(ctx context.Context, node string) (string, error) {
	info, err := r.cluster.directory().Node(ctx, node)
	return info.Endpoint, err
}

// recoveryGrace is how long after the end of the load faults may take to recover.
const recoveryGrace = 10 * time.Second

func (r *oneRun) run(ctx context.Context, start time.Time) error {
	r.cluster.start(start)
	finish := r.inject(ctx, start)
	ending, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	if r.specs[0].kills() {
		load.Go(func() { r.endLoad(ending, clock{start}, finish) })
	}
	r.results, r.problems = r.cluster.run(ctx)
	stop()
	load.Wait()
	finish()
	if n, ok := r.cluster.sockets(); ok && r.proxy == nil {
		r.sockets = &n
	}
	return nil
}

// endLoad ends the load where nodes are killed: when its time is over, every node
// is alive, and all that send have reached all that receive.
func (r *oneRun) endLoad(ctx context.Context, c clock, finish func()) {
	length := time.Duration(0)
	for _, l := range r.topology.Loads {
		length = max(length, l.Duration)
	}
	if !c.until(ctx, length) {
		return
	}
	finish()
	nodes := r.cluster.(mortal)
	if _, err := nodes.reached(ctx, 0); err == nil {
		nodes.finish()
	}
}

// inject makes faults happen until the function that it returns is called, which
// waits for the last of them.
func (r *oneRun) inject(ctx context.Context, start time.Time) (finish func()) {
	if r.harmless {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	in := newInjector(r.topology, r.cluster, r.proxy, clock{start})
	ended := make(chan struct{})
	var injecting sync.WaitGroup
	injecting.Go(func() { in.run(ctx, ended) })
	return sync.OnceFunc(func() {
		defer cancel()
		close(ended)
		defer time.AfterFunc(recoveryGrace, cancel).Stop()
		injecting.Wait()
		r.events = in.events
	})
}

// close ends the nodes before their proxies, so that they can take leave.
func (r *oneRun) close() {
	r.cluster.close()
	if r.proxy != nil {
		r.proxy.Close()
	}
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
