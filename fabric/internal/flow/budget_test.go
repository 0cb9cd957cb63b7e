package flow

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func TestBudgetTake(t *testing.T) {
	for _, c := range []struct {
		name        string
		total       int64
		lent        uint64
		want, floor uint64
		got         uint64
	}{
		{"what is asked for", 100, 0, 40, 10, 40},
		{"all that is there", 100, 0, 100, 10, 100},
		{"what is left", 100, 70, 40, 10, 30},
		{"the floor, if less is left", 100, 95, 40, 10, 10},
		{"the floor, if nothing is left", 100, 100, 40, 10, 10},
		{"the floor, if more than all is lent", 100, 150, 40, 10, 10},
		{"never more than asked for", 100, 100, 5, 10, 5},
		{"nothing", 100, 0, 0, 0, 0},
	} {
		b := NewBudget(c.total)
		b.Take(c.lent, c.lent)
		if got := b.Take(c.want, c.floor); got != c.got || b.Lent() != int64(c.lent+c.got) || b.Total() != c.total {
			t.Errorf("%s: took %d, lent %d of %d; want %d", c.name, got, b.Lent(), b.Total(), c.got)
		}
	}
}

// Without floors, no number of takers gets more than the total.
func TestBudgetIsNotOverdrawnByManyAtOnce(t *testing.T) {
	const total = 10_000
	b := NewBudget(total)
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 3))
			var mine []uint64
			for range 20_000 {
				if n := len(mine); n > 0 && rng.IntN(2) == 0 {
					b.Return(mine[n-1])
					mine = mine[:n-1]
				} else {
					mine = append(mine, b.Take(uint64(rng.IntN(5000)), 0))
				}
				if lent := b.Lent(); lent < 0 || lent > total {
					t.Errorf("lent %d of %d", lent, total)
					return
				}
			}
			for _, n := range mine {
				b.Return(n)
			}
		})
	}
	wg.Wait()
	if b.Lent() != 0 {
		t.Errorf("lent %d at the end", b.Lent())
	}
}
