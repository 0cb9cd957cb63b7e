package patterns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// openNodes opens nodes n1, n2, ...
func openNodes(t testing.TB, n int) []*fabric.Node {
	t.Helper()
	dir := directory.NewRegistry()
	nodes := make([]*fabric.Node, n)
	for i := range nodes {
		nodes[i] = openNode(t, dir, fmt.Sprintf("n%d", i+1))
	}
	return nodes
}

func openRoundsOn[V any](t testing.TB, nodes []*fabric.Node, cfg RoundsConfig[V]) []*Rounds[V] {
	t.Helper()
	ctx := testContext(t)
	if cfg.Channel == "" {
		cfg.Channel = "x"
	}
	if cfg.Nodes == 0 {
		cfg.Nodes = len(nodes)
	}
	all := make([]*Rounds[V], len(nodes))
	var opening sync.WaitGroup
	for i, node := range nodes {
		opening.Go(func() {
			var err error
			if all[i], err = OpenRounds(ctx, node, cfg); err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { check(t, all[i].Close()) })
		})
	}
	opening.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

func roundsShape(producers, consumers int) ExchangeConfig {
	return ExchangeConfig{Producers: producers, Consumers: consumers}
}

// key is a word of a text.
func key(i int) []byte { return fmt.Appendf(nil, "word%d", i) }

// countWords has every producer send words for rounds, each word of a round so often
// as its rank, and returns what consumers have of each round: the sums by word.
func countWords(t *testing.T, all []*Rounds[int], rounds, words int) []map[string]int {
	t.Helper()
	ctx := testContext(t)
	var work sync.WaitGroup
	var mu sync.Mutex
	sums := make([]map[string]int, rounds)
	for i := range sums {
		sums[i] = make(map[string]int)
	}
	for _, x := range all {
		for _, p := range x.Producers() {
			work.Go(func() {
				for range rounds {
					for times := 1; times <= words; times++ {
						for w := times; w <= words; w++ { // so that equal ones are far apart
							check(t, p.SendKey(ctx, key(w), 1))
						}
					}
					check(t, p.EndRound(ctx))
				}
				check(t, p.Drain(ctx))
			})
		}
		for _, c := range x.Consumers() {
			work.Go(func() {
				for want := uint64(0); ; want++ {
					round, err := c.Next(ctx)
					if err == fabric.ErrEnd {
						if want != uint64(rounds) {
							t.Errorf("%s: the end after %d rounds", c.Address(), want)
						}
						return
					}
					if err != nil || round != want {
						t.Errorf("round %d, %v; want %d", round, err, want)
						return
					}
					for v, err := range c.Values(ctx) {
						if err != nil {
							t.Errorf("round %d: %v", round, err)
							return
						}
						if owner := x.Addresses()[x.Owner(v.Key)]; owner != c.Address() {
							t.Errorf("%s is at %s, owned by %s", v.Key, c.Address(), owner)
						}
						mu.Lock()
						sums[round][string(v.Key)] += v.Value
						mu.Unlock()
					}
				}
			})
		}
	}
	work.Wait()
	return sums
}

// Rounds that drain have sent all and received all before they close; and where somebody
// does not receive, they say so and close all the same.
func TestRoundsDrain(t *testing.T) {
	ctx := testContext(t)
	all := openRoundsOn(t, openNodes(t, 2), RoundsConfig[int]{ExchangeConfig: roundsShape(2, 2)})
	var work sync.WaitGroup
	var sum atomic.Int64
	for _, x := range all {
		for _, c := range x.Consumers() {
			work.Go(func() {
				for {
					_, err := c.Next(ctx)
					if err == fabric.ErrEnd {
						return
					}
					check(t, err)
					for v, err := range c.Values(ctx) {
						check(t, err)
						sum.Add(int64(v.Value))
					}
				}
			})
		}
		work.Go(func() {
			for _, p := range x.Producers() {
				for i := range 10 {
					check(t, p.SendKey(ctx, key(i), 1))
				}
			}
			check(t, x.Drain(ctx))
		})
	}
	work.Wait()
	if n := sum.Load(); n != 2*2*10 {
		t.Errorf("the sum is %d", n)
	}
	check(t, all[0].Drain(ctx))

	all = openRoundsOn(t, openNodes(t, 1), RoundsConfig[int]{ExchangeConfig: roundsShape(1, 1)})
	err := all[0].Drain(shortContext(t))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "consumer n1/0 has not come to its end") {
		t.Errorf("where nobody receives: %v", err)
	}
}

// Sums are the same whether values are combined before they are sent or not, and far
// fewer are sent.
func TestRoundsCombine(t *testing.T) {
	const rounds, words, producers = 4, 40, 2 * 2
	var sent [3]uint64
	for i, cfg := range []RoundsConfig[int]{
		{},
		{Combine: func(a, b int) int { return a + b }},
		{Combine: func(a, b int) int { return a + b }, CombineEntries: 10},
	} {
		cfg.ExchangeConfig = roundsShape(2, 2)
		all := openRoundsOn(t, openNodes(t, 2), cfg)
		for round, sums := range countWords(t, all, rounds, words) {
			for w := 1; w <= words; w++ {
				if n := sums[string(key(w))]; n != w*producers {
					t.Errorf("config %d, round %d: %d of word %d, want %d", i, round, n, w, w*producers)
				}
			}
		}
		for _, x := range all {
			for _, p := range x.Producers() {
				st := p.Stats()
				sent[i] += st.Values
				if st.Values+st.Combined != rounds*words*(words+1)/2 || st.Rounds != rounds || st.Undelivered != 0 {
					t.Errorf("%+v", st)
				}
			}
		}
	}
	if sent[1] != rounds*words*producers {
		t.Errorf("%d combined values were sent, want %d", sent[1], rounds*words*producers)
	}
	if sent[2] <= sent[1] || sent[2] >= sent[0] {
		t.Errorf("%d values without, %d with combining, %d in little memory", sent[0], sent[1], sent[2])
	}
}

// The bound in bytes counts keys, and what is behind a []byte.
func TestRoundsCombinerBoundsBytes(t *testing.T) {
	c := newCombiner(RoundsConfig[[]byte]{
		Combine: func(a, b []byte) []byte { return append(a, b...) }, CombineEntries: 1000, CombineBytes: 1000,
	})
	c.add([]byte("key"), make([]byte, 400))
	if c.full() {
		t.Errorf("%d bytes are too much", c.held)
	}
	if !c.add([]byte("key"), make([]byte, 600)) || !c.full() {
		t.Errorf("%d bytes are not too much", c.held)
	}
	c.remove("key")
	if c.held != 0 || len(c.values) != 0 {
		t.Errorf("%d bytes of nothing", c.held)
	}
}

// A round ends behind all of its values, and no producer is further ahead of a
// consumer than so many rounds as may be open.
func TestRoundsBarrier(t *testing.T) {
	for _, open := range []int{1, 3} {
		ctx := testContext(t)
		const rounds = 12
		all := openRoundsOn(t, openNodes(t, 3), RoundsConfig[int]{ExchangeConfig: roundsShape(2, 1), Open: open})
		var work sync.WaitGroup
		var lowest [3]atomic.Int64 // rounds that each consumer has ended
		for i, x := range all {
			for k, p := range x.Producers() {
				work.Go(func() {
					for round := range rounds {
						if k == 0 && i == round%3 { // one of them is late, each time another
							time.Sleep(2 * time.Millisecond) // is its work
						}
						for _, a := range x.Addresses() {
							check(t, p.Send(ctx, a, round))
						}
						for c := range lowest {
							if n := int(lowest[c].Load()); round > n+open {
								t.Errorf("round %d is under way, and consumer %d has ended %d", round, c, n)
							}
						}
						check(t, p.EndRound(ctx))
					}
					check(t, p.Finish(ctx))
				})
			}
			work.Go(func() {
				c := x.Consumer(0)
				for round := 0; ; round++ {
					if _, err := c.Next(ctx); err != nil {
						if err != fabric.ErrEnd || round != rounds {
							t.Errorf("after %d rounds: %v", round, err)
						}
						return
					}
					n := 0
					for v, err := range c.Values(ctx) {
						check(t, err)
						if v.Value != round || v.Key != nil {
							t.Errorf("%s has a value of round %d in round %d", c.Address(), v.Value, round)
						}
						if n++; i == 0 && n == 3 {
							time.Sleep(time.Millisecond) // a slow consumer
						}
						lowest[i].Store(int64(round)) // which is below what is told
					}
					if n != 6 {
						t.Errorf("%d values of round %d, want 6", n, round)
					}
					lowest[i].Store(int64(round + 1))
				}
			})
		}
		work.Wait()
	}
}

// A producer begins the next round before a slow consumer has ended this one, but
// no more rounds than may be open.
func TestRoundsOpenAhead(t *testing.T) {
	ctx := testContext(t)
	x := openRoundsOn(t, openNodes(t, 1), RoundsConfig[int]{ExchangeConfig: roundsShape(1, 1), Open: 3})[0]
	p, c := x.Producer(0), x.Consumer(0)
	for range 3 {
		check(t, p.SendKey(ctx, key(1), 1))
		check(t, p.EndRound(ctx))
	}
	if err := p.SendKey(shortContext(t), key(1), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a fourth round: %v", err)
	}
	if err := p.EndRound(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) || p.Round() != 3 {
		t.Errorf("its end: %v", err)
	}
	if _, err := c.Next(ctx); err != nil {
		t.Error(err)
	}
	for _, err := range c.Values(ctx) {
		check(t, err)
	}
	check(t, p.SendKey(ctx, key(1), 1))
	// What is left of a round is skipped.
	for _, err := range func() func(func(RoundValue[int], error) bool) { _, _ = c.Next(ctx); return c.Values(ctx) }() {
		check(t, err)
		break
	}
	if round, err := c.Next(ctx); round != 2 || err != nil {
		t.Errorf("%d, %v", round, err)
	}
	check(t, p.Finish(ctx))
	if err := p.SendKey(ctx, key(1), 1); err != fabric.ErrClosed {
		t.Errorf("after Finish: %v", err)
	}
	for _, want := range []error{nil, fabric.ErrEnd, fabric.ErrEnd} {
		if _, err := c.Next(ctx); err != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if st := c.Stats(); st.Rounds != 4 || st.Values != 4 || st.Skipped != 2 {
		t.Errorf("%+v", st)
	}
}

// Producers need not take part in as many rounds as others.
func TestRoundsUneven(t *testing.T) {
	ctx := testContext(t)
	all := openRoundsOn(t, openNodes(t, 2), RoundsConfig[int]{ExchangeConfig: roundsShape(2, 1)})
	var work sync.WaitGroup
	for i, x := range all {
		for k, p := range x.Producers() {
			work.Go(func() {
				for range 2*i + k { // 0, 1, 2 and 3
					check(t, p.SendKey(ctx, key(7), 1))
					check(t, p.EndRound(ctx))
				}
				check(t, p.Finish(ctx))
			})
		}
	}
	got := make(map[uint64]int)
	var mu sync.Mutex
	for _, x := range all {
		work.Go(func() {
			c := x.Consumer(0)
			rounds := uint64(0)
			for ; ; rounds++ {
				if _, err := c.Next(ctx); err != nil {
					if err != fabric.ErrEnd || rounds != 3 {
						t.Errorf("after %d rounds: %v", rounds, err)
					}
					return
				}
				for v, err := range c.Values(ctx) {
					check(t, err)
					mu.Lock()
					got[rounds] += v.Value
					mu.Unlock()
				}
			}
		})
	}
	work.Wait()
	if !maps.Equal(got, map[uint64]int{0: 3, 1: 2, 2: 1}) {
		t.Errorf("%v", got)
	}
}

// A node that is lost makes rounds unfinished, with a typed error at the end of
// each, and holds nobody up: neither consumers nor the barrier.
func TestRoundsNodeLost(t *testing.T) {
	ctx := testContext(t)
	nodes := openNodes(t, 3)
	all := openRoundsOn(t, nodes, RoundsConfig[int]{ExchangeConfig: roundsShape(1, 1), Open: 2})
	var work sync.WaitGroup
	const rounds = 8
	gone := make(chan struct{})
	for i, x := range all[:2] {
		work.Go(func() {
			p := x.Producer(0)
			for round := range rounds {
				if round == 1 {
					<-gone
				}
				var lost *fabric.PeerLostError
				for _, a := range x.Addresses() {
					if err := p.Send(ctx, a, round); err != nil && (a.Node != "n3" || !errors.As(err, &lost)) {
						t.Errorf("to %s: %v", a, err)
					}
				}
				if err := p.EndRound(ctx); err != nil && !errors.As(err, &lost) {
					t.Error(err)
				}
			}
			if err := p.Finish(ctx); lostPeer(err) == nil {
				t.Errorf("Finish: %v", err)
			}
		})
		work.Go(func() {
			c := x.Consumer(0)
			for round := range rounds {
				if _, err := c.Next(ctx); err != nil {
					t.Errorf("%d: %v", round, err)
				}
				n, unfinished := 0, false
				for _, err := range c.Values(ctx) {
					var e *UnfinishedError
					switch {
					case err == nil:
						n++
					case errors.As(err, &e):
						unfinished = true
						if len(e.Unfinished) != 1 || e.Unfinished[0].Node != "n3" || e.Finished != 2 || lostPeer(err) == nil {
							t.Errorf("%v", err)
						}
					case lostPeer(err) == nil:
						t.Errorf("%v", err)
					}
				}
				if want := 2; round > 0 && (n != want || !unfinished) || round == 0 && (n != 3 || unfinished) {
					t.Errorf("node %d, round %d: %d values, unfinished %v", i, round, n, unfinished)
				}
			}
			if _, err := c.Next(ctx); !isUnfinished(err) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
	for _, a := range all[2].Addresses() {
		check(t, all[2].Producer(0).Send(ctx, a, 0))
	}
	check(t, all[2].Producer(0).EndRound(ctx))
	await(t, "round 0 to end", func() bool { return all[0].Consumer(0).Stats().Rounds == 1 && all[1].Consumer(0).Stats().Rounds == 1 })
	check(t, nodes[2].Close())
	close(gone)
	work.Wait()
}

// Values that cannot be encoded or decoded, and what strangers send, are errors or
// counts, and no harm to others.
func TestRoundsBadInput(t *testing.T) {
	ctx := testContext(t)
	nodes := openNodes(t, 1)
	x := openRoundsOn(t, nodes, RoundsConfig[string]{ExchangeConfig: roundsShape(1, 1), Codec: failing{}})[0]
	combining := openRoundsOn(t, nodes, RoundsConfig[string]{
		ExchangeConfig: ExchangeConfig{Channel: "combined", Producers: 1, Consumers: 1}, Codec: failing{}, Combine: func(_, b string) string { return b },
	})[0]
	var codec *CodecError
	for _, v := range []string{"fails", "panics"} {
		if err := x.Producer(0).SendKey(ctx, key(1), v); !errors.As(err, &codec) || codec.Decoding {
			t.Errorf("%v", err)
		}
		check(t, combining.Producer(0).SendKey(ctx, []byte(v), v))
	}
	check(t, combining.Producer(0).SendKey(ctx, key(1), "good"))
	if err := combining.Producer(0).EndRound(ctx); !errors.As(err, &codec) || combining.Producer(0).Round() != 1 {
		t.Errorf("%v", err)
	}
	if st := combining.Producer(0).Stats(); st.Undelivered != 2 || st.Values != 1 {
		t.Errorf("%+v", st)
	}
	stranger, err := nodes[0].Producer(ctx, "x.round0", fabric.ProducerConfig{Index: 5})
	check(t, err)
	check(t, stranger.SendAll(ctx, appendRecord(nil, kindValue, 0, 0)))
	check(t, stranger.Flush(ctx))
	// What a producer of the rounds says that it should not.
	direct := x.open[0].Producer(0)
	records := [][]byte{
		nil, []byte("hello"), appendRecord(nil, kindValue, 7, 0), appendRecord(nil, kindValue, 0, 99), appendRecord(nil, kindRoundEnd, 1),
		appendRecord(nil, kindRoundEnd), appendRecord(nil, kindNoRounds), appendRecord(nil, kindValue, 0, 0, 0), appendRecord(nil, 99, 0),
	}
	for _, b := range records {
		check(t, direct.Send(ctx, x.Addresses()[0], b))
	}
	check(t, x.Producer(0).SendKey(ctx, key(1), "fails at the other end"))
	check(t, x.Producer(0).SendKey(ctx, key(1), "panics at the other end"))
	check(t, x.Producer(0).SendKey(ctx, key(1), "good"))
	check(t, x.Producer(0).Finish(ctx))
	if _, err := x.Consumer(0).Next(ctx); err != nil {
		t.Error(err)
	}
	var values []string
	for v, err := range x.Consumer(0).Values(ctx) {
		if err == nil {
			values = append(values, v.Value)
		} else if !errors.As(err, &codec) {
			t.Error(err)
		}
	}
	if st := x.Consumer(0).Stats(); len(values) != 1 || st.Undecodable != 2 || st.Malformed != uint64(len(records))+1 {
		t.Errorf("%q, %+v", values, st)
	}
	if err := x.Producer(0).Send(ctx, fabric.Address{Node: "nobody"}, ""); !errors.Is(err, fabric.ErrNoConsumer) {
		t.Error(err)
	}
	for _, cfg := range []RoundsConfig[int]{{Open: -1}, {Open: 17}, {CombineEntries: -1}, {CombineBytes: -1}} {
		cfg.ExchangeConfig = ExchangeConfig{Channel: "bad", Nodes: 1, Producers: 1, Consumers: 1}
		if _, err := OpenRounds(ctx, nodes[0], cfg); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// A node that closes its part holds up no producer's barrier.
func TestRoundsClose(t *testing.T) {
	ctx := testContext(t)
	all := openRoundsOn(t, openNodes(t, 2), RoundsConfig[int]{ExchangeConfig: roundsShape(1, 1), Open: 1})
	p := all[0].Producer(0)
	check(t, p.EndRound(ctx))
	check(t, all[1].Close())
	if _, err := all[1].Consumer(0).Next(ctx); err != fabric.ErrClosed {
		t.Errorf("%v", err)
	}
	c := all[0].Consumer(0)
	limited := shortContext(t)
	if _, err := c.Next(limited); err != nil {
		t.Error(err)
	}
	for _, err := range c.Values(limited) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a round that the other node has not ended: %v", err)
		}
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := p.EndRound(ctx); err != fabric.ErrClosed {
			t.Errorf("a wait at the barrier of closed rounds: %v", err)
		}
	})
	await(t, "the other one to be known as gone", func() bool {
		p.barrier.mu.Lock()
		defer p.barrier.mu.Unlock()
		return p.barrier.ended[1] == allRounds
	})
	check(t, all[0].Close())
	waiting.Wait()
}

// Rounds through links that are cut every 200 ms: each round's sums are right.
func TestRoundsThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	var nodes []*fabric.Node
	var stops []func() int
	for i := range 3 {
		relay := newRelay(t, dir)
		nodes = append(nodes, openRelayed(t, relay, fabric.Config{Name: fmt.Sprintf("n%d", i+1)}))
		stops = append(stops, relay.cutEvery(200*time.Millisecond))
	}
	all := openRoundsOn(t, nodes, RoundsConfig[int]{ExchangeConfig: roundsShape(1, 1), Open: 2, Combine: func(a, b int) int { return a + b }})
	const words = 50
	began := time.Now()
	var work sync.WaitGroup
	var mu sync.Mutex
	sums := make(map[uint64]int)
	ended := make([]uint64, len(all)) // rounds, by producer
	for i, x := range all {
		work.Go(func() {
			p := x.Producer(0)
			for time.Since(began) < time.Second {
				for w := range 2 * words {
					check(t, p.SendKey(ctx, key(w%words), 1))
				}
				check(t, p.EndRound(ctx))
			}
			ended[i] = p.Round()
			check(t, p.Drain(ctx))
		})
		work.Go(func() {
			c := x.Consumer(0)
			for {
				round, err := c.Next(ctx)
				if err == fabric.ErrEnd {
					return
				}
				check(t, err)
				for v, err := range c.Values(ctx) {
					check(t, err)
					mu.Lock()
					sums[round] += v.Value
					mu.Unlock()
				}
				if ctx.Err() != nil {
					return
				}
			}
		})
	}
	work.Wait()
	cuts := 0
	for _, stop := range stops {
		cuts += stop()
	}
	for round := range slices.Max(ended) {
		want := 0
		for _, n := range ended { // in the last ones not all take part
			if round < n {
				want += 2 * words
			}
		}
		if sums[round] != want {
			t.Errorf("the sum of round %d is %d, want %d", round, sums[round], want)
		}
	}
	if cuts < 6 {
		t.Errorf("%d cuts", cuts)
	}
	t.Logf("%d rounds through %d cuts", slices.Max(ended), cuts)
}

// A barrier is where the slowest is, whatever comes in which order.
func TestBarrierFindsTheLowest(t *testing.T) {
	const consumers = 5
	r := rand.New(rand.NewPCG(1, 2))
	addrs := make([]fabric.Address, consumers)
	for i := range addrs {
		addrs[i].Index = i
	}
	b, model := newBarrier(addrs), make([]uint64, consumers)
	for range 10_000 {
		i := r.IntN(consumers)
		n := model[i] + uint64(r.IntN(3))
		if r.IntN(2000) == 0 {
			n = allRounds
		}
		if model[i] == allRounds {
			n = uint64(r.IntN(10)) // late words
		}
		b.over(i, n)
		model[i] = max(model[i], n)
		lowest := uint64(allRounds)
		for _, n := range model {
			lowest = min(lowest, n)
		}
		if b.lowest != lowest {
			t.Fatalf("%v: lowest is %d", model, b.lowest)
		}
	}
}

// BenchmarkRounds is values of 8 bytes by a thousand keys among two nodes, in rounds
// of 10,000, with and without a combiner.
func BenchmarkRounds(b *testing.B) {
	for name, combine := range map[string]func(a, b uint64) uint64{"plain": nil, "combined": func(a, b uint64) uint64 { return a + b }} {
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			all := openRoundsOn(b, openNodes(b, 2), RoundsConfig[uint64]{ExchangeConfig: roundsShape(1, 1), Combine: combine})
			var work sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for _, x := range all {
				work.Go(func() {
					p := x.Producer(0)
					var key [8]byte
					for n := range b.N {
						binary.BigEndian.PutUint64(key[:], uint64(n%1000))
						check(b, p.SendKey(ctx, key[:], 1))
						if n%10_000 == 9_999 {
							check(b, p.EndRound(ctx))
						}
					}
					check(b, p.Drain(ctx))
				})
				work.Go(func() {
					for c := x.Consumer(0); ; {
						if _, err := c.Next(ctx); err != nil {
							return
						}
						for _, err := range c.Values(ctx) {
							check(b, err)
						}
					}
				})
			}
			work.Wait()
			b.ReportMetric(float64(2*b.N)/b.Elapsed().Seconds(), "values/s")
		})
	}
}
