package patterns

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// roll is who of a shape has come.
type roll struct {
	shape *shape
	here  [2]map[fabric.Address]struct{}
	left  map[fabric.Address]struct{} // producers that were here: they may have finished
}

func newRoll(s *shape) *roll {
	r := &roll{shape: s, left: make(map[fabric.Address]struct{})}
	for kind := range r.here {
		r.here[kind] = make(map[fabric.Address]struct{})
	}
	return r
}

// call takes the directory's word until the roll is complete, a member came who
// was not promised, or ctx ends.
func (r *roll) call(ctx context.Context, w directory.Watcher) error {
	synced := false
	for !synced || !r.complete() {
		e, err := w.Next(ctx)
		if err != nil && ctx.Err() != nil {
			return r.missing(ctx.Err())
		}
		if err != nil {
			return err
		}
		synced = synced || e.Kind == directory.Synced
		if err := r.note(e); err != nil {
			return err
		}
	}
	return nil
}

func (r *roll) note(e directory.Event) error {
	m, addr := e.Member, fabric.Address{Node: e.Member.Node, Index: e.Member.Index}
	switch e.Kind {
	case directory.Added:
		kind := kindOf(m.Role)
		r.here[kind][addr] = struct{}{}
		if kind == producers {
			delete(r.left, addr)
		}
		if !r.shape.fits(m) || len(r.here[kind]) > r.shape.total[kind] {
			return &ShapeError{
				Channel: r.shape.channel, Member: m,
				Producers: r.shape.total[producers], Consumers: r.shape.total[consumers],
			}
		}
	case directory.Removed:
		delete(r.here[kindOf(m.Role)], addr)
		if m.Role == directory.Producer {
			r.left[addr] = struct{}{}
		}
	}
	return nil
}

// complete reports whether all are here that opening waits for, this node's own
// among them. In an even shape consumers are enough: each node's producers come
// before them.
func (r *roll) complete() bool {
	if len(r.here[consumers]) < r.shape.total[consumers] || !r.own() {
		return false
	}
	return !r.shape.needProducers || r.promised() != nil
}

// own reports whether this node's members are here.
func (r *roll) own() bool {
	for kind := range r.here {
		for _, a := range r.shape.of(kind, []string{r.shape.node}) {
			if _, ok := r.here[kind][a]; !ok {
				return false
			}
		}
	}
	return true
}

// consumers is all consumers, by node and index.
func (r *roll) consumers() []fabric.Address { return sorted(r.here[consumers]) }

// promised is all producers, nil while they are not known.
func (r *roll) promised() []fabric.Address {
	total := r.shape.total[producers]
	switch {
	case r.shape.even:
		return r.shape.of(producers, r.nodes(consumers))
	case len(r.here[producers]) == total:
		return sorted(r.here[producers])
	case len(r.here[producers])+len(r.left) == total:
		all := maps.Clone(r.here[producers])
		maps.Copy(all, r.left)
		return sorted(all)
	}
	return nil
}

// nodes is the names of the nodes that have members of these kinds here.
func (r *roll) nodes(kinds ...int) []string {
	set := make(map[string]struct{})
	for _, kind := range kinds {
		for a := range r.here[kind] {
			set[a.Node] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// missing is the error of a roll that is not complete.
func (r *roll) missing(cause error) error {
	e := &MissingError{
		Channel:   r.shape.channel,
		Producers: len(r.here[producers]), OfProducers: r.shape.total[producers],
		Consumers: len(r.here[consumers]), OfConsumers: r.shape.total[consumers],
		Came: r.nodes(producers, consumers), OfNodes: r.shape.nodes, Err: cause,
	}
	for name := range r.shape.names {
		if !slices.Contains(e.Came, name) {
			e.Nodes = append(e.Nodes, name)
		}
	}
	slices.Sort(e.Nodes)
	if !r.shape.even {
		return e
	}
	for kind, role := range [...]directory.Role{directory.Producer, directory.Consumer} {
		for _, a := range r.shape.of(kind, e.Came) {
			if _, ok := r.here[kind][a]; !ok {
				e.Members = append(e.Members, directory.Member{Channel: e.Channel, Role: role, Node: a.Node, Index: a.Index})
			}
		}
	}
	return e
}

func sorted(set map[fabric.Address]struct{}) []fabric.Address {
	return slices.SortedFunc(maps.Keys(set), compareAddress)
}

func compareAddress(a, b fabric.Address) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Index, b.Index))
}
