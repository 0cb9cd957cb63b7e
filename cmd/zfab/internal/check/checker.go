package check

// A Checker judges what one consumer receives. It is used by one goroutine.
type Checker struct {
	consumer uint32
	streams  []stream // by producer
	counts   Counts
}

// Counts is what a Checker found. Lost is known only at the end, from what the
// producers say they sent: see StreamState.Lost.
type Counts struct {
	Received   uint64 `json:"received"` // all messages, the damaged and the repeated included
	Bytes      uint64 `json:"bytes"`
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	Corrupted  uint64 `json:"corrupted"`
}

// NewChecker returns a checker for the consumer of that number, in a channel
// of so many producers.
func NewChecker(consumer uint32, producers int) *Checker {
	return &Checker{consumer: consumer, streams: make([]stream, producers)}
}

// Message takes the next message as it arrived. source is the number of the
// producer from which the fabric says it is, -1 if of none that is known. It
// returns the time the message was planned for, 0 if there is none.
//
// A message is corrupted if it is damaged, if its stamp names another consumer
// than this one, or another producer than source.
func (c *Checker) Message(source int, body []byte) (planned int64) {
	c.counts.Received++
	c.counts.Bytes += uint64(len(body))
	stamp, sound := Open(body)
	switch {
	case !sound, int64(stamp.Producer) != int64(source), stamp.Consumer != c.consumer && stamp.Consumer != ToAll:
		c.counts.Corrupted++
		if source >= 0 && source < len(c.streams) {
			c.streams[source].corrupted++
		}
		return 0
	case source >= len(c.streams):
		c.counts.Corrupted++
		return 0
	}
	duplicated, reordered := c.streams[source].arrive(stamp.Sequence)
	if duplicated {
		c.counts.Duplicated++
	}
	if reordered {
		c.counts.Reordered++
	}
	return stamp.Planned
}

// Counts is what was found so far.
func (c *Checker) Counts() Counts { return c.counts }

// States are the streams' ends, by producer.
func (c *Checker) States() []StreamState {
	states := make([]StreamState, len(c.streams))
	for i := range c.streams {
		states[i] = c.streams[i].state()
	}
	return states
}
