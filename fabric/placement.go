package fabric

import (
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/rendezvous"
)

// Placement says which of a fixed set of consumers owns which key. It is safe
// for concurrent use.
type Placement struct {
	owners [rendezvous.Slots]int32 // by slot; -1 if there is no consumer
}

// Place places keys on consumers, each given once and in any order. It does so
// by rendezvous (highest random weight) hashing, Thaler and Ravishankar 1998:
// whoever knows the same consumers agrees on the owners; when a consumer leaves,
// only its keys move, and when one comes, only those that it takes.
func Place(consumers []Address) *Placement {
	seeds := make([]uint64, len(consumers))
	for i, a := range consumers {
		seeds[i] = rendezvous.Seed(a.String())
	}
	pl := new(Placement)
	for slot := range pl.owners {
		best, weight := -1, uint64(0)
		for i, seed := range seeds {
			w := rendezvous.Weight(seed, slot)
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
func (pl *Placement) Owner(key []byte) int { return int(pl.owners[rendezvous.Slot(key)]) }

// owner is the stream of the consumer that owns key, nil if there is none.
func (v *view) owner(key []byte) *link.SendStream {
	if len(v.order) == 0 {
		return nil
	}
	v.once.Do(func() { v.placement = Place(v.addrs) })
	return v.order[v.placement.Owner(key)]
}
