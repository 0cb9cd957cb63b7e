package runner

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// An eventWay is a producer of the pattern events: each of its messages is an event of
// the next of its keys.
type eventWay struct {
	publisher *patterns.EventPublisher[[]byte]
	keys      []*target // a flow for each key, to whichever consumer has its partition
}

// keysEach is how many keys a producer has where the file does not say.
const keysEach = 16

// openEvents makes the node's publishers and members, and waits until the publishers know
// all members.
func (m *member) openEvents(ctx context.Context, c topology.Channel) error {
	keys := cmp.Or(c.Keys, keysEach)
	var publishers []*patterns.EventPublisher[[]byte]
	for i := range c.Producers {
		p, err := patterns.OpenEventPublisher(ctx, m.node, patterns.EventPublisherConfig[[]byte]{Channel: c.Name, Unacknowledged: markOf(c)})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, p.Close)
		publishers = append(publishers, p)
		s, _ := m.newSender(c, i)
		w := &eventWay{publisher: p}
		for key := range keys {
			w.keys = append(w.keys, &target{consumer: uint32(key), planted: s.plantsFirst() && key == 0})
		}
		s.way = w
		m.senders = append(m.senders, s)
	}
	sources := numbers(m.spec.Nodes, c.Producers)
	for i := range c.Consumers {
		e, err := patterns.OpenEventMember(ctx, m.node, patterns.EventMemberConfig[[]byte]{Channel: c.Name, InFlight: c.InFlight, Publishers: len(sources)})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, e.Close)
		r := m.newReceiver(c, i, sources)
		r.sharer = check.NewSharer(len(sources), keys)
		r.listen = func(ctx context.Context) error { return r.share(ctx, r.eventsOf(e)) }
		m.receivers = append(m.receivers, r)
	}
	for _, p := range publishers {
		if err := p.WaitMembers(ctx, m.spec.Nodes*c.Consumers); err != nil {
			return err
		}
	}
	return nil
}

// eventsOf receives from a member. An event is acknowledged when the next one is asked
// for.
func (r *receiver) eventsOf(m *patterns.EventMember[[]byte]) func(context.Context) (fabric.Address, check.Arrival, error) {
	return acknowledging(func(ctx context.Context) (fabric.Address, check.Arrival, func() error, error) {
		e, err := m.Receive(ctx)
		if err != nil {
			return fabric.Address{}, check.Arrival{}, nil, err
		}
		a := check.Arrival{Source: r.source(e.Source), Again: e.Redelivered(), Body: e.Value}
		a.Key = keyNumber(e.Key, a.Source)
		return e.Source, a, func() error { return unlessMoved(e.Ack()) }, nil
	})
}

// unlessMoved is the error of an acknowledgement, but that it is none if the event was
// given to somebody else, who gets it marked.
func unlessMoved(err error) error {
	if errors.Is(err, patterns.ErrMoved) {
		return nil
	}
	return err
}

// appendKey is the bytes of a producer's key of that number.
func appendKey(b []byte, producer, key int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(producer))
	return binary.LittleEndian.AppendUint32(b, uint32(key))
}

// keyNumber reads a key; -1 if it is not the producer's.
func keyNumber(key []byte, producer int) int {
	if len(key) != 8 || binary.LittleEndian.Uint32(key) != uint32(producer) {
		return -1
	}
	return int(binary.LittleEndian.Uint32(key[4:]))
}

// send publishes the load, an event of each key in turn.
func (w *eventWay) send(ctx context.Context, s *sender) error {
	var key []byte
	send := func(body []byte) error { return w.publisher.Publish(ctx, key, body) }
	for n := range s.amount() {
		planned, more := s.pace.next(ctx)
		if !more {
			break
		}
		t := w.keys[n%len(w.keys)]
		key = appendKey(key[:0], s.number, int(t.consumer))
		if err := s.emit(t, planned, send); err != nil {
			t.sent--
			return err
		}
	}
	return ctx.Err()
}

// finish waits until all events are acknowledged.
func (w *eventWay) finish(ctx context.Context, _ *sender) error { return w.publisher.Drain(ctx) }

func (w *eventWay) tell(_ *sender, r *ProducerResult) {
	for _, t := range w.keys {
		r.Flows = append(r.Flows, t.sent)
	}
}
