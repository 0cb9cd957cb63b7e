package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// fleet is a cluster whose nodes are restarted while all of them send to all:
// each node has a consumer and a producer, which goes by keys.
type fleet struct {
	t    *testing.T
	ctx  context.Context
	dir  directory.Service
	sent atomic.Uint64 // the last message's number

	mu       sync.Mutex
	accepted map[uint64]struct{}
	got      map[uint64]string // who received a message
	grown    chan struct{}     // capacity 1
}

// life is one life of one of its nodes.
type life struct {
	node     *Node
	consumer *Consumer
	producer *Producer
	loops    sync.WaitGroup
}

// start opens a node with its members.
func (f *fleet) start(cfg Config) *life {
	f.t.Helper()
	n := openWith(f.t, cfg)
	mark := HighWaterMark{Messages: 100}
	l := &life{
		node:     n,
		consumer: newConsumer(f.t, n, "x", ConsumerConfig{HighWaterMark: mark}),
		producer: newProducer(f.t, n, "x", ProducerConfig{HighWaterMark: mark}),
	}
	return l
}

// work lets a node work that has heard of all others.
func (f *fleet) work(l *life, nodes int) {
	f.t.Helper()
	if err := l.producer.WaitConsumers(f.ctx, nodes); err != nil {
		f.t.Fatal(err)
	}
	l.loops.Go(func() { f.consume(l) })
	l.loops.Go(func() { f.produce(l) })
}

// consume receives until the consumer has drained.
func (f *fleet) consume(l *life) {
	who := fmt.Sprintf("%s in life %d", l.consumer.Address(), l.node.Incarnation())
	for m, err := range l.consumer.Messages(f.ctx) {
		if err != nil {
			f.t.Errorf("%s receives: %v", who, err)
			return
		}
		number := binary.BigEndian.Uint64(m.Body)
		f.mu.Lock()
		if other, twice := f.got[number]; twice {
			f.t.Errorf("message %d came to %s, and to %s before", number, who, other)
		}
		f.got[number] = who
		f.mu.Unlock()
		select {
		case f.grown <- struct{}{}:
		default:
		}
	}
}

// produce sends until the producer is closed.
func (f *fleet) produce(l *life) {
	var body, key [8]byte
	for {
		number := f.sent.Add(1)
		binary.BigEndian.PutUint64(body[:], number)
		binary.BigEndian.PutUint64(key[:], rand.Uint64())
		err := l.producer.SendKey(f.ctx, key[:], body[:])
		if errors.Is(err, ErrClosed) {
			return
		}
		if err != nil {
			f.t.Errorf("%s sends: %v", l.producer.Address(), err)
			return
		}
		f.mu.Lock()
		f.accepted[number] = struct{}{}
		f.mu.Unlock()
	}
}

// progress waits until some hundred messages more have come.
func (f *fleet) progress() {
	f.t.Helper()
	count := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.got)
	}
	for until := count() + 500; count() < until; {
		select {
		case <-f.grown:
		case <-f.ctx.Done():
			f.t.Fatalf("messages have ceased to come after %d", count())
		}
	}
}

// stop drains the node.
func (f *fleet) stop(l *life) {
	f.t.Helper()
	if err := l.node.Drain(f.ctx); err != nil {
		f.t.Errorf("%s drains: %v", l.node.Name(), err)
	}
	l.loops.Wait()
}

// Every node of a cluster is restarted, one after another, while all send to all:
// nothing is lost, nothing comes twice, and nobody's program sees an error; also
// while links are cut all the time.
func TestRollingRestart(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("links are cut %v", cut), func(t *testing.T) {
			const nodes, rounds = 4, 2
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			registry := directory.NewRegistry()
			f := &fleet{
				t: t, ctx: ctx, dir: registry,
				accepted: make(map[uint64]struct{}), got: make(map[uint64]string), grown: make(chan struct{}, 1),
			}
			var proxies []*proxy
			start := func(i int) *life {
				cfg := Config{Name: fmt.Sprintf("n%d", i), Directory: f.dir}
				if cut {
					px := newProxy(t, registry, randomLife(uint64(len(proxies)), 1<<20))
					proxies = append(proxies, px)
					cfg.Directory = px
				}
				return f.start(cfg)
			}
			var lives [nodes]*life
			for i := range lives {
				lives[i] = start(i)
			}
			for _, l := range lives {
				f.work(l, nodes)
			}
			for range rounds {
				for i, l := range lives {
					f.progress()
					f.stop(l)
					f.progress()
					lives[i] = start(i)
					f.work(lives[i], nodes)
				}
			}
			f.progress()
			// Producers first: the last consumer could not hand its keys on.
			for _, l := range lives {
				if err := l.producer.Drain(ctx); err != nil {
					t.Error(err)
				}
			}
			for _, l := range lives {
				f.stop(l)
			}
			missing := 0
			for number := range f.accepted {
				if _, ok := f.got[number]; !ok {
					missing++
				}
			}
			cuts := 0
			for _, px := range proxies {
				cuts += px.countCuts()
			}
			t.Logf("%d messages accepted, %d received, %d restarts, %d cuts", len(f.accepted), len(f.got), nodes*rounds, cuts)
			if missing > 0 || len(f.got) > len(f.accepted) {
				t.Errorf("%d of %d accepted messages are missing", missing, len(f.accepted))
			}
			if cut && cuts < 10 {
				t.Error("too few cuts to say anything")
			}
		})
	}
}
