package runner

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
)

// A sender is one producer with its load. One goroutine uses it; what it sends
// by addresses also has deliveries, see addressed.go.
type sender struct {
	way     way
	number  int
	life    int // of its node
	load    topology.Load
	plant   Plant
	clock   clock
	pace    *pacer
	targets []*target // by consumer number

	body   []byte        // the next message
	others int           // targets without a fault that still want messages
	until  time.Duration // when others became 0
	// over is closed when the load ends, where forever says that nothing else ends it.
	over    chan struct{}
	forever bool
}

// A target is one stream as its sender sees it.
type target struct {
	to       *fabric.Target
	address  fabric.Address
	consumer uint32
	losses   atomic.Int32 // streams to it that have failed
	stalls   bool         // a fault will keep the consumer from reading
	planted  bool         // one of the stream's messages is broken on purpose
	sent     uint64       // messages sealed, and so the next sequence number; in the end those accepted
	left     int          // messages it still wants; negative: until time is over
}

// epoch is that of the stream to the target that a life has now.
func (t *target) epoch(life int) check.Epoch { return check.NewEpoch(life, int(t.losses.Load())) }

// run sends the whole load. When it returns, Send has accepted all of it.
func (s *sender) run(ctx context.Context) error {
	if s.load.Spread == "" {
		return nil // no load
	}
	s.body = make([]byte, s.load.Size)
	s.pace = newPacer(s.load, s.clock)
	s.pace.over = s.over
	if s.life > 0 {
		s.pace.begin()
	}
	if len(s.targets) == 0 {
		s.others = 1 // whoever is not stalled gets it
	}
	for _, t := range s.targets {
		if !t.stalls {
			s.others++
		}
	}
	err := s.way.send(ctx, s)
	if s.others > 0 {
		s.others, s.until = 0, s.clock.now()
	}
	return err
}

// toAll sends each message to every consumer: one stamp for all of them.
func (s *sender) toAll(ctx context.Context, send func(context.Context, []byte) error) error {
	all := &target{consumer: check.ToAll, planted: s.plantsFirst()}
	err := s.each(ctx, all, func(body []byte) error { return send(ctx, body) })
	for _, t := range s.targets {
		t.sent = all.sent
	}
	return err
}

// each sends the load as messages of one target.
func (s *sender) each(ctx context.Context, t *target, send func([]byte) error) error {
	for range s.amount() {
		planned, more := s.pace.next(ctx)
		if !more {
			return ctx.Err()
		}
		if err := s.emit(t, planned, send); err != nil {
			t.sent--
			return err
		}
	}
	return nil
}

// plantsFirst reports whether it is the producer that breaks a message, where no
// consumer is the message's own.
func (s *sender) plantsFirst() bool { return s.plant != PlantNothing && s.number == 0 }

// amount is the load's number of messages, or more than time will allow.
func (s *sender) amount() int {
	if s.load.Duration > 0 {
		return 1 << 62
	}
	return s.load.Messages
}

// emit seals the target's next message and sends it, or breaks it as planted.
func (s *sender) emit(t *target, planned time.Duration, send func([]byte) error) error {
	broken := t.planted && t.sent == plantedAt && t.epoch(s.life) == 0
	s.seal(t, planned)
	if !broken {
		return send(s.body)
	}
	switch s.plant {
	case PlantLost:
		return nil // counted as sent
	case PlantDuplicated:
		if err := send(s.body); err != nil && !errors.Is(err, fabric.ErrHighWater) {
			return err
		}
	}
	return send(s.body)
}

// seal stamps s.body as the target's next message.
func (s *sender) seal(t *target, at time.Duration) {
	sequence := t.sent
	t.sent++
	planted := t.planted && t.epoch(s.life) == 0
	if planted && s.plant == PlantReordered {
		switch sequence {
		case plantedAt:
			sequence = plantedAt + 1
		case plantedAt + 1:
			sequence = plantedAt
		}
	}
	check.Seal(s.body, check.Stamp{
		Producer: uint32(s.number), Consumer: t.consumer, Epoch: t.epoch(s.life), Sequence: sequence, Planned: int64(at),
	})
	if planted && s.plant == PlantCorrupted && sequence == plantedAt {
		s.body[len(s.body)-1] ^= 1
	}
}

// work sends the load and sees it delivered.
func (s *sender) work(ctx context.Context) error {
	err := s.run(ctx)
	return errors.Join(err, s.way.finish(ctx, s))
}

// sent is how many messages each target has got.
func (s *sender) sent() (all []uint64) {
	for _, t := range s.targets {
		all = append(all, t.sent)
	}
	return all
}

func (s *sender) result() ProducerResult {
	r := ProducerResult{Channel: s.load.Channel, Number: s.number, OthersUntil: s.until.Seconds()}
	s.way.tell(s, &r)
	return r
}
