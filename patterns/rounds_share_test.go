package patterns

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// computations is how many share a link in these tests.
const computations = 4

// sharing is a run of computations that share the link of two nodes.
type sharing struct {
	size  int    // of a message
	round int    // messages that each producer sends in a round
	skip  uint64 // bytes that come through the link, from when all are at their work, before any count
	total uint64 // bytes that are to come after these
	many  int    // producers that the first one has at each node; the others have one
}

// run returns what part of the bytes each computation gets through the link.
func (s sharing) run(t *testing.T, nodes []*fabric.Node) (shares [computations]float64) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var work sync.WaitGroup
	var received [computations]atomic.Uint64
	var all atomic.Uint64
	var warm atomic.Int32 // computations that are at their work
	var parts [computations][]*Rounds[[]byte]
	for k := range computations {
		producers := 1
		if k == 0 {
			producers = s.many
		}
		parts[k] = openRoundsOn(t, nodes, RoundsConfig[[]byte]{ExchangeConfig: ExchangeConfig{Channel: fmt.Sprint("k", k), Producers: producers, Consumers: 2}})
	}
	send := func(x *Rounds[[]byte], p *RoundsProducer[[]byte]) {
		body := make([]byte, s.size)
		for n := 1; ctx.Err() == nil; n++ {
			for _, a := range x.Addresses() {
				if err := p.Send(ctx, a, body); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
			if n%s.round == 0 {
				if err := p.EndRound(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		}
	}
	receive := func(k int, c *RoundsConsumer[[]byte], begun *sync.Once) {
		for {
			if _, err := c.Next(ctx); err != nil {
				return
			}
			for v, err := range c.Values(ctx) {
				if err != nil {
					return
				}
				begun.Do(func() { warm.Add(1) })
				if v.Source.Node != c.Address().Node && warm.Load() == computations { // through the link
					n := uint64(len(v.Value))
					switch came := all.Add(n); {
					case came >= s.skip+s.total:
						cancel()
					case came > s.skip:
						received[k].Add(n)
					}
				}
			}
		}
	}
	for k := range computations {
		var begun sync.Once
		for _, x := range parts[k] {
			for _, p := range x.Producers() {
				work.Go(func() { send(x, p) })
			}
			for _, c := range x.Consumers() {
				work.Go(func() { receive(k, c, &begun) })
			}
		}
	}
	work.Wait()
	if all.Load() < s.skip+s.total {
		t.Fatalf("%d of %d bytes", all.Load(), s.skip+s.total)
	}
	for k := range received {
		shares[k] = float64(received[k].Load()) / float64(s.total)
	}
	t.Logf("messages of %d bytes: %.3f", s.size, shares)
	return shares
}

// fair fails the test unless each computation has at least half of its share.
func fair(t *testing.T, shares [computations]float64) {
	t.Helper()
	for k, share := range shares {
		if share < 0.5/computations {
			t.Errorf("computation %d has %.3f of the bytes, fair were %.3f", k, share, 1.0/computations)
		}
	}
}

// Four computations at once share two nodes' link: each gets at least half of its
// fair share, though one of them has many more producers than the others. Messages
// are so large that what they compete for is the link, and not the processors.
func TestRoundsComputationsShareLinks(t *testing.T) {
	s := sharing{size: 16 << 10, round: 1024, total: 192 << 20, many: 8} // a round is far more than the streams hold
	if raceEnabled {
		s.total /= 4
	}
	fair(t, s.run(t, openNodes(t, 2)))
}

// The same with small messages, through a link that is slow enough for them to compete
// for it, in rounds that are far more than the streams hold.
func TestRoundsComputationsShareSlowLinks(t *testing.T) {
	dir := directory.NewRegistry()
	r := newRelay(t, dir)
	r.slow(4 << 20)
	nodes := []*fabric.Node{
		openRelayed(t, r, fabric.Config{Name: "n1"}), openNodeOf(t, fabric.Config{Name: "n2", Directory: hidden{dir}}),
	}
	// What waits in sockets when the last computation begins is the others'.
	s := sharing{size: 128, round: 1 << 16, skip: 8 << 20, total: 16 << 20, many: 8}
	if raceEnabled {
		s.size, s.round = 2<<10, 1<<12 // or the processors are what is slow
	}
	fair(t, s.run(t, nodes))
}

// Rounds that are less than the streams hold end in the time that the barrier takes:
// nobody waits for the link, and all get on alike, if they have alike to send. One with
// eight times as many producers has eight times as much in each of its rounds, and so
// more of the bytes: the others do not want more, and have as many rounds.
func TestRoundsComputationsInShortRounds(t *testing.T) {
	s := sharing{size: 64, round: 256, total: 64 * 400_000, many: 1}
	if raceEnabled {
		s.total /= 8
	}
	fair(t, s.run(t, openNodes(t, 2)))
	s.many = 8
	shares := s.run(t, openNodes(t, 2))
	rounds := shares
	rounds[0] /= float64(s.many)
	sum := 0.0
	for _, r := range rounds {
		sum += r
	}
	for k := range rounds {
		rounds[k] /= sum
	}
	t.Logf("in rounds: %.3f", rounds)
	rounds[0] = shares[0]
	fair(t, rounds)
}
