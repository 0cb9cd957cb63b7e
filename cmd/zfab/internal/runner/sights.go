package runner

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// sights are what the nodes at the ends of some links said of them at a time.
type sights struct {
	cluster cluster
	links   []nodePair
	ends    [][2]*sight // by link, by node of the pair; nil: nothing is known
	stopped int         // a node that is not asked; 0: all are
}

func newSights(c cluster, links []nodePair) *sights {
	return &sights{cluster: c, links: links, ends: make([][2]*sight, len(links))}
}

// lookAll asks both ends of all links now. The stopped node, 0 if none is, cannot
// say anything.
func lookAll(ctx context.Context, c cluster, links []nodePair, stopped int) *sights {
	s := newSights(c, links)
	s.stopped = stopped
	var each sync.WaitGroup
	for i := range links {
		each.Go(func() { s.look(ctx, i) })
	}
	each.Wait()
	return s
}

// lookPatience is how long a node has to say what it sees. One that does not is
// stopped, or gone.
const lookPatience = time.Second

// look asks both ends of the i-th link.
func (s *sights) look(ctx context.Context, i int) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	var both sync.WaitGroup
	for side, node := range s.links[i] {
		if node == s.stopped {
			continue
		}
		both.Go(func() {
			s.ends[i][side], _ = s.cluster.answer(ctx, node, question{Peer: s.peer(i, side)})
		})
	}
	both.Wait()
}

// peer is the name of the node at the other end of the i-th link.
func (s *sights) peer(i, side int) string { return topology.NodeName(s.links[i][1-side]) }

// drop forgets what the i-th link's ends said.
func (s *sights) drop(i int) { s.ends[i] = [2]*sight{} }

func (s *sights) inFlight() uint64 {
	n := uint64(0)
	for _, ends := range s.ends {
		for _, end := range ends {
			if end != nil {
				n += end.inFlight()
			}
		}
	}
	return n
}

// recovery is how long after since every stream went on that had messages in
// flight; nil if one did not before ctx ended.
//
// The producer's end and the consumer's are asked, and the first word counts: a
// consumer's end may have stored all that was in flight already, so that no more
// comes; and a producer's end hears of what is stored later, when there is a
// reason to tell.
func (s *sights) recovery(ctx context.Context, until condition, since time.Duration) *time.Duration {
	return s.last(since, func(i, side int) (*sight, bool) {
		from, to := s.ends[i][side], s.ends[i][1-side]
		if from == nil || from.inFlight() == 0 {
			return nil, true
		}
		sending := question{Peer: s.peer(i, side), Until: until, Connections: from.Connections}
		receiving := question{Peer: s.peer(i, 1-side), Until: until}
		for _, p := range from.Sending {
			if p.inFlight() > 0 {
				sending.Sending = append(sending.Sending, p)
			}
		}
		if to == nil {
			now, err := s.cluster.answer(ctx, s.links[i][side], sending)
			return now, err == nil
		}
		receiving.Connections, receiving.Receiving = to.Connections, matching(to.Receiving, sending.Sending)
		return s.first(ctx, i, side, sending, receiving)
	})
}

// matching is those of all that are the same streams as some.
func matching(all, some []position) []position {
	var found []position
	for _, a := range all {
		for _, b := range some {
			if a.Channel == b.Channel && a.Consumer == b.Consumer {
				found = append(found, a)
			}
		}
	}
	return found
}

// first asks both ends of a link at once and takes the first answer.
func (s *sights) first(ctx context.Context, i, side int, one, other question) (*sight, bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan *sight, 2)
	ask := func(node int, q question) {
		now, _ := s.cluster.answer(ctx, node, q)
		answers <- now
	}
	go ask(s.links[i][side], one)
	go ask(s.links[i][1-side], other)
	a := <-answers
	if a != nil {
		cancel()
	}
	b := <-answers // nobody is left behind
	if a == nil {
		a = b
	}
	return a, a != nil
}

// busy waits until messages are in flight on one of the links; false if ctx ends
// before. The stopped node is not asked.
func (s *sights) busy(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var found atomic.Bool
	s.last(0, func(i, side int) (*sight, bool) {
		if s.links[i][side] == s.stopped {
			return nil, true
		}
		now, err := s.cluster.answer(ctx, s.links[i][side], question{Peer: s.peer(i, side), Until: busy})
		if err == nil {
			found.Store(true)
			cancel() // one is enough
		}
		return now, true
	})
	return found.Load()
}

// detection is how long after since both ends of every link had given its
// connection up; nil if one had not before ctx ended.
func (s *sights) detection(ctx context.Context, since time.Duration) *time.Duration {
	return s.last(since, func(i, side int) (*sight, bool) {
		before := s.ends[i][side]
		if before == nil {
			return nil, false
		}
		now, err := s.cluster.answer(ctx, s.links[i][side], question{Peer: s.peer(i, side), Until: down, Connections: before.Connections})
		return now, err == nil
	})
}

// last asks for both ends of all links at once, and returns how long after since
// the last answer is; nil if one is missing. An answer may say that there is
// nothing to wait for.
func (s *sights) last(since time.Duration, ask func(i, side int) (*sight, bool)) *time.Duration {
	var each sync.WaitGroup
	var mu sync.Mutex
	at, all := since, true
	for i := range s.ends {
		for side := range s.ends[i] {
			each.Go(func() {
				now, ok := ask(i, side)
				mu.Lock()
				defer mu.Unlock()
				all = all && ok
				if now != nil {
					at = max(at, now.At)
				}
			})
		}
	}
	each.Wait()
	if !all {
		return nil
	}
	took := at - since
	return &took
}

// targetName is how a report names links.
func targetName(links []nodePair) string {
	if len(links) > 1 {
		return "all"
	}
	var names []string
	for _, node := range links[0] {
		names = append(names, topology.NodeName(node))
	}
	return strings.Join(names, "-")
}
