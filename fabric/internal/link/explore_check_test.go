package link

import (
	"bytes"
	"errors"
	"fmt"
)

// What must be true of a small world: at every moment (check), of every message
// that a consumer gets (consume), of every loss that either end is told (lost,
// failed), and at the end (done).

// done reports whether all that was to be sent was handled, and nobody has
// anything left to do; whatever becomes of the stalled stream.
func (w *smallWorld) done(stalled int) bool {
	if _, more := w.fair(stalled); more {
		return false
	}
	for i, s := range w.streams {
		if i != stalled && !s.done() {
			return false
		}
	}
	return true
}

func (s *smallStream) done() bool {
	if s.left > 0 || s.waiting != nil || s.drains {
		return false
	}
	if s.flushed != nil {
		select {
		case <-s.flushed:
		default:
			return false
		}
	}
	v := s.out.View()
	return s.handled() && v.Acknowledged == v.Accepted.Messages && v.Consumed == v.Accepted && s.out.q == nil
}

// handled reports whether consumers have had all messages that there are to be,
// but for those of the stalled stream.
func (w *smallWorld) handled(stalled int) bool {
	for i, s := range w.streams {
		if i != stalled && !s.handled() {
			return false
		}
	}
	return true
}

func (s *smallStream) handled() bool {
	return s.left == 0 && s.waiting == nil && (s.inside && s.next == s.taken || !s.inside && s.base == s.taken)
}

// check holds what must be true at every moment.
func (w *smallWorld) check() error {
	for _, s := range w.streams {
		f, r := &s.out.flow, &s.recv.flow
		switch held := f.Accepted.Messages - f.Consumed.Messages; {
		case held > max(w.cfg.mark.Messages, w.cfg.hold)+1: // the one may be a producer's end
			return fmt.Errorf("stream %d holds %d messages", s.index, held)
		case f.Sent.Messages > f.Accepted.Messages || s.out.acked > f.Accepted.Messages || f.Accepted.Messages != uint64(s.taken-s.base):
			return fmt.Errorf("stream %d: acknowledged %d, %+v", s.index, s.out.acked, *f)
		case r.Consumed.Messages > r.Received.Messages || r.Received.Messages > r.Limit.Messages:
			return fmt.Errorf("stream %d: %+v", s.index, *r)
		}
	}
	for i, l := range w.side {
		lent := int64(0)
		for _, r := range l.core.in {
			if r != nil {
				lent += int64(r.flow.Window())
			}
		}
		if w.budget[i].Lent() != lent {
			return fmt.Errorf("side %d: %d bytes are lent, its streams have %d", i, w.budget[i].Lent(), lent)
		}
	}
	return nil
}

// consume lets a consumer take what is next, and holds it against what was sent.
func (w *smallWorld) consume(s *smallStream) error {
	body, kind, ok, err := s.in.TryNext()
	switch {
	case !ok:
		return nil // it has handled the message before, and waits
	case kind == Lost:
		return w.lost(s, err)
	case err != nil:
		return err
	}
	label := s.label(s.next) // a message without bytes says nothing
	if kind == Finished {
		_, producer := s.in.Source()
		label = s.label(uint8(producer))
	} else if len(body) > 0 {
		label = body[0]
		if !bytes.Equal(body[1:], noise[1:len(body)]) {
			return fmt.Errorf("stream %d: the bytes of message %d are not those that were sent", s.index, label&15)
		}
	}
	if !s.inside {
		first := label & 15
		if first < s.next || s.bases&(1<<first) == 0 {
			return fmt.Errorf("stream %d begins with message %d, where %d was due or the first of a later life", s.index, first, s.next)
		}
		s.inside, s.next = true, first
	}
	if label != s.label(s.next) {
		return fmt.Errorf("stream %d: message %d of stream %d instead of %d", s.index, label&15, label>>4, s.next)
	}
	s.next++
	s.count++
	if s.next > s.taken {
		return fmt.Errorf("stream %d: message %d was never sent", s.index, s.next-1)
	}
	return nil
}

// lost is the consumer being told that a life of its stream has ended: with an
// error exactly if something may be missing.
func (w *smallWorld) lost(s *smallStream, err error) error {
	var lost *LostError
	switch {
	case err == nil && s.drains:
		if s.count != s.owed {
			return fmt.Errorf("stream %d was drained after %d messages, %d were accepted", s.index, s.count, s.owed)
		}
		w.close(s)
		return nil
	case !errors.As(err, &lost):
		return fmt.Errorf("stream %d ended with %v", s.index, err)
	case w.restarts == w.cfg.restarts:
		return fmt.Errorf("stream %d was lost although no node has died: %w", s.index, err)
	case lost.Acknowledged != uint64(s.count) || !lost.Receiving:
		return fmt.Errorf("stream %d: %d messages had arrived: %w", s.index, s.count, err)
	}
	s.inside, s.count = false, 0
	if s.drains {
		w.close(s)
	}
	return nil
}

// ended: the producer's end has ended r. Another life begins.
func (w *smallWorld) ended(r *RecvStream) {
	for _, s := range w.streams {
		if s.recv == r && !s.drains {
			s.recv = w.side[1-s.from].Receive(s.in)
		}
	}
}

// failed: the producer's end has lost its consumer, or that takes no more than
// was accepted. The next message begins another life.
func (w *smallWorld) failed(out *SendStream) {
	for _, s := range w.streams {
		if s.out != out {
			continue
		}
		s.owed = s.taken - s.base
		if err, _ := out.Failure(); err != nil {
			if err = w.checkLoss(s, err); err != nil {
				w.trouble = err
			}
		}
		w.produce(s)
	}
}

// checkLoss holds a producer's error against what is known of the stream.
func (w *smallWorld) checkLoss(s *smallStream, err error) error {
	var lost *LostError
	if s.recv.instance == s.out.instance {
		s.noteStored() // it drains, and is still there
	}
	switch {
	case !errors.As(err, &lost):
		return fmt.Errorf("stream %d failed with %w", s.index, err)
	case w.restarts == w.cfg.restarts && w.closes == w.cfg.closes:
		return fmt.Errorf("stream %d failed although no node has died and no consumer closed: %w", s.index, err)
	case lost.Accepted != uint64(s.taken-s.base):
		return fmt.Errorf("stream %d had accepted %d messages: %w", s.index, s.taken-s.base, err)
	case lost.Acknowledged > uint64(s.stored):
		return fmt.Errorf("stream %d: its consumer's end had stored %d messages: %w", s.index, s.stored, err)
	}
	return nil
}

// noteStored keeps how much the consumer's end of s has stored.
func (s *smallStream) noteStored() {
	s.stored = max(s.stored, uint8(s.recv.flow.Received.Messages))
}
