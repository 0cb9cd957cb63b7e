package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/zfab/zfab/integration/peers/internal/child"
)

// grace is what a measurement may take beyond its duration: starting processes, connecting, ending. Then it is given up.
const grace = 20 * time.Second

// afterPeer is how long a process may still answer once the one opposite has failed.
const afterPeer = time.Second

// pingSize is the bytes of a round trip's message.
const pingSize = 64

// peer is one way to move messages from one process to another.
type peer interface {
	name() string
	// throughput may return errNotMeasured.
	throughput(ctx context.Context, size int, duration time.Duration) (throughput, error)
	// roundTrip may return errNotMeasured.
	roundTrip(ctx context.Context, on placement, duration time.Duration) (roundTrip, error)
}

type throughput struct{ messagesPerSecond float64 }

type roundTrip struct{ p50, p99, max time.Duration }

var errNotMeasured = fmt.Errorf("not measured")

// pair is a peer whose two processes follow the command line of package child.
type pair struct {
	label   string
	command []string // what comes before ROLE
	server  bool     // a third process stands between the two
	pings   bool
	single  bool // it sends one message at a time: it has no throughput
}

func (p *pair) name() string { return p.label }

func (p *pair) throughput(ctx context.Context, size int, duration time.Duration) (throughput, error) {
	if p.single {
		return throughput{}, errNotMeasured
	}
	line, err := p.run(ctx, run{listener: "consumer", dialer: "producer", answer: "throughput", size: size, duration: duration})
	if err != nil {
		return throughput{}, err
	}
	t, err := child.ParseThroughput(line)
	if err != nil {
		return throughput{}, err
	}
	return throughput{t.PerSecond()}, nil
}

func (p *pair) roundTrip(ctx context.Context, on placement, duration time.Duration) (roundTrip, error) {
	if !p.pings {
		return roundTrip{}, errNotMeasured
	}
	line, err := p.run(ctx, run{listener: "echo", dialer: "ping", answer: "roundtrip", size: pingSize, duration: duration, on: on})
	if err != nil {
		return roundTrip{}, err
	}
	r, err := child.ParseRoundTrip(line)
	if err != nil {
		return roundTrip{}, err
	}
	return roundTrip{p50: r.P50, p99: r.P99, max: r.Max}, nil
}

// run is one measurement by two processes.
type run struct {
	listener string // the role that starts first and says where it is
	dialer   string
	answer   string // first word of the line that ends the measurement
	size     int
	duration time.Duration
	on       placement
}

// run starts the server if there is one, the listener and the dialer, waits for the answer, and ends them all.
func (p *pair) run(ctx context.Context, r run) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.duration+grace, fmt.Errorf("no answer within %v", r.duration+grace))
	defer cancel()

	// A server runs where the listener does.
	var listenerCPU, dialerCPU []int
	if cpus := r.on.cpus(); cpus != nil {
		listenerCPU, dialerCPU = cpus[:1], cpus[1:]
	}
	addr := "-"
	if p.server {
		s, err := startProcess(ctx, p.argv("server", addr, r), listenerCPU...)
		if err != nil {
			return "", err
		}
		defer s.stop()
		if addr, err = s.ready(ctx); err != nil {
			return "", err
		}
	}
	listener, err := startProcess(ctx, p.argv(r.listener, addr, r), listenerCPU...)
	if err != nil {
		return "", err
	}
	defer listener.stop()
	if addr, err = listener.ready(ctx); err != nil {
		return "", err
	}
	dialer, err := startProcess(ctx, p.argv(r.dialer, addr, r), dialerCPU...)
	if err != nil {
		return "", err
	}
	defer dialer.stop()

	if r.listener == "consumer" {
		return answer(ctx, r.answer, listener, dialer)
	}
	return answer(ctx, r.answer, dialer, listener)
}

// answer waits for from's last line. If the process opposite ends before it, from has a moment left: it may just be that
// its peer was the first to be seen ending.
func answer(ctx context.Context, word string, from, opposite *process) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	finished := make(chan struct{})
	watched := make(chan struct{})
	defer func() { close(finished); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-finished:
			return
		case <-opposite.done:
		}
		select {
		case <-finished:
		case <-time.After(afterPeer):
			cancel(opposite.failure(fmt.Errorf("ended first: %v", opposite.err)))
		}
	}()
	return from.line(ctx, word+" ")
}

// ready returns the address that p announces.
func (p *process) ready(ctx context.Context) (string, error) {
	const prefix = "ready "
	line, err := p.line(ctx, prefix)
	if err != nil {
		return "", err
	}
	return line[len(prefix):], nil
}

func (p *pair) argv(role, addr string, r run) []string {
	deadline := r.duration + grace + killAfter // later than ours: it is for when we are gone
	return append(p.command[:len(p.command):len(p.command)], role, addr, strconv.Itoa(r.size),
		strconv.FormatInt(r.duration.Milliseconds(), 10), strconv.Itoa(int(deadline.Seconds()+1)))
}
