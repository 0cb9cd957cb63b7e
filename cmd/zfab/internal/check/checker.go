package check

import "slices"

// A Checker judges what one consumer receives. It is used by one goroutine.
type Checker struct {
	consumer uint32
	sources  []source // by producer
	counts   Counts
}

// A source is what came from one producer: its streams by their epochs, the
// latest last.
type source struct {
	epochs  []Epoch
	streams []*stream
}

// of is the stream of an epoch, and whether a later one has begun already.
func (s *source) of(e Epoch) (found *stream, late bool) {
	if n := len(s.epochs); n > 0 && s.epochs[n-1] == e {
		return s.streams[n-1], false
	}
	i, known := slices.BinarySearch(s.epochs, e)
	if !known {
		s.epochs = slices.Insert(s.epochs, i, e)
		s.streams = slices.Insert(s.streams, i, new(stream))
	}
	return s.streams[i], i < len(s.epochs)-1
}

// Counts is what a Checker found. Lost is known only at the end, from what the
// producers say they sent: see StreamState.Lost.
type Counts struct {
	Received   uint64 `json:"received"` // all messages, the damaged and the repeated included
	Bytes      uint64 `json:"bytes"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	Corrupted  uint64 `json:"corrupted"`
	// Redelivered are those that came marked as delivered before.
	Redelivered uint64 `json:"redelivered,omitempty"`
}

// Add sums counts.
func (c *Counts) Add(o Counts) {
	c.Received += o.Received
	c.Bytes += o.Bytes
	c.Duplicated += o.Duplicated
	c.Reordered += o.Reordered
	c.Corrupted += o.Corrupted
	c.Redelivered += o.Redelivered
}

// NewChecker returns a checker for the consumer of that number, in a channel
// of so many producers.
func NewChecker(consumer uint32, producers int) *Checker {
	return &Checker{consumer: consumer, sources: make([]source, producers)}
}

// Message takes the next message as it arrived. source is the number of the
// producer from which the fabric says it is, -1 if of none that is known. It
// returns the time the message was planned for, 0 if there is none.
//
// A message is corrupted if it is damaged, if its stamp names another consumer
// than this one, or another producer than source. One of an epoch that is over,
// since a later one has begun, is reordered: the fabric had to drop it.
func (c *Checker) Message(source int, body []byte) (planned int64) {
	c.counts.Received++
	c.counts.Bytes += uint64(len(body))
	stamp, sound := Open(body)
	switch {
	case !sound, int64(stamp.Producer) != int64(source), stamp.Consumer != c.consumer && stamp.Consumer != ToAll:
		c.counts.Corrupted++
		c.damaged(source)
		return 0
	case source >= len(c.sources):
		c.counts.Corrupted++
		return 0
	}
	s, late := c.sources[source].of(stamp.Epoch)
	duplicated, reordered := s.arrive(stamp.Sequence)
	if duplicated {
		c.counts.Duplicated++
	}
	if reordered || late && !duplicated {
		c.counts.Reordered++
	}
	return stamp.Planned
}

// Misplaced counts as reordered, for a reason that only the caller can see, a message
// that it gives to Message, too.
func (c *Checker) Misplaced() { c.counts.Reordered++ }

// damaged counts a message that cannot be read with the latest stream of its
// producer.
func (c *Checker) damaged(source int) {
	if source < 0 || source >= len(c.sources) {
		return
	}
	s := &c.sources[source]
	if len(s.epochs) == 0 {
		s.of(0)
	}
	s.streams[len(s.streams)-1].corrupted++
}

// Counts is what was found so far.
func (c *Checker) Counts() Counts { return c.counts }

// States are the streams on which something came, by producer and epoch.
func (c *Checker) States() []StreamState {
	var states []StreamState
	for producer, s := range c.sources {
		for i, one := range s.streams {
			state := one.state()
			state.Producer, state.Epoch = producer, s.epochs[i]
			states = append(states, state)
		}
	}
	return states
}
