package patterns

// chain is a queue out of the middle of which things can be taken. Its bound is
// its owner's. Links that were taken out serve again.
type chain[T any] struct {
	first, last *chainLink[T]
	len         int
	spare       *chainLink[T]
	spares      int
}

type chainLink[T any] struct {
	prev, next *chainLink[T]
	v          T
}

// maxSpares is how many links a chain keeps for the next things: more than come at
// a time while its reader keeps up.
const maxSpares = 256

// append puts v at the end.
func (c *chain[T]) append(v T) *chainLink[T] {
	l := c.spare
	if l == nil {
		l = new(chainLink[T])
	} else {
		c.spare = l.next
		c.spares--
	}
	l.prev, l.next, l.v = c.last, nil, v
	if c.last == nil {
		c.first = l
	} else {
		c.last.next = l
	}
	c.last = l
	c.len++
	return l
}

// remove takes l out, and returns what was in it. Nobody may refer to l then.
func (c *chain[T]) remove(l *chainLink[T]) T {
	if l.prev == nil {
		c.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		c.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	c.len--
	v := l.v
	*l = chainLink[T]{}
	if c.spares < maxSpares {
		l.next = c.spare
		c.spare = l
		c.spares++
	}
	return v
}
