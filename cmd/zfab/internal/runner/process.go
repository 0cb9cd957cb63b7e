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

	mu      sync.Mutex
	asked   uint64                // questions so far
	waiting map[uint64]chan *word // for answers, by question; nil once there will be none
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
		n := &nodeProcess{Process: process, words: make(chan word, 2), waiting: make(map[uint64]chan *word)}
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
	defer n.forget()
	defer close(n.words)
	said := 0
	for {
		w := new(word)
		if n.err = n.Hear(w); n.err != nil {
			return
		}
		switch {
		case w.Received != nil:
			n.received.Store(*w.Received)
		case w.Answer != 0:
			n.answered(w)
		case said < cap(n.words):
			said++
			n.words <- *w
		}
	}
}

// answer asks the child.
func (n *nodeProcess) answer(ctx context.Context, q question) (*sight, error) {
	came := make(chan *word, 1)
	n.mu.Lock()
	if n.waiting == nil {
		n.mu.Unlock()
		return nil, n.err
	}
	n.asked++
	id := n.asked
	n.waiting[id] = came
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.waiting, id)
	}()
	if err := n.Tell(order{Ask: id, Question: &q}); err != nil {
		return nil, err
	}
	select {
	case w := <-came:
		if w == nil {
			return nil, n.err
		}
		return w.Sight, nil
	case <-ctx.Done():
		n.Tell(order{Drop: id}) // one that is gone has dropped it
		return nil, ctx.Err()
	}
}

func (n *nodeProcess) answered(w *word) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if came := n.waiting[w.Answer]; came != nil {
		came <- w
		delete(n.waiting, w.Answer)
	}
}

// forget ends the waiting for answers.
func (n *nodeProcess) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, came := range n.waiting {
		close(came)
	}
	n.waiting = nil
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

func (p *processCluster) start(at time.Time) {
	for _, n := range p.nodes {
		n.Tell(order{Start: at.UnixNano()}) // one that is gone is found in run
	}
}

func (p *processCluster) answer(ctx context.Context, node int, q question) (*sight, error) {
	return p.nodes[node-1].answer(ctx, q)
}

func (p *processCluster) pause(node int) (func(), error) { return p.nodes[node-1].Pause() }

func (p *processCluster) directory() directory.Service { return p.registry }

// stopGrace is how long children have to tell their results after they were
// told to stop.
const stopGrace = 5 * time.Second

// run waits for the result of every node. When the time is over, and when a
// process ends without a result, the others are told to stop: nothing can
// complete any more.
func (p *processCluster) run(ctx context.Context) ([]Result, []string) {
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
