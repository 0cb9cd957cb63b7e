package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric/directory"
)

// A processCluster has a process for each node, and the directory for all in
// this one. Either it starts the processes itself, or somebody else has, and they
// dial (remote.go).
type processCluster struct {
	options  Options
	muster   *child.Muster // of those that dial; nil where it starts them
	registry *directory.Registry
	server   *directory.Server
	specs    []Spec
	places   []*place // by node
}

// A place is where one node lives: in one process after another, if it is killed
// (lives.go).
type place struct {
	mu    sync.Mutex
	lives []*nodeProcess // the last one is the present one; one at least
	start clock          // once it is known
}

// present is the place's present process.
func (p *place) present() *nodeProcess {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lives[len(p.lives)-1]
}

// A nodeProcess is a node's process. Its listener hears all that the child says
// and ends with it.
type nodeProcess struct {
	*child.Process
	words     chan word // two at most: ready or failed, and the result; then closed
	err       error     // why words was closed
	listening sync.WaitGroup
	received  atomic.Uint64
	next      chan *nodeProcess // the life after this one, if it was killed; closed if there is none

	mu      sync.Mutex
	started bool                  // it was told to start; only then can it answer
	account Result                // what it told last
	span    span                  // of this life
	asked   uint64                // questions so far
	waiting map[uint64]chan *word // for answers, by question; nil once there will be none
}

func newProcessCluster(specs []Spec, o Options) *processCluster {
	return &processCluster{options: o, registry: directory.NewRegistry(), specs: specs}
}

// open starts the directory and the children, and waits until each is ready.
func (p *processCluster) open(ctx context.Context) error {
	server, err := directory.Serve(ctx, p.registry, "tcp://"+net.JoinHostPort(p.options.host(), "0"), p.options.Logger)
	if err != nil {
		return err
	}
	p.server = server
	members, err := p.gather(ctx)
	if err != nil {
		return err
	}
	for i, spec := range p.specs {
		var n *nodeProcess
		if members != nil {
			n, err = p.employ(members[i], spec)
		} else {
			n, err = p.launch(spec)
		}
		if n != nil {
			p.places = append(p.places, &place{lives: []*nodeProcess{n}})
		}
		if err != nil {
			return err
		}
	}
	return p.waitReady(ctx)
}

// waitReady waits until every node is ready, or one is not going to be.
func (p *processCluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, len(p.places))
	for _, at := range p.places {
		go func() { ends <- at.present().waitReady(ctx) }()
	}
	var first error
	for range p.places {
		if err := <-ends; err != nil && first == nil {
			first = err // what the others say follows from it
			cancel()
		}
	}
	return first
}

// launch starts a node's process and tells it what it is. With an error, too, a
// process that was started has to be closed.
func (p *processCluster) launch(spec Spec) (*nodeProcess, error) {
	process, err := child.Start(nameOf(spec), p.options.Command, p.options.Stderr)
	if err != nil {
		return nil, err
	}
	return p.employ(process, spec)
}

func nameOf(spec Spec) string { return "node " + topology.NodeName(spec.Node) }

// employ tells a process what it is.
func (p *processCluster) employ(process *child.Process, spec Spec) (*nodeProcess, error) {
	spec.Directory = p.server.Addr()
	n := &nodeProcess{
		Process: process, words: make(chan word, 2), next: make(chan *nodeProcess, 1),
		account: Result{Node: spec.Node, Life: spec.Life}, waiting: make(map[uint64]chan *word),
	}
	n.listening.Go(n.listen)
	return n, n.Tell(order{Spec: &spec})
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
		case w.Account != nil:
			n.accounted(*w.Account)
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
	if n.waiting == nil || !n.started {
		n.mu.Unlock()
		return nil, errNotAlive
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
			return nil, errNotAlive
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
	for _, place := range p.places {
		place.mu.Lock()
		place.start = clock{at}
		place.mu.Unlock()
		place.present().begin(at) // one that is gone is found in run
	}
}

func (n *nodeProcess) begin(at time.Time) error {
	err := n.Tell(order{Start: at.UnixNano()})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.started = true
	return err
}

func (p *processCluster) answer(ctx context.Context, node int, q question) (*sight, error) {
	return p.places[node-1].present().answer(ctx, q)
}

func (p *processCluster) pause(node int) (func(), error) { return p.places[node-1].present().Pause() }

func (p *processCluster) directory() directory.Service { return p.registry }

// stopGrace is how long children have to tell their results after they were
// told to stop.
const stopGrace = 5 * time.Second

// run waits for the result of every node. When the time is over, and when a
// process ends without a result, the others are told to stop: nothing can
// complete any more. The last words of lives that were killed count as results.
func (p *processCluster) run(ctx context.Context) ([]Result, []string) {
	overdue, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	stop := sync.OnceFunc(func() {
		time.AfterFunc(stopGrace, giveUp)
		for _, place := range p.places {
			place.present().Tell(order{Stop: true}) // one that is gone is found below
		}
	})
	defer context.AfterFunc(ctx, stop)()
	ends := make(chan end, len(p.places))
	for _, place := range p.places {
		go place.await(overdue, ends)
	}
	var results []Result
	var problems []string
	for range p.places {
		e := <-ends
		results = append(results, e.results...)
		if e.err != nil {
			problems = append(problems, e.err.Error())
			stop()
		}
	}
	return results, problems
}

// An end is what a node's processes have to tell, or why the last does not.
type end struct {
	results []Result // of all lives
	err     error
}

// await waits for the end of a node's last life; run takes it.
func (p *place) await(overdue context.Context, ends chan<- end) {
	var e end
	p.mu.Lock()
	n := p.lives[0]
	p.mu.Unlock()
	for n != nil {
		var next *nodeProcess
		var result Result
		result, next, e.err = n.await(overdue)
		if e.err == nil {
			e.results = append(e.results, result)
		}
		n = next
	}
	ends <- e
}

// await waits for the end of one life: its result, or what it had told when it
// was killed, and the life after it.
func (n *nodeProcess) await(overdue context.Context) (Result, *nodeProcess, error) {
	late := fmt.Errorf("%s did not tell its result", n.Name())
	select {
	case w, more := <-n.words:
		if more && w.Result != nil {
			n.finished()
			return n.lifeOf(*w.Result), nil, nil
		}
	case <-overdue.Done():
		return Result{}, nil, late
	}
	if !n.wasKilled() {
		return Result{}, nil, n.err
	}
	select {
	case next, more := <-n.next:
		if !more {
			return Result{}, nil, fmt.Errorf("%s did not come back after it was killed", n.Name())
		}
		return n.lifeOf(n.told()), next, nil
	case <-overdue.Done():
		return Result{}, nil, late
	}
}

func (p *processCluster) received() uint64 {
	total := uint64(0)
	for _, place := range p.places {
		place.mu.Lock()
		for _, n := range place.lives {
			total += n.received.Load()
		}
		place.mu.Unlock()
	}
	return total
}

// sockets counts while every child still has its node open.
func (p *processCluster) sockets() (int, bool) {
	if p.options.Kind == Remote {
		return 0, false // their hosts would have to be asked
	}
	var pids []int
	for _, place := range p.places {
		pids = append(pids, place.present().PID())
	}
	return ConnectionsBetween(pids)
}

func (p *processCluster) close() error {
	if p.muster != nil {
		p.muster.Close()
	}
	var all sync.WaitGroup
	for _, place := range p.places {
		for _, n := range place.lives {
			all.Go(func() {
				n.Process.Close()
				n.listening.Wait()
			})
		}
	}
	all.Wait()
	if p.server != nil {
		p.server.Close()
	}
	return p.registry.Close()
}
