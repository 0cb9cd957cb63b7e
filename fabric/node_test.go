package fabric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zfab/zfab/fabric/directory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testContext bounds a test's waits.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func openNode(t testing.TB, dir directory.Service, name string) *Node {
	t.Helper()
	n, err := Open(testContext(t), Config{Name: name, Directory: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func newProducer(t testing.TB, n *Node, channel string, cfg ProducerConfig) *Producer {
	t.Helper()
	p, err := n.Producer(testContext(t), channel, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newConsumer(t testing.TB, n *Node, channel string, cfg ConsumerConfig) *Consumer {
	t.Helper()
	c, err := n.Consumer(testContext(t), channel, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The zero Config works: a node with a directory of its own, on loopback, which others may use.
func TestZeroConfig(t *testing.T) {
	ctx := testContext(t)
	first, err := Open(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Open(ctx, Config{Directory: first.Directory()})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	c := newConsumer(t, first, "x", ConsumerConfig{})
	p := newProducer(t, second, "x", ProducerConfig{})
	if err := p.WaitConsumers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := p.SendAll(ctx, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Receive(ctx); err != nil || string(m.Body) != "hello" || m.Source().Node != second.Name() || first.Name() == second.Name() {
		t.Errorf("%q from %v, %v", m.Body, m.Source(), err)
	}
}

func TestOneMessageBetweenTwoNodes(t *testing.T) {
	dir := directory.NewRegistry()
	a, b := openNode(t, dir, "a"), openNode(t, dir, "b")
	c := newConsumer(t, b, "x", ConsumerConfig{Producers: 1})
	p := newProducer(t, a, "x", ProducerConfig{})
	ctx := testContext(t)
	if err := p.Send(ctx, Address{"b", 0}, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	m, err := c.Receive(ctx)
	if err != nil || string(m.Body) != "hello" || m.Source() != (Address{"a", 0}) {
		t.Fatal(m, err)
	}
	if err := p.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(ctx); err != ErrEnd {
		t.Fatal(err)
	}
}

// TestAllToAll: every producer of every node to every consumer of every node,
// each message checked, every consumer ending by itself, one link per pair.
func TestAllToAll(t *testing.T) {
	const nodes, each, messages = 4, 3, 200
	ctx := testContext(t)
	dir := directory.NewRegistry()
	var all []*Node
	for i := range nodes {
		all = append(all, openNode(t, dir, fmt.Sprintf("n%d", i)))
	}
	var consumers []*Consumer
	var producers []*Producer
	for _, n := range all {
		for i := range each {
			consumers = append(consumers, newConsumer(t, n, "x", ConsumerConfig{Index: i, Producers: nodes * each}))
			producers = append(producers, newProducer(t, n, "x", ProducerConfig{Index: i}))
		}
	}
	failures := make(chan error, len(consumers)+len(producers))
	for _, p := range producers {
		go func() {
			failures <- func() error {
				if err := p.WaitConsumers(ctx, nodes*each); err != nil {
					return err
				}
				for i := range messages {
					for _, a := range p.Consumers() {
						if err := p.Send(ctx, a, fmt.Appendf(nil, "%s>%s#%d", p.Address(), a, i)); err != nil {
							return err
						}
					}
				}
				return p.Close()
			}()
		}()
	}
	for _, c := range consumers {
		go func() {
			failures <- func() error {
				next := make(map[Address]int)
				for m, err := range c.Messages(ctx) {
					if err != nil {
						return err
					}
					want := fmt.Sprintf("%s>%s#%d", m.Source(), c.Address(), next[m.Source()])
					if string(m.Body) != want {
						return fmt.Errorf("got %q, want %q", m.Body, want)
					}
					next[m.Source()]++
				}
				for source, n := range next {
					if n != messages {
						return fmt.Errorf("%d of %d messages from %s", n, messages, source)
					}
				}
				if len(next) != nodes*each {
					return fmt.Errorf("messages of %d producers", len(next))
				}
				return nil
			}()
		}()
	}
	for range cap(failures) {
		if err := <-failures; err != nil {
			t.Fatal(err)
		}
	}
	links := 0
	for _, n := range all {
		for _, l := range n.Stats().Links {
			if l.Up {
				links++
			}
			if l.Connections != 1 {
				t.Errorf("%s-%s had %d connections", n.Name(), l.Peer, l.Connections)
			}
		}
	}
	if links != nodes*(nodes-1) {
		t.Errorf("%d link ends are up, want %d", links, nodes*(nodes-1))
	}
}

func TestSendWaitsAtHighWater(t *testing.T) {
	dir := directory.NewRegistry()
	a, b := openNode(t, dir, "a"), openNode(t, dir, "b")
	mark := HighWaterMark{Bytes: 1000, Messages: 10}
	c := newConsumer(t, b, "x", ConsumerConfig{HighWaterMark: mark})
	p := newProducer(t, a, "x", ProducerConfig{HighWaterMark: mark})
	to, err := p.To(Address{"b", 0})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := to.TrySend([]byte{byte(i)}); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := to.TrySend([]byte("x")); err != ErrHighWater {
		t.Fatal(err)
	}
	ctx := testContext(t)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := to.Send(short, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- to.Send(ctx, []byte{10}) }()
	for i := range 11 {
		m, err := c.Receive(ctx)
		if err != nil || m.Body[0] != byte(i) {
			t.Fatal(i, m, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}
