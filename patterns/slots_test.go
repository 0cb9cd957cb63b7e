package patterns

import "testing"

func TestSlots(t *testing.T) {
	var s slots[string]
	a, b := s.add("a"), s.add("b")
	if v, ok := s.get(a); v != "a" || !ok || s.used != 2 {
		t.Errorf("%q, %v, %d in use", v, ok, s.used)
	}
	if v, ok := s.remove(a); v != "a" || !ok {
		t.Errorf("removed %q, %v", v, ok)
	}
	c := s.add("c") // in the place of a
	if c&(maxSlots-1) != a&(maxSlots-1) || len(s.entries) != 2 {
		t.Errorf("the place of %x is not used again by %x", a, c)
	}
	for _, old := range []uint64{a, c + maxSlots, 1 << 40, maxSlots - 1} {
		if v, ok := s.get(old); ok {
			t.Errorf("%x finds %q", old, v)
		}
		if v, ok := s.remove(old); ok {
			t.Errorf("%x removes %q", old, v)
		}
	}
	seen := map[uint64]string{}
	s.all(func(id uint64, v string) { seen[id] = v })
	if len(seen) != 2 || seen[b] != "b" || seen[c] != "c" {
		t.Errorf("%v are there", seen)
	}
	var again slots[string]
	if again.add("a") == a {
		t.Error("another table begins with the same number")
	}
}
