package rendezvous

import (
	"fmt"
	"testing"
)

// The numbers are a promise to other languages. The hashes are those of the reference implementation of XXH64.
func TestNumbersStay(t *testing.T) {
	for key, want := range map[string]int{"": 0xef46db3751d8e999 % Slots, "a": 0xd24ec4f1a98c6e5b % Slots, "abc": 0x44bc2cf5ad770999 % Slots} {
		if got := Slot([]byte(key)); got != want {
			t.Errorf("slot of %q is %d, want %d", key, got, want)
		}
	}
	if got := Seed("abc"); got != 0x44bc2cf5ad770999 {
		t.Errorf("seed of abc is %#x", got)
	}
	// splitmix64 with seed 0: its first output is the mix of the constant.
	if got := Weight(0, 1); got != 0xe220a8397b1dcdaf {
		t.Errorf("weight of seed 0 and slot 1 is %#x", got)
	}
}

func TestEveryOwnerGetsItsShareOfTheSlots(t *testing.T) {
	const owners = 64
	seeds := make([]uint64, owners)
	for i := range seeds {
		seeds[i] = Seed(fmt.Sprintf("n%d/0", i))
	}
	shares := make([]int, owners)
	for slot := range Slots {
		best := 0
		for i, seed := range seeds {
			if Weight(seed, slot) > Weight(seeds[best], slot) {
				best = i
			}
		}
		shares[best]++
	}
	const mean = Slots / owners // its standard deviation is about 11
	for i, n := range shares {
		if n < mean-5*11 || n > mean+5*11 {
			t.Errorf("owner %d has %d slots of %d, the mean is %d", i, n, Slots, mean)
		}
	}
}
