package directory

import (
	"math/bits"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/zfab/zfab/fabric/internal/rendezvous"
)

// Policy is how one is chosen among the members of a channel, or among the nodes.
type Policy string

const (
	// RoundRobin takes one after the other, in the members' order.
	RoundRobin Policy = "round-robin"
	// Weighted gives each node's members turns in proportion to its weight, spread as evenly as that allows: smooth
	// weighted round robin, as nginx has it.
	Weighted Policy = "weighted"
	// LeastLoaded draws two at random and takes the one whose node reported less load, so that those who ask between
	// two reports do not all get the same one (the power of two choices, Mitzenmacher 2001).
	LeastLoaded Policy = "least-loaded"
	// Nearest takes one on the asker's host, else one in its zone, else any: which one, is drawn.
	Nearest Policy = "nearest"
	// ByKey takes the one that owns the key, the same for everybody who knows the same members: the consumer to which
	// a producer's SendKey goes.
	ByKey Policy = "key"
)

// Policies lists all of them.
func Policies() []Policy { return []Policy{RoundRobin, Weighted, LeastLoaded, Nearest, ByKey} }

// MaxKey is the length of a key in bytes that a directory is asked about.
const MaxKey = 64 << 10

// Query says what to choose.
type Query struct {
	Channel string // "": among the nodes
	Role    Role   // 0: among the channel's members of both roles
	Policy  Policy // "": RoundRobin
	Key     []byte // for ByKey
	Zone    string // for Nearest: where the asker is
	Host    string
}

// Candidate is one among whom to choose.
type Candidate struct {
	Member Member // of a node: without channel, role and index
	Node   NodeInfo
	Load   uint32
}

// Roster is the list of all candidates, for who wants to choose by itself.
type Roster struct {
	Candidates []Candidate   // in the order of Member.Compare
	Warming    time.Duration // how long nodes that are not listed may still register again, see WarmingError
	Freshness
}

// Choice is the one that was chosen.
type Choice struct {
	Candidate
	Freshness
}

// checkQuery checks all of it that a Chooser looks at, and what it is to choose from.
func checkQuery(q Query) error {
	if err := checkPool(q.Channel, q.Role); err != nil {
		return err
	}
	if len(q.Key) > MaxKey {
		return invalid("a key has %d bytes, more than %d", len(q.Key), MaxKey)
	}
	if err := checkAttributes(NodeInfo{Zone: q.Zone, Host: q.Host}); err != nil {
		return err
	}
	if q.Policy == "" {
		return nil
	}
	var known []string
	for _, p := range Policies() {
		if q.Policy == p {
			return nil
		}
		known = append(known, string(p))
	}
	return invalid("unknown policy %q; known are %s", q.Policy, strings.Join(known, ", "))
}

func checkPool(channel string, role Role) error {
	if role > Consumer || channel == "" && role != 0 {
		return invalid("%v of channel %q", role, channel)
	}
	if channel == "" {
		return nil
	}
	return CheckName("channel", channel)
}

// Chooser chooses, and remembers whose turn it is. The zero value is ready to use; it is not safe for concurrent use.
type Chooser struct {
	last    Member   // chosen in turn last
	members []Member // for whom the rest stands
	turns   []int64  // for Weighted: how much each is behind (positive) or ahead
	seeds   []uint64 // for ByKey; nil: not needed yet
}

// Choose returns the index of one of the candidates, which are in the order of Member.Compare; -1 if there are none.
// The draw is a random number, which decides where the policy leaves it to chance.
func (c *Chooser) Choose(candidates []Candidate, q Query, draw uint64) int {
	if q.Policy == Weighted || q.Policy == ByKey {
		c.know(candidates)
	}
	return c.choose(candidates, q, draw)
}

// choose is Choose for candidates that the chooser knows.
func (c *Chooser) choose(candidates []Candidate, q Query, draw uint64) int {
	if len(candidates) == 0 {
		return -1
	}
	switch q.Policy {
	case Weighted:
		return c.weighted(candidates)
	case LeastLoaded:
		return lessLoaded(candidates, draw)
	case Nearest:
		return nearest(candidates, q, draw)
	case ByKey:
		return c.owner(candidates, q.Key)
	}
	return c.next(candidates)
}

// next is the first behind the last one, who may have gone meanwhile.
func (c *Chooser) next(candidates []Candidate) int {
	i := sort.Search(len(candidates), func(i int) bool { return candidates[i].Member.Compare(c.last) > 0 })
	i %= len(candidates)
	c.last = candidates[i].Member
	return i
}

// weighted lets everybody fall behind by its weight, and takes who is behind most: all of that for one turn.
func (c *Chooser) weighted(candidates []Candidate) int {
	best, total := 0, int64(0)
	for i := range candidates {
		weight := int64(max(1, candidates[i].Node.Weight))
		c.turns[i] += weight
		total += weight
		if c.turns[i] > c.turns[best] {
			best = i
		}
	}
	c.turns[best] -= total
	return best
}

func lessLoaded(candidates []Candidate, draw uint64) int {
	n := uint32(len(candidates))
	if n == 1 {
		return 0
	}
	i, j := below(uint32(draw), n), below(uint32(draw>>32), n-1)
	if j >= i {
		j++ // two different ones
	}
	if candidates[j].Load < candidates[i].Load {
		return int(j)
	}
	return int(i)
}

// below maps a random number to one below n.
func below(random, n uint32) uint32 {
	hi, _ := bits.Mul32(random, n)
	return hi
}

func nearest(candidates []Candidate, q Query, draw uint64) int {
	distance, count := 3, uint32(0)
	for i := range candidates {
		switch d := q.distance(&candidates[i].Node); {
		case d < distance:
			distance, count = d, 1
		case d == distance:
			count++
		}
	}
	skip := below(uint32(draw), count)
	for i := range candidates {
		if q.distance(&candidates[i].Node) == distance {
			if skip == 0 {
				return i
			}
			skip--
		}
	}
	panic("directory: a candidate that was counted is not there")
}

// distance is 0 for the asker's own host, 1 for its zone, 2 for elsewhere. A host's name counts within its zone.
func (q *Query) distance(n *NodeInfo) int {
	switch {
	case n.Zone != q.Zone:
		return 2
	case q.Host != "" && n.Host == q.Host:
		return 0
	case q.Zone != "":
		return 1
	}
	return 2
}

func (c *Chooser) owner(candidates []Candidate, key []byte) int {
	if c.seeds == nil {
		c.seeds = make([]uint64, len(candidates))
		for i := range candidates {
			m := &candidates[i].Member
			c.seeds[i] = rendezvous.Seed(m.Node + "/" + strconv.Itoa(m.Index))
		}
	}
	slot, best, most := rendezvous.Slot(key), -1, uint64(0)
	for i, seed := range c.seeds {
		w := rendezvous.Weight(seed, slot)
		if best < 0 || w > most || w == most && before(candidates[i].Member, candidates[best].Member) {
			best, most = i, w
		}
	}
	return best
}

// before is the order by address alone.
func before(a, b Member) bool { return a.Node < b.Node || a.Node == b.Node && a.Index < b.Index }

// know makes the chooser's memory fit the candidates: who is new begins with nothing, who has gone is forgotten.
func (c *Chooser) know(candidates []Candidate) {
	same := len(candidates) == len(c.members)
	for i := 0; same && i < len(candidates); i++ {
		same = candidates[i].Member == c.members[i]
	}
	if same {
		return
	}
	turns := make(map[Member]int64, len(c.members))
	for i, m := range c.members {
		turns[m] = c.turns[i]
	}
	c.members, c.turns, c.seeds = make([]Member, len(candidates)), make([]int64, len(candidates)), nil
	for i := range candidates {
		c.members[i] = candidates[i].Member
		c.turns[i] = turns[candidates[i].Member]
	}
}
