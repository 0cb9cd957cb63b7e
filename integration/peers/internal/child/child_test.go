package child

import (
	"strings"
	"testing"
	"time"
)

// clock gives readings one step apart.
type clock struct {
	t        time.Time
	step     time.Duration
	readings int
}

func (c *clock) now() time.Time {
	c.readings++
	c.t = c.t.Add(c.step)
	return c.t
}

func TestMeterStartsAtTheFirstMessageAndEndsAfterItsDuration(t *testing.T) {
	for _, tt := range []struct {
		size     int
		messages int64 // ten readings after the first, a stride apart
	}{{64, 10 * 1024}, {1024, 10 * 64}, {64 << 10, 10}, {1 << 20, 10}} {
		c := &clock{step: 100 * time.Millisecond}
		m := newMeter(tt.size, time.Second, c.now)
		received := int64(1)
		for !m.Count(tt.size) {
			received++
		}
		got, err := m.Result()
		if err != nil {
			t.Fatal(err)
		}
		if want := (Throughput{tt.messages, time.Second}); got != want {
			t.Errorf("size %d: %+v, want %+v", tt.size, got, want)
		}
		if received != tt.messages+1 {
			t.Errorf("size %d: ended at message %d, want %d: all after the first are counted", tt.size, received, tt.messages+1)
		}
		if c.readings != 11 {
			t.Errorf("size %d: the clock was read %d times, want 11", tt.size, c.readings)
		}
	}
}

func TestMeterRefusesAMessageOfAnotherLength(t *testing.T) {
	m := NewMeter(64, time.Hour)
	if m.Count(64) {
		t.Fatal("over after the first message")
	}
	if !m.Count(63) {
		t.Fatal("goes on after a short message")
	}
	if _, err := m.Result(); err == nil || !strings.Contains(err.Error(), "63 bytes") {
		t.Fatalf("error %v, want one that names the 63 bytes", err)
	}
}

func TestSamplesGiveNearestRanks(t *testing.T) {
	var s Samples
	for i := 200; i >= 1; i-- {
		s.Add(time.Duration(i))
	}
	if got, want := s.RoundTrip(), (RoundTrip{Count: 200, P50: 100, P99: 198, Max: 200}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	var one Samples
	one.Add(7)
	if got, want := one.RoundTrip(), (RoundTrip{1, 7, 7, 7}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestResultLinesAreReadBackAsWritten(t *testing.T) {
	tp := Throughput{123456, 987654321}
	if got, err := ParseThroughput(tp.line()); err != nil || got != tp {
		t.Errorf("%+v, %v; want %+v", got, err, tp)
	}
	rt := RoundTrip{5, 18000, 40000, 900000}
	if got, err := ParseRoundTrip(rt.line()); err != nil || got != rt {
		t.Errorf("%+v, %v; want %+v", got, err, rt)
	}
	for _, line := range []string{"", "ready x", "throughput", "throughput 0 0", "throughput 5 0", "roundtrip 1 2 3 4"} {
		if got, err := ParseThroughput(line); err == nil {
			t.Errorf("%q is taken for %+v", line, got)
		}
	}
	for _, line := range []string{"", "throughput 1 2", "roundtrip 1 2 3", "roundtrip 0 0 0 0"} {
		if got, err := ParseRoundTrip(line); err == nil {
			t.Errorf("%q is taken for %+v", line, got)
		}
	}
}

func TestRunAnswersInLinesAndRefusesWhatItCannotPlay(t *testing.T) {
	roles := Roles{Consume: func(j Job) (Throughput, error) {
		j.Ready("there")
		return Throughput{int64(j.Size), j.Duration}, nil
	}}
	var out strings.Builder
	if err := Run(roles, []string{"consumer", "-", "64", "250", "30"}, &out); err != nil {
		t.Fatal(err)
	}
	if want := "ready there\nthroughput 64 250000000\n"; out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
	for _, args := range [][]string{
		nil,
		{"consumer", "-", "64", "250"},
		{"consumer", "-", "0", "250", "30"},
		{"consumer", "-", "64", "x", "30"},
		{"producer", "-", "64", "250", "30"},
	} {
		if err := Run(roles, args, &out); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
