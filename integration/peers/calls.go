package main

import (
	"context"
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/integration/peers/internal/child"
	"github.com/zfab/zfab/patterns"
)

// Calls are zfab's requests and replies: what a round trip takes when a server's handler answers it.

const calls = "zfab-calls"

var callRoles = child.Roles{Echo: callsEcho, Ping: callsPing}

const callChannel = "calls"

// meetTime bounds the way of the two nodes to each other.
const meetTime = 5 * time.Second

func callsEcho(job child.Job) error {
	ctx := context.Background()
	registry := directory.NewRegistry()
	defer registry.Close()
	server, err := directory.Serve(ctx, registry, "tcp://127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	defer server.Close()
	node, err := fabric.Open(ctx, fabric.Config{Name: "server", Directory: registry})
	if err != nil {
		return err
	}
	defer node.Close()
	answer := func(_ context.Context, q []byte) ([]byte, error) { return q, nil }
	if _, err := patterns.OpenReplier(ctx, node, patterns.ReplierConfig[[]byte, []byte]{Channel: callChannel}, answer); err != nil {
		return err
	}
	job.Ready(server.Addr())
	select {} // until it is interrupted, or its deadline comes
}

func callsPing(job child.Job) (child.RoundTrip, error) {
	ctx, cancel := context.WithTimeout(context.Background(), meetTime)
	defer cancel()
	dir, err := directory.Dial(ctx, job.Addr, directory.Options{})
	if err != nil {
		return child.RoundTrip{}, err
	}
	defer dir.Close()
	node, err := fabric.Open(ctx, fabric.Config{Name: "client", Directory: dir})
	if err != nil {
		return child.RoundTrip{}, err
	}
	defer node.Close()
	r, err := patterns.OpenRequester(ctx, node, patterns.RequesterConfig[[]byte, []byte]{Channel: callChannel})
	if err != nil {
		return child.RoundTrip{}, err
	}
	defer r.Close()
	if err := r.WaitServers(ctx, 1); err != nil {
		return child.RoundTrip{}, err
	}
	body := make([]byte, job.Size)
	return child.PingFor(job.Duration, func() error {
		a, err := r.Call(context.Background(), body)
		if err == nil && len(a) != len(body) {
			err = fmt.Errorf("a reply of %d bytes, %d were sent", len(a), len(body))
		}
		return err
	})
}
