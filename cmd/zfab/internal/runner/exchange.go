package runner

import (
	"context"
	"encoding/binary"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// An exchangeWay is a producer of an exchange, which sends as the load's spread says.
type exchangeWay struct {
	exchange *patterns.Exchange
	producer *patterns.ExchangeProducer
	owners   []*target // in the exchange's order
}

// openExchange makes the node's workers in an exchange.
func (m *member) openExchange(ctx context.Context, c topology.Channel) error {
	exchange, err := patterns.OpenExchange(ctx, m.node, patterns.ExchangeConfig{
		Channel: c.Name, Nodes: m.spec.Nodes, Producers: c.Producers, Consumers: c.Consumers, HighWaterMark: markOf(c),
	})
	if err != nil {
		return err
	}
	sources := numbers(m.spec.Nodes, c.Producers)
	for i, consumer := range exchange.Consumers() {
		r := m.newReceiver(c, i, sources)
		r.receive = messagesOf(consumer)
		r.checker = check.NewChecker(uint32(r.number), len(sources))
		m.receivers = append(m.receivers, r)
	}
	for i, p := range exchange.Producers() {
		s, loaded := m.newSender(c, i)
		if !loaded {
			m.idle = append(m.idle, p)
			continue
		}
		w := &exchangeWay{exchange: exchange, producer: p}
		w.setTargets(m, s, c)
		s.way = w
		m.senders = append(m.senders, s)
	}
	return nil
}

// setTargets puts the exchange's targets into the order of our numbers.
func (w *exchangeWay) setTargets(m *member, s *sender, c topology.Channel) {
	consumers := numbers(m.spec.Nodes, c.Consumers)
	s.targets = make([]*target, len(consumers))
	for i, at := range w.exchange.Addresses() {
		n := consumers[at]
		t := m.newTarget(s, n, c)
		t.to = w.producer.Targets()[i]
		s.targets[n] = t
		w.owners = append(w.owners, t)
	}
}

func (w *exchangeWay) send(ctx context.Context, s *sender) error {
	switch s.load.Spread {
	case topology.Keyed:
		return w.keyed(ctx, s)
	case topology.All:
		return s.toAll(ctx, w.producer.SendAll)
	}
	return s.addressed(ctx, nil)
}

// keyed sends each message to the owner of its key. Keys are as many as
// messages, each of eight bytes.
func (w *exchangeWay) keyed(ctx context.Context, s *sender) error {
	key := make([]byte, 8)
	send := func(body []byte) error { return w.producer.SendKey(ctx, key, body) }
	for n := range s.amount() {
		planned, more := s.pace.next(ctx)
		if !more {
			break
		}
		binary.LittleEndian.PutUint64(key, mix(uint64(s.number)<<40+uint64(n)))
		t := w.owners[w.exchange.Owner(key)]
		if err := s.emit(t, planned, send); err != nil {
			t.sent--
			return err
		}
	}
	return ctx.Err()
}

func (w *exchangeWay) finish(ctx context.Context, _ *sender) error { return w.producer.Drain(ctx) }

func (w *exchangeWay) tell(s *sender, r *ProducerResult) { r.Sent = s.sent() }

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014): numbers in a
// row become keys without a pattern.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// markOf is the high-water mark of a channel as fabric has it.
func markOf(c topology.Channel) fabric.HighWaterMark {
	return fabric.HighWaterMark{Bytes: int64(c.HighWaterMark), Messages: c.HighWaterMarkMessages}
}
