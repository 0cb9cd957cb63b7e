package patterns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
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
