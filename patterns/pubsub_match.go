package patterns

import "strings"

// matcher finds who wants a topic, among many with filters. What follows from a
// topic, an R, is made once and remembered until somebody comes or goes: most
// messages are on topics that were seen before, and cost one look-up.
//
// A topic that was not seen walks a trie of the patterns' tokens, and is looked up
// with each length that some prefix has.
type matcher[V comparable, R any] struct {
	make    func(topic string, wanting []V) R // it may keep the topic, and not the list
	entries map[V]*entry[V]

	root     branch[V]
	prefixes map[string][]*entry[V]
	lengths  []int // how many prefixes there are, by length

	found   map[string]R // at most maxFound topics
	holds   int          // at most maxHolds: those who want them
	round   uint64       // counts the searches
	wanting []V          // the last search's
}

// maxFound bounds the topics that a matcher remembers. Beyond it begins anew: a
// program that uses more in turn pays for a search each time.
const maxFound = 1 << 13

// maxHolds bounds what is remembered where many want each topic.
const maxHolds = 1 << 20

// entry is one with filters. It is in the trie once for each of them.
type entry[V comparable] struct {
	who     V
	filters []Filter
	round   uint64 // of the last search that found it
}

// branch is a node of the trie: where the patterns go on that have the same
// tokens so far.
type branch[V comparable] struct {
	next map[string]*branch[V]
	any  *branch[V]  // behind a "*"
	here []*entry[V] // whose pattern ends here
	rest []*entry[V] // whose pattern ends here with ">"
}

func newMatcher[V comparable, R any](make_ func(topic string, wanting []V) R) *matcher[V, R] {
	return &matcher[V, R]{
		make: make_, entries: make(map[V]*entry[V]), prefixes: make(map[string][]*entry[V]),
		lengths: make([]int, maxTopic+1), found: make(map[string]R),
	}
}

// add takes one in, whose filters are right and stay as they are.
func (m *matcher[V, R]) add(who V, filters []Filter) {
	m.remove(who)
	e := &entry[V]{who: who, filters: filters}
	m.entries[who] = e
	m.forget()
	for _, f := range filters {
		if f.kind == prefixFilter {
			m.prefixes[f.text] = append(m.prefixes[f.text], e)
			m.lengths[len(f.text)]++
		} else {
			m.root.add(f.text, e)
		}
	}
}

// remove takes one out, if it is in.
func (m *matcher[V, R]) remove(who V) {
	e := m.entries[who]
	if e == nil {
		return
	}
	delete(m.entries, who)
	m.forget()
	for _, f := range e.filters {
		if f.kind != prefixFilter {
			m.root.remove(f.text, e)
			continue
		}
		m.lengths[len(f.text)]--
		if m.prefixes[f.text] = without(m.prefixes[f.text], e); len(m.prefixes[f.text]) == 0 {
			delete(m.prefixes, f.text)
		}
	}
}

// match returns what follows from a topic.
func (m *matcher[V, R]) match(topic string) R {
	if r, ok := m.found[topic]; ok {
		return r
	}
	return m.search(strings.Clone(topic))
}

// matchBytes is match for a topic in a message, with whether it is one.
func (m *matcher[V, R]) matchBytes(topic []byte) (r R, ok bool) {
	if r, ok := m.found[string(topic)]; ok {
		return r, true
	}
	t := string(topic)
	if checkTopic(t) != nil {
		return r, false
	}
	return m.search(t), true
}

func (m *matcher[V, R]) search(topic string) R {
	m.round++
	m.wanting = m.wanting[:0]
	for size, used := range m.lengths[:len(topic)+1] {
		if used > 0 {
			m.take(m.prefixes[topic[:size]])
		}
	}
	m.walk(&m.root, topic)
	r := m.make(topic, m.wanting)
	m.holds += len(m.wanting)
	if len(m.found) >= maxFound || m.holds > maxHolds {
		m.forget()
		m.holds = len(m.wanting)
	}
	m.found[topic] = r
	return r
}

// forget forgets what was found.
func (m *matcher[V, R]) forget() {
	clear(m.found)
	m.holds = 0
}

// walk finds the patterns that take what is left of a topic. It splits at each
// "*" beside a token of that name, so no search takes more than all patterns.
func (m *matcher[V, R]) walk(b *branch[V], topic string) {
	m.take(b.rest)
	token, topic, more := strings.Cut(topic, ".")
	for _, next := range [...]*branch[V]{b.next[token], b.any} {
		switch {
		case next == nil:
		case more:
			m.walk(next, topic)
		default:
			m.take(next.here)
		}
	}
}

func (m *matcher[V, R]) take(list []*entry[V]) {
	for _, e := range list {
		if e.round != m.round {
			e.round = m.round
			m.wanting = append(m.wanting, e.who)
		}
	}
}

func (b *branch[V]) add(pattern string, e *entry[V]) {
	token, pattern, more := strings.Cut(pattern, ".")
	if token == ">" {
		b.rest = append(b.rest, e)
		return
	}
	next := b.follow(token)
	if next == nil {
		next = &branch[V]{}
		if token == "*" {
			b.any = next
		} else {
			if b.next == nil {
				b.next = make(map[string]*branch[V])
			}
			b.next[token] = next
		}
	}
	if more {
		next.add(pattern, e)
	} else {
		next.here = append(next.here, e)
	}
}

// remove takes e out, and branches that nobody uses any more.
func (b *branch[V]) remove(pattern string, e *entry[V]) {
	token, pattern, more := strings.Cut(pattern, ".")
	if token == ">" {
		b.rest = without(b.rest, e)
		return
	}
	next := b.follow(token)
	if more {
		next.remove(pattern, e)
	} else {
		next.here = without(next.here, e)
	}
	if len(next.next)+len(next.here)+len(next.rest) > 0 || next.any != nil {
		return
	}
	if token == "*" {
		b.any = nil
	} else {
		delete(b.next, token)
	}
}

func (b *branch[V]) follow(token string) *branch[V] {
	if token == "*" {
		return b.any
	}
	return b.next[token]
}

// without takes the first e out of a list, which has it.
func without[V comparable](list []*entry[V], e *entry[V]) []*entry[V] {
	for i := range list {
		if list[i] == e {
			last := len(list) - 1
			list[i], list[last] = list[last], nil
			return list[:last]
		}
	}
	return list
}
