package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/zfab/zfab/integration/peers/internal/child"
)

// Core NATS: the server in a process of its own, a publisher and a subscriber in two more, default settings but one. It
// promises no delivery: what the publisher is ahead of the subscriber by may be dropped. Only what arrives is counted.

// natsPending is what the server may hold for a subscriber before it ends the connection. The default, 64 MiB, is 64
// messages of 1 MiB, which a publisher without flow control is sometimes ahead by.
const natsPending = 256 << 20

var natsRoles = child.Roles{Consume: natsConsume, Produce: natsProduce, Echo: natsEcho, Ping: natsPing, Serve: natsServe}

const (
	natsSubject     = "peers"
	natsPingSubject = "peers.ping"
	natsPongSubject = "peers.pong"
)

func natsServe(job child.Job) error {
	s, err := server.NewServer(&server.Options{
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		MaxPending: natsPending,
		NoLog:      true,
		NoSigs:     true,
	})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("server is not ready after 10s")
	}
	job.Ready(s.ClientURL())
	s.WaitForShutdown()
	return nil
}

func natsConsume(job child.Job) (child.Throughput, error) {
	nc, closed, err := natsConnect(job)
	if err != nil {
		return child.Throughput{}, err
	}
	m := child.NewMeter(job.Size, job.Duration)
	over := false // the callback's alone
	done := make(chan struct{})
	_, err = nc.Subscribe(natsSubject, func(msg *nats.Msg) {
		if !over && m.Count(len(msg.Data)) {
			over = true
			close(done)
		}
	})
	if err != nil {
		return child.Throughput{}, err
	}
	if err := nc.Flush(); err != nil {
		return child.Throughput{}, err
	}
	job.Ready(job.Addr)
	select {
	case <-done:
		return m.Result()
	case err := <-closed:
		return child.Throughput{}, err
	}
}

func natsProduce(job child.Job) error {
	nc, _, err := natsConnect(job)
	if err != nil {
		return err
	}
	body := make([]byte, job.Size)
	for {
		if err := nc.Publish(natsSubject, body); err != nil {
			return err
		}
	}
}

func natsEcho(job child.Job) error {
	nc, closed, err := natsConnect(job)
	if err != nil {
		return err
	}
	_, err = nc.Subscribe(natsPingSubject, func(msg *nats.Msg) {
		nc.Publish(natsPongSubject, msg.Data) // fails only once closed, which is seen below
	})
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	job.Ready(job.Addr)
	return <-closed
}

// natsPing sends the next ping from the callback that took the last pong: no goroutine is woken between the two.
func natsPing(job child.Job) (child.RoundTrip, error) {
	nc, closed, err := natsConnect(job)
	if err != nil {
		return child.RoundTrip{}, err
	}
	body := make([]byte, job.Size)
	var samples child.Samples // the callback's until done is closed
	done := make(chan struct{})
	start := time.Now()
	before := start
	_, err = nc.Subscribe(natsPongSubject, func(*nats.Msg) {
		after := time.Now()
		samples.Add(after.Sub(before))
		before = after
		if after.Sub(start) >= job.Duration {
			close(done)
			return
		}
		nc.Publish(natsPingSubject, body)
	})
	if err != nil {
		return child.RoundTrip{}, err
	}
	if err := nc.Flush(); err != nil {
		return child.RoundTrip{}, err
	}
	if err := nc.Publish(natsPingSubject, body); err != nil {
		return child.RoundTrip{}, err
	}
	select {
	case <-done:
		return samples.RoundTrip(), nil
	case err := <-closed:
		return child.RoundTrip{}, err
	}
}

// natsConnect does not reconnect: a connection that the server ends (it does so to a subscriber it calls slow) is a
// failed measurement, and closed says why.
func natsConnect(job child.Job) (nc *nats.Conn, closed <-chan error, err error) {
	ended := make(chan error, 1)
	nc, err = nats.Connect(job.Addr, nats.NoReconnect(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // dropped messages are simply not counted
		nats.ClosedHandler(func(nc *nats.Conn) { ended <- fmt.Errorf("connection ended: %v", nc.LastError()) }))
	return nc, ended, err
}
