package patterns

// history is what a publisher keeps of the past, for who subscribes late: its last
// messages, and the last one of each topic. Both are bounded, in number as the
// config says and in bytes by historyBytes; who is oldest goes first. All of it is
// under the publisher's mu.
type history struct {
	messages, topics int // at most so many; 0: none is kept

	last      chain[moment]
	lastBytes int64
	values    chain[moment] // the last one of each topic, that of the latest message last
	byTopic   map[string]*chainLink[moment]
	valBytes  int64
}

// moment is one message of the past. Its body is never changed.
type moment struct {
	topic string
	body  []byte
}

func (m moment) size() int64 { return int64(len(m.topic) + len(m.body)) }

// keeps reports whether there is anything to keep.
func (h *history) keeps() bool { return h.messages+h.topics > 0 }

// add keeps a message, whose topic and body are its own.
func (h *history) add(m moment) {
	if h.messages > 0 {
		h.last.append(m)
		h.lastBytes += m.size()
		for h.last.len > h.messages || h.lastBytes > historyBytes {
			h.lastBytes -= h.last.remove(h.last.first).size()
		}
	}
	if h.topics == 0 {
		return
	}
	if old := h.byTopic[m.topic]; old != nil {
		h.forget(old)
	}
	if h.byTopic == nil {
		h.byTopic = make(map[string]*chainLink[moment])
	}
	h.byTopic[m.topic] = h.values.append(m)
	h.valBytes += m.size()
	for h.values.len > h.topics || h.valBytes > historyBytes {
		h.forget(h.values.first)
	}
}

func (h *history) forget(l *chainLink[moment]) {
	m := h.values.remove(l)
	delete(h.byTopic, m.topic)
	h.valBytes -= m.size()
}

// lately returns the last n messages that one of the filters takes, oldest first.
func (h *history) lately(filters []Filter, n int) []moment {
	var list []moment
	for l := h.last.last; l != nil && len(list) < n; l = l.prev {
		if anyMatches(filters, l.v.topic) {
			list = append(list, l.v)
		}
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// retained returns the last message of each topic that one of the filters takes,
// in the order in which they were published.
func (h *history) retained(filters []Filter) []moment {
	var list []moment
	for l := h.values.first; l != nil; l = l.next {
		if anyMatches(filters, l.v.topic) {
			list = append(list, l.v)
		}
	}
	return list
}

func anyMatches(filters []Filter, topic string) bool {
	for _, f := range filters {
		if f.Matches(topic) {
			return true
		}
	}
	return false
}
