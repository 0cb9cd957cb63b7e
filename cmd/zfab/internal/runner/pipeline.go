package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// A pusherWay is a producer of a pipeline.
type pusherWay struct {
	pusher *patterns.Pusher[[]byte]
	jobs   *target // its one flow, to whichever consumer has room
}

// openPipeline makes the node's pushers and pullers, and waits until the pushers know
// all pullers.
func (m *member) openPipeline(ctx context.Context, c topology.Channel) error {
	var pushers []*patterns.Pusher[[]byte]
	for i := range c.Producers {
		p, err := patterns.OpenPusher(ctx, m.node, patterns.PusherConfig[[]byte]{Channel: c.Name, Unsettled: markOf(c), Patience: c.Patience})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, p.Close)
		pushers = append(pushers, p)
		s, _ := m.newSender(c, i)
		s.way = &pusherWay{p, &target{consumer: check.ToAll, planted: s.plantsFirst()}}
		m.senders = append(m.senders, s)
	}
	sources := numbers(m.spec.Nodes, c.Producers)
	for i := range c.Consumers {
		p, err := patterns.OpenPuller(ctx, m.node, patterns.PullerConfig[[]byte]{Channel: c.Name, InFlight: c.InFlight, Pushers: len(sources)})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, p.Close)
		r := m.newReceiver(c, i, sources)
		r.sharer = check.NewSharer(len(sources), 0)
		r.listen = func(ctx context.Context) error { return r.share(ctx, r.jobsOf(p)) }
		m.receivers = append(m.receivers, r)
	}
	for _, p := range pushers {
		if err := p.WaitWorkers(ctx, m.spec.Nodes*c.Consumers); err != nil {
			return err
		}
	}
	return nil
}

// jobsOf receives from a puller. A job is acknowledged when the next one is asked for.
func (r *receiver) jobsOf(p *patterns.Puller[[]byte]) func(context.Context) (fabric.Address, check.Arrival, error) {
	return acknowledging(func(ctx context.Context) (fabric.Address, check.Arrival, func() error, error) {
		job, err := p.Receive(ctx)
		if err != nil {
			return fabric.Address{}, check.Arrival{}, nil, err
		}
		return job.Source(), check.Arrival{Source: r.source(job.Source()), Again: job.Redelivered(), Body: job.Value}, func() error { return unlessSettled(job.Ack()) }, nil
	})
}

// unlessSettled is the error of an acknowledgement, but that it is none if the pusher is
// gone: it had the job settled by somebody else, or its own run says that it is not.
func unlessSettled(err error) error {
	var unknown *fabric.UnknownConsumerError
	var lost *fabric.PeerLostError
	if errors.As(err, &unknown) || errors.As(err, &lost) {
		return nil
	}
	return err
}

// acknowledging makes what receive returned acknowledged when it is called again.
func acknowledging(receive func(context.Context) (fabric.Address, check.Arrival, func() error, error)) func(context.Context) (fabric.Address, check.Arrival, error) {
	var ack func() error // what came last; nil if it is acknowledged
	return func(ctx context.Context) (from fabric.Address, a check.Arrival, err error) {
		if ack != nil {
			if err := ack(); err != nil {
				return from, a, err
			}
		}
		from, a, ack, err = receive(ctx)
		return from, a, err
	}
}

func (w *pusherWay) send(ctx context.Context, s *sender) error {
	return s.each(ctx, w.jobs, func(body []byte) error { return w.pusher.Push(ctx, body) })
}

// finish waits until every job is settled, once.
func (w *pusherWay) finish(ctx context.Context, _ *sender) error {
	err := w.pusher.Drain(ctx)
	if st := w.pusher.Stats(); err == nil && st.Settled != st.Pushed {
		err = fmt.Errorf("%d jobs were pushed and %d settled", st.Pushed, st.Settled)
	}
	return err
}

func (w *pusherWay) tell(_ *sender, r *ProducerResult) { r.Flows = []uint64{w.jobs.sent} }
