//go:build libzmq

package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pebbe/zmq4"
)

// source is the producer's end of a stream: messages 0 to count, and the end.
type source struct {
	*peer
	label             int
	epoch             int
	sent, count       int
	sentBytes         int
	limit, limitBytes int
	announced         bool // blocked was said since the limit last rose
	settled           int
	open, closed      bool
}

// producer registers a node with one producer in the directory, accepts one
// link, and sends count messages to the consumer that opens a stream.
func producer(dir, own, channel, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	p, err := newPeer(zmq4.DEALER, own, "")
	if err != nil {
		return err
	}
	if err := p.socket.Bind("tcp://127.0.0.1:*"); err != nil {
		return err
	}
	endpoint, err := p.socket.GetLastEndpoint()
	if err != nil {
		return err
	}
	d, err := newAsker(zmq4.REQ, dir)
	if err != nil {
		return err
	}
	joined, err := d.ask(question{"op": "join", "node": own, "endpoint": endpoint})
	if err != nil {
		return err
	}
	incarnation := number(joined["incarnation"])
	if _, err := d.ask(question{"op": "add", "incarnation": incarnation, "members": []any{[]any{channel, 1, own, 0}}}); err != nil {
		return err
	}
	fmt.Println("registered")

	r, err := p.hear(patience * time.Millisecond)
	if err != nil {
		return err
	}
	if r.kind() != hello || r.number(1) != version {
		return fmt.Errorf("not a hello: %v", r)
	}
	fmt.Println("hello", r.text(2))
	if err := p.say(record{hello, version, own, incarnation, 1 << 20, r.number(5) + 1}); err != nil {
		return err
	}
	s := &source{peer: p, count: n}
	for !s.closed {
		r, err := s.hear(patience * time.Millisecond)
		if err != nil {
			return fmt.Errorf("%d of %d sent, %d settled: %w", s.sent, n, s.settled, err)
		}
		if err := s.take(r, channel); err != nil {
			return err
		}
	}
	return nil
}

// message is the i-th one.
func message(i int) []byte { return fmt.Appendf(nil, "message %d", i) }

func (s *source) take(r record, channel string) error {
	switch r.kind() {
	case open:
		if s.open || r.text(2) != channel {
			return fmt.Errorf("unexpected record %v", r)
		}
		s.open, s.label = true, r.number(1)
		return nil
	case state:
		return s.granted(r)
	case cancel:
		s.closed = true
		return s.say(record{reset, s.label, 0, ""})
	case ping:
		return s.say(record{pong, r[1]})
	case pong:
		return nil
	case bye:
		s.closed = true
		return nil
	default:
		return fmt.Errorf("unexpected record %v", r)
	}
}

// granted takes a state record, and sends what it allows.
func (s *source) granted(r record) error {
	if r.number(3) > s.sent {
		return fmt.Errorf("acknowledged %d, sent were %d", r.number(3), s.sent)
	}
	if limit, bytes := r.number(7), r.number(8); r.number(2) == s.epoch && (limit > s.limit || bytes > s.limitBytes) {
		s.limit, s.limitBytes, s.announced = limit, bytes, false
	}
	if settled := r.number(5); settled > s.settled {
		s.settled = settled
		fmt.Println("settled", settled)
	}
	for s.sent < s.count {
		body := message(s.sent)
		if s.sent >= s.limit || s.sentBytes+len(body) > s.limitBytes {
			return s.announce(len(body))
		}
		if err := s.say(record{data, s.label, 0, s.sent, []any{body}}); err != nil {
			return err
		}
		s.sent++
		s.sentBytes += len(body)
	}
	switch {
	case s.sent == s.count && s.sent >= s.limit:
		return s.announce(0)
	case s.sent == s.count:
		s.sent++
		return s.say(record{end, s.label, 0, s.count}, record{backlog, s.label, s.epoch, s.sent, s.sentBytes, 0, ask})
	}
	return nil
}

// announce says that a message waits which the limit does not admit.
func (s *source) announce(size int) error {
	if s.announced {
		return nil
	}
	s.announced = true
	total := 0
	for i := range s.count {
		total += len(message(i))
	}
	fmt.Println("blocked", s.sent)
	return s.say(record{backlog, s.label, s.epoch, s.count + 1, total, size, blocked})
}
