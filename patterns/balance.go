package patterns

// balancer gives work to one in turn: of those that have room the one with the
// least outstanding, and of equals the one whose turn was longest ago. Who is
// slow has more outstanding, and gets less. It is a heap, so that a choice among
// thousands costs little.
type balancer[T any] struct {
	seats []*seat[T] // those with room, as a heap
	turns uint64
}

// seat is one that can be given work.
type seat[T any] struct {
	who  T
	room int // how much it takes at a time
	out  int // how much it has; whoever is not seated may have more than room
	turn uint64
	at   int  // in the heap, -1 if it has no room or is not seated
	in   bool // seated
}

func newSeat[T any](who T, room int) *seat[T] { return &seat[T]{who: who, room: room, at: -1} }

// sit makes s a choice, if it has room.
func (b *balancer[T]) sit(s *seat[T]) {
	s.in = true
	b.fix(s)
}

// leave makes s a choice no more. What it has outstanding goes on to count.
func (b *balancer[T]) leave(s *seat[T]) {
	s.in = false
	b.fix(s)
}

// pick chooses one, whose outstanding grows by one; nil if nobody has room.
func (b *balancer[T]) pick() *seat[T] {
	if len(b.seats) == 0 {
		return nil
	}
	s := b.seats[0]
	b.take(s)
	return s
}

// pickOther is pick that leaves some out. It looks at all of them.
func (b *balancer[T]) pickOther(not func(T) bool) *seat[T] {
	var best *seat[T]
	for _, s := range b.seats {
		if (best == nil || s.before(best)) && !not(s.who) {
			best = s
		}
	}
	if best != nil {
		b.take(best)
	}
	return best
}

// take gives s a piece of work.
func (b *balancer[T]) take(s *seat[T]) {
	b.turns++
	s.turn = b.turns
	s.out++
	b.fix(s)
}

// done says that s has one piece less outstanding.
func (b *balancer[T]) done(s *seat[T]) {
	s.out--
	b.fix(s)
}

func (s *seat[T]) before(o *seat[T]) bool {
	return s.out < o.out || s.out == o.out && s.turn < o.turn
}

// fix puts s where it belongs.
func (b *balancer[T]) fix(s *seat[T]) {
	switch fits := s.in && s.out < s.room; {
	case fits && s.at < 0:
		s.at = len(b.seats)
		b.seats = append(b.seats, s)
		b.up(s.at)
	case fits:
		b.down(b.up(s.at))
	case s.at >= 0:
		at, last := s.at, len(b.seats)-1
		b.put(at, b.seats[last])
		b.seats[last] = nil
		b.seats = b.seats[:last]
		s.at = -1
		if at < last {
			b.down(b.up(at))
		}
	}
}

func (b *balancer[T]) put(at int, s *seat[T]) {
	b.seats[at] = s
	s.at = at
}

func (b *balancer[T]) swap(i, j int) {
	s, o := b.seats[i], b.seats[j]
	b.put(i, o)
	b.put(j, s)
}

func (b *balancer[T]) up(i int) int {
	for i > 0 && b.seats[i].before(b.seats[(i-1)/2]) {
		b.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	return i
}

func (b *balancer[T]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(b.seats); child++ {
			if b.seats[child].before(b.seats[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		b.swap(i, least)
		i = least
	}
}
