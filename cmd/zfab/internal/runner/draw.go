package runner

import (
	"math/rand/v2"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/faultproxy"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// A draw is what one occurrence of a fault picks at random: the same for the
// same seed, whatever the others do and however late it comes.
type draw struct {
	links     []nodePair
	ways      []faultproxy.Direction // that it is about
	node      int                    // 1-based
	length    time.Duration
	direction faultproxy.Direction // in which a cut counts bytes
	bytes     int                  // that it lets pass
}

// mostBytes is the most that passes between a cut's time and the cut. Small
// numbers are as likely as large ones, so that cuts fall into headers, too.
const mostBytes = 64 << 10

// newDraw draws for the n-th occurrence of a topology's i-th fault.
func newDraw(t *topology.Topology, i, n int) draw {
	f := t.Faults[i]
	r := rand.New(rand.NewPCG(t.Seed, uint64(i)<<32|uint64(n)))
	d := draw{node: f.Node, length: f.For, ways: []faultproxy.Direction{faultproxy.Forward, faultproxy.Backward}}
	if f.ForMost > f.For {
		d.length += time.Duration(r.Int64N(int64(f.ForMost - f.For)))
	}
	d.direction = faultproxy.Direction(r.IntN(2))
	most := mostBytes
	for range r.IntN(16) {
		most /= 2
	}
	d.bytes = 1 + r.IntN(most)
	switch {
	case f.Kind.OfNetwork() && f.Link.All:
		d.links = allLinks(t.Nodes)
	case f.Kind.OfNetwork() && f.Link.Any:
		all := allLinks(t.Nodes)
		d.links = all[r.IntN(len(all)):][:1]
	case f.Kind.OfNetwork():
		d.links = []nodePair{pairOf(f.Link.From, f.Link.To)}
		if f.Link.OneWay {
			d.ways = []faultproxy.Direction{faultproxy.Forward}
			if f.Link.From > f.Link.To {
				d.ways[0] = faultproxy.Backward
			}
		}
	case f.Node == 0:
		d.node = 1 + r.IntN(t.Nodes)
	}
	return d
}

// A nodePair is the numbers of two nodes, the lesser one first.
type nodePair [2]int

func pairOf(a, b int) nodePair { return nodePair{min(a, b), max(a, b)} }

func (p nodePair) names() faultproxy.Pair {
	return faultproxy.Pair{A: topology.NodeName(p[0]), B: topology.NodeName(p[1])}
}

func allLinks(nodes int) []nodePair {
	var all []nodePair
	for a := 1; a <= nodes; a++ {
		for b := a + 1; b <= nodes; b++ {
			all = append(all, nodePair{a, b})
		}
	}
	return all
}

// proxied are the links that a topology's faults are about.
func proxied(t *topology.Topology) []faultproxy.Pair {
	var some []faultproxy.Pair
	for i, f := range t.Faults {
		if !f.Kind.OfNetwork() {
			continue
		}
		links := newDraw(t, i, 0).links
		if f.Link.Any {
			links = allLinks(t.Nodes)
		}
		for _, l := range links {
			some = append(some, l.names())
		}
	}
	return some
}
