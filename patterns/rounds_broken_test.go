package patterns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

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
