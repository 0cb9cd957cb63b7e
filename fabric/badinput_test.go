package fabric

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// within fails the test if f takes longer than a user would wait for an answer.
func within[T any](t testing.TB, limit time.Duration, f func() T) T {
	t.Helper()
	result := make(chan T, 1)
	go func() { result <- f() }()
	select {
	case v := <-result:
		return v
	case <-time.After(limit):
		t.Fatalf("no answer after %v", limit)
		panic("unreachable")
	}
}

func TestBadConfigurations(t *testing.T) {
	ctx := testContext(t)
	for _, c := range []struct {
		name string
		cfg  Config
		is   error
		text string
	}{
		{"space in the name", Config{Name: "a b"}, directory.ErrInvalid, `' ' at byte 1`},
		{"slash in the name", Config{Name: "n/1"}, directory.ErrInvalid, `'/' at byte 1`},
		{"line break in the name", Config{Name: "a\n"}, directory.ErrInvalid, `'\n' at byte 1`},
		{"name too long", Config{Name: strings.Repeat("n", 256)}, directory.ErrInvalid, "256 bytes"},
		{"negative budget", Config{MemoryBudget: -1}, ErrConfig, "MemoryBudget is -1"},
		{"negative maximum", Config{MaxMessage: -1}, ErrConfig, "MaxMessage is -1"},
		{"maximum over 1 GiB", Config{MaxMessage: 1<<30 + 1}, ErrConfig, "MaxMessage is 1073741825"},
		{"negative interval", Config{HeartbeatInterval: -time.Second}, ErrConfig, "HeartbeatInterval is -1s"},
		{"timeout shorter than three intervals", Config{HeartbeatInterval: time.Second, HeartbeatTimeout: 2 * time.Second}, ErrConfig, "HeartbeatTimeout is 2s"},
		{"negative window", Config{ResumeWindow: -1}, ErrConfig, "ResumeWindow is -1ns"},
		{"address without a scheme", Config{Listen: "127.0.0.1:0"}, ErrConfig, "Listen is 127.0.0.1:0"},
		{"unknown scheme", Config{Listen: "udp://127.0.0.1:0"}, ErrConfig, "udp"},
		{"port that is no number", Config{Listen: "tcp://127.0.0.1:many"}, ErrConfig, "many"},
		{"port that is too large", Config{Listen: "tcp://127.0.0.1:65536"}, ErrConfig, "65536"},
		{"every address of the machine", Config{Listen: "tcp://*:0"}, ErrConfig, "at which other nodes reach"},
		{"no host", Config{Listen: "tcp://:0"}, ErrConfig, "at which other nodes reach"},
		{"every IPv4 address", Config{Listen: "tcp://0.0.0.0:0"}, ErrConfig, "at which other nodes reach"},
		{"every IPv6 address", Config{Listen: "tcp://[::]:0"}, ErrConfig, "at which other nodes reach"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := within(t, 5*time.Second, func() error {
				n, err := Open(ctx, c.cfg)
				if err == nil {
					n.Close()
				}
				return err
			})
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestBadProducersAndConsumers(t *testing.T) {
	ctx := testContext(t)
	n := openWith(t, Config{Name: "n"})
	newProducer(t, n, "x", ProducerConfig{Index: 3})
	newConsumer(t, n, "x", ConsumerConfig{Index: 3})
	for _, c := range []struct {
		name     string
		channel  string
		index    int
		mark     HighWaterMark
		promised int
		is       error
		text     string
	}{
		{"channel without a name", "", 0, HighWaterMark{}, 0, directory.ErrInvalid, "empty"},
		{"bad channel name", "no channel", 0, HighWaterMark{}, 0, directory.ErrInvalid, `' ' at byte 2`},
		{"channel name too long", strings.Repeat("c", 256), 0, HighWaterMark{}, 0, directory.ErrInvalid, "256 bytes"},
		{"index that is taken", "x", 3, HighWaterMark{}, 0, ErrIndexTaken, "3"},
		{"negative index", "x", -1, HighWaterMark{}, 0, nil, "-1"},
		{"index too large", "x", directory.MaxIndex + 1, HighWaterMark{}, 0, nil, "2147483648"},
		{"negative bytes", "x", 0, HighWaterMark{Bytes: -1}, 0, ErrConfig, "HighWaterMark.Bytes is -1"},
		{"negative messages", "x", 0, HighWaterMark{Messages: -5}, 0, ErrConfig, "HighWaterMark.Messages is -5"},
		{"negative promise", "x", 0, HighWaterMark{}, -2, ErrConfig, "Producers is -2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(what string, err error) {
				t.Helper()
				if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "node n") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if c.promised == 0 {
				check("producer", within(t, 5*time.Second, func() error {
					_, err := n.Producer(ctx, c.channel, ProducerConfig{Index: c.index, HighWaterMark: c.mark})
					return err
				}))
			}
			check("consumer", within(t, 5*time.Second, func() error {
				_, err := n.Consumer(ctx, c.channel, ConsumerConfig{Index: c.index, HighWaterMark: c.mark, Producers: c.promised})
				return err
			}))
		})
	}
	members, err := n.Directory().Members(ctx, "x")
	if err != nil || len(members) != 2 {
		t.Errorf("what was refused left something in the directory: %v, %v", members, err)
	}
}

func TestNameThatIsTaken(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	first := openWith(t, Config{Name: "n", Directory: dir})
	_, err := Open(ctx, Config{Name: "n", Directory: dir})
	var taken *directory.NameTakenError
	if !errors.Is(err, directory.ErrNameTaken) || !errors.As(err, &taken) || taken.Name != "n" || taken.Endpoint != first.Endpoint() {
		t.Fatalf("%v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openWith(t, Config{Name: "n", Directory: dir}); again.Incarnation() <= first.Incarnation() {
		t.Errorf("incarnation %d after %d", again.Incarnation(), first.Incarnation())
	}
}

func TestAddressThatIsTaken(t *testing.T) {
	dir := directory.NewRegistry()
	first := openWith(t, Config{Name: "first", Directory: dir})
	_, err := Open(testContext(t), Config{Name: "second", Directory: dir, Listen: first.Endpoint()})
	if err == nil || !strings.Contains(err.Error(), "address in use") || !strings.Contains(err.Error(), first.Endpoint()) {
		t.Fatal(err)
	}
	if nodes, err := dir.Nodes(testContext(t)); err != nil || len(nodes) != 1 {
		t.Errorf("in the directory: %v, %v", nodes, err)
	}
}

func TestUnknownConsumers(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	a := openWith(t, Config{Name: "a", Directory: dir})
	p := newProducer(t, a, "x", ProducerConfig{})
	key := []byte("key")
	unknown := func(what string, want Address, err error) {
		t.Helper()
		var e *UnknownConsumerError
		if !errors.Is(err, ErrNoConsumer) || !errors.As(err, &e) || e.Channel != "x" || e.Address != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	nobody := Address{"nobody", 7}
	ask := func(keyed bool) {
		t.Helper()
		unknown("Send", nobody, p.Send(ctx, nobody, nil))
		unknown("TrySend", nobody, p.TrySend(nobody, nil))
		_, err := p.To(nobody)
		unknown("To", nobody, err)
		if keyed {
			unknown("SendKey", Address{}, p.SendKey(ctx, key, nil))
			unknown("TrySendKey", Address{}, p.TrySendKey(key, nil))
			unknown("SendAll", Address{}, p.SendAll(ctx, nil))
			_, err = p.Owner(key)
			unknown("Owner", Address{}, err)
		}
	}
	ask(true)
	newConsumer(t, a, "another", ConsumerConfig{}) // of another channel
	ask(true)
	c := newConsumer(t, openWith(t, Config{Name: "b", Directory: dir}), "x", ConsumerConfig{})
	if err := p.WaitConsumers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	ask(false)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "the consumer to be gone", func() bool { return len(p.Consumers()) == 0 })
	ask(true)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := p.WaitConsumers(short, 1); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "0 of 1") {
		t.Errorf("WaitConsumers: %v", err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Errorf("Flush of nothing: %v", err)
	}
}

// A message over the maximum, this node's or the consumer's, is refused whole;
// one of the maximum arrives.
func TestMessageOverTheMaximum(t *testing.T) {
	for _, c := range []struct{ own, peers int }{{5000, 100_000}, {100_000, 5000}, {200_000, 200_000}, {5000, 1000}, {1, 1}} {
		t.Run(fmt.Sprintf("own %d, consumer's %d", c.own, c.peers), func(t *testing.T) {
			ctx := testContext(t)
			most := min(c.own, c.peers)
			dir := directory.NewRegistry()
			a := openWith(t, Config{Name: "a", Directory: dir, MaxMessage: c.own})
			b := openWith(t, Config{Name: "b", Directory: dir, MaxMessage: c.peers})
			consumer := newConsumer(t, b, "x", ConsumerConfig{})
			p := newProducer(t, a, "x", ProducerConfig{})
			to := waitTarget(t, ctx, p, consumer.Address())
			if err := to.Send(ctx, []byte("1")); err != nil {
				t.Fatal(err)
			}
			if err := p.Flush(ctx); err != nil { // so each knows the other's maximum
				t.Fatal(err)
			}
			large, fits := make([]byte, most+1), bytes.Repeat([]byte("2"), most)
			for what, err := range map[string]error{
				"Send": to.Send(ctx, large), "TrySend": to.TrySend(large), "SendAll": p.SendAll(ctx, large),
				"SendKey": p.SendKey(ctx, nil, large), "much larger": to.TrySend(make([]byte, 4*max(c.own, c.peers))),
			} {
				var e *TooLargeError
				if !errors.As(err, &e) || e.Size <= most || e.Max != most {
					t.Errorf("%s: %v", what, err)
				}
			}
			if err := to.Send(ctx, fits); err != nil {
				t.Fatal(err)
			}
			for _, want := range [][]byte{[]byte("1"), fits} {
				if m, err := consumer.Receive(ctx); err != nil || !bytes.Equal(m.Body, want) {
					t.Fatalf("%d bytes instead of %d, %v", len(m.Body), len(want), err)
				}
			}
			if l := a.Stats().Links; len(l) != 1 || l[0].Connections != 1 {
				t.Errorf("%+v", l)
			}
		})
	}
}

// Everything answers ErrClosed after Close, and at once.
func TestEverythingAfterClose(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	a, b := openWith(t, Config{Name: "a", Directory: dir}), openWith(t, Config{Name: "b", Directory: dir})
	c := newConsumer(t, b, "x", ConsumerConfig{})
	own := newConsumer(t, a, "x", ConsumerConfig{})
	p := newProducer(t, a, "x", ProducerConfig{})
	closed := newProducer(t, a, "x", ProducerConfig{})
	if err := p.WaitConsumers(ctx, 2); err != nil {
		t.Fatal(err)
	}
	to := waitTarget(t, ctx, p, c.Address())
	ofClosed := waitTarget(t, ctx, closed, c.Address())
	body := []byte("x")
	after := func(what string, f func() error) {
		t.Helper()
		if err := within(t, 5*time.Second, f); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}

	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	after("a closed producer's Target.Send", func() error { return ofClosed.Send(ctx, body) })
	after("a closed producer's Target.TrySend", func() error { return ofClosed.TrySend(body) })
	after("a closed producer's Send", func() error { return closed.Send(ctx, c.Address(), body) })
	after("a closed producer's TrySend", func() error { return closed.TrySend(c.Address(), body) })
	after("a closed producer's SendKey", func() error { return closed.SendKey(ctx, body, body) })
	after("a closed producer's SendAll", func() error { return closed.SendAll(ctx, body) })
	if err := to.Send(ctx, body); err != nil {
		t.Errorf("the other producer: %v", err)
	}

	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	after("Target.Send", func() error { return to.Send(ctx, body) })
	after("Target.TrySend", func() error { return to.TrySend(body) })
	after("Send", func() error { return p.Send(ctx, c.Address(), body) })
	after("SendKey", func() error { return p.SendKey(ctx, body, body) })
	after("SendAll", func() error { return p.SendAll(ctx, body) })
	after("WaitConsumers", func() error { return p.WaitConsumers(ctx, 99) })
	after("Receive", func() error { _, err := own.Receive(ctx); return err })
	after("Messages", func() error {
		for _, err := range own.Messages(ctx) {
			return err
		}
		return nil
	})
	after("Node.Producer", func() error { _, err := a.Producer(ctx, "x", ProducerConfig{}); return err })
	after("Node.Consumer", func() error { _, err := a.Consumer(ctx, "x", ConsumerConfig{}); return err })
	after("Node.Producer on another channel", func() error { _, err := a.Producer(ctx, "y", ProducerConfig{}); return err })
	for what, f := range map[string]func() error{
		"Producer.Close": p.Close, "Producer.Close again": closed.Close, "Consumer.Close": own.Close, "Node.Close": a.Close,
		"Node.Drain": func() error { return a.Drain(ctx) },
	} {
		if err := within(t, 5*time.Second, f); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	a.Stats()
	if nodes, err := dir.Nodes(ctx); err != nil || len(nodes) != 1 {
		t.Errorf("in the directory: %v, %v", nodes, err)
	}
}

// A directory that is not there is a typed error within a bounded time, from
// the first call or from a later one.
func TestDirectoryThatIsNotThere(t *testing.T) {
	ctx := testContext(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "tcp://" + ln.Addr().String()
	ln.Close()
	quiet := slog.New(slog.DiscardHandler)
	const patience = 300 * time.Millisecond
	opts := directory.Options{Timeout: patience, Logger: quiet}
	unavailable := func(what string, f func() error) {
		t.Helper()
		began := time.Now()
		err := within(t, 10*time.Second, f)
		var e *directory.UnavailableError
		if !errors.Is(err, directory.ErrUnavailable) || !errors.As(err, &e) || e.Addr == "" {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(began); took > patience+5*time.Second {
			t.Errorf("%s took %v", what, took)
		}
	}
	unavailable("Dial", func() error {
		c, err := directory.Dial(ctx, nobody, opts)
		if err == nil {
			c.Close()
		}
		return err
	})

	registry := directory.NewRegistry()
	defer registry.Close()
	server, err := directory.Serve(ctx, registry, "tcp://127.0.0.1:0", quiet)
	if err != nil {
		t.Fatal(err)
	}
	client, err := directory.Dial(ctx, server.Addr(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	a := openWithout(t, Config{Name: "a", Directory: client})
	b := openWithout(t, Config{Name: "b", Directory: client})
	c := newConsumer(t, b, "x", ConsumerConfig{})
	p := newProducer(t, a, "x", ProducerConfig{})
	to := waitTarget(t, ctx, p, c.Address())
	exchange := func(body string) {
		t.Helper()
		if err := to.Send(ctx, []byte(body)); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Receive(ctx); err != nil || string(m.Body) != body {
			t.Fatalf("%q, %v", m.Body, err)
		}
	}
	exchange("with it")
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	unavailable("Open", func() error {
		n, err := Open(ctx, Config{Name: "c", Directory: client, Logger: quiet})
		if err == nil {
			n.Close()
		}
		return err
	})
	unavailable("Producer on a known channel", func() error { _, err := a.Producer(ctx, "x", ProducerConfig{}); return err })
	unavailable("Producer on another channel", func() error { _, err := a.Producer(ctx, "y", ProducerConfig{}); return err })
	unavailable("Consumer", func() error { _, err := b.Consumer(ctx, "x", ConsumerConfig{}); return err })
	exchange("without it") // it is in nobody's data path
}

// openWithout opens a node that is closed with the test, when its directory is
// gone.
func openWithout(t testing.TB, cfg Config) *Node {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	n, err := Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := within(t, 10*time.Second, n.Close)
		if err != nil && !errors.Is(err, directory.ErrUnavailable) {
			t.Error(err)
		}
	})
	return n
}
