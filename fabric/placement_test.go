package fabric

import (
	"fmt"
	"slices"
	"testing"
)

func TestPlacement(t *testing.T) {
	var nine []Address
	for i := range 9 {
		nine = append(nine, Address{Node: fmt.Sprintf("n%d", i/3), Index: i % 3})
	}
	eight := nine[:8]
	backwards := slices.Clone(nine)
	slices.Reverse(backwards)
	of9, of8, reversed := Place(nine), Place(eight), Place(backwards)
	keys := make(map[Address]int)
	const all = 9000
	for i := range all {
		key := fmt.Appendf(nil, "key-%d", i)
		owner := nine[of9.Owner(key)]
		keys[owner]++
		if other := backwards[reversed.Owner(key)]; other != owner {
			t.Fatalf("%s is owned by %s, or by %s in another order", key, owner, other)
		}
		// Who leaves moves its own keys and no others.
		if other := eight[of8.Owner(key)]; owner != nine[8] && other != owner {
			t.Fatalf("%s moved from %s to %s when %s left", key, owner, other, nine[8])
		}
	}
	for _, a := range nine {
		if n := keys[a]; n < all/9*3/4 || n > all/9*5/4 {
			t.Errorf("%s owns %d of %d keys, a ninth is %d", a, n, all, all/9)
		}
	}
	if i := Place(nil).Owner([]byte("key")); i != -1 {
		t.Errorf("without consumers the owner is %d", i)
	}
	// Fixed for all time and every language: what another build has placed.
	if i := of9.Owner([]byte("key-0")); i != placedKey0 {
		t.Errorf("key-0 is placed on %d, was on %d before", i, placedKey0)
	}
}

// placedKey0 is the index of key-0's owner among the nine of TestPlacement.
const placedKey0 = 8
