package etcd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

const (
	nodes     = 4
	producers = 2                     // of each node
	pace      = 20 * time.Millisecond // of each producer: a message to everybody
	bodySize  = 512
)

var quiet = slog.New(slog.DiscardHandler)

// exchange is a fabric at work: every producer sends to the consumer of every
// node, its own included. Each node has its own client of all directories, and
// begins with another one.
type exchange struct {
	nodes    []*fabric.Node
	stop     chan struct{}
	sent     []atomic.Int64 // by producer: messages to each consumer
	received atomic.Int64
	running  sync.WaitGroup
	mu       sync.Mutex
	errors   []error
}

// dial connects to all directories, beginning with another one for each number.
func dial(t testing.TB, addresses []string, first int) *directory.Client {
	t.Helper()
	first %= len(addresses)
	list := append(slices.Clone(addresses[first:]), addresses[:first]...)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for { // it may be a bad moment
		c, err := directory.Dial(ctx, strings.Join(list, ","), directory.Options{Logger: quiet})
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func startExchange(t *testing.T, addresses []string) *exchange {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	x := &exchange{stop: make(chan struct{}), sent: make([]atomic.Int64, nodes*producers)}
	var consumers []*fabric.Consumer
	for i := range nodes {
		n, err := fabric.Open(ctx, fabric.Config{
			Name: fmt.Sprintf("n%d", i), Listen: "tcp://127.0.0.1:0", Directory: dial(t, addresses, i), Logger: quiet,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		c, err := n.Consumer(ctx, "scores", fabric.ConsumerConfig{Producers: nodes * producers})
		if err != nil {
			t.Fatal(err)
		}
		x.nodes, consumers = append(x.nodes, n), append(consumers, c)
	}
	for _, c := range consumers {
		x.running.Go(func() { x.note(x.consume(t.Context(), c)) })
	}
	for i, n := range x.nodes {
		for j := range producers {
			p, err := n.Producer(ctx, "scores", fabric.ProducerConfig{Index: j})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.WaitConsumers(ctx, nodes); err != nil {
				t.Fatal(err)
			}
			x.running.Go(func() { x.note(x.produce(t.Context(), p, &x.sent[i*producers+j])) })
		}
	}
	return x
}

func (x *exchange) note(err error) {
	if err == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.errors = append(x.errors, err)
}

func (x *exchange) failed() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return errors.Join(x.errors...)
}

func (x *exchange) produce(ctx context.Context, p *fabric.Producer, sent *atomic.Int64) error {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	body := make([]byte, bodySize)
	for {
		select {
		case <-x.stop:
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return p.Drain(ctx)
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		binary.BigEndian.PutUint64(body, uint64(sent.Load()))
		for i := range nodes {
			if err := p.Send(ctx, fabric.Address{Node: fmt.Sprintf("n%d", i)}, body); err != nil {
				return fmt.Errorf("message %d to n%d: %w", sent.Load(), i, err)
			}
		}
		sent.Add(1)
	}
}

// consume takes messages until all producers have finished: those of each must
// come once and in order.
func (x *exchange) consume(ctx context.Context, c *fabric.Consumer) error {
	next := map[fabric.Address]uint64{}
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return fmt.Errorf("after %d messages: %w", x.received.Load(), err)
		}
		if got := binary.BigEndian.Uint64(m.Body); len(m.Body) != bodySize || got != next[m.Source()] {
			return fmt.Errorf("message %d of %v where %d was due", got, m.Source(), next[m.Source()])
		}
		next[m.Source()]++
		x.received.Add(1)
	}
	for source, n := range next {
		var node int
		if _, err := fmt.Sscanf(source.Node, "n%d", &node); err != nil {
			return err
		}
		if sent := x.sent[node*producers+source.Index].Load(); uint64(sent) != n {
			return fmt.Errorf("%d messages of %v, which has sent %d", n, source, sent)
		}
	}
	if len(next) != nodes*producers {
		return fmt.Errorf("messages of %d producers", len(next))
	}
	return nil
}

// finish has the producers drain and checks what came of it.
func (x *exchange) finish(t *testing.T) {
	t.Helper()
	close(x.stop)
	x.running.Wait()
	if err := x.failed(); err != nil {
		t.Error(err)
	}
	var sent int64
	for i := range x.sent {
		sent += x.sent[i].Load() * nodes
	}
	if got := x.received.Load(); got != sent {
		t.Errorf("%d of %d messages have come", got, sent)
	}
	for _, n := range x.nodes {
		s := n.Stats()
		if len(s.Links) != nodes-1 {
			t.Errorf("%s has links to %d nodes", s.Node, len(s.Links))
		}
		for _, l := range s.Links {
			if l.Connections != 1 || l.Resent != 0 {
				t.Errorf("the link of %s to %s had %d connections, and %d messages were sent again", s.Node, l.Peer, l.Connections, l.Resent)
			}
		}
	}
	t.Logf("%d messages, %d links, each of one connection", sent, nodes*(nodes-1)/2)
}
