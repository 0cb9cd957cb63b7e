package flow

import "testing"

const always = ^uint64(0) // never reached by a position

func TestNothingIsLentWhileIdle(t *testing.T) {
	budget := NewBudget(1 << 20)
	var r Receiver
	if r.Extend(Mark{10, 1000}) || r.Window() != 0 || r.Limit != (Position{}) || r.Admits(1, 0) || budget.Lent() != 0 {
		t.Fatalf("%+v, lent %d", r, budget.Lent())
	}
}

func TestFirstDemandLendsOneRecordOrOneMessage(t *testing.T) {
	for _, c := range []struct {
		name  string
		mark  Mark
		total int64
		size  int
		want  uint64
	}{
		{"one full record", Mark{10, 1 << 20}, 1 << 30, 100, FirstWindow},
		{"not over the mark", Mark{10, 1000}, 1 << 30, 100, 1000},
		{"a message larger than a record", Mark{10, 1 << 20}, 1 << 30, 200_000, 200_000},
		{"a message larger than the mark", Mark{10, 1000}, 1 << 30, 200_000, 200_000},
		{"a message although the budget is spent", Mark{10, 1 << 20}, 0, 200_000, 200_000},
		{"no more than a message if the budget is spent", Mark{10, 1 << 20}, 0, 100, 100},
		{"as much as the budget has left", Mark{10, 1 << 20}, 5000, 100, 5000},
		{"something even for an empty message", Mark{10, 1 << 20}, 0, 0, 1},
	} {
		budget := NewBudget(c.total)
		var r Receiver
		if !r.Demand(c.mark, budget, c.size, true) {
			t.Errorf("%s: the limit did not rise", c.name)
		}
		if r.Window() != c.want || r.Limit != (Position{c.mark.Messages, c.want}) || budget.Lent() != int64(c.want) {
			t.Errorf("%s: window %d, limit %v, lent %d; want %d", c.name, r.Window(), r.Limit, budget.Lent(), c.want)
		}
		if !r.Admits(1, c.size) {
			t.Errorf("%s: the message does not fit", c.name)
		}
	}
}

// A window doubles when the producer's end was blocked and the consumer has
// kept pace since it last grew, and never otherwise.
func TestWindowGrowsOnEvidenceOnly(t *testing.T) {
	mark, budget := Mark{1 << 20, 400 << 10}, NewBudget(1<<30)
	var r Receiver
	r.Demand(mark, budget, 10, true)
	pass := func(bytes int) {
		r.Receive(1, bytes)
		r.Consume(mark, budget, 1, bytes, always)
	}
	step := func(what string, want uint64) {
		t.Helper()
		if r.Window() != want {
			t.Fatalf("%s: window %d, want %d", what, r.Window(), want)
		}
	}
	r.Demand(mark, budget, 10, true)
	step("blocked, but nothing handled yet", 64<<10)
	r.Receive(2, 1000)
	r.Consume(mark, budget, 1, 500, always)
	r.Demand(mark, budget, 10, true)
	step("blocked, but the consumer is behind", 64<<10)
	r.Consume(mark, budget, 1, 500, always)
	r.Demand(mark, budget, 10, false)
	step("in pace, but not blocked", 64<<10)
	r.Demand(mark, budget, 10, true)
	step("in pace and blocked", 128<<10)
	r.Demand(mark, budget, 10, true)
	step("blocked again without having handled anything since", 128<<10)
	pass(1000)
	r.Demand(mark, budget, 10, true)
	step("in pace and blocked", 256<<10)
	pass(1000)
	r.Demand(mark, budget, 10, true)
	step("up to the mark", 400<<10)
	pass(1000)
	r.Demand(mark, budget, 10, true)
	step("and no further", 400<<10)
	if budget.Lent() != 400<<10 {
		t.Errorf("lent %d", budget.Lent())
	}
}

func TestWindowDoesNotGrowBeyondTheBudget(t *testing.T) {
	mark, budget := Mark{1 << 20, 1 << 20}, NewBudget(100_000)
	var a, b Receiver
	a.Demand(mark, budget, 10, true)
	b.Demand(mark, budget, 10, true)
	if a.Window() != FirstWindow || b.Window() != 100_000-FirstWindow {
		t.Fatalf("windows %d and %d", a.Window(), b.Window())
	}
	a.Receive(1, 10)
	a.Consume(mark, budget, 1, 10, always)
	a.Demand(mark, budget, 10, true)
	if a.Window() != FirstWindow || budget.Lent() != 100_000 {
		t.Fatalf("window %d, lent %d", a.Window(), budget.Lent())
	}
	b.Close(budget)
	a.Receive(1, 10)
	a.Consume(mark, budget, 1, 10, always)
	a.Demand(mark, budget, 10, true)
	if a.Window() != 100_000 {
		t.Fatalf("window %d after the other one's room came back", a.Window())
	}
}

// The room for a message larger than the mark goes back when it was handled.
func TestRoomForALargeMessageGoesBack(t *testing.T) {
	mark, budget := Mark{10, 1000}, NewBudget(1<<20)
	var r Receiver
	r.Demand(mark, budget, 50_000, true)
	r.Receive(1, 50_000)
	r.Consume(mark, budget, 1, 50_000, always)
	if r.Window() != 1000 || budget.Lent() != 1000 || r.Limit != (Position{11, 51_000}) {
		t.Fatalf("window %d, lent %d, limit %v", r.Window(), budget.Lent(), r.Limit)
	}
}

func TestConsumptionIsWorthTelling(t *testing.T) {
	mark := Mark{100, 10_000}
	for _, c := range []struct {
		name            string
		messages, bytes int
		until           uint64
		want            bool
	}{
		{"little", 1, 100, always, false},
		{"a quarter of the bytes", 1, 2500, always, true},
		{"just less", 1, 2499, always, false},
		{"a quarter of the messages", 25, 0, always, true},
		{"just fewer", 24, 0, always, false},
		{"all that the other end waits for", 3, 3, 3, true},
		{"less than it waits for", 2, 2, 3, false},
	} {
		budget := NewBudget(1 << 20)
		var r Receiver
		r.Demand(mark, budget, 1, true)
		r.Receive(50, 5000)
		if got := r.Consume(mark, budget, c.messages, c.bytes, c.until); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if !r.Untold() {
			t.Errorf("%s: nothing is untold", c.name)
		}
		r.Told()
		if r.Untold() || r.Consume(mark, budget, 0, 0, always) {
			t.Errorf("%s: told, and yet there is more to tell", c.name)
		}
	}
}

func TestCreditReturns(t *testing.T) {
	mark := Mark{10, 1000}
	t.Run("on close", func(t *testing.T) {
		budget := NewBudget(1 << 20)
		var r Receiver
		r.Demand(mark, budget, 5000, true)
		r.Close(budget)
		r.Close(budget)
		if budget.Lent() != 0 {
			t.Errorf("lent %d", budget.Lent())
		}
	})
	t.Run("on release", func(t *testing.T) {
		budget := NewBudget(1 << 20)
		var r Receiver
		r.Demand(mark, budget, 5000, true)
		r.Receive(1, 700)
		r.Consume(mark, budget, 1, 700, always)
		r.Released(budget, 1)
		if budget.Lent() != 0 || r.Epoch != 1 || r.Limit != r.Received || r.Admits(1, 0) {
			t.Errorf("lent %d, %+v", budget.Lent(), r)
		}
		if !r.Demand(mark, budget, 10, true) || !r.Admits(1, 10) {
			t.Errorf("nothing is lent in the new epoch: %+v", r)
		}
	})
}

// What is lent anew after a release comes behind what the consumer holds still,
// and both together stay within the high-water mark.
func TestRoomAfterAReleaseIsWithinTheMark(t *testing.T) {
	mark, budget := Mark{Messages: 100, Bytes: 1000}, NewBudget(1<<20)
	var r Receiver
	r.Demand(mark, budget, 10, false)
	r.Receive(40, 900)
	r.Released(budget, 1)
	if !r.Demand(mark, budget, 10, true) || r.Limit.Bytes != 1000 {
		t.Errorf("with 900 bytes held and a mark of 1000, the limit is %v", r.Limit)
	}
	r.Receive(5, 100)
	r.Released(budget, 2)
	if r.Demand(mark, budget, 10, true); r.Limit.Bytes != 1000 {
		t.Errorf("at the mark, the limit is %v", r.Limit)
	}
	r.Consume(mark, budget, 1, 50, 0)
	if r.Limit.Bytes != 1050 {
		t.Errorf("with 50 bytes handled, the limit is %v", r.Limit)
	}
	r.Close(budget)
	if budget.Lent() != 0 {
		t.Errorf("%d bytes are not given back", budget.Lent())
	}
}
