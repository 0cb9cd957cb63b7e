package flow

import (
	"math"
	"testing"
)

func TestSenderAdmits(t *testing.T) {
	held := func(messages, bytes uint64) Sender {
		return Sender{Accepted: Position{100 + messages, 1000 + bytes}, Consumed: Position{100, 1000}}
	}
	for _, c := range []struct {
		name   string
		sender Sender
		mark   Mark
		size   int
		want   bool
	}{
		{"an empty stream takes anything", held(0, 0), Mark{1, 1}, 1 << 30, true},
		{"an empty stream takes nothing's size", held(0, 0), Mark{1, 1}, 0, true},
		{"up to the bytes of the mark", held(1, 60), Mark{9, 100}, 40, true},
		{"not a byte more", held(1, 60), Mark{9, 100}, 41, false},
		{"up to the messages of the mark", held(8, 0), Mark{9, 100}, 0, true},
		{"not a message more", held(9, 0), Mark{9, 100}, 0, false},
		{"behind one larger than the mark nothing", held(1, 101), Mark{9, 100}, 0, false},
		{"one larger than the mark not behind another", held(1, 0), Mark{9, 100}, 101, false},
	} {
		if got := c.sender.Admits(c.mark, c.size); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestSenderGrant(t *testing.T) {
	start := Sender{
		Accepted: Position{50, 5000}, Sent: Position{40, 4000}, Consumed: Position{20, 2000}, Limit: Position{40, 4000}, Epoch: 7,
	}
	for _, c := range []struct {
		name               string
		epoch              uint32
		consumed, limit    Position
		raised, progressed bool
		after              Sender
	}{
		{"both rise", 7, Position{30, 3000}, Position{45, 4500}, true, true,
			Sender{Consumed: Position{30, 3000}, Limit: Position{45, 4500}}},
		{"a repeated one changes nothing", 7, Position{20, 2000}, Position{40, 4000}, false, false,
			Sender{Consumed: Position{20, 2000}, Limit: Position{40, 4000}}},
		{"nor does an older one", 7, Position{10, 1000}, Position{30, 3000}, false, false,
			Sender{Consumed: Position{20, 2000}, Limit: Position{40, 4000}}},
		{"messages alone", 7, Position{20, 2000}, Position{41, 1}, true, false,
			Sender{Consumed: Position{20, 2000}, Limit: Position{41, 4000}}},
		{"bytes alone", 7, Position{20, 2001}, Position{1, 4001}, true, true,
			Sender{Consumed: Position{20, 2001}, Limit: Position{40, 4001}}},
		{"a limit lent before the release does not count, consumption does", 6, Position{21, 2000}, Position{90, 9000}, false, true,
			Sender{Consumed: Position{21, 2000}, Limit: Position{40, 4000}}},
		{"nor does one of an epoch that has not begun", 8, Position{20, 2000}, Position{90, 9000}, false, false,
			Sender{Consumed: Position{20, 2000}, Limit: Position{40, 4000}}},
	} {
		s := start
		raised, progressed := s.Grant(c.epoch, c.consumed, c.limit)
		if raised != c.raised || progressed != c.progressed || s.Consumed != c.after.Consumed || s.Limit != c.after.Limit {
			t.Errorf("%s: raised %v progressed %v %+v", c.name, raised, progressed, s)
		}
	}
}

func TestSenderRoomIsNeverNegative(t *testing.T) {
	for _, c := range []struct {
		sent, limit     Position
		messages, bytes uint64
	}{
		{Position{0, 0}, Position{0, 0}, 0, 0},
		{Position{3, 30}, Position{5, 100}, 2, 70},
		{Position{5, 30}, Position{3, 100}, 0, 70},
		{Position{3, 100}, Position{5, 30}, 2, 0},
		{Position{math.MaxInt64 - 1, math.MaxInt64 - 2}, Position{math.MaxInt64, math.MaxInt64}, 1, 2},
	} {
		s := Sender{Sent: c.sent, Limit: c.limit}
		if messages, bytes := s.Room(); messages != c.messages || bytes != c.bytes {
			t.Errorf("sent %v, limit %v: room for %d messages, %d bytes", c.sent, c.limit, messages, bytes)
		}
	}
}

func TestReleaseBeginsAnEpochAndWraps(t *testing.T) {
	s := Sender{Sent: Position{4, 40}, Limit: Position{9, 90}, Epoch: math.MaxUint32}
	s.Release()
	if s.Epoch != 0 || s.Limit != s.Sent {
		t.Fatalf("%+v", s)
	}
	if raised, _ := s.Grant(math.MaxUint32, Position{}, Position{20, 200}); raised {
		t.Error("a limit of the epoch before the wrap counts")
	}
	if raised, _ := s.Grant(0, Position{}, Position{20, 200}); !raised {
		t.Error("a limit of the epoch after the wrap does not count")
	}
}
