package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// Consumers of a node, by index.
const (
	stays  = 1 // all the time
	goes   = 2 // comes and goes, by Close or Drain
	drains = 3 // comes and goes, by Drain only
)

// chaos is what came where, in a run of many producers and of consumers that
// come and go.
type chaos struct {
	t    *testing.T
	ctx  context.Context
	mark HighWaterMark

	mu       sync.Mutex
	got      map[uint64]string // who received a message
	accepted map[uint64]Address
	grown    chan struct{} // capacity 1
}

// receive handles one message, and reports whether the consumer may go on.
func (ch *chaos) receive(ctx context.Context, c *Consumer, who string, last map[Address]uint64) bool {
	m, err := c.Receive(ctx)
	if errors.As(err, new(*PeerLostError)) {
		ch.t.Errorf("%s: %v, though only links were cut", who, err)
		return true
	}
	if err != nil {
		return false
	}
	id := binary.BigEndian.Uint64(m.Body)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if other, twice := ch.got[id]; twice {
		ch.t.Errorf("message %x came to %s, and to %s before", id, who, other)
	}
	if id <= last[m.Source()] {
		ch.t.Errorf("message %x came to %s after %x", id, who, last[m.Source()])
	}
	ch.got[id], last[m.Source()] = who, id
	select {
	case ch.grown <- struct{}{}:
	default:
	}
	return true
}

// stay consumes until ctx ends.
func (ch *chaos) stay(ctx context.Context, c *Consumer) {
	for last := make(map[Address]uint64); ch.receive(ctx, c, c.Address().String(), last); {
	}
}

// comeAndGo makes one consumer after another with the same index, which close
// or drain after some messages, until ctx ends.
func (ch *chaos) comeAndGo(ctx context.Context, n *Node, index int, rng *rand.Rand) {
	for life := 0; ctx.Err() == nil; life++ {
		c, err := n.Consumer(ch.ctx, "x", ConsumerConfig{Index: index, HighWaterMark: ch.mark})
		if err != nil {
			ch.t.Error(err)
			return
		}
		who := fmt.Sprintf("%s in life %d", c.Address(), life)
		last := make(map[Address]uint64)
		for k := 50 + rng.IntN(400); k > 0 && ch.receive(ctx, c, who, last); k-- {
		}
		if index == goes && rng.IntN(2) == 0 {
			c.Close()
			continue
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			short, cancel := context.WithTimeout(ch.ctx, 10*time.Second)
			defer cancel()
			if err := c.Drain(short); err != nil {
				ch.t.Errorf("%s drains: %v", who, err)
			}
		}()
		for ch.receive(ch.ctx, c, who, last) {
		}
		<-drained
	}
}

// produce sends numbered messages to whoever is there.
func (ch *chaos) produce(n *Node, number uint64, messages uint64, rng *rand.Rand) {
	p, err := n.Producer(ch.ctx, "x", ProducerConfig{HighWaterMark: ch.mark})
	if err == nil {
		err = p.WaitConsumers(ch.ctx, 3)
	}
	if err != nil {
		ch.t.Error(err)
		return
	}
	for k := uint64(1); k <= messages; k++ {
		all := p.Consumers()
		to := all[rng.IntN(len(all))]
		body := make([]byte, 8+rng.IntN(100))
		if k%3000 == 0 {
			body = make([]byte, 80_000)
		}
		id := number<<32 | k
		binary.BigEndian.PutUint64(body, id)
		switch err := p.Send(ch.ctx, to, body); {
		case err == nil:
			ch.mu.Lock()
			ch.accepted[id] = to
			ch.mu.Unlock()
		case errors.Is(err, ErrNoConsumer) && to.Index != stays:
		case !ch.closed(err):
			ch.t.Errorf("message %x to %s: %v; streams %+v", id, to, err, n.Stats().Streams)
			return
		}
	}
	if err := p.Flush(ch.ctx); !ch.closed(err) {
		ch.t.Errorf("Flush at %s: %v; streams %+v", n.Name(), err, n.Stats().Streams)
	}
}

// closed reports whether err tells of nothing but consumers that have closed.
func (ch *chaos) closed(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			if !ch.closed(e) {
				return false
			}
		}
		return true
	}
	var lost *PeerLostError
	return err == nil || errors.As(err, &lost) && lost.Consumer == goes
}

// missing is the messages that were accepted and have not come, but for those to
// consumers that close.
func (ch *chaos) missing() map[uint64]Address {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	list := make(map[uint64]Address)
	for id, to := range ch.accepted {
		if _, ok := ch.got[id]; !ok && to.Index != goes {
			list[id] = to
		}
	}
	return list
}

// Links are cut at any byte, and consumers come, close and drain, all at once.
// Nothing hangs, comes twice or in another order, and consumers that stay or
// drain get everything that was accepted for them.
func TestConsumersComeAndGoWhileLinksAreCut(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			ch := &chaos{
				t: t, ctx: ctx, mark: HighWaterMark{Messages: 50 + int64(seed)*200, Bytes: 100_000},
				got: make(map[uint64]string), accepted: make(map[uint64]Address), grown: make(chan struct{}, 1),
			}
			dir := directory.NewRegistry()
			var nodes []*Node
			var proxies []*proxy
			for i := range uint64(3) {
				px := newProxy(t, dir, randomLife(10*seed+i, 2<<20))
				proxies = append(proxies, px)
				nodes = append(nodes, openWith(t, Config{Name: fmt.Sprintf("n%d", i), Directory: px}))
			}
			until, stop := context.WithCancel(ctx)
			var consumers, producers sync.WaitGroup
			for i, n := range nodes {
				c := newConsumer(t, n, "x", ConsumerConfig{Index: stays, HighWaterMark: ch.mark})
				consumers.Go(func() { ch.stay(until, c) })
				consumers.Go(func() { ch.comeAndGo(until, n, goes, rand.New(rand.NewPCG(seed, uint64(i)))) })
				consumers.Go(func() { ch.comeAndGo(until, n, drains, rand.New(rand.NewPCG(seed, 20+uint64(i)))) })
			}
			for i, n := range nodes {
				producers.Go(func() { ch.produce(n, uint64(i), 12_000, rand.New(rand.NewPCG(seed, 10+uint64(i)))) })
			}
			producers.Wait()
			for len(ch.missing()) > 0 && ctx.Err() == nil {
				select {
				case <-ch.grown:
				case <-ctx.Done():
				}
			}
			stop()
			consumers.Wait()
			cuts := 0
			for _, px := range proxies {
				cuts += px.countCuts()
			}
			t.Logf("%d messages accepted, %d received, %d cuts", len(ch.accepted), len(ch.got), cuts)
			if list := ch.missing(); len(list) > 0 {
				t.Errorf("messages for consumers that stayed or drained are missing: %x", list)
			}
			if cuts < 3 {
				t.Error("too few cuts to say anything")
			}
		})
	}
}
