//go:build libzmq

package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

const (
	label    = 7 // of the stream
	index    = 3 // of the consumer at its node
	instance = 1

	// lentMessages and lentBytes are the room behind what is settled, unless a
	// single message takes more.
	lentMessages = 2
	lentBytes    = 100
)

// stream is the consumer's end, as sections 4 and 5 of the page say.
type stream struct {
	*peer
	channel string
	settles bool // what is stored is settled at once

	epoch                   int
	next, offset            int
	held                    int // bytes of messages that came whole
	consumed, consumedBytes int
	limit, limitBytes       int
	partial                 []byte
	finished                bool
	gone                    bool
}

// consumer joins the link of a producer's node as another node with one
// consumer. It settles nothing until it is told to.
func consumer(endpoint, node, own, channel string, orders <-chan string) error {
	p, err := newPeer(zmq4.ROUTER, own, node)
	if err != nil {
		return err
	}
	if err := p.socket.Connect(endpoint); err != nil {
		return err
	}
	if err := greet(p, own); err != nil {
		return err
	}
	s := &stream{peer: p, channel: channel}
	if err := s.say(record{open, label, channel, index, instance}, s.state()); err != nil {
		return err
	}
	for !s.finished || s.consumed < s.next {
		if err := s.turn(orders); err != nil {
			return err
		}
	}
	if err := s.say(record{cancel, label, 0, ""}); err != nil {
		return err
	}
	for !s.gone {
		if err := s.turn(orders); err != nil {
			return err
		}
	}
	fmt.Println("reset")
	return s.say(record{bye, 0, ""})
}

// greet says hello, as soon as the node can be reached, and hears the answer.
func greet(p *peer, own string) error {
	deadline := time.Now().Add(patience * time.Millisecond)
	for {
		err := p.say(record{hello, version, own, 5, 1 << 20, 0})
		if err == nil {
			break
		}
		if !errors.Is(err, zmq4.Errno(syscall.EHOSTUNREACH)) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	r, err := p.hear(patience * time.Millisecond)
	if err != nil {
		return err
	}
	if r.kind() != hello || len(r) != 6 || r.number(1) != version || r.text(2) != p.identity || r.number(5) == 0 {
		return fmt.Errorf("not a hello: %v", r)
	}
	fmt.Println("hello", r.text(2))
	return nil
}

// turn takes an order or the next record.
func (s *stream) turn(orders <-chan string) error {
	select {
	case word := <-orders:
		if word != "settle" {
			return fmt.Errorf("no such order: %q", word)
		}
		s.settles = true
		return s.settle()
	default:
	}
	r, err := s.hear(20 * time.Millisecond)
	if errors.Is(err, errNothing) {
		return nil
	}
	if err == nil {
		err = s.take(r)
	}
	return err
}

func (s *stream) state() record {
	return record{state, label, s.epoch, s.next, s.offset, s.consumed, s.consumedBytes, s.limit, s.limitBytes}
}

// settle handles what is stored, and lends its room anew.
func (s *stream) settle() error {
	s.consumed, s.consumedBytes = s.next, s.held
	s.lend(lentBytes)
	return s.say(s.state())
}

func (s *stream) lend(bytes int) {
	s.limit, s.limitBytes = max(s.limit, s.consumed+lentMessages), max(s.limitBytes, s.consumedBytes+bytes)
}

// take handles one record, and answers it as a consumer's end must.
func (s *stream) take(r record) error {
	switch r.kind() {
	case ping:
		return s.say(record{pong, r[1]})
	case pong:
		return nil
	case bye:
		return fmt.Errorf("bye, code %d: %s", r.number(1), r.text(2))
	}
	if r.number(1) != label {
		return fmt.Errorf("a record of stream %d: %v", r.number(1), r)
	}
	switch r.kind() {
	case data:
		if r.number(3) != s.next {
			return fmt.Errorf("position %d, expected %d", r.number(3), s.next)
		}
		for _, m := range r[4].([]any) {
			if err := s.store(m.([]byte)); err != nil {
				return err
			}
		}
	case fragment:
		return s.piece(r)
	case end:
		if r.number(3) != s.next {
			return fmt.Errorf("end at %d, expected %d", r.number(3), s.next)
		}
		s.next++
		s.finished = true
		fmt.Println("finished")
	case backlog:
		return s.backlog(r)
	case reset:
		s.gone = true
		return nil
	default:
		return fmt.Errorf("unexpected record %v", r)
	}
	if s.settles {
		return s.settle()
	}
	return nil
}

func (s *stream) piece(r record) error {
	total, body := r.number(4), r[6].([]byte)
	if r.number(3) != s.next || r.number(5) != s.offset || len(body) < 1 || len(body) > 65536 {
		return fmt.Errorf("fragment of %d bytes at %d+%d, expected %d+%d", len(body), r.number(3), r.number(5), s.next, s.offset)
	}
	s.partial = append(s.partial, body...)
	if s.offset = len(s.partial); s.held+s.offset > s.limitBytes {
		return fmt.Errorf("byte %d is beyond the limit %d", s.held+s.offset, s.limitBytes)
	}
	if s.offset < total {
		// The rest of a message that has begun must be lent.
		s.limitBytes = max(s.limitBytes, s.held+total)
		return s.say(s.state())
	}
	whole := s.partial
	s.partial, s.offset = nil, 0
	if err := s.store(whole); err != nil {
		return err
	}
	if s.settles {
		return s.settle()
	}
	return nil
}

func (s *stream) store(body []byte) error {
	fmt.Printf("message %d %d %08x\n", s.next, len(body), crc32.ChecksumIEEE(body))
	s.next++
	if s.held += len(body); s.next > s.limit || s.held > s.limitBytes {
		return fmt.Errorf("message %d, byte %d are beyond the limit of %d and %d", s.next, s.held, s.limit, s.limitBytes)
	}
	return nil
}

func (s *stream) backlog(r record) error {
	s.epoch = r.number(2)
	switch flags := r.number(6); {
	case flags&blocked != 0:
		s.lend(max(lentBytes, r.number(5)))
	case flags&ask == 0:
		return nil
	}
	return s.say(s.state())
}
