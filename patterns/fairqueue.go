package patterns

// fairQueue holds what waits, by whom it came from, and gives out one of each in
// turn: who sends much waits behind itself, and nobody else does. Its bound is
// the caller's, who asks len.
type fairQueue[K comparable, T any] struct {
	lines map[K]*line[K, T]
	turn  *line[K, T] // whose turn was last, of a ring of all lines; nil if there is none
	len   int
}

// line is what waits from one source. Only those with something exist.
type line[K comparable, T any] struct {
	key        K
	items      []T // from head on
	head       int
	prev, next *line[K, T]
}

// push puts v at the end of key's line.
func (q *fairQueue[K, T]) push(key K, v T) {
	l := q.lines[key]
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[K]*line[K, T])
		}
		l = &line[K, T]{key: key}
		q.lines[key] = l
		if q.turn == nil {
			l.prev, l.next = l, l
			q.turn = l
		} else { // behind all others
			l.prev, l.next = q.turn, q.turn.next
			l.prev.next, l.next.prev = l, l
			q.turn = l
		}
	}
	l.items = append(l.items, v)
	q.len++
}

// pop takes the first of the next line.
func (q *fairQueue[K, T]) pop() (v T, ok bool) {
	if q.turn == nil {
		return v, false
	}
	l := q.turn.next
	q.turn = l
	v, l.items[l.head] = l.items[l.head], v
	l.head++
	q.len--
	switch {
	case l.head == len(l.items):
		q.unlink(l)
	case l.head > 64 && l.head > len(l.items)/2:
		l.items = append(l.items[:0], l.items[l.head:]...)
		l.head = 0
	}
	return v, true
}

// drop takes out all of key's line, and returns it.
func (q *fairQueue[K, T]) drop(key K) []T {
	l := q.lines[key]
	if l == nil {
		return nil
	}
	q.unlink(l)
	items := l.items[l.head:]
	q.len -= len(items)
	return items
}

// remove takes out the first of key's line that is so.
func (q *fairQueue[K, T]) remove(key K, is func(T) bool) (v T, ok bool) {
	l := q.lines[key]
	if l == nil {
		return v, false
	}
	for i := l.head; i < len(l.items); i++ {
		if v = l.items[i]; is(v) {
			l.items = append(l.items[:i], l.items[i+1:]...)
			q.len--
			if l.head == len(l.items) {
				q.unlink(l)
			}
			return v, true
		}
	}
	return *new(T), false
}

func (q *fairQueue[K, T]) unlink(l *line[K, T]) {
	delete(q.lines, l.key)
	if l.next == l {
		q.turn = nil
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	if q.turn == l {
		q.turn = l.prev
	}
}
