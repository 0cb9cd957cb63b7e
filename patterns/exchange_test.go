package patterns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// testContext bounds a test's waits.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// shortContext is for waits that are to end in vain.
func shortContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func openNode(t testing.TB, dir directory.Service, name string) *fabric.Node {
	t.Helper()
	return openNodeOf(t, fabric.Config{Name: name, Directory: dir})
}

func openNodeOf(t testing.TB, cfg fabric.Config) *fabric.Node {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	n, err := fabric.Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, n.Close()) })
	return n
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// party is an exchange with its node.
type party struct {
	*Exchange
	node *fabric.Node
}

// openAll opens an exchange on nodes n1, n2, ..., one per config.
func openAll(t testing.TB, configs ...ExchangeConfig) []party {
	t.Helper()
	ctx, dir := testContext(t), directory.NewRegistry()
	all := make([]party, len(configs))
	for i := range all {
		all[i].node = openNode(t, dir, fmt.Sprintf("n%d", i+1))
	}
	var opening sync.WaitGroup
	for i := range all {
		opening.Go(func() {
			var err error
			if all[i].Exchange, err = OpenExchange(ctx, all[i].node, configs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

func even(nodes, producers, consumers int) []ExchangeConfig {
	return slices.Repeat([]ExchangeConfig{{Channel: "x", Nodes: nodes, Producers: producers, Consumers: consumers}}, nodes)
}

// tally is what one consumer got: bodies by producer, in order.
type tally map[fabric.Address][]string

func gather(ctx context.Context, c *ExchangeConsumer) (tally, error) {
	got := make(tally)
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return got, err
		}
		got[m.Source()] = append(got[m.Source()], string(m.Body))
	}
	return got, nil
}

// allToAll sends rounds of addressed messages from every producer to every
// consumer, and holds what each consumer has at its end against that.
func allToAll(t *testing.T, all []party, rounds int) {
	ctx := testContext(t)
	var work sync.WaitGroup
	sources := 0
	for _, x := range all {
		sources += len(x.Producers())
	}
	for _, x := range all {
		for _, p := range x.Producers() {
			work.Go(func() {
				for i := range rounds {
					for _, a := range x.Addresses() {
						check(t, p.Send(ctx, a, fmt.Appendf(nil, "%s>%s#%d", p.Address(), a, i)))
					}
				}
				check(t, p.Drain(ctx))
			})
		}
		for _, c := range x.Consumers() {
			work.Go(func() {
				got, err := gather(ctx, c)
				check(t, err)
				if len(got) != sources {
					t.Errorf("%s has messages of %d producers, want %d", c.Address(), len(got), sources)
				}
				for source, bodies := range got {
					if len(bodies) != rounds {
						t.Errorf("%s has %d messages of %s, want %d", c.Address(), len(bodies), source, rounds)
					}
					for i, body := range bodies {
						if want := fmt.Sprintf("%s>%s#%d", source, c.Address(), i); body != want {
							t.Errorf("got %q, want %q", body, want)
							break
						}
					}
				}
				if _, err := c.Receive(ctx); err != fabric.ErrEnd {
					t.Errorf("after the end: %v", err)
				}
			})
		}
	}
	work.Wait()
	for _, x := range all {
		check(t, x.Close())
	}
}

func TestExchangeAllToAll(t *testing.T) { allToAll(t, openAll(t, even(4, 3, 2)...), 50) }

func TestExchangeUnevenShape(t *testing.T) {
	shape := func(producers, consumers int) ExchangeConfig {
		return ExchangeConfig{Channel: "x", Producers: producers, Consumers: consumers, TotalProducers: 6, TotalConsumers: 4}
	}
	allToAll(t, openAll(t, shape(4, 0), shape(0, 3), shape(2, 1)), 50)
}

func TestExchangeByKey(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, even(3, 2, 2)...)
	const keys = 500
	var work sync.WaitGroup
	var mu sync.Mutex
	owner, seen := make(map[string]fabric.Address), 0
	for _, x := range all {
		for _, p := range x.Producers() {
			work.Go(func() {
				var key [8]byte
				for i := range keys {
					binary.BigEndian.PutUint64(key[:], uint64(i))
					check(t, p.SendKey(ctx, key[:], key[:]))
				}
				check(t, p.Finish())
			})
		}
		for _, c := range x.Consumers() {
			work.Go(func() {
				got, err := gather(ctx, c)
				check(t, err)
				mu.Lock()
				defer mu.Unlock()
				for _, bodies := range got {
					for _, key := range bodies {
						seen++
						if other, ok := owner[key]; ok && other != c.Address() {
							t.Errorf("key %x is at %s and at %s", key, other, c.Address())
						}
						owner[key] = c.Address()
						if want := x.Addresses()[x.Owner([]byte(key))]; want != c.Address() {
							t.Errorf("key %x is at %s, owned by %s", key, c.Address(), want)
						}
					}
				}
			})
		}
	}
	work.Wait()
	if len(owner) != keys || seen != keys*6 {
		t.Errorf("%d keys in %d messages, want %d in %d", len(owner), seen, keys, keys*6)
	}
}

// A consumer that joins the channel from outside moves no key, and is not taken
// for one of the exchange.
func TestExchangeKeysStayWhenOthersCome(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, even(2, 1, 1)...)
	p := all[0].Producer(0)
	stranger, err := all[1].node.Consumer(ctx, "x", fabric.ConsumerConfig{Index: 7, Producers: 1})
	check(t, err)
	outside, err := all[0].node.Producer(ctx, "x", fabric.ProducerConfig{Index: 7})
	check(t, err)
	check(t, outside.WaitConsumers(ctx, 3)) // now node n1 knows the stranger
	for i := range 100 {
		check(t, p.SendKey(ctx, []byte{byte(i)}, []byte("body")))
	}
	check(t, p.SendAll(ctx, []byte("body")))
	check(t, p.Finish())
	check(t, all[1].Producer(0).Finish())
	check(t, outside.Send(ctx, stranger.Address(), []byte("from outside")))
	check(t, outside.Close())
	total := 0
	for _, x := range all {
		got, err := gather(ctx, x.Consumer(0))
		check(t, err)
		total += len(got[p.Address()])
	}
	if total != 102 {
		t.Errorf("%d messages came, want 102", total)
	}
	m, err := stranger.Receive(ctx)
	if err != nil || m.Source() != outside.Address() {
		t.Errorf("the stranger got %q of %v, %v", m.Body, m.Source(), err)
	}
	if _, err := stranger.Receive(ctx); err != fabric.ErrEnd {
		t.Error(err)
	}
}

func TestExchangeSendAll(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, even(2, 1, 2)...)
	for _, x := range all {
		check(t, x.Producer(0).SendAll(ctx, []byte("to all")))
		check(t, x.Producer(0).Finish())
	}
	for _, x := range all {
		for _, c := range x.Consumers() {
			got, err := gather(ctx, c)
			check(t, err)
			for _, source := range all {
				if bodies := got[source.Producer(0).Address()]; !slices.Equal(bodies, []string{"to all"}) {
					t.Errorf("%s has %q of %s", c.Address(), bodies, source.node.Name())
				}
			}
		}
	}
}

// While one consumer does not read, all others get everything; then so does it.
// Also SendAll serves those that have room before it waits for that one.
func TestExchangeSlowConsumerHoldsUpNobodyElse(t *testing.T) {
	ctx := testContext(t)
	configs := even(2, 1, 2)
	for i := range configs {
		configs[i].HighWaterMark = fabric.HighWaterMark{Messages: 8}
	}
	all := openAll(t, configs...)
	slow := all[1].Consumer(0)
	const messages = 200
	var sending, receiving sync.WaitGroup
	for _, x := range all {
		p := x.Producer(0)
		sending.Go(func() {
			var each sync.WaitGroup
			for _, target := range p.Targets() {
				each.Go(func() {
					for range messages {
						check(t, target.Send(ctx, []byte("body")))
					}
				})
			}
			each.Wait()
			check(t, p.SendAll(ctx, []byte("last")))
			check(t, p.Finish())
		})
	}
	receive := func(c *ExchangeConsumer, count int) {
		for i := range count {
			if _, err := c.Receive(ctx); err != nil {
				t.Errorf("%s at %d: %v", c.Address(), i, err)
				return
			}
		}
	}
	var others []*ExchangeConsumer
	for _, x := range all {
		for _, c := range x.Consumers() {
			if c != slow {
				others = append(others, c)
				receiving.Go(func() { receive(c, 2*messages) })
			}
		}
	}
	receiving.Wait() // without the slow one having read
	receive(slow, 2*messages-16)
	// Now the streams to the slow one are full again or nearly, and SendAll
	// waits there at the most.
	for _, c := range append(others, slow) {
		receiving.Go(func() {
			_, err := gather(ctx, c)
			check(t, err)
		})
	}
	receiving.Wait()
	sending.Wait()
}

func TestExchangeSendAllServesOthersFirst(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, ExchangeConfig{
		Channel: "x", Nodes: 1, Producers: 1, Consumers: 3, HighWaterMark: fabric.HighWaterMark{Messages: 1},
	})
	p := all[0].Producer(0)
	full := all[0].Addresses()[0]
	check(t, p.Send(ctx, full, []byte("fills the stream")))
	err := p.SendAll(shortContext(t), []byte("to all"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), full.String()) {
		t.Errorf("SendAll to a full stream: %v, want a deadline that names %s", err, full)
	}
	for _, c := range all[0].Consumers()[1:] {
		m, err := c.Receive(ctx)
		if err != nil || string(m.Body) != "to all" {
			t.Errorf("%s: %q, %v", c.Address(), m.Body, err)
		}
	}
}

// One producer finishes late: until then no consumer ends, although all others
// have finished, and what it sends last still arrives.
func TestExchangeEndsAfterTheLastProducer(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, even(2, 2, 1)...)
	late := all[1].Producer(1)
	for _, x := range all {
		for _, p := range x.Producers() {
			if p != late {
				check(t, p.SendAll(ctx, []byte("early")))
				check(t, p.Drain(ctx))
			}
		}
	}
	for _, x := range all {
		c := x.Consumer(0)
		for range 3 {
			if _, err := c.Receive(ctx); err != nil {
				t.Fatal(err)
			}
		}
		_, err := c.Receive(shortContext(t))
		var unfinished *UnfinishedError
		if !errors.As(err, &unfinished) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s before the end: %v", c.Address(), err)
		}
		if !slices.Equal(unfinished.Unfinished, []fabric.Address{late.Address()}) || unfinished.Finished != 3 {
			t.Errorf("unfinished: %+v", unfinished)
		}
	}
	check(t, late.SendAll(ctx, []byte("late")))
	check(t, late.Finish())
	for _, x := range all {
		got, err := gather(ctx, x.Consumer(0))
		check(t, err)
		if len(got) != 1 || !slices.Equal(got[late.Address()], []string{"late"}) {
			t.Errorf("at the end: %q", got)
		}
	}
}

// An exchange that drains has sent all and received all before it closes; and where
// somebody does not receive, it says so and closes all the same.
func TestExchangeDrain(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, even(3, 2, 2)...)
	var work sync.WaitGroup
	for _, x := range all {
		for _, p := range x.Producers() {
			check(t, p.SendAll(ctx, []byte("all")))
		}
		for _, c := range x.Consumers() {
			work.Go(func() {
				if got, err := gather(ctx, c); err != nil || len(got) != 6 {
					t.Errorf("%s has %q, %v", c.Address(), got, err)
				}
			})
		}
		work.Go(func() { check(t, x.Drain(ctx)) })
	}
	work.Wait()
	for _, x := range all {
		if err := x.Producer(0).SendAll(ctx, nil); !errors.Is(err, fabric.ErrClosed) {
			t.Errorf("after Drain: %v", err)
		}
		check(t, x.Drain(ctx))
	}

	all = openAll(t, even(1, 1, 1)...)
	err := all[0].Drain(shortContext(t))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "consumer n1/0 has not come to its end") {
		t.Errorf("where nobody receives: %v", err)
	}
	if _, err := all[0].Consumer(0).Receive(ctx); err != fabric.ErrClosed {
		t.Errorf("and then: %v", err)
	}
}

func TestExchangeFinishTwice(t *testing.T) {
	ctx := testContext(t)
	x := openAll(t, even(1, 1, 1)...)[0]
	p := x.Producer(0)
	check(t, p.SendAll(ctx, []byte("body")))
	check(t, p.Finish())
	check(t, p.Finish())
	check(t, p.Drain(ctx))
	if err := p.SendAll(ctx, []byte("after")); !errors.Is(err, fabric.ErrClosed) {
		t.Errorf("SendAll after Finish: %v", err)
	}
	if err := p.Targets()[0].TrySend([]byte("after")); err != fabric.ErrClosed {
		t.Errorf("TrySend after Finish: %v", err)
	}
	got, err := gather(ctx, x.Consumer(0))
	check(t, err)
	if !slices.Equal(got[p.Address()], []string{"body"}) {
		t.Errorf("got %q", got)
	}
	check(t, x.Close())
	check(t, x.Close())
}

func TestExchangeUnknownConsumer(t *testing.T) {
	x := openAll(t, even(1, 1, 1)...)[0]
	err := x.Producer(0).Send(testContext(t), fabric.Address{Node: "n9"}, nil)
	if !errors.Is(err, fabric.ErrNoConsumer) {
		t.Error(err)
	}
}
