package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
)

// An openProducer is the one producer of a node in an open exchange: it sends to
// whatever consumers there are, and goes on with the next stream when one has
// failed.
type openProducer struct {
	producer *fabric.Producer

	mu    sync.Mutex
	ended []SentStream // all but the present ones
}

func (o *openProducer) losses() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.ended {
		if s.Over {
			n++
		}
	}
	return n
}

// openOpen makes the node's workers in an open exchange. The first lives wait for
// each other; later ones take what they find.
func (m *member) openOpen(ctx context.Context, c topology.Channel) error {
	producer, err := m.node.Producer(ctx, c.Name, fabric.ProducerConfig{HighWaterMark: markOf(c)})
	if err != nil {
		return err
	}
	sources := numbers(m.spec.Nodes, c.Producers)
	for i := range c.Consumers {
		r := m.newReceiver(c, i, sources)
		consumer, err := m.node.Consumer(ctx, c.Name, fabric.ConsumerConfig{Index: i, HighWaterMark: markOf(c), Producers: len(sources)})
		if err != nil {
			return err
		}
		r.receive, r.open = messagesOf(consumer), true
		r.checker = check.NewChecker(uint32(r.number), len(sources))
		m.receivers = append(m.receivers, r)
	}
	if m.spec.Life == 0 {
		if err := producer.WaitConsumers(ctx, m.spec.Nodes*c.Consumers); err != nil {
			return err
		}
	}
	m.addOpenSender(producer, c)
	return nil
}

func (m *member) addOpenSender(producer *fabric.Producer, c topology.Channel) {
	s, _ := m.newSender(c, 0)
	s.way = &openProducer{producer: producer}
	s.life, s.over, s.forever = m.spec.Life, m.over, m.spec.kills()
	if s.forever {
		s.load.Duration = 0 // the parent says when
	}
	consumers := numbers(m.spec.Nodes, c.Consumers)
	s.targets = make([]*target, len(consumers))
	for at, n := range consumers {
		t := m.newTarget(s, n, c)
		t.address = at
		t.to, _ = producer.To(at) // later, if it is not there
		s.targets[n] = t
	}
	m.senders = append(m.senders, s)
}

func (o *openProducer) send(ctx context.Context, s *sender) error { return s.addressed(ctx, o) }

func (o *openProducer) tell(_ *sender, r *ProducerResult) { r.Streams = o.ended }

// settle waits until all is stored that was sent to a target, or the stream to it
// has failed, and notes which. over says that it takes no more in either case.
func (o *openProducer) settle(ctx context.Context, t *target, life int, over bool) error {
	err := t.to.Flush(ctx)
	s := SentStream{Consumer: int(t.consumer), Epoch: t.epoch(life), Accepted: t.sent, Acknowledged: t.sent, InDoubtTo: t.sent, Over: over}
	var lost *fabric.PeerLostError
	switch {
	case errors.As(err, &lost):
		s.Acknowledged, s.InDoubtTo, s.Over = lost.Acknowledged, lost.InDoubtTo, true
	case err != nil:
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = append(o.ended, s)
	return err
}

// find waits until the target is there, or over is closed. What becomes of the
// stream that it had is settled first.
func (o *openProducer) find(ctx context.Context, t *target, life int, over <-chan struct{}) error {
	if t.to != nil {
		if err := o.settle(ctx, t, life, true); err != nil && !gone(err) {
			return err
		}
		t.to, t.sent = nil, 0
		if t.losses.Add(1) > check.MaxLoss {
			return fmt.Errorf("more than %d streams to %s have ended", check.MaxLoss, t.address)
		}
	}
	for {
		changed := o.producer.Changed()
		to, err := o.producer.To(t.address)
		if err == nil {
			t.to = to
			return nil
		}
		select {
		case <-changed:
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish tells all consumers that the producer is done, and waits until they
// hold all it sent to them.
func (o *openProducer) finish(ctx context.Context, s *sender) error {
	var errs []error
	var targets []*fabric.Target
	for _, t := range s.targets {
		if t.to != nil {
			targets = append(targets, t.to)
		} else {
			errs = append(errs, fmt.Errorf("consumer %s is not there in the end", t.address))
		}
	}
	if err := o.producer.Finish(targets); err != nil && !gone(err) {
		errs = append(errs, err) // of one that is gone settle tells more
	}
	for _, t := range s.targets {
		if t.to != nil {
			errs = append(errs, o.settle(ctx, t, s.life, false))
		}
	}
	return errors.Join(errs...)
}

// streams are all streams so far. Where the present one to a consumer is cannot
// be told for sure, because it has just failed, it is left out.
func (o *openProducer) streams(s *sender, stats map[streamKey]fabric.StreamStats, epochs []check.Epoch) []SentStream {
	o.mu.Lock()
	all := slices.Clone(o.ended)
	o.mu.Unlock()
	for i, t := range s.targets {
		st, there := stats[streamKey{t.address.Node, s.load.Channel, t.address.Index}]
		if now := t.epoch(s.life); there && now == epochs[i] && !contains(all, int(t.consumer), now) {
			all = append(all, SentStream{Consumer: int(t.consumer), Epoch: now, Accepted: st.Messages, Acknowledged: st.Acknowledged})
		}
	}
	return all
}

func contains(streams []SentStream, consumer int, e check.Epoch) bool {
	return slices.ContainsFunc(streams, func(s SentStream) bool { return s.Consumer == consumer && s.Epoch == e })
}
