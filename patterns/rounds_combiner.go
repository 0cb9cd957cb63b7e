package patterns

import "reflect"

// combiner keeps values by key, and makes one of two that have the same.
type combiner[V any] struct {
	combine func(a, b V) V
	entries int // the bounds
	bytes   int64
	size    func(V) int

	values map[string]*V
	held   int64 // bytes
}

func newCombiner[V any](cfg RoundsConfig[V]) *combiner[V] {
	if cfg.Combine == nil {
		return nil
	}
	own := int(reflect.TypeFor[V]().Size())
	size := func(V) int { return own }
	switch any(*new(V)).(type) {
	case []byte:
		size = func(v V) int { return own + len(any(v).([]byte)) }
	case string:
		size = func(v V) int { return own + len(any(v).(string)) }
	}
	return &combiner[V]{
		combine: cfg.Combine, entries: cfg.CombineEntries, bytes: cfg.CombineBytes, size: size, values: make(map[string]*V),
	}
}

// add takes a value, and reports whether it was combined with another one.
func (c *combiner[V]) add(key []byte, v V) (combined bool) {
	if old := c.values[string(key)]; old != nil {
		c.held -= int64(c.size(*old))
		*old = c.combine(*old, v)
		c.held += int64(c.size(*old))
		return true
	}
	c.values[string(key)] = &v
	c.held += int64(len(key) + c.size(v))
	return false
}

// full reports whether what is kept is to be sent.
func (c *combiner[V]) full() bool { return len(c.values) >= c.entries || c.held >= c.bytes }

// remove takes a value out.
func (c *combiner[V]) remove(key string) {
	c.held -= int64(len(key) + c.size(*c.values[key]))
	delete(c.values, key)
}
