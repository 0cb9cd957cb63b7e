package sim

import "time"

// clock is the simulated time and what happens when. Of two events at the same
// time the one that was scheduled first comes first.
type clock struct {
	now   time.Duration
	order uint64
	heap  []event
}

// event is something that node does, or the world if that is nil.
type event struct {
	at    time.Duration
	order uint64
	node  *node
	do    func()
}

func (e *event) before(f *event) bool {
	return e.at < f.at || e.at == f.at && e.order < f.order
}

func (c *clock) at(at time.Duration, n *node, do func()) {
	c.order++
	c.heap = append(c.heap, event{max(at, c.now), c.order, n, do})
	for i := len(c.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !c.heap[i].before(&c.heap[up]) {
			break
		}
		c.heap[i], c.heap[up] = c.heap[up], c.heap[i]
		i = up
	}
}

// pop takes the next event, and the time of it comes.
func (c *clock) pop() event {
	h := c.heap
	e := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], event{}
	c.heap = h[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if h[child].before(&h[least]) {
				least = child
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	c.now = e.at
	return e
}
