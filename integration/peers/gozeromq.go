package main

import (
	"context"

	"github.com/go-zeromq/zmq4"

	"github.com/zfab/zfab/integration/peers/internal/child"
)

// go-zeromq/zmq4's own PUSH and PULL sockets, default settings.

var goZeroMQRoles = child.Roles{Consume: goZeroMQConsume, Produce: goZeroMQProduce}

func goZeroMQConsume(job child.Job) (child.Throughput, error) {
	pull := zmq4.NewPull(context.Background())
	if err := pull.Listen("tcp://127.0.0.1:0"); err != nil {
		return child.Throughput{}, err
	}
	job.Ready("tcp://" + pull.Addr().String())
	m := child.NewMeter(job.Size, job.Duration)
	for {
		msg, err := pull.Recv()
		if err != nil {
			return child.Throughput{}, err
		}
		if m.Count(len(msg.Frames[0])) {
			return m.Result()
		}
	}
}

func goZeroMQProduce(job child.Job) error {
	push := zmq4.NewPush(context.Background())
	if err := push.Dial(job.Addr); err != nil {
		return err
	}
	body := make([]byte, job.Size)
	for {
		if err := push.Send(zmq4.NewMsg(body)); err != nil {
			return nil // the consumer has what it wanted
		}
	}
}
