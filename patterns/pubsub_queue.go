package patterns

import (
	"context"
	"sync"

	"github.com/zfab/zfab/fabric"
)

// subscriber is a Subscriber without its type: a queue between the hub, which puts
// what comes into it and never waits, and the program.
//
// What is in it is bounded: by the config's Queue for what may be dropped; by as
// much from each publisher for what is reliable, as those know; by maxHistory and
// historyBytes from each publisher for what is replayed. Between any two messages of a
// publisher there is one word of missed ones at most; of each node there is one
// word that it is lost, the last; and one of something strange.
type subscriber struct {
	hub   *hub
	id    uint64
	cfg   subscriberConfig
	ready chan struct{} // capacity 1: the program is to look again
	read  chan struct{} // closed when the program has read all, up to the end

	// Under the hub's mu.
	ties     int
	leaving  bool // it was unsubscribed
	draining bool // it ends when it has no ties

	mu       sync.Mutex
	letters  chain[letter]
	loose    int                                   // messages that may be dropped
	bytes    int64                                 // of them
	oldest   *chainLink[letter]                    // of them; nil if there is none
	byTopic  map[string]*chainLink[letter]         // of them, with Conflate
	gaps     map[fabric.Address]*chainLink[letter] // words of missed messages, behind which none of that publisher has come
	losses   map[string]*chainLink[letter]         // by node
	odd      bool                                  // a word of something strange is in the queue
	done     map[fabric.Address]struct{}           // publishers that have finished, if some were promised
	ended    int                                   // of them, that the program knows
	waiting  bool                                  // the program is
	err      error                                 // what follows the queue's last letter
	told     bool                                  // the program knows the end
	held     int64                                 // bytes in all
	messages int                                   // in all
	stats    SubscriberStats
}

// letter is one thing in the queue.
type letter struct {
	kind  letterKind
	tie   *tie // of a message
	topic string
	body  []byte
	word  *letterWord // of what is no message
}

// letterWord is a letter that is no message: so many that were missed of a
// publisher, or an error about its node or somebody else's message.
type letterWord struct {
	from   fabric.Address
	missed uint64
	err    error
}

type letterKind uint8

const (
	looseLetter    letterKind = iota // a message that may be dropped
	reliableLetter                   // one that must not be
	pastLetter                       // one that was replayed
	missedLetter
	lostLetter
	strangeLetter
	finishedLetter
)

func (l *letter) isMessage() bool { return l.kind <= pastLetter }

// tieFlow is what a subscriber has of one publisher, and had.
type tieFlow struct {
	past                  int // messages that were replayed, in all
	pastBytes             int64
	queued, queuedBytes   int64  // reliable messages
	handled, handledBytes uint64 // of them, in all
	said, saidBytes       uint64 // the same, as the publisher knows it
}

// deliver puts a message into the queue, or counts it as missed.
func (s *subscriber) deliver(t *tie, topic string, body []byte, past bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	size := int64(len(body))
	room := &s.cfg.queue
	l := letter{tie: t, topic: topic, body: body}
	switch {
	case past:
		// A publisher keeps no more than this.
		if t.flow.past >= maxHistory || t.flow.pastBytes+size > historyBytes {
			s.miss(t, 1)
			return
		}
		t.flow.past++
		t.flow.pastBytes += size
		l.kind = pastLetter
	case t.quality == Reliable:
		// A publisher that keeps to the room never sends more.
		if t.flow.queued >= room.Messages || t.flow.queuedBytes >= room.Bytes {
			s.miss(t, 1)
			return
		}
		t.flow.queued++
		t.flow.queuedBytes += size
		l.kind = reliableLetter
	case t.quality == BoundedDrop:
		if int64(s.loose) >= room.Messages || s.bytes >= room.Bytes {
			s.miss(t, 1)
			return
		}
	default:
		if old := s.byTopic[topic]; old != nil {
			s.take(old)
			s.stats.Conflated++
		}
		for s.loose > 0 && (int64(s.loose) >= room.Messages || s.bytes+size > room.Bytes) {
			s.take(s.oldest)
			s.stats.Missed++
		}
	}
	if len(s.gaps) > 0 {
		delete(s.gaps, t.source.addr) // what is missed from now on is missed behind this one
	}
	s.put(l)
}

// put puts a letter at the end. Only the hub's reading goroutine calls it, and what
// does.
func (s *subscriber) put(l letter) *chainLink[letter] {
	link := s.letters.append(l)
	if l.isMessage() {
		s.messages++
		s.held += int64(len(l.body))
	}
	if l.kind == looseLetter {
		s.loose++
		s.bytes += int64(len(l.body))
		if s.oldest == nil {
			s.oldest = link
		}
		if s.cfg.conflate && l.tie.quality == Latest {
			if s.byTopic == nil {
				s.byTopic = make(map[string]*chainLink[letter])
			}
			s.byTopic[l.topic] = link
		}
	}
	if s.waiting {
		s.waiting = false
		s.hub.rouse = append(s.hub.rouse, s)
	}
	return link
}

// take takes a letter out.
func (s *subscriber) take(link *chainLink[letter]) letter {
	if s.oldest == link {
		s.oldest = link.next
		for s.oldest != nil && s.oldest.v.kind != looseLetter {
			s.oldest = s.oldest.next
		}
	}
	if s.byTopic[link.v.topic] == link {
		delete(s.byTopic, link.v.topic)
	}
	if l := &link.v; l.kind == missedLetter && s.gaps[l.word.from] == link {
		delete(s.gaps, l.word.from)
	} else if l.kind == lostLetter && s.losses[l.word.from.Node] == link {
		delete(s.losses, l.word.from.Node)
	}
	l := s.letters.remove(link)
	size := int64(len(l.body))
	if l.isMessage() {
		s.messages--
		s.held -= size
	}
	switch l.kind {
	case looseLetter:
		s.loose--
		s.bytes -= size
	case reliableLetter:
		l.tie.flow.queued--
		l.tie.flow.queuedBytes -= size
	case strangeLetter:
		s.odd = false
	}
	return l
}

// rouse ends the program's wait, or makes the next one end at once. Either way it
// looks again.
func (s *subscriber) rouse() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// missed takes a publisher's word of messages that it could not send.
func (s *subscriber) missed(t *tie, messages uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.miss(t, messages)
	}
}

// miss counts messages that the program will not get, and tells it in their place.
func (s *subscriber) miss(t *tie, messages uint64) {
	s.stats.Missed += messages
	if t.quality == Latest || messages == 0 {
		return
	}
	from := t.source.addr
	if link := s.gaps[from]; link != nil {
		link.v.word.missed += messages
		return
	}
	if s.gaps == nil {
		s.gaps = make(map[fabric.Address]*chainLink[letter])
	}
	s.gaps[from] = s.put(letter{kind: missedLetter, word: &letterWord{missed: messages, from: from}})
}

// lost tells the program that a node with publishers is lost.
func (s *subscriber) lost(err *fabric.PeerLostError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if link := s.losses[err.Node]; link != nil {
		if link.v.word.err == err {
			return // for another publisher there
		}
		s.take(link)
	}
	if s.losses == nil {
		s.losses = make(map[string]*chainLink[letter])
	}
	s.losses[err.Node] = s.put(letter{kind: lostLetter, word: &letterWord{from: fabric.Address{Node: err.Node}, err: err}})
}

// strange tells the program that somebody else sends on the channel.
func (s *subscriber) strange(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && !s.odd {
		s.odd = true
		s.put(letter{kind: strangeLetter, word: &letterWord{err: err}})
	}
}

// finished notes a publisher's last word.
func (s *subscriber) finished(from fabric.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.done[from]; again || s.cfg.promised == 0 || s.err != nil {
		return
	}
	if s.done == nil {
		s.done = make(map[fabric.Address]struct{})
	}
	s.done[from] = struct{}{}
	s.put(letter{kind: finishedLetter})
}

// end ends the queue with err, behind what is in it.
func (s *subscriber) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		s.rouse()
	}
}

// refused returns the end if it has come.
func (s *subscriber) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// next waits for the next letter that the program is to see. One goroutine at a time
// may call it.
func (s *subscriber) next(ctx context.Context) (letter, error) {
	s.mu.Lock()
	for {
		link := s.letters.first
		switch {
		case s.cfg.promised > 0 && s.ended >= s.cfg.promised && s.err == nil:
			s.err = fabric.ErrEnd
		case link != nil:
			l := s.take(link)
			if l.kind == finishedLetter {
				s.ended++
				continue
			}
			record := s.handle(&l)
			s.mu.Unlock()
			if record != nil {
				l.tie.source.tell(record)
			}
			return l, nil
		case s.err != nil:
			err := s.err
			if !s.told {
				s.told = true
				close(s.read)
			}
			s.mu.Unlock()
			return letter{}, err
		default:
			s.waiting = true
			s.mu.Unlock()
			select {
			case <-s.ready:
			case <-ctx.Done():
				s.mu.Lock()
				s.waiting = false
				s.mu.Unlock()
				return letter{}, ctx.Err()
			}
			s.mu.Lock()
		}
	}
}

// handle counts a letter that goes to the program. It returns what is to be said of
// that to the publisher: at least for each quarter of the room.
func (s *subscriber) handle(l *letter) (record []byte) {
	if !l.isMessage() {
		return nil
	}
	s.stats.Received++
	if l.kind != reliableLetter {
		return nil
	}
	f, room := &l.tie.flow, &s.cfg.queue
	f.handled++
	f.handledBytes += uint64(len(l.body))
	if f.handled-f.said < uint64(max(room.Messages/4, 1)) && f.handledBytes-f.saidBytes < uint64(max(room.Bytes/4, 1)) {
		return nil
	}
	return s.handledWord(l.tie)
}

// handledWord says how much was handled of a publisher's messages. Under mu.
func (s *subscriber) handledWord(t *tie) []byte {
	f := &t.flow
	f.said, f.saidBytes = f.handled, f.handledBytes
	return appendRecord(nil, kindHandled, t.source.token, s.id, f.handled, f.handledBytes)
}

func (s *subscriber) handledRecord(t *tie) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handledWord(t)
}

// close ends the queue at once.
func (s *subscriber) close() error {
	s.end(fabric.ErrClosed)
	s.hub.forget(s)
	s.mu.Lock()
	s.err = fabric.ErrClosed
	for s.letters.first != nil {
		s.take(s.letters.first)
	}
	s.mu.Unlock()
	return s.hub.leave()
}

func (s *subscriber) statistics() SubscriberStats {
	s.hub.mu.Lock()
	publishers := 0
	for _, src := range s.hub.sources {
		if t := src.ties[s.id]; t != nil && t.confirmed {
			publishers++
		}
	}
	s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Queued, st.QueuedBytes, st.Publishers = s.messages, s.held, publishers
	st.Malformed, st.Unwanted = s.hub.malformed.Load(), s.hub.unwanted.Load()
	return st
}
