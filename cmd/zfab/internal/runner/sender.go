package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// A sender is one producer with its load. One goroutine uses it; what it sends
// by addresses also has deliveries, see addressed.go.
type sender struct {
	exchange  *patterns.Exchange          // of an exchange
	producer  *patterns.ExchangeProducer  // of an exchange
	open      *openProducer               // of an open exchange
	publisher *patterns.Publisher[[]byte] // of pubsub
	topics    []string                    // of pubsub, the next one behind turn
	turn      int
	number    int
	life      int // of its node
	load      topology.Load
	plant     Plant
	clock     clock
	pace      *pacer
	targets   []*target // by consumer number
	owners    []*target // the same in the exchange's order

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
	for _, t := range s.targets {
		if !t.stalls {
			s.others++
		}
	}
	var err error
	switch s.load.Spread {
	case topology.Keyed:
		err = s.keyed(ctx)
	case topology.All:
		err = s.toAll(ctx)
	default:
		err = s.addressed(ctx)
	}
	if s.others > 0 {
		s.others, s.until = 0, s.clock.now()
	}
	return err
}

// keyed sends each message to the owner of its key. Keys are as many as
// messages, each of eight bytes.
func (s *sender) keyed(ctx context.Context) error {
	key := make([]byte, 8)
	send := func(body []byte) error { return s.producer.SendKey(ctx, key, body) }
	for n := range s.amount() {
		planned, more := s.pace.next(ctx)
		if !more {
			break
		}
		binary.LittleEndian.PutUint64(key, mix(uint64(s.number)<<40+uint64(n)))
		t := s.owners[s.exchange.Owner(key)]
		if err := s.emit(t, planned, send); err != nil {
			t.sent--
			return err
		}
	}
	return ctx.Err()
}

// toAll sends each message to every consumer: one stamp for all of them.
func (s *sender) toAll(ctx context.Context) error {
	all := &target{consumer: check.ToAll, planted: s.plant != PlantNothing && s.number == 0}
	send := func(body []byte) error { return s.producer.SendAll(ctx, body) }
	if s.publisher != nil {
		send = func(body []byte) error { return s.publish(ctx, body) }
	}
	var err error
	for range s.amount() {
		planned, more := s.pace.next(ctx)
		if !more {
			err = ctx.Err()
			break
		}
		if err = s.emit(all, planned, send); err != nil {
			all.sent--
			break
		}
	}
	for _, t := range s.targets {
		t.sent = all.sent
	}
	return err
}

// amount is the load's number of messages, or more than time will allow.
func (s *sender) amount() int {
	if s.load.Duration > 0 {
		return 1 << 62
	}
	return s.load.Messages
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014): numbers in a
// row become keys without a pattern.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
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
		return nil
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

func (s *sender) result() ProducerResult {
	r := ProducerResult{Channel: s.load.Channel, Number: s.number, OthersUntil: s.until.Seconds()}
	if s.open != nil {
		r.Streams = s.open.ended
		return r
	}
	for _, t := range s.targets {
		r.Sent = append(r.Sent, t.sent)
	}
	return r
}
