package link

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// explorer visits the states of a small world breadth first, each once, and
// checks them all: at every step the promises in explore_check_test.go; and from
// every state the fair actions must lead to the end, also while the consumer of
// any one stream stalls. Time is only for what is told of messages that have
// arrived: none waits for a tick.
//
// Of a state it keeps a hash, and the action that led there from the one before.
// The state itself is made anew by doing these actions from the begin.
//
// A space that is too large is cut to so many states of each depth. The fair
// actions are always followed: of each state that was followed up it is known
// that it comes to an end.
type explorer struct {
	cfg    *smallConfig
	seed   maphash.Seed
	index  map[uint64]uint32 // states by hash
	parent []uint32
	by     []action
	onward [][]uint32 // for each choice of a stalled stream, none first: the state behind the fair action; itself at the end
	due    []uint32   // states that come next
	must   []uint32   // those among them that are to be followed up in any case
	queued []bool     // the state is due, or was

	followed, edges, depth int
}

// notFollowed is the state behind one that was not followed up.
const notFollowed = 1<<32 - 1

// step is what one action leads to.
type step struct {
	hash uint64
	by   action
}

// expansion is what follows from one state.
type expansion struct {
	steps []step
	fair  []int // for each choice of a stalled stream the one of steps that is fair, -1 at the end
	err   error
	last  action // that err came of
}

// finding is a promise that was broken, and a short way there.
type finding struct {
	err  error
	path []action
}

func newExplorer(cfg *smallConfig) *explorer {
	return &explorer{
		cfg: cfg, seed: maphash.MakeSeed(), index: make(map[uint64]uint32), onward: make([][]uint32, len(cfg.from)+1),
	}
}

// walker makes states anew. Each goroutine has its own.
type walker struct {
	x       *explorer
	canon   canon
	actions []action
	path    []action
}

// run visits states until there are no others, or a limit of states or the
// deadline is reached, at most width of each depth; it returns what is wrong.
func (x *explorer) run(limit, width int, deadline time.Time) *finding {
	workers := make([]*walker, runtime.GOMAXPROCS(0))
	for i := range workers {
		workers[i] = &walker{x: x}
	}
	x.visit(step{hash: workers[0].hash(newSmallWorld(x.cfg))}, 0)
	for ; len(x.due)+len(x.must) > 0; x.depth++ {
		level, must := x.level(width)
		for len(level) > 0 {
			if len(x.parent) >= limit || time.Now().After(deadline) {
				return x.ends(append(level[:must], x.must...))
			}
			n := min(len(level), 1<<10)
			if f := x.follow(workers, level[:n]); f != nil {
				return f
			}
			level, must = level[n:], max(must-n, 0)
		}
	}
	return x.ends(nil)
}

// level takes the states that are due: first those that must be followed up, so
// many as it says, and then of the others what there is width for, evenly.
func (x *explorer) level(width int) (level []uint32, must int) {
	level, rest := x.must, x.due
	x.must, x.due = nil, nil
	must = len(level)
	if len(rest) > width {
		few := rest[:0:0]
		for i := range width {
			few = append(few, rest[i*len(rest)/width])
		}
		rest = few
	}
	for _, s := range rest {
		if !x.queued[s] {
			x.queued[s] = true
			level = append(level, s)
		}
	}
	return level, must
}

// follow follows states up.
func (x *explorer) follow(workers []*walker, states []uint32) *finding {
	results := make([]expansion, len(states))
	var wg sync.WaitGroup
	for i, k := range workers {
		wg.Go(func() {
			for j := i; j < len(states); j += len(workers) {
				results[j] = k.expand(states[j])
			}
		})
	}
	wg.Wait()
	for j, e := range results {
		if f := x.take(states[j], &e); f != nil {
			return f
		}
	}
	return nil
}

// take notes what follows from a state.
func (x *explorer) take(state uint32, e *expansion) *finding {
	if e.err != nil {
		return &finding{e.err, append(x.path(state, nil), e.last)}
	}
	to := make([]uint32, len(e.steps))
	for i, s := range e.steps {
		if to[i] = x.visit(s, state); to[i] != state {
			x.edges++
		}
	}
	for i, choice := range e.fair {
		next := state
		if choice >= 0 {
			if next = to[choice]; next == state {
				return &finding{fmt.Errorf("no end%s: nothing but time can help, and that changes nothing", stalls(i)), x.path(state, nil)}
			}
			if !x.queued[next] {
				x.queued[next] = true
				x.must = append(x.must, next)
			}
		}
		x.onward[i][state] = next
	}
	x.followed++
	return nil
}

func stalls(choice int) string {
	if choice == 0 {
		return ""
	}
	return fmt.Sprintf(" while the consumer of stream %d stalls", choice-1)
}

// visit returns the number of a state, which is due if it is new.
func (x *explorer) visit(s step, from uint32) uint32 {
	n, ok := x.index[s.hash]
	if !ok {
		n = uint32(len(x.parent))
		x.index[s.hash] = n
		x.parent = append(x.parent, from)
		x.by = append(x.by, s.by)
		x.queued = append(x.queued, false)
		x.due = append(x.due, n)
		for i := range x.onward {
			x.onward[i] = append(x.onward[i], notFollowed)
		}
	}
	return n
}

// path is the actions that lead to a state.
func (x *explorer) path(state uint32, buf []action) []action {
	buf = buf[:0]
	for ; state != 0; state = x.parent[state] {
		buf = append(buf, x.by[state])
	}
	slices.Reverse(buf)
	return buf
}

// ends looks for a state that was followed up, from which the fair actions do
// not come to an end. Those that were to be followed up and were not are gone on
// from now.
func (x *explorer) ends(left []uint32) *finding {
	k := &walker{x: x}
	for _, state := range left {
		for choice := range x.onward {
			if f := k.finish(state, choice); f != nil {
				return f
			}
		}
	}
	for choice, onward := range x.onward {
		checked := make([]uint32, len(onward)) // the state from which it was first come by, plus 1
		for s := range onward {
			for at := uint32(s); checked[at] == 0 && onward[at] != notFollowed; at = onward[at] {
				checked[at] = uint32(s) + 1
				if next := onward[at]; next != at && checked[next] == uint32(s)+1 {
					return &finding{fmt.Errorf("no end%s: the two sides go on telling each other things", stalls(choice)), x.path(next, nil)}
				}
			}
		}
	}
	return nil
}

// at is the world after the actions of path.
func (k *walker) at(path []action) *smallWorld {
	w := newSmallWorld(k.x.cfg)
	for _, a := range path {
		if err := w.apply(a); err != nil {
			panic(fmt.Sprintf("what went well before fails now: %v", err))
		}
	}
	return w
}

func (k *walker) hash(w *smallWorld) uint64 {
	w.print(&k.canon)
	return maphash.Bytes(k.x.seed, k.canon.out)
}

// expand does every action that may happen in a state.
func (k *walker) expand(state uint32) (e expansion) {
	k.path = k.x.path(state, k.path)
	w := k.at(k.path)
	k.actions = w.actions(k.actions[:0])
	for choice := range k.x.onward {
		fair := -1
		if !w.done(choice - 1) {
			a, immediate := w.fair(choice - 1)
			fair = slices.Index(k.actions, a)
			if !immediate && !w.handled(choice-1) {
				return expansion{err: fmt.Errorf("messages wait for time to pass%s", stalls(choice)), last: a}
			}
		}
		e.fair = append(e.fair, fair)
	}
	for i, a := range k.actions {
		if i > 0 {
			w = k.at(k.path)
		}
		err := w.apply(a)
		if err == nil {
			err = w.check()
		}
		if err != nil {
			return expansion{err: err, last: a}
		}
		e.steps = append(e.steps, step{k.hash(w), a})
		w.free()
	}
	return e
}

// finish does fair actions from a state until the end, or until a state of which
// it is known that it comes to it.
func (k *walker) finish(state uint32, choice int) *finding {
	path := k.x.path(state, nil)
	w := k.at(path)
	const most = 1000
	for range most {
		if n, ok := k.x.index[k.hash(w)]; ok && k.x.onward[choice][n] != notFollowed || w.done(choice-1) {
			w.free()
			return nil
		}
		a, _ := w.fair(choice - 1)
		path = append(path, a)
		err := w.apply(a)
		if err == nil {
			err = w.check()
		}
		if err != nil {
			return &finding{err, path}
		}
	}
	return &finding{fmt.Errorf("no end%s in %d fair actions", stalls(choice), most), path[:len(path)-most]}
}

// describe tells the way to a finding, with the records that were written.
func (f *finding) describe(cfg *smallConfig) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\nafter these actions:\n", f.err)
	w := newSmallWorld(cfg)
	for n, a := range f.path {
		before := len(w.way[a.which()&1])
		err := w.apply(a)
		fmt.Fprintf(&b, "%4d. %v", n+1, a)
		if way := w.way[a.which()&1]; a.kind() == doGather && len(way) > before {
			fmt.Fprintf(&b, ":%s", records(way[before]))
		}
		b.WriteByte('\n')
		if err != nil {
			break
		}
	}
	return b.String()
}

func records(p []byte) string {
	var b strings.Builder
	var rec wire.Record
	for len(p) > 0 {
		rest, err := wire.Next(p, 0, &rec)
		if err != nil {
			return b.String() + " " + err.Error()
		}
		p = rest
		fmt.Fprintf(&b, " %v of %d", rec.Kind, rec.Stream)
		switch rec.Kind {
		case wire.KindData, wire.KindEnd, wire.KindFragment:
			fmt.Fprintf(&b, " (%d messages at %d)", rec.Count, rec.Seq)
		case wire.KindState:
			fmt.Fprintf(&b, " (epoch %d, next %d, consumed %d, limit %d)", rec.State.Epoch, rec.State.Next, rec.State.ConsumedMessages, rec.State.LimitMessages)
		case wire.KindBacklog:
			fmt.Fprintf(&b, " (epoch %d, end %d, flags %b)", rec.Backlog.Epoch, rec.Backlog.EndMessages, rec.Backlog.Flags)
		}
	}
	return b.String()
}
