package patterns

import (
	"math/rand/v2"
	"testing"
)

// However work is given and done, the choice is the one with the least
// outstanding of those with room, and among equals the one that waited longest.
func TestBalanceChoosesTheLeastLoaded(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var b balancer[int]
		var all []*seat[int]
		for i := range 1 + rnd.IntN(20) {
			s := newSeat(i, 1+rnd.IntN(5))
			b.turns++
			s.turn = b.turns // so that there is one right choice
			all = append(all, s)
			b.sit(s)
		}
		want := func(not int) *seat[int] {
			var best *seat[int]
			for _, s := range all {
				if s.in && s.who != not && s.out < s.room && (best == nil || s.before(best)) {
					best = s
				}
			}
			return best
		}
		for step := range 500 {
			s := all[rnd.IntN(len(all))]
			switch rnd.IntN(8) {
			case 0:
				b.leave(s)
			case 1:
				b.sit(s)
			case 2, 3:
				if s.out > 0 {
					b.done(s)
				}
			case 4:
				if w := want(s.who); b.pickOther(func(i int) bool { return i == s.who }) != w {
					t.Fatalf("seed %d, step %d: not the least loaded but %d", seed, step, s.who)
				}
			default:
				if w := want(-1); b.pick() != w {
					t.Fatalf("seed %d, step %d: not the least loaded", seed, step)
				}
			}
			if s.out > s.room && s.in {
				t.Fatalf("seed %d, step %d: %d outstanding, room for %d", seed, step, s.out, s.room)
			}
		}
	}
}

func TestBalanceTakesEqualsInTurn(t *testing.T) {
	var b balancer[string]
	for _, who := range []string{"a", "b", "c"} {
		b.sit(newSeat(who, 2))
	}
	var got string
	for s := b.pick(); s != nil; s = b.pick() {
		got += s.who
	}
	if got != "abcabc" {
		t.Errorf("in turn: %s", got)
	}
}

func BenchmarkBalance(b *testing.B) {
	for _, seats := range []int{8, 4096} {
		b.Run(map[int]string{8: "8", 4096: "4096"}[seats], func(b *testing.B) {
			var bal balancer[int]
			for i := range seats {
				bal.sit(newSeat(i, 4))
			}
			var last *seat[int]
			for b.Loop() {
				s := bal.pick()
				if last != nil {
					bal.done(last)
				}
				last = s
			}
		})
	}
}
