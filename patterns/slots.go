package patterns

import "math/rand/v2"

// slots gives things numbers by which the other end refers to them. It is found
// again by its number without hashing, and a number that is out of date finds
// nothing: a slot's number changes with each thing in it, and begins at random,
// so that one of an earlier life of this end is not taken for one of this.
type slots[T any] struct {
	entries []slot[T]
	free    []uint32
	used    int
}

type slot[T any] struct {
	id    uint64 // of the thing in it, or of the next one
	taken bool
	value T
}

// slotBits is how many bits of a number are the slot's place: a million things
// at a time.
const slotBits = 20

// maxSlots is how many things there may be at a time.
const maxSlots = 1 << slotBits

// add returns the number of v. There must be fewer than maxSlots things.
func (s *slots[T]) add(v T) uint64 {
	var at uint32
	if n := len(s.free); n > 0 {
		at = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		at = uint32(len(s.entries))
		if at >= maxSlots {
			panic("patterns: more things than slots: a bound above does not hold")
		}
		s.entries = append(s.entries, slot[T]{id: rand.Uint64()>>1&^(maxSlots-1) | uint64(at)})
	}
	e := &s.entries[at]
	e.taken, e.value = true, v
	s.used++
	return e.id
}

// get finds what has the number.
func (s *slots[T]) get(id uint64) (v T, ok bool) {
	if at := id & (maxSlots - 1); at < uint64(len(s.entries)) {
		if e := &s.entries[at]; e.taken && e.id == id {
			return e.value, true
		}
	}
	return v, false
}

// remove takes out what has the number.
func (s *slots[T]) remove(id uint64) (v T, ok bool) {
	if v, ok = s.get(id); !ok {
		return v, false
	}
	at := uint32(id & (maxSlots - 1))
	s.entries[at] = slot[T]{id: id + maxSlots}
	s.free = append(s.free, at)
	s.used--
	return v, true
}

// all calls f with each thing.
func (s *slots[T]) all(f func(id uint64, v T)) {
	for i := range s.entries {
		if e := &s.entries[i]; e.taken {
			f(e.id, e.value)
		}
	}
}
