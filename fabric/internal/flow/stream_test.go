package flow

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// stream is both ends of one stream and what is under way between them. Its
// methods do what the link does with a Sender and a Receiver, and check at
// every step what must always hold.
type stream struct {
	t      testing.TB
	choose func(n int) int // below n

	budget     *Budget
	mark       Mark // of the producer's end
	room       Mark // of the consumer's end
	send       Sender
	recv       Receiver
	sizes      []int // of every message accepted
	acked      uint64
	announced  bool // backlog told since the limit last rose
	partial    int  // bytes of the message at recv.Received.Messages that arrived
	sentOf     int  // and at send.Sent.Messages that were sent
	forward    []forward
	back       []back
	told       []back // every state record there was
	wantsState bool
}

// forward is a part of a message, or a backlog record.
type forward struct {
	backlog  bool
	messages int // 1 if the part ends its message
	bytes    int
	next     int // backlog: size of the next message
	epoch    uint32
	blocked  bool
}

// back is a state record.
type back struct {
	epoch           uint32
	next            uint64
	consumed, limit Position
}

const maxPart = 64 << 10

// accept takes a message if the mark allows it.
func (s *stream) accept(size int) bool {
	if !s.send.Admits(s.mark, size) {
		return false
	}
	s.send.Accept(size)
	s.sizes = append(s.sizes, size)
	held := s.send.Accepted.Messages - s.send.Consumed.Messages
	heldBytes := s.send.Accepted.Bytes - s.send.Consumed.Bytes
	if held > 1 && (held > s.mark.Messages || heldBytes > s.mark.Bytes) {
		s.t.Fatalf("%d messages, %d bytes are held over the mark %v", held, heldBytes, s.mark)
	}
	return true
}

// transmit sends one part, or announces that it may not.
func (s *stream) transmit() bool {
	if !s.send.Backlog() {
		return false
	}
	size := s.sizes[s.send.Sent.Messages]
	messages, bytes := s.send.Room()
	n := min(size-s.sentOf, maxPart)
	if size > maxPart || s.sentOf > 0 {
		n = int(min(uint64(n), bytes))
	}
	if messages == 0 || uint64(n) > bytes || n == 0 && size > 0 {
		if s.announced {
			return false
		}
		s.announced = true
		s.announce(true)
		return true
	}
	part := forward{bytes: n}
	s.sentOf += n
	s.send.Sent.Bytes += uint64(n)
	if s.sentOf == size {
		part.messages, s.sentOf = 1, 0
		s.send.Sent.Messages++
	}
	s.forward = append(s.forward, part)
	return true
}

func (s *stream) announce(blocked bool) {
	f := forward{backlog: true, epoch: s.send.Epoch, blocked: blocked}
	if s.send.Backlog() {
		f.next = s.sizes[s.send.Sent.Messages]
	}
	s.forward = append(s.forward, f)
}

// arrive lets the consumer's end take the first thing under way.
func (s *stream) arrive() bool {
	if len(s.forward) == 0 {
		return false
	}
	f := s.forward[0]
	s.forward = s.forward[1:]
	if f.backlog {
		if f.epoch != s.recv.Epoch {
			s.recv.Released(s.budget, f.epoch)
		}
		if f.blocked {
			s.recv.Demand(s.room, s.budget, f.next, true)
		}
		s.wantsState = true
		return true
	}
	if !s.recv.Admits(1, f.bytes) {
		s.t.Fatalf("%d bytes at %v were sent beyond the limit %v", f.bytes, s.recv.Received, s.recv.Limit)
	}
	s.recv.Receive(f.messages, f.bytes)
	if s.partial += f.bytes; f.messages > 0 {
		s.partial = 0
	} else if s.recv.Demand(s.room, s.budget, s.sizes[s.recv.Received.Messages], false) {
		s.wantsState = true
	}
	return true
}

// consume handles one message.
func (s *stream) consume() bool {
	if s.recv.Consumed.Messages == s.recv.Received.Messages {
		return false
	}
	size := s.sizes[s.recv.Consumed.Messages]
	if s.recv.Consume(s.room, s.budget, 1, size, s.recv.Received.Messages) {
		s.wantsState = true
	}
	return true
}

func (s *stream) tell() {
	b := back{s.recv.Epoch, s.recv.Received.Messages, s.recv.Consumed, s.recv.Limit}
	s.back = append(s.back, b)
	s.told = append(s.told, b)
	s.recv.Told()
	s.wantsState = false
}

// hear lets the producer's end take the first state record under way.
func (s *stream) hear() bool {
	if len(s.back) == 0 {
		return false
	}
	b := s.back[0]
	s.back = s.back[1:]
	s.take(b)
	return true
}

func (s *stream) take(b back) {
	s.acked = max(s.acked, b.next)
	if raised, _ := s.send.Grant(b.epoch, b.consumed, b.limit); raised {
		s.announced = false
	}
}

// release gives unused credit back, as an idle producer's end does of which
// everything was acknowledged.
func (s *stream) release() {
	if s.acked == s.send.Accepted.Messages && s.send.Limit.Bytes > s.send.Sent.Bytes {
		s.send.Release()
		s.announce(false)
	}
}

// cut loses what is under way, and goes on from where the consumer's end is.
func (s *stream) cut() {
	for n := s.choose(len(s.forward) + 1); n > 0; n-- {
		s.arrive()
	}
	s.forward, s.back = nil, nil
	s.send.Rewind(s.recv.Received)
	s.sentOf, s.announced = s.partial, false
	s.take(back{s.recv.Epoch, s.recv.Received.Messages, s.recv.Consumed, s.recv.Limit})
}

func (s *stream) check() {
	r := &s.recv
	if r.Consumed.Messages > r.Received.Messages || r.Received.Messages > r.Limit.Messages && r.Limit.Messages > 0 ||
		r.Received.Bytes > r.Limit.Bytes {
		s.t.Fatalf("consumed %v, received %v, limit %v", r.Consumed, r.Received, r.Limit)
	}
	if s.send.Sent.Messages > s.send.Accepted.Messages || s.send.Consumed.Messages > s.send.Accepted.Messages {
		s.t.Fatalf("consumed %v, sent %v, accepted %v", s.send.Consumed, s.send.Sent, s.send.Accepted)
	}
	if lent := s.budget.Lent(); lent != int64(r.Window()) {
		s.t.Fatalf("lent %d, window %d", lent, r.Window())
	}
}

// run does steps random things, and then lets everything pass.
func (s *stream) run(steps, largest int) {
	for range steps {
		switch s.choose(12) {
		case 0, 1, 2:
			size := s.choose(largest + 1)
			if s.choose(3) > 0 {
				size = s.choose(min(largest, 50) + 1)
			}
			s.accept(size)
		case 3, 4, 5:
			s.transmit()
		case 6, 7:
			s.arrive()
		case 8, 9:
			s.consume()
		case 10:
			switch s.choose(6) {
			case 0:
				s.cut()
			case 1:
				s.release()
			case 2:
				if len(s.told) > 0 { // an old one comes again
					s.take(s.told[s.choose(len(s.told))])
				}
			case 3:
				s.back = nil // lost: one that follows says it all
				s.wantsState = true
			}
		case 11:
			s.hear()
		}
		if s.wantsState && s.choose(2) == 0 {
			s.tell()
		}
		s.check()
	}
	s.settle()
}

// settle must bring everything through: whatever the windows and marks, one
// whole message can always pass.
func (s *stream) settle() {
	for limit := 100*len(s.sizes) + 10_000; ; limit-- {
		progress := s.transmit()
		progress = s.arrive() || progress
		progress = s.consume() || progress
		if s.wantsState {
			s.tell()
		}
		progress = s.hear() || progress
		s.check()
		if !progress {
			break
		}
		if limit == 0 {
			s.t.Fatal("the two ends go on for ever")
		}
	}
	if n := uint64(len(s.sizes)); s.recv.Consumed.Messages != n {
		s.t.Fatalf("%d of %d messages passed: sender %+v, receiver %+v, next %d bytes",
			s.recv.Consumed.Messages, n, s.send, s.recv, s.sizes[s.recv.Consumed.Messages])
	}
	s.recv.Close(s.budget)
	if s.budget.Lent() != 0 {
		s.t.Fatalf("lent %d after close", s.budget.Lent())
	}
}

func newStream(t testing.TB, choose func(int) int) *stream {
	marks := []Mark{{1 << 16, 1 << 20}, {1, 1}, {3, 1 << 20}, {1 << 16, 100}, {10, 70_000}}
	budgets := []int64{1 << 30, 0, 1000, 100_000}
	return &stream{
		t: t, choose: choose, budget: NewBudget(budgets[choose(len(budgets))]),
		mark: marks[choose(len(marks))], room: marks[choose(len(marks))],
		// Near the wrap, so that runs pass it.
		send: Sender{Epoch: ^uint32(0) - 1}, recv: Receiver{Epoch: ^uint32(0) - 1},
	}
}

func TestEverythingPassesAndNothingBeyondTheLimit(t *testing.T) {
	for seed := range uint64(2000) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 4))
			s := newStream(t, rng.IntN)
			largest := []int{0, 10, 1000, 65_536, 300_000}[rng.IntN(5)]
			s.run(300, largest)
		})
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("credit is a position"), uint16(100))
	f.Add([]byte{0, 1, 4, 4, 0, 200, 3, 6, 8, 10, 0, 2, 11, 3, 3, 6, 10, 1}, uint16(65_000))
	f.Fuzz(func(t *testing.T, script []byte, largest uint16) {
		steps := min(len(script), 2000)
		next := func(n int) int {
			if len(script) == 0 {
				return 0
			}
			b := int(script[0])
			script = script[1:]
			if n > 256 {
				b *= n / 256
			}
			return b % n
		}
		newStream(t, next).run(steps, int(largest)*4)
	})
}
