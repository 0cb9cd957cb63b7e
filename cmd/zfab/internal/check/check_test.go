package check

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// run sends n messages of one producer through tamper to a checker.
func run(t *testing.T, n int, tamper func([][]byte) [][]byte) (Counts, uint64) {
	t.Helper()
	var all [][]byte
	for i := range n {
		body := make([]byte, 64)
		Seal(body, Stamp{Producer: 1, Consumer: 7, Sequence: uint64(i)})
		all = append(all, body)
	}
	c := NewChecker(7, 2)
	for _, body := range tamper(all) {
		c.Message(1, body)
	}
	var state StreamState
	for _, state = range c.States() {
	}
	return c.Counts(), state.Lost(uint64(n))
}

func TestCheckerFindsWhatIsPlanted(t *testing.T) {
	for name, c := range map[string]struct {
		tamper                                 func(m [][]byte) [][]byte
		lost, duplicated, reordered, corrupted uint64
	}{
		"nothing":              {func(m [][]byte) [][]byte { return m }, 0, 0, 0, 0},
		"first lost":           {func(m [][]byte) [][]byte { return m[1:] }, 1, 0, 0, 0},
		"one lost":             {func(m [][]byte) [][]byte { return append(m[:3:3], m[4:]...) }, 1, 0, 0, 0},
		"last lost":            {func(m [][]byte) [][]byte { return m[:9] }, 1, 0, 0, 0},
		"all lost":             {func(m [][]byte) [][]byte { return nil }, 10, 0, 0, 0},
		"duplicate":            {func(m [][]byte) [][]byte { return append(m[:4:4], m[3:]...) }, 0, 1, 0, 0},
		"late duplicate":       {func(m [][]byte) [][]byte { return append(m, m[0], m[9]) }, 0, 2, 0, 0},
		"swap":                 {func(m [][]byte) [][]byte { m[3], m[4] = m[4], m[3]; return m }, 0, 0, 1, 0},
		"first comes last":     {func(m [][]byte) [][]byte { return append(m[1:], m[0]) }, 0, 0, 1, 0},
		"backwards":            {func(m [][]byte) [][]byte { return reverse(m) }, 0, 0, 9, 0},
		"flipped byte":         {func(m [][]byte) [][]byte { m[5][63] ^= 1; return m }, 0, 0, 0, 1},
		"flipped sequence":     {func(m [][]byte) [][]byte { m[5][16] ^= 1; return m }, 0, 0, 0, 1},
		"flipped checksum":     {func(m [][]byte) [][]byte { m[9][0] ^= 1; return m }, 0, 0, 0, 1},
		"cut short":            {func(m [][]byte) [][]byte { m[5] = m[5][:40]; return m }, 0, 0, 0, 1},
		"empty":                {func(m [][]byte) [][]byte { m[5] = nil; return m }, 0, 0, 0, 1},
		"lost and duplicated":  {func(m [][]byte) [][]byte { m[5] = m[4]; return m }, 1, 1, 0, 0},
		"late after all":       {func(m [][]byte) [][]byte { return append(append(m[:2:2], m[5:]...), m[3]) }, 2, 0, 1, 0},
		"late, and then again": {func(m [][]byte) [][]byte { return append(m[1:], m[0], m[0]) }, 0, 1, 1, 0},
	} {
		got, lost := run(t, 10, c.tamper)
		if lost != c.lost || got.Duplicated != c.duplicated || got.Reordered != c.reordered || got.Corrupted != c.corrupted {
			t.Errorf("%s: lost %d, %+v", name, lost, got)
		}
	}
}

func reverse(m [][]byte) [][]byte {
	var r [][]byte
	for i := range m {
		r = append(r, m[len(m)-1-i])
	}
	return r
}

func TestCheckerRefusesWhatIsNotItsOwn(t *testing.T) {
	body := make([]byte, StampSize)
	for name, c := range map[string]struct {
		stamp  Stamp
		source int
	}{
		"another consumer":    {Stamp{Producer: 1, Consumer: 6}, 1},
		"another producer":    {Stamp{Producer: 0, Consumer: 7}, 1},
		"no known producer":   {Stamp{Producer: 0, Consumer: 7}, -1},
		"producer unheard of": {Stamp{Producer: 2, Consumer: 7}, 2},
	} {
		k := NewChecker(7, 2)
		Seal(body, c.stamp)
		if k.Message(c.source, body); k.Counts().Corrupted != 1 {
			t.Errorf("%s: %+v", name, k.Counts())
		}
	}
	k := NewChecker(7, 2)
	Seal(body, Stamp{Producer: 1, Consumer: ToAll, Planned: 42})
	if planned := k.Message(1, body); planned != 42 || k.Counts() != (Counts{Received: 1, Bytes: StampSize}) {
		t.Errorf("a message to all: planned %d, %+v", planned, k.Counts())
	}
}

// Streams of one producer that follow each other are checked apart, and nothing
// of an earlier one may come when a later one has begun.
func TestEpochsFollowEachOther(t *testing.T) {
	body, k := make([]byte, StampSize), NewChecker(7, 2)
	send := func(e Epoch, sequence uint64) {
		Seal(body, Stamp{Producer: 1, Consumer: 7, Epoch: e, Sequence: sequence})
		k.Message(1, body)
	}
	first, second, reborn := NewEpoch(0, 0), NewEpoch(0, 1), NewEpoch(1, 0)
	for i := range uint64(5) {
		send(first, i)
	}
	send(second, 0)
	send(reborn, 1) // 0 is missing
	if c := k.Counts(); c.Duplicated != 0 || c.Reordered != 0 || c.Corrupted != 0 {
		t.Errorf("%+v", c)
	}
	send(first, 5)  // late, and new
	send(first, 2)  // late, and known
	send(second, 1) // late
	if c := k.Counts(); c.Duplicated != 1 || c.Reordered != 2 || c.Received != 10 {
		t.Errorf("%+v", c)
	}
	want := []StreamState{{Producer: 1, Next: 6}, {Producer: 1, Epoch: second, Next: 2}, {Producer: 1, Epoch: reborn, Next: 2, Gaps: 1}}
	if got := k.States(); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if e := NewEpoch(MaxLife, MaxLoss); e.Life() != MaxLife || e <= NewEpoch(MaxLife, MaxLoss-1) || e <= NewEpoch(MaxLife-1, MaxLoss) {
		t.Errorf("epoch %x", e)
	}
}

// A part of one message in place of the same part of another is seen, whatever
// part it is.
func TestExchangedBlocksAreSeen(t *testing.T) {
	a, b := make([]byte, 3*blockSize), make([]byte, 3*blockSize)
	for block := range 3 {
		Seal(a, Stamp{Sequence: 1})
		Seal(b, Stamp{Sequence: 2})
		at := StampSize + block*blockSize
		copy(a[at:at+8], b[at:])
		if _, sound := Open(a); sound {
			t.Errorf("block %d of another message is not seen", block)
		}
	}
}

// Against a plain model: any order with losses and repeats.
func TestStreamAgreesWithAModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 1 + r.IntN(60)
		var arrivals []uint64
		for i := range n {
			for range []int{0, 1, 1, 1, 1, 2}[r.IntN(6)] {
				arrivals = append(arrivals, uint64(i))
			}
		}
		r.Shuffle(r.IntN(len(arrivals)+1), func(i, j int) { arrivals[i], arrivals[j] = arrivals[j], arrivals[i] })

		var s stream
		var duplicated, reordered, wantDuplicated, wantReordered uint64
		seen, highest := map[uint64]bool{}, int64(-1)
		for _, a := range arrivals {
			d, o := s.arrive(a)
			if d {
				duplicated++
			}
			if o {
				reordered++
			}
			switch {
			case seen[a]:
				wantDuplicated++
			case int64(a) < highest:
				wantReordered++
			}
			seen[a], highest = true, max(highest, int64(a))
		}
		if lost := s.state().Lost(uint64(n)); lost != uint64(n-len(seen)) || duplicated != wantDuplicated || reordered != wantReordered {
			t.Fatalf("seed %d: lost %d, duplicated %d, reordered %d; want %d, %d, %d", seed, lost, duplicated, reordered, n-len(seen), wantDuplicated, wantReordered)
		}
	}
}

func TestGapsAreBounded(t *testing.T) {
	var s stream
	const n = 10 * maxGaps
	for i := uint64(1); i < n; i += 2 {
		s.arrive(i)
	}
	if len(s.gaps) > maxGaps {
		t.Errorf("%d gaps are kept", len(s.gaps))
	}
	if lost := s.state().Lost(n); lost != n/2 {
		t.Errorf("%d lost, want %d", lost, n/2)
	}
}

func BenchmarkSealAndCheck64B(b *testing.B) {
	body, c := make([]byte, 64), NewChecker(0, 1)
	b.ReportAllocs()
	b.SetBytes(64)
	for i := range b.N {
		Seal(body, Stamp{Sequence: uint64(i)})
		c.Message(0, body)
	}
}
