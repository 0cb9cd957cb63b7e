package child

import (
	"fmt"
	"slices"
	"time"
)

// Throughput is what a consumer received after its first message, and in how long.
type Throughput struct {
	Messages int64
	Elapsed  time.Duration
}

// PerSecond is messages per second.
func (t Throughput) PerSecond() float64 { return float64(t.Messages) / t.Elapsed.Seconds() }

func (t Throughput) line() string {
	return fmt.Sprintf("throughput %d %d", t.Messages, t.Elapsed.Nanoseconds())
}

// RoundTrip is the distribution of a ping-pong with one message outstanding.
type RoundTrip struct {
	Count         int64
	P50, P99, Max time.Duration
}

func (r RoundTrip) line() string {
	return fmt.Sprintf("roundtrip %d %d %d %d", r.Count, r.P50.Nanoseconds(), r.P99.Nanoseconds(), r.Max.Nanoseconds())
}

// ParseThroughput reads a consumer's last line.
func ParseThroughput(line string) (Throughput, error) {
	var messages, ns int64
	if _, err := fmt.Sscanf(line, "throughput %d %d", &messages, &ns); err != nil {
		return Throughput{}, fmt.Errorf("line %q: %w", line, err)
	}
	if messages < 1 || ns < 1 {
		return Throughput{}, fmt.Errorf("line %q: nothing was measured", line)
	}
	return Throughput{messages, time.Duration(ns)}, nil
}

// ParseRoundTrip reads the last line of ping.
func ParseRoundTrip(line string) (RoundTrip, error) {
	var count, p50, p99, longest int64
	if _, err := fmt.Sscanf(line, "roundtrip %d %d %d %d", &count, &p50, &p99, &longest); err != nil {
		return RoundTrip{}, fmt.Errorf("line %q: %w", line, err)
	}
	if count < 1 || p50 < 1 {
		return RoundTrip{}, fmt.Errorf("line %q: nothing was measured", line)
	}
	return RoundTrip{count, time.Duration(p50), time.Duration(p99), time.Duration(longest)}, nil
}

// Meter counts what a consumer receives. The clock starts at the first message, which is not counted, and is read again
// only every 64 KiB of messages: at 64 B a reading per message would cost as much as the message.
type Meter struct {
	size     int
	duration time.Duration
	now      func() time.Time
	stride   int64 // messages between two readings
	left     int64 // messages until the next reading
	started  bool
	start    time.Time
	wrong    int // the first length that was not size; -1 while there is none
	result   Throughput
}

// NewMeter counts messages of size bytes for duration.
func NewMeter(size int, duration time.Duration) *Meter { return newMeter(size, duration, time.Now) }

func newMeter(size int, duration time.Duration, now func() time.Time) *Meter {
	return &Meter{size: size, duration: duration, now: now, stride: max(1, int64(64<<10)/int64(size)), left: 1, wrong: -1}
}

// Count notes one message of n bytes and reports whether the measurement is over.
func (m *Meter) Count(n int) (done bool) {
	if n != m.size {
		m.wrong = n
		return true
	}
	m.left--
	return m.left == 0 && m.tick()
}

// Result is what was counted; an error if a message had another length than it was sent with.
func (m *Meter) Result() (Throughput, error) {
	if m.wrong >= 0 {
		return Throughput{}, fmt.Errorf("a message of %d bytes arrived, %d were sent", m.wrong, m.size)
	}
	return m.result, nil
}

func (m *Meter) tick() bool {
	m.left = m.stride
	now := m.now()
	if !m.started {
		m.started, m.start = true, now
		return false
	}
	m.result.Messages += m.stride
	m.result.Elapsed = now.Sub(m.start)
	return m.result.Elapsed >= m.duration
}

// PingFor calls exchange, which sends one message and waits for it to come back, again and again for duration.
func PingFor(duration time.Duration, exchange func() error) (RoundTrip, error) {
	var s Samples
	start := time.Now()
	for before := start; before.Sub(start) < duration; {
		if err := exchange(); err != nil {
			return RoundTrip{}, err
		}
		after := time.Now()
		s.Add(after.Sub(before))
		before = after
	}
	return s.RoundTrip(), nil
}

// Samples are the times of single round trips. The zero value is empty.
type Samples struct{ times []time.Duration }

// Add notes one.
func (s *Samples) Add(d time.Duration) { s.times = append(s.times, d) }

// RoundTrip sorts the samples and gives their distribution (nearest rank).
func (s *Samples) RoundTrip() RoundTrip {
	n := len(s.times)
	if n == 0 {
		return RoundTrip{}
	}
	slices.Sort(s.times)
	rank := func(percent int) time.Duration { return s.times[(n*percent+99)/100-1] }
	return RoundTrip{Count: int64(n), P50: rank(50), P99: rank(99), Max: s.times[n-1]}
}
