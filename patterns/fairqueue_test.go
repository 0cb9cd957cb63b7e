package patterns

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestFairQueueTakesOneOfEachInTurn(t *testing.T) {
	var q fairQueue[string, int]
	for i := range 4 {
		q.push("greedy", i)
	}
	q.push("a", 10)
	q.push("b", 20)
	q.push("a", 11)
	var got []int
	for v, ok := q.pop(); ok; v, ok = q.pop() {
		got = append(got, v)
	}
	if want := []int{0, 10, 20, 1, 11, 2, 3}; !slices.Equal(got, want) || q.len != 0 || len(q.lines) != 0 {
		t.Errorf("got %v, want %v; %d left", got, want, q.len)
	}
}

// Against a plain model: nothing is lost, each line keeps its order, and nobody
// who has something waits for more than one of everybody else.
func TestFairQueueAgainstAModel(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var q fairQueue[int, int]
		model, waited, total := make(map[int][]int), make(map[int]int), 0
		for step := range 2000 {
			key := rnd.IntN(6)
			switch rnd.IntN(20) {
			case 0:
				if got := q.drop(key); !slices.Equal(got, model[key]) {
					t.Fatalf("seed %d, step %d: dropped %v, want %v", seed, step, got, model[key])
				}
				total -= len(model[key])
				delete(model, key)
				waited[key] = 0
			case 1:
				if n := len(model[key]); n > 0 {
					at := rnd.IntN(n)
					want := model[key][at]
					if v, ok := q.remove(key, func(v int) bool { return v == want }); !ok || v != want {
						t.Fatalf("seed %d, step %d: removed %d, %v", seed, step, v, ok)
					}
					model[key] = slices.Delete(model[key], at, at+1)
					total--
					if n == 1 {
						waited[key] = 0
					}
				} else if _, ok := q.remove(key, func(int) bool { return true }); ok {
					t.Fatalf("seed %d, step %d: removed from nothing", seed, step)
				}
			case 2, 3, 4, 5, 6, 7, 8, 9, 10:
				v, ok := q.pop()
				if ok != (total > 0) {
					t.Fatalf("seed %d, step %d: popped %v of %d", seed, step, ok, total)
				}
				if !ok {
					continue
				}
				key := v % 6
				if len(model[key]) == 0 || model[key][0] != v {
					t.Fatalf("seed %d, step %d: popped %d, want the first of %v", seed, step, v, model[key])
				}
				model[key] = model[key][1:]
				total--
				for k := range 6 {
					if waited[k]++; k == key || len(model[k]) == 0 {
						waited[k] = 0
					}
					if waited[k] > 5 {
						t.Fatalf("seed %d, step %d: %d waits for %d turns", seed, step, k, waited[k])
					}
				}
			default:
				v := step*6 + key
				q.push(key, v)
				model[key] = append(model[key], v)
				total++
			}
			if q.len != total {
				t.Fatalf("seed %d, step %d: it has %d, want %d", seed, step, q.len, total)
			}
		}
	}
}
