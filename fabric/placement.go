package fabric

import (
	"github.com/cespare/xxhash/v2"

	"github.com/zfab/zfab/fabric/internal/link"
)

// slotCount is how many slots keys fall into. With 128 consumers each owns 64
// slots, give or take an eighth.
const slotCount = 8192

// slotOf is the slot of a key: the same in every process and every language.
func slotOf(key []byte) int { return int(xxhash.Sum64(key) % slotCount) }

// Placement says which of a fixed set of consumers owns which key. It is safe
// for concurrent use.
type Placement struct {
	owners [slotCount]int32 // by slot; -1 if there is no consumer
}

// Place places keys on consumers, each given once and in any order. It does so
// by rendezvous (highest random weight) hashing, Thaler and Ravishankar 1998:
// whoever knows the same consumers agrees on the owners; when a consumer leaves,
// only its keys move, and when one comes, only those that it takes.
func Place(consumers []Address) *Placement {
	seeds := make([]uint64, len(consumers))
	for i, a := range consumers {
		seeds[i] = xxhash.Sum64String(a.String())
	}
	pl := new(Placement)
	for slot := range pl.owners {
		best, weight := -1, uint64(0)
		for i, seed := range seeds {
			w := mix(seed ^ uint64(slot)*0x9e3779b97f4a7c15)
			if best < 0 || w > weight || w == weight && compareAddress(consumers[i], consumers[best]) < 0 {
				best, weight = i, w
			}
		}
		pl.owners[slot] = int32(best)
	}
	return pl
}

// Owner is the index, in what was given to Place, of the consumer that owns
// key; -1 if there was none.
func (pl *Placement) Owner(key []byte) int { return int(pl.owners[slotOf(key)]) }

// mix spreads a number over all bits: the finalizer of splitmix64 (Steele, Lea
// and Flood 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// owner is the stream of the consumer that owns key, nil if there is none.
func (v *view) owner(key []byte) *link.SendStream {
	if len(v.order) == 0 {
		return nil
	}
	v.once.Do(func() { v.placement = Place(v.addrs) })
	return v.order[v.placement.Owner(key)]
}
