//go:build libzmq

// Command pebbe is pebbe/zmq4, the cgo binding of libzmq, as a peer of the benchmark. It is a program and a build tag of
// its own so that all else builds where libzmq's headers are missing; the benchmark builds it when it starts.
package main

import (
	"fmt"
	"os"

	"github.com/pebbe/zmq4"

	"github.com/zfab/zfab/integration/peers/internal/child"
)

func main() {
	roles := child.Roles{Consume: consume, Produce: produce}
	if err := child.Run(roles, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pebbe:", err)
		os.Exit(1)
	}
}

func consume(job child.Job) (child.Throughput, error) {
	s, err := zmq4.NewSocket(zmq4.PULL)
	if err != nil {
		return child.Throughput{}, err
	}
	if err := s.Bind("tcp://127.0.0.1:*"); err != nil {
		return child.Throughput{}, err
	}
	addr, err := s.GetLastEndpoint()
	if err != nil {
		return child.Throughput{}, err
	}
	job.Ready(addr)
	m := child.NewMeter(job.Size, job.Duration)
	for {
		body, err := s.RecvBytes(0)
		if err != nil {
			return child.Throughput{}, err
		}
		if m.Count(len(body)) {
			return m.Result()
		}
	}
}

func produce(job child.Job) error {
	s, err := zmq4.NewSocket(zmq4.PUSH)
	if err != nil {
		return err
	}
	if err := s.Connect(job.Addr); err != nil {
		return err
	}
	body := make([]byte, job.Size)
	for {
		if _, err := s.SendBytes(body, 0); err != nil {
			return err
		}
	}
}
