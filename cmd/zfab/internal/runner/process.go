package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric/directory"
)

// A processCluster has a process for each node, and the directory for all in
// this one.
type processCluster struct {
	options  Options
	registry *directory.Registry
	server   *directory.Server
	specs    []Spec
	nodes    []*nodeProcess
}

// A nodeProcess is a node's process. Its listener hears all that the child says
// and ends with it.
type nodeProcess struct {
	*child.Process
	words     chan word // two at most: ready or failed, and the result; then closed
	err       error     // why words was closed
	listening sync.WaitGroup
	received  atomic.Uint64
}

func newProcessCluster(specs []Spec, o Options) *processCluster {
	return &processCluster{options: o, registry: directory.NewRegistry(), specs: specs}
}

// open starts the directory and the children, and waits until each is ready.
func (p *processCluster) open(ctx context.Context) error {
	server, err := directory.Serve(ctx, p.registry, "tcp://127.0.0.1:0", p.options.Logger)
	if err != nil {
		return err
	}
	p.server = server
	for _, spec := range p.specs {
		spec.Directory = server.Addr()
		process, err := child.Start("node "+topology.NodeName(spec.Node), p.options.Command, p.options.Stderr)
		if err != nil {
			return err
		}
		n := &nodeProcess{Process: process, words: make(chan word, 2)}
		n.listening.Go(n.listen)
		p.nodes = append(p.nodes, n)
		if err := n.Tell(order{Spec: &spec}); err != nil {
			return err
		}
	}
	for _, n := range p.nodes {
		if err := n.waitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// listen hears what the child says until it ends.
func (n *nodeProcess) listen() {
	defer close(n.words)
	for {
		var w word
		if n.err = n.Hear(&w); n.err != nil {
			return
		}
		if w.Received != nil {
			n.received.Store(*w.Received)
			continue
		}
		n.words <- w
		if w.Failed != "" || w.Result != nil {
			n.err = errors.New("said its last already")
			return
		}
	}
}

func (n *nodeProcess) waitReady(ctx context.Context) error {
	select {
	case w, more := <-n.words:
		switch {
		case !more:
			return n.err
		case w.Unreachable:
			return fmt.Errorf("%s: %w", w.Failed, directory.ErrUnavailable)
		case w.Failed != "":
			return errors.New(w.Failed)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is not ready: %w", n.Name(), ctx.Err())
	}
}

// stopGrace is how long children have to tell their results after they were
// told to stop.
const stopGrace = 5 * time.Second

// run waits for the result of every node. When the time is over, and when a
// process ends without a result, the others are told to stop: nothing can
// complete any more.
func (p *processCluster) run(ctx context.Context, start time.Time) ([]Result, []string) {
	overdue, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	stop := sync.OnceFunc(func() {
		time.AfterFunc(stopGrace, giveUp)
		for _, n := range p.nodes {
			n.Tell(order{Stop: true}) // one that is gone is found below
		}
	})
	defer context.AfterFunc(ctx, stop)()
	ends := make(chan end, len(p.nodes))
	for _, n := range p.nodes {
		n.Tell(order{Start: start.UnixNano()})
		go n.await(overdue, ends)
	}
	var results []Result
	var problems []string
	for range p.nodes {
		e := <-ends
		if e.err != nil {
			problems = append(problems, e.err.Error())
			stop()
			continue
		}
		results = append(results, *e.result)
	}
	return results, problems
}

// An end is what a node's process has to tell, or why it does not.
type end struct {
	result *Result
	err    error
}

// await waits for a node's end; run takes it.
func (n *nodeProcess) await(overdue context.Context, ends chan<- end) {
	select {
	case w, more := <-n.words:
		if more && w.Result != nil {
			ends <- end{result: w.Result}
		} else {
			ends <- end{err: n.err}
		}
	case <-overdue.Done():
		ends <- end{err: fmt.Errorf("%s did not tell its result", n.Name())}
	}
}

func (p *processCluster) received() uint64 {
	total := uint64(0)
	for _, n := range p.nodes {
		total += n.received.Load()
	}
	return total
}

// sockets counts while every child still has its node open.
func (p *processCluster) sockets() (int, bool) {
	var pids []int
	for _, n := range p.nodes {
		pids = append(pids, n.PID())
	}
	return connectionsBetween(pids)
}

func (p *processCluster) close() error {
	var all sync.WaitGroup
	for _, n := range p.nodes {
		all.Go(func() {
			n.Process.Close()
			n.listening.Wait()
		})
	}
	all.Wait()
	if p.server != nil {
		p.server.Close()
	}
	return p.registry.Close()
}
