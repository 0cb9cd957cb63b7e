// Package child is one process of a measurement: how it is told what to do, how it answers, and when it ends.
//
// Every peer, in whatever language, is a program with the same command line,
//
//	PROGRAM ROLE ADDR SIZE MILLISECONDS DEADLINE
//
// ROLE is consumer, producer, echo, ping or server. ADDR is "-" for a role that listens where the system pleases. SIZE
// is in bytes, MILLISECONDS is how long to measure, and after DEADLINE seconds the process ends itself, whatever it is
// doing, so that nothing outlives a benchmark that was killed. On its standard output it writes lines:
//
//	ready ADDR                             the address that the other process is to be given
//	throughput MESSAGES NANOSECONDS        the consumer's last line
//	roundtrip COUNT P50 P99 MAX            the last line of ping; the times in nanoseconds
//
// A producer, an echo and a server end when they are interrupted or when their peer has gone.
package child

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// Job is what one process is asked to do.
type Job struct {
	Addr     string            // where the other side is; "-" for a role that listens
	Size     int               // bytes per message
	Duration time.Duration     // how long to measure, from the first message on
	Ready    func(addr string) // called once by a role that others connect to
}

// Roles are the parts that a peer can play. A nil one is refused by name.
type Roles struct {
	Consume func(Job) (Throughput, error)
	Produce func(Job) error
	Echo    func(Job) error
	Ping    func(Job) (RoundTrip, error)
	Serve   func(Job) error
}

// Run plays the part that args (ROLE ADDR SIZE MILLISECONDS DEADLINE) name and writes the answer to stdout. It does not
// return after DEADLINE seconds: the process exits with status 3.
func Run(roles Roles, args []string, stdout io.Writer) error {
	role, job, deadline, err := parse(args)
	if err != nil {
		return err
	}
	watchdog := time.AfterFunc(deadline, func() {
		fmt.Fprintf(os.Stderr, "%s: not done after %v\n", role, deadline)
		os.Exit(3)
	})
	defer watchdog.Stop()
	job.Ready = func(addr string) { fmt.Fprintf(stdout, "ready %s\n", addr) }

	switch {
	case role == "consumer" && roles.Consume != nil:
		t, err := roles.Consume(job)
		if err != nil {
			return fmt.Errorf("consumer: %w", err)
		}
		fmt.Fprintln(stdout, t.line())
		return nil
	case role == "ping" && roles.Ping != nil:
		r, err := roles.Ping(job)
		if err != nil {
			return fmt.Errorf("ping: %w", err)
		}
		fmt.Fprintln(stdout, r.line())
		return nil
	case role == "producer" && roles.Produce != nil:
		return wrap(role, roles.Produce(job))
	case role == "echo" && roles.Echo != nil:
		return wrap(role, roles.Echo(job))
	case role == "server" && roles.Serve != nil:
		return wrap(role, roles.Serve(job))
	}
	return fmt.Errorf("role %q is not one of this peer's", role)
}

func wrap(role string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	return nil
}

func parse(args []string) (role string, job Job, deadline time.Duration, err error) {
	if len(args) != 5 {
		return "", Job{}, 0, fmt.Errorf("want ROLE ADDR SIZE MILLISECONDS DEADLINE, got %d arguments", len(args))
	}
	var n [3]int
	for i, name := range []string{"SIZE", "MILLISECONDS", "DEADLINE"} {
		n[i], err = strconv.Atoi(args[2+i])
		if err != nil || n[i] < 1 {
			return "", Job{}, 0, fmt.Errorf("%s: want a number above zero, got %q", name, args[2+i])
		}
	}
	job = Job{Addr: args[1], Size: n[0], Duration: time.Duration(n[1]) * time.Millisecond}
	return args[0], job, time.Duration(n[2]) * time.Second, nil
}
