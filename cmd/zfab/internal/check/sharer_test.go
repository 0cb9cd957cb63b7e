package check

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
)

func shared(producer, key uint32, sequence uint64) []byte {
	body := make([]byte, 48)
	Seal(body, Stamp{Producer: producer, Consumer: key, Sequence: sequence})
	return body
}

func TestSharer(t *testing.T) {
	flipped := shared(1, ToAll, 0)
	flipped[40] ^= 1
	type arrivals = []Arrival
	for name, c := range map[string]struct {
		keys int
		came arrivals
		want Counts
	}{
		"in any order": {0, arrivals{{Source: 1, Body: shared(1, ToAll, 5)}, {Source: 1, Body: shared(1, ToAll, 2)}}, Counts{Received: 2}},
		"twice":        {0, arrivals{{Source: 1, Body: shared(1, ToAll, 5)}, {Source: 1, Body: shared(1, ToAll, 5)}}, Counts{Received: 2, Duplicated: 1}},
		"marked":       {0, arrivals{{Source: 1, Body: shared(1, ToAll, 5)}, {Source: 1, Again: true, Body: shared(1, ToAll, 5)}}, Counts{Received: 2, Redelivered: 1}},
		"marked first": {0, arrivals{{Source: 1, Again: true, Body: shared(1, ToAll, 5)}, {Source: 1, Body: shared(1, ToAll, 5)}}, Counts{Received: 2, Redelivered: 1}},
		"damaged":      {0, arrivals{{Source: 1, Body: flipped}}, Counts{Received: 1, Corrupted: 1}},
		"another's":    {0, arrivals{{Source: 0, Body: shared(1, ToAll, 5)}}, Counts{Received: 1, Corrupted: 1}},
		"a stranger's": {0, arrivals{{Source: -1, Body: shared(1, ToAll, 5)}}, Counts{Received: 1, Corrupted: 1}},
		"nobody's":     {0, arrivals{{Source: Unnamed, Body: shared(1, ToAll, 5)}}, Counts{Received: 1}},
		"unknown":      {0, arrivals{{Source: Unnamed, Body: shared(2, ToAll, 5)}}, Counts{Received: 1, Corrupted: 1}},

		"keys apart":        {2, arrivals{{Source: 1, Key: 0, Body: shared(1, 0, 5)}, {Source: 1, Key: 1, Body: shared(1, 1, 2)}}, Counts{Received: 2}},
		"key out of order":  {2, arrivals{{Source: 1, Key: 1, Body: shared(1, 1, 5)}, {Source: 1, Key: 1, Body: shared(1, 1, 2)}}, Counts{Received: 2, Reordered: 1}},
		"another key":       {2, arrivals{{Source: 1, Key: 1, Body: shared(1, 0, 5)}}, Counts{Received: 1, Corrupted: 1}},
		"key that is none":  {2, arrivals{{Source: 1, Key: 2, Body: shared(1, 2, 5)}}, Counts{Received: 1, Corrupted: 1}},
		"key again":         {2, arrivals{{Source: 1, Key: 1, Body: shared(1, 1, 5)}, {Source: 1, Key: 1, Again: true, Body: shared(1, 1, 4)}, {Source: 1, Key: 1, Again: true, Body: shared(1, 1, 5)}, {Source: 1, Key: 1, Body: shared(1, 1, 6)}}, Counts{Received: 4, Redelivered: 2}},
		"behind the repeat": {2, arrivals{{Source: 1, Key: 1, Body: shared(1, 1, 5)}, {Source: 1, Key: 1, Again: true, Body: shared(1, 1, 5)}, {Source: 1, Key: 1, Body: shared(1, 1, 4)}}, Counts{Received: 3, Redelivered: 1, Reordered: 1}},
	} {
		s := NewSharer(2, c.keys)
		for _, a := range c.came {
			s.Message(a)
		}
		c.want.Bytes = 48 * c.want.Received
		if got := s.Counts(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// What several consumers tell of a flow, as JSON, against a plain model.
func TestSettleAgreesWithAModel(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		sent := uint64(r.IntN(3 * pageBits))
		consumers := make([]*Sharer, 1+r.IntN(4))
		for i := range consumers {
			consumers[i] = NewSharer(1, 0)
		}
		var wantLost, wantDuplicated uint64
		corrupted := uint64(0)
		for n := range sent {
			firsts, repeats := []int{0, 1, 1, 1, 2}[r.IntN(5)], r.IntN(2)*r.IntN(2)
			if firsts > 1 {
				wantDuplicated += uint64(firsts - 1)
			}
			if firsts+repeats == 0 {
				wantLost++
			}
			for i := range firsts + repeats {
				consumers[r.IntN(len(consumers))].Message(Arrival{Source: 0, Again: i >= firsts, Body: shared(0, ToAll, n)})
			}
			if r.IntN(50) == 0 {
				corrupted++
				consumers[0].Message(Arrival{Source: 0, Body: make([]byte, 48)})
			}
		}
		wantLost -= min(wantLost, corrupted)
		var shares []Share
		local := uint64(0)
		for _, c := range consumers {
			local += c.Counts().Duplicated
			text, err := json.Marshal(c.Shares())
			if err != nil {
				t.Fatal(err)
			}
			var told []Share
			if err := json.Unmarshal(text, &told); err != nil {
				t.Fatal(err)
			}
			shares = append(shares, told...)
		}
		if lost, duplicated := Settle(sent, shares); lost != wantLost || duplicated+local != wantDuplicated {
			t.Fatalf("seed %d: of %d %d lost, %d duplicated; want %d, %d", seed, sent, lost, duplicated+local, wantLost, wantDuplicated)
		}
	}
}

func TestNumbersAreSparse(t *testing.T) {
	var n Numbers
	for _, number := range []uint64{1 << 39, 0, 63, 64, 1 << 39} {
		n.Add(number)
	}
	if n.Len() != 4 || len(n.pages) != 2 {
		t.Errorf("%d numbers on %d pages", n.Len(), len(n.pages))
	}
	text, err := json.Marshal(n)
	if err != nil || len(text) > 200 {
		t.Fatalf("%s, %v", text, err)
	}
	var came Numbers
	if err := json.Unmarshal(text, &came); err != nil || came.Len() != 4 || !reflect.DeepEqual(came.pages, n.pages) {
		t.Errorf("%v, %+v", err, came)
	}
	if err := json.Unmarshal([]byte(`[{"at":0,"bits":""}]`), &came); err != nil || came.Len() != 0 {
		t.Errorf("an empty page: %v, %d", err, came.Len())
	}
}
