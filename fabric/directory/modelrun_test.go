package directory

import (
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var modelSeed = flag.Uint64("seed", 0, "run this seed of TestTableAgreesWithTheModel only")

// Whatever is done to a table in whatever order, it answers as the model does, its lists are the model's, and who
// follows it at any pace, also with pauses, ends up with the truth.
func TestTableAgreesWithTheModel(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		runModel(t, seed+1)
	}
}

// world is a table and its model, which the same happens to.
type world struct {
	*testing.T
	seed      uint64
	rng       *rand.Rand
	table     *table
	model     *model
	holders   map[string]*holder
	followers []*follower
	store     map[string]string
}

// deed is one thing to do: who does it to which node, with which incarnation and members.
type deed struct {
	holder      string
	name        string
	incarnation uint64
	members     []Member
}

func runModel(t *testing.T, seed uint64) {
	w := &world{
		T: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), store: map[string]string{},
		table: newTable(seed, 1000, testLease),
		model: &model{
			nodes: map[string]*modelNode{}, gone: map[string]tomb{}, conns: map[string]int{}, given: map[string]uint64{},
		},
	}
	w.holders = map[string]*holder{"here": w.table.here}
	w.table.keeps = true
	steps, sleepy := 1500, 1200
	if seed%10 == 0 {
		steps, sleepy = 20_000, 9_000 // histories overflow meanwhile
	}
	w.followers = []*follower{
		{channel: "c1", every: 1}, {channel: "c2", every: 1}, {channel: "", every: 1}, {channel: "c1", every: sleepy},
	}
	for step := range steps {
		w.act()
		w.keep()
		for _, f := range w.followers {
			if step%f.every == 0 {
				w.follow(f)
			}
		}
		if step%10 == 0 {
			w.compare()
		}
	}
	w.compare()
	for _, f := range w.followers {
		w.arrive(f)
	}
	if f := w.followers[3]; steps > sleepy*2 && f.resets < 2 {
		w.fail("who slept was reset %d times: no history overflowed", f.resets)
	}
}

func (w *world) fail(format string, args ...any) {
	w.Helper()
	w.Errorf(format, args...)
	w.Fatalf("replay: go test ./fabric/directory -run TestTableAgreesWithTheModel -seed %d", w.seed)
}

// answered checks an answer against the model's.
func (w *world) answered(what string, d deed, err, want error) {
	w.Helper()
	if (err == nil) != (want == nil) || err != nil && !errors.Is(err, want) {
		w.fail("%s %+v: %v, want %v", what, d, err, want)
	}
}

func (w *world) one(list ...string) string { return list[w.rng.IntN(len(list))] }

func (w *world) deed() deed {
	ids := []string{"here"}
	for _, id := range slices.Sorted(maps.Keys(w.model.conns)) {
		if w.model.conns[id] != 0 {
			ids = append(ids, id)
		}
	}
	d := deed{holder: w.one(ids...), name: w.one("n1", "n2", "n3", "n4")}
	d.incarnation = w.model.given[d.name]
	switch w.rng.IntN(20) {
	case 0:
		d.incarnation += uint64(w.rng.IntN(3))
	case 1:
		d.incarnation = uint64(w.rng.IntN(1200))
	}
	for range 1 + w.rng.IntN(3) {
		d.members = append(d.members, Member{w.one("c1", "c2"), Role(1 + w.rng.IntN(2)), d.name, w.rng.IntN(3)})
	}
	return d
}

// act does one thing.
func (w *world) act() {
	d := w.deed()
	if w.rng.IntN(400) == 0 {
		w.restart()
		return
	}
	switch w.rng.IntN(24) {
	case 0:
		id := w.one("a", "b")
		w.model.next++
		w.model.conns[id] = w.model.next
		h := w.table.attach(id, true)
		w.table.detach(h, h.connection-1) // of the connection before: too late to mean anything
		w.holders[id] = h
	case 1:
		if id := w.one("a", "b"); w.model.conns[id] != 0 {
			w.model.conns[id] = 0
			w.table.detach(w.holders[id], w.holders[id].connection)
		}
	case 2, 3, 4, 5:
		w.join(d)
	case 6, 7, 8, 9, 10:
		w.renew(d)
	case 11:
		w.leave(d)
	case 12:
		w.evict(d)
	case 13:
		w.restate(d.holder)
	case 14, 15, 16, 17:
		w.remove(d)
	case 18, 19:
		step := time.Duration(w.rng.Int64N(int64(testLease / 3)))
		w.table.advance(w.table.clock + step)
		w.model.pass(step)
	default:
		w.add(d)
	}
}

// keep does what a journal does.
func (w *world) keep() {
	changes := []Change{}
	for _, c := range w.table.noted() {
		changes = append(changes, c.encode())
	}
	for _, c := range append(changes, w.table.mark().encode()) {
		if c.Value == nil {
			delete(w.store, string(c.Key))
		} else {
			w.store[string(c.Key)] = string(c.Value)
		}
	}
}

// restart has the table begin anew with what was kept.
func (w *world) restart() {
	var s saved
	for key, value := range w.store {
		if err := s.take([]byte(key), []byte(value)); err != nil {
			w.fail("what was kept: %v", err)
		}
	}
	w.table = newTable(w.table.epoch+1, 0, testLease)
	if err := w.table.restore(&s); err != nil {
		w.fail("what was kept: %v", err)
	}
	w.table.keeps = true
	w.holders = map[string]*holder{"here": w.table.here}
	w.model.restart()
	for _, f := range w.followers {
		f.feed = nil
	}
}

func (w *world) join(d deed) {
	info := infoOf(d.name, 0, "mem://"+d.name)
	if w.rng.IntN(2) == 0 {
		info.Incarnation = d.incarnation
	}
	if w.rng.IntN(8) == 0 {
		info.Endpoint = "mem://elsewhere"
	}
	m := w.model
	refused, resumed := m.join(info)
	got, err := w.table.join(w.holders[d.holder], info)
	w.answered("join "+info.Endpoint, d, err, refused)
	if err != nil {
		return
	}
	if info.Incarnation == 0 && got <= m.given[d.name] || info.Incarnation != 0 && got != info.Incarnation {
		w.fail("joined %v as %d, the greatest before was %d", info, got, m.given[d.name])
	}
	info.Incarnation = got
	m.given[d.name] = max(m.given[d.name], got)
	if !resumed {
		m.nodes[d.name] = &modelNode{info: info, members: map[Member]struct{}{}}
	}
	m.hold(d.holder, m.nodes[d.name])
}

func (w *world) renew(d deed) {
	load := w.rng.Uint32()
	n, refused := w.model.may(d.holder, d.name, d.incarnation)
	unknown := w.table.renew(w.holders[d.holder], []renewal{{d.name, d.incarnation, load}})
	if (len(unknown) == 0) != (n != nil && refused == nil) {
		w.fail("renew %+v: unknown are %v", d, unknown)
	}
	if n != nil {
		n.load = load
		w.model.hold(d.holder, n)
	}
}

func (w *world) leave(d deed) {
	n, refused := w.model.may(d.holder, d.name, d.incarnation)
	w.answered("leave", d, w.table.leave(w.holders[d.holder], d.name, d.incarnation), refused)
	if n != nil {
		w.model.drop(d.name, true)
	}
}

func (w *world) evict(d deed) {
	force := w.rng.IntN(2) == 0
	n, refused := w.model.nodes[d.name], error(nil)
	switch {
	case n == nil:
		refused = ErrUnknownNode
	case d.incarnation != 0 && n.info.Incarnation != d.incarnation:
		refused = ErrStale
	case w.model.live(n) && !force:
		refused = ErrLive
	}
	w.answered("evict", d, w.table.evict(d.name, d.incarnation, force), refused)
	if refused == nil {
		w.model.drop(d.name, true)
	}
}

func (w *world) add(d deed) {
	n, refused := w.model.may(d.holder, d.name, d.incarnation)
	if n == nil && refused == nil {
		refused = ErrUnknownNode
	}
	w.answered("add", d, w.table.add(w.holders[d.holder], d.incarnation, d.members), refused)
	if n != nil {
		for _, m := range d.members {
			n.members[m] = struct{}{}
		}
	}
}

func (w *world) remove(d deed) {
	n, refused := w.model.may(d.holder, d.name, d.incarnation)
	w.answered("remove", d, w.table.remove(w.holders[d.holder], d.incarnation, d.members), refused)
	if n != nil {
		for _, m := range d.members {
			delete(n.members, m)
		}
	}
}

// restate has a client state all anew that it holds, but for some of it.
func (w *world) restate(id string) {
	if id == "here" {
		return
	}
	h := w.holders[id]
	w.table.restate(h)
	for _, name := range slices.Sorted(maps.Keys(w.model.nodes)) {
		n := w.model.nodes[name]
		if n.holder != id {
			continue
		}
		if w.rng.IntN(4) == 0 {
			w.model.drop(name, true)
			continue
		}
		_, err := w.table.join(h, n.info)
		w.answered("join anew", deed{holder: id, name: name}, err, nil)
		w.model.hold(id, n)
		for _, m := range slices.SortedFunc(maps.Keys(n.members), Member.Compare) {
			if w.rng.IntN(4) == 0 {
				delete(n.members, m)
				continue
			}
			w.answered("add anew", deed{holder: id, name: name}, w.table.add(h, n.info.Incarnation, []Member{m}), nil)
		}
	}
	w.table.settle(h)
}

// follow has a follower take some events, or go away for a while.
func (w *world) follow(f *follower) {
	switch n := w.rng.IntN(160); {
	case n == 0 && f.feed != nil:
		f.feed.release()
		f.feed = nil
	case n < 20 || f.every > 1:
		f.begin(w.table)
		f.apply(w.T, f.feed.take(nil, 1+w.rng.IntN(5)))
	}
}

// arrive has a follower take all that there is, and checks that this is the truth.
func (w *world) arrive(f *follower) {
	f.begin(w.table)
	for more := true; more; {
		b := f.feed.take(nil, batchLen)
		f.apply(w.T, b)
		more = len(b.events) > 0
	}
	truth := map[Member]NodeInfo{}
	for _, n := range w.model.nodes {
		if f.channel == "" {
			truth[Member{Node: n.info.Name}] = n.info
		}
		for m := range n.members {
			if m.Channel == f.channel {
				truth[m] = n.info
			}
		}
	}
	if !maps.Equal(f.state, truth) {
		w.fail("who followed %q has %v, there is %v", f.channel, f.state, truth)
	}
}

// compare holds all of the table against the model.
func (w *world) compare() {
	w.Helper()
	t, members, leases := w.table, 0, 0
	for name, n := range w.model.nodes {
		want := Entry{Node: n.info, Load: n.load, Orphan: !w.model.live(n)}
		if n.deadline != 0 {
			want.Lease = n.deadline - w.model.now
			leases++
		}
		if e, err := t.look(name); err != nil || e != want {
			w.fail("%s is %+v, %v; want %+v", name, e, err, want)
		}
		for m := range n.members {
			if c := t.channels[m.Channel]; c == nil || c.members[m] == nil {
				w.fail("%v is not there", m)
			}
		}
		members += len(n.members)
	}
	listed := 0
	for n := t.leases.first; n != nil; n = n.later {
		listed++
		if n.later != nil && n.later.deadline < n.deadline {
			w.fail("leases are out of order")
		}
	}
	if len(t.nodes) != len(w.model.nodes) || len(t.roll.members) != len(w.model.nodes) || t.members != members || listed != leases {
		w.fail("%d nodes, %d on the roll, %d members, %d leases; want %d, %d, %d",
			len(t.nodes), len(t.roll.members), t.members, listed, len(w.model.nodes), members, leases)
	}
	there := 0
	for _, c := range t.channels {
		there += len(c.members)
		if len(c.members) == 0 && len(c.feeds) == 0 {
			w.fail("channel %s is of no use", c.name)
		}
	}
	if there != members {
		w.fail("%d members by channel, %d by node", there, members)
	}
	for id, h := range t.holders {
		if !h.live && len(h.nodes) == 0 {
			w.fail("holder %s is of no use", id)
		}
	}
}
