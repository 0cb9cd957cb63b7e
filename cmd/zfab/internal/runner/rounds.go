package runner

import (
	"cmp"
	"context"
	"errors"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// A roundsWay is a producer of the pattern rounds: its messages go to each consumer in
// turn, and so many of them are a round.
type roundsWay struct {
	producer *patterns.RoundsProducer[[]byte]
	round    int // messages
}

// roundEach is how many messages of a producer are a round where the file does not say.
const roundEach = 100

// openRounds makes the node's workers in rounds.
func (m *member) openRounds(ctx context.Context, c topology.Channel) error {
	rounds, err := patterns.OpenRounds(ctx, m.node, patterns.RoundsConfig[[]byte]{
		ExchangeConfig: patterns.ExchangeConfig{
			Channel: c.Name, Nodes: m.spec.Nodes, Producers: c.Producers, Consumers: c.Consumers, HighWaterMark: markOf(c),
		},
		Open: c.OpenRounds,
	})
	if err != nil {
		return err
	}
	m.closers = append(m.closers, rounds.Close)
	round := cmp.Or(c.Round, roundEach)
	sources := numbers(m.spec.Nodes, c.Producers)
	for i, k := range rounds.Consumers() {
		r := m.newReceiver(c, i, sources)
		r.checker = check.NewChecker(uint32(r.number), len(sources))
		turns := turns{consumers: c.AllConsumers(m.spec.Nodes), round: round}
		r.listen = func(ctx context.Context) error { return r.rounds(ctx, k, turns) }
		m.receivers = append(m.receivers, r)
	}
	consumers := numbers(m.spec.Nodes, c.Consumers)
	for i, p := range rounds.Producers() {
		s, _ := m.newSender(c, i)
		s.targets = make([]*target, len(consumers))
		for at, n := range consumers {
			s.targets[n] = m.newTarget(s, n, c)
			s.targets[n].address = at
		}
		s.way = &roundsWay{p, round}
		m.senders = append(m.senders, s)
	}
	return nil
}

// turns say to whom each message of a producer goes, and in which round.
type turns struct {
	consumers int // of all nodes
	round     int // messages of a producer in a round
}

// consumer is that of a producer's n-th message, from 0. Each producer begins at another
// one.
func (t turns) consumer(producer, n int) int { return (producer + n) % t.consumers }

// roundOf is the round of the message with that stamp, which may say anything.
func (t turns) roundOf(s check.Stamp) uint64 {
	first := (int(s.Consumer) - int(s.Producer)) % t.consumers
	if first < 0 {
		first += t.consumers
	}
	return (s.Sequence*uint64(t.consumers) + uint64(first)) / uint64(t.round)
}

func (w *roundsWay) send(ctx context.Context, s *sender) error {
	turns := turns{consumers: len(s.targets), round: w.round}
	var t *target
	send := func(body []byte) error { return w.producer.Send(ctx, t.address, body) }
	for n := range s.amount() {
		planned, more := s.pace.next(ctx)
		if !more {
			break
		}
		if n > 0 && n%w.round == 0 {
			if err := w.producer.EndRound(ctx); err != nil {
				return err
			}
		}
		t = s.targets[turns.consumer(s.number, n)]
		if err := s.emit(t, planned, send); err != nil {
			t.sent--
			return err
		}
	}
	return ctx.Err()
}

func (w *roundsWay) finish(ctx context.Context, _ *sender) error { return w.producer.Drain(ctx) }

func (w *roundsWay) tell(s *sender, r *ProducerResult) { r.Sent = s.sent() }

// rounds checks messages until all rounds are over, or ctx ends. One that comes in
// another round than its own is reordered.
func (r *receiver) rounds(ctx context.Context, c *patterns.RoundsConsumer[[]byte], t turns) error {
	for {
		round, err := c.Next(ctx)
		if errors.Is(err, fabric.ErrEnd) {
			return nil
		}
		if err != nil {
			return err
		}
		for v, err := range c.Values(ctx) {
			if err != nil {
				return err
			}
			if stamp, sound := check.Open(v.Value); sound && t.roundOf(stamp) != round {
				r.misplaced()
			}
			if err := r.take(ctx, v.Source, v.Value); err != nil {
				return err
			}
		}
	}
}

// misplaced counts a message that is about to be checked as out of order, whatever its
// number says.
func (r *receiver) misplaced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checker.Misplaced()
}
