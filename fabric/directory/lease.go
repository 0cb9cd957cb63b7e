package directory

import (
	"container/list"
	"time"
)

// A third of a lease is the time between two renewals: one may be lost, and one may be late.
const renewals = 3

// ticks is how often in a lease a Registry that is served tells its table the time, if nothing else happens.
const ticks = 10

// advance tells the table what time it is. now never falls, and counts from anything.
//
// Time in which the directory itself stood still (stopped, swapped out, starved) does not count: it could not have
// heard a renewal meanwhile, and would find all leases over when it wakes. So no step counts for more than two ticks.
func (t *table) advance(now time.Duration) {
	t.now += min(now-t.clock, 2*t.lease/ticks)
	t.clock = now
	for n := t.leases.first; n != nil && n.deadline <= t.now; n = t.leases.first {
		t.drop(n, false)
	}
}

// patience is how long advance need not be called.
func (t *table) patience() time.Duration {
	d := t.lease / ticks
	if n := t.leases.first; n != nil {
		d = min(d, n.deadline-t.now)
	}
	return d
}

// warming is how long what is not known may still be a node that has not registered again.
func (t *table) warming() time.Duration { return max(0, t.warm-t.now) }

// unknown is the answer for a name that nobody has, or nobody has yet.
func (t *table) unknown(name string) error {
	if d := t.warming(); d > 0 {
		return &WarmingError{What: "node " + name, Remaining: d}
	}
	return &UnknownNodeError{Name: name}
}

// renewal is a node's sign of life, with its load.
type renewal struct {
	name        string
	incarnation uint64
	load        uint32
}

// renew begins the leases of h's nodes anew, and returns the names of those that are not h's, or not in that life:
// their holder is to join them again, and is told then what has become of them.
func (t *table) renew(h *holder, list []renewal) (unknown []string) {
	for _, r := range list {
		n, err := t.held(h, r.name, r.incarnation)
		if n == nil || err != nil {
			unknown = append(unknown, r.name)
			continue
		}
		n.load = r.load
		if n.leased {
			t.leases.renew(n, t.now+t.lease)
		}
	}
	return unknown
}

// report notes the load of a node of h.
func (t *table) report(h *holder, name string, incarnation uint64, load uint32) error {
	n, err := t.held(h, name, incarnation)
	if err == nil && n == nil {
		err = t.unknown(name)
	}
	if err != nil {
		return err
	}
	n.load = load
	return nil
}

// leases lists the nodes that have one by deadline. All leases are of one length, so that who is renewed is always
// the last, and nothing needs sorting.
type leases struct{ first, last *node }

func (l *leases) renew(n *node, deadline time.Duration) {
	l.remove(n)
	n.leased, n.deadline, n.earlier = true, deadline, l.last
	if l.last != nil {
		l.last.later = n
	} else {
		l.first = n
	}
	l.last = n
}

func (l *leases) remove(n *node) {
	if !n.leased {
		return
	}
	if n.earlier != nil {
		n.earlier.later = n.later
	} else {
		l.first = n.later
	}
	if n.later != nil {
		n.later.earlier = n.earlier
	} else {
		l.last = n.earlier
	}
	n.leased, n.earlier, n.later = false, nil, nil
}

// tomb remembers the incarnation of a node that is gone, so that no later life of it gets a lower one.
type tomb struct {
	name        string
	incarnation uint64
	left        bool // it left or was replaced, and does not come back; else its lease ended, and it may
}

// tombs are the last maxTombs of them.
type tombs struct {
	byName map[string]*list.Element
	oldest *list.List // of tomb, oldest first
}

func newTombs() tombs { return tombs{byName: make(map[string]*list.Element), oldest: list.New()} }

// get returns the name's tomb, the zero tomb if there is none.
func (t *tombs) get(name string) tomb {
	if e := t.byName[name]; e != nil {
		return e.Value.(tomb)
	}
	return tomb{}
}

// put adds a tomb. If one has to be forgotten for it, put returns that one.
func (t *tombs) put(b tomb) (forgotten tomb) {
	t.delete(b.name)
	if len(t.byName) >= maxTombs {
		forgotten = t.oldest.Front().Value.(tomb)
		t.delete(forgotten.name)
	}
	t.byName[b.name] = t.oldest.PushBack(b)
	return forgotten
}

func (t *tombs) delete(name string) {
	if e := t.byName[name]; e != nil {
		t.oldest.Remove(e)
		delete(t.byName, name)
	}
}
