package directory

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// candidates makes some, consumers of one channel on nodes n00, n01 ..., and lets set change them.
func candidates(n int, set func(i int, c *Candidate)) []Candidate {
	list := make([]Candidate, n)
	for i := range list {
		name := fmt.Sprintf("n%02d", i)
		list[i] = Candidate{Member: consumer("c", name, 0), Node: NodeInfo{Name: name}}
		if set != nil {
			set(i, &list[i])
		}
	}
	return list
}

func without(list []Candidate, i int) []Candidate { return slices.Delete(slices.Clone(list), i, i+1) }

func TestChooseAmongNobodyAndOne(t *testing.T) {
	for _, policy := range append(Policies(), "") {
		var c Chooser
		q := Query{Policy: policy, Zone: "z", Host: "h"}
		if got := c.Choose(nil, q, 1<<63); got != -1 {
			t.Errorf("%s: %d of nobody", policy, got)
		}
		if got := c.Choose(candidates(1, nil), q, 1<<64-1); got != 0 {
			t.Errorf("%s: %d of one", policy, got)
		}
	}
}

func TestRoundRobinTakesTurnsWhoeverComesAndGoes(t *testing.T) {
	var c Chooser
	all := candidates(5, nil)
	order := func(list []Candidate, n int) string {
		var names []string
		for range n {
			names = append(names, list[c.Choose(list, Query{}, 0)].Node.Name)
		}
		return strings.Join(names, " ")
	}
	for _, step := range []struct {
		list []Candidate
		want string
	}{
		{all, "n00 n01 n02 n03 n04 n00 n01"},
		{without(all, 1), "n02 n03 n04 n00 n02"}, // whose turn it was last has gone
		{all, "n03 n04 n00 n01 n02"},
		{all[:3], "n00 n01"},
		{all[3:], "n03 n04 n03"},
	} {
		if got := order(step.list, len(strings.Fields(step.want))); got != step.want {
			t.Errorf("chosen %s, want %s", got, step.want)
		}
	}
}

// In every run of as many choices as the weights' sum, each gets exactly its weight; and nobody is ever further from
// its share than a few turns.
func TestWeightedGivesEachItsShareSmoothly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		n := 1 + rng.IntN(12)
		total := 0
		list := candidates(n, func(i int, c *Candidate) {
			c.Node.Weight = uint32(rng.IntN(20))
			total += int(max(1, c.Node.Weight))
		})
		var c Chooser
		count := make([]int, n)
		for k := 1; k <= 3*total; k++ {
			count[c.Choose(list, Query{Policy: Weighted}, 0)]++
			for i := range list {
				share := float64(k) * float64(max(1, list[i].Node.Weight)) / float64(total)
				if off := float64(count[i]) - share; off < -2 || off > 2 {
					t.Fatalf("after %d choices %d has %d, its share is %.1f of %v", k, i, count[i], share, list)
				}
			}
		}
		for i := range list {
			if want := 3 * int(max(1, list[i].Node.Weight)); count[i] != want {
				t.Errorf("%d was chosen %d times, want %d", i, count[i], want)
			}
		}
	}
	var c Chooser
	list := candidates(3, func(i int, c *Candidate) { c.Node.Weight = []uint32{5, 1, 1}[i] })
	order := ""
	for range 7 {
		order += list[c.Choose(list, Query{Policy: Weighted}, 0)].Node.Name[2:]
	}
	if order != "0010200" { // the example of nginx
		t.Errorf("order %s", order)
	}
}

// Members that come and go leave the others' turns as they are.
func TestWeightedForgetsWhoHasGone(t *testing.T) {
	var c Chooser
	all := candidates(6, func(i int, c *Candidate) { c.Node.Weight = uint32(i + 1) })
	for i := range 1000 {
		c.Choose(without(all, i%6), Query{Policy: Weighted}, 0)
	}
	if len(c.turns) != 5 || len(c.members) != 5 {
		t.Errorf("%d members are remembered", len(c.members))
	}
	count := make([]int, 6)
	for range 21 * 100 {
		count[c.Choose(all, Query{Policy: Weighted}, 0)]++
	}
	for i, n := range count {
		if want := 100 * (i + 1); n < want-10 || n > want+10 {
			t.Errorf("%d was chosen %d times, want about %d", i, n, want)
		}
	}
}

func TestLeastLoadedNeverTakesTheWorst(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	list := candidates(10, func(i int, c *Candidate) { c.Load = uint32(i) })
	count := make([]int, 10)
	const n = 45_000 // of 45 pairs
	for range n {
		count[new(Chooser).Choose(list, Query{Policy: LeastLoaded}, rng.Uint64())]++
	}
	for i, got := range count { // one of rank i is the better one of 9-i pairs
		if want := n / 45 * (9 - i); got < want*9/10-1 || got > want*11/10+1 {
			t.Errorf("load %d was chosen %d times, want about %d", i, got, want)
		}
	}
}

// When all are loaded alike, all are chosen alike.
func TestTiesAreFair(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	const n, draws = 16, 64_000
	for _, q := range []Query{{Policy: LeastLoaded}, {Policy: Nearest}, {Policy: Nearest, Zone: "z"}} {
		list := candidates(n, func(i int, c *Candidate) { c.Load, c.Node.Zone = 7, q.Zone })
		count := make([]float64, n)
		for range draws {
			count[new(Chooser).Choose(list, q, rng.Uint64())]++
		}
		chi := 0.0
		for _, got := range count {
			chi += (got - draws/n) * (got - draws/n) / (draws / n)
		}
		if chi > 44 { // 15 degrees of freedom: once in ten thousand
			t.Errorf("%+v: counts %v, chi square %.1f", q, count, chi)
		}
	}
}

// Work given to the less loaded of two stays spread evenly, where chance alone would not keep it so.
func TestLeastLoadedBalances(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	list := candidates(100, nil)
	for range 100_000 {
		list[new(Chooser).Choose(list, Query{Policy: LeastLoaded}, rng.Uint64())].Load++
	}
	for _, c := range list { // by chance alone the furthest is about 80 off
		if c.Load < 1000-10 || c.Load > 1000+10 {
			t.Errorf("%s got %d of 1000", c.Node.Name, c.Load)
		}
	}
}

func TestNearestPrefersHostThenZone(t *testing.T) {
	list := candidates(6, func(i int, c *Candidate) {
		c.Node.Zone = []string{"eu", "eu", "eu", "us", "us", ""}[i]
		c.Node.Host = []string{"h1", "h1", "h2", "h1", "", "h9"}[i]
	})
	for _, test := range []struct {
		zone, host string
		want       string
	}{
		{"eu", "h1", "[0 1]"},
		{"eu", "h2", "[2]"},
		{"eu", "h3", "[0 1 2]"},
		{"eu", "", "[0 1 2]"},
		{"us", "h1", "[3]"}, // a host's name counts within its zone
		{"us", "h2", "[3 4]"},
		{"", "h9", "[5]"},
		{"", "", "[0 1 2 3 4 5]"},
		{"asia", "h1", "[0 1 2 3 4 5]"},
	} {
		chosen := map[int]bool{}
		rng := rand.New(rand.NewPCG(5, 5))
		for range 200 {
			chosen[new(Chooser).Choose(list, Query{Policy: Nearest, Zone: test.zone, Host: test.host}, rng.Uint64())] = true
		}
		var got []int
		for i := range list {
			if chosen[i] {
				got = append(got, i)
			}
		}
		if fmt.Sprint(got) != test.want {
			t.Errorf("from %s/%s: %v, want %s", test.zone, test.host, got, test.want)
		}
	}
}

// When one of n leaves, the keys that it had move, and no others; when it comes back they come back.
func TestByKeyFewKeysMove(t *testing.T) {
	const n, keys = 50, 8_000
	all := candidates(n, nil)
	owners := func(list []Candidate) []string {
		var c Chooser
		names := make([]string, keys)
		for k := range names {
			names[k] = list[c.Choose(list, Query{Policy: ByKey, Key: fmt.Appendf(nil, "key-%d", k)}, uint64(k))].Node.Name
		}
		return names
	}
	before := owners(all)
	count := map[string]int{}
	for _, name := range before {
		count[name]++
	}
	for _, c := range all { // slots and keys both vary: the standard deviation is about 18
		if got := count[c.Node.Name]; got < keys/n-5*18 || got > keys/n+5*18 {
			t.Errorf("%s owns %d keys, the mean is %d", c.Node.Name, got, keys/n)
		}
	}
	for gone := range 3 {
		moved := 0
		for k, name := range owners(without(all, gone)) {
			if name != before[k] {
				moved++
				if before[k] != all[gone].Node.Name {
					t.Fatalf("key %d moved from %s, which stayed", k, before[k])
				}
			}
		}
		if moved != count[all[gone].Node.Name] {
			t.Errorf("%d keys moved, %d were to", moved, count[all[gone].Node.Name])
		}
	}
}

// Owners are a promise across processes and releases.
func TestByKeyStays(t *testing.T) {
	list := candidates(10, nil)
	got := ""
	for _, key := range []string{"", "a", "alpha", "beta", "\x00\xff", strings.Repeat("long", 100)} {
		var c Chooser
		got += list[c.Choose(list, Query{Policy: ByKey, Key: []byte(key)}, 0)].Node.Name + " "
	}
	if want := "n07 n03 n06 n08 n04 n03 "; got != want {
		t.Errorf("owners %s, were %s", got, want)
	}
}

func TestQueriesAreChecked(t *testing.T) {
	for name, q := range map[string]Query{
		"channel":                {Channel: "a b"},
		"role":                   {Channel: "c", Role: 3},
		"a role among the nodes": {Role: Consumer},
		"policy":                 {Policy: "fair"},
		"zone":                   {Zone: "a b"},
		"host":                   {Host: "a b"},
		"key":                    {Key: make([]byte, MaxKey+1)},
	} {
		if _, err := NewRegistry().Choose(testContext(t), q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewRegistry().Choose(testContext(t), Query{Policy: "fair"}); !strings.Contains(err.Error(), "round-robin, weighted, least-loaded, nearest, key") {
		t.Errorf("what is known is not said: %v", err)
	}
}

// mustPlace registers a consumer on each of three nodes, with places, weights and loads.
func mustPlace(t *testing.T, s Service) {
	t.Helper()
	for i, zone := range []string{"eu", "eu", "us"} {
		info := NodeInfo{Name: fmt.Sprintf("n%d", i), Zone: zone, Host: fmt.Sprintf("h%d", i), Weight: uint32(i + 1)}
		incarnation, err := s.Join(testContext(t), info)
		if err != nil {
			t.Fatal(err)
		}
		mustAdd(t, s, incarnation, consumer("c", info.Name, 0), Member{"c", Producer, info.Name, 0})
		if err := s.Report(testContext(t), info.Name, incarnation, uint32(10*i)); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitLoads waits until the directory has heard of the loads that mustPlace reported.
func awaitLoads(t *testing.T, s Service) {
	t.Helper()
	for ctx := testContext(t); ; {
		roster, err := s.Roster(ctx, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(roster.Candidates) == 3 && roster.Candidates[1].Load == 10 && roster.Candidates[2].Load == 20 {
			return
		}
	}
}

// testChoices holds what a Service promises of its choices.
func testChoices(t *testing.T, s Service) {
	ctx := testContext(t)
	if _, err := s.Choose(ctx, Query{Channel: "c", Role: Consumer}); !errors.Is(err, ErrNobody) {
		t.Errorf("in an unknown channel: %v", err)
	} else if e := new(NobodyError); !errors.As(err, &e) || *e != (NobodyError{"c", Consumer}) {
		t.Errorf("in an unknown channel: %#v", err)
	}
	if _, err := s.Choose(ctx, Query{}); !errors.Is(err, ErrNobody) {
		t.Errorf("among no nodes: %v", err)
	}
	mustPlace(t, s)
	awaitLoads(t, s)

	roster, err := s.Roster(ctx, "c", Consumer)
	if err != nil || len(roster.Candidates) != 3 || roster.Warming != 0 {
		t.Fatalf("roster: %+v, %v", roster, err)
	}
	for i, c := range roster.Candidates {
		name := fmt.Sprintf("n%d", i)
		if c.Member != consumer("c", name, 0) || c.Node.Name != name || c.Node.Weight != uint32(i+1) || c.Node.Host != "h"+name[1:] || c.Load != uint32(10*i) {
			t.Errorf("candidate %d: %+v", i, c)
		}
	}
	if all, err := s.Roster(ctx, "c", 0); err != nil || len(all.Candidates) != 6 {
		t.Errorf("roster of both roles: %+v, %v", all, err)
	}
	if none, err := s.Roster(ctx, "nobody-knows", 0); err != nil || len(none.Candidates) != 0 {
		t.Errorf("roster of an unknown channel: %+v, %v", none, err)
	}
	chosen := func(n int, q Query) (names []string) {
		for range n {
			c, err := s.Choose(ctx, q)
			if err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			if c.Node.Name != c.Member.Node || c.Member.Channel != q.Channel || c.Member.Role != q.Role {
				t.Errorf("%+v: %+v", q, c)
			}
			names = append(names, c.Node.Name)
		}
		return names
	}
	among := Query{Channel: "c", Role: Consumer}
	if got := fmt.Sprint(chosen(4, among)); got != "[n0 n1 n2 n0]" {
		t.Errorf("round robin: %s", got)
	}
	among.Policy = Weighted
	if got := chosen(6, among); strings.Count(fmt.Sprint(got), "n2") != 3 || strings.Count(fmt.Sprint(got), "n1") != 2 {
		t.Errorf("weighted: %v", got)
	}
	among.Policy = LeastLoaded
	if got := chosen(50, among); slices.Contains(got, "n2") || !slices.Contains(got, "n0") {
		t.Errorf("least loaded: %v", got)
	}
	among.Policy, among.Zone = Nearest, "us"
	if got := fmt.Sprint(chosen(2, among)); got != "[n2 n2]" {
		t.Errorf("nearest: %v", got)
	}
	among.Policy, among.Key = ByKey, []byte("k")
	var own Chooser
	want := roster.Candidates[own.Choose(roster.Candidates, among, 0)].Node.Name
	if got := fmt.Sprint(chosen(2, among)); got != fmt.Sprint([]string{want, want}) {
		t.Errorf("by key: %v, who chooses from the roster gets %s", got, want)
	}
	if got := fmt.Sprint(chosen(4, Query{})); got != "[n0 n1 n2 n0]" {
		t.Errorf("among the nodes: %s", got)
	}
}

func TestChoicesFollowTheTable(t *testing.T) {
	table, h, incarnations := tableWith(t, "a", "b")
	names := func(n int) (got string) {
		for range n {
			c, err := table.choose(Query{Channel: "c"}, 0)
			if err != nil {
				return err.Error()
			}
			got += c.Member.String() + " "
		}
		return got
	}
	for i, name := range []string{"a", "b"} {
		if err := table.add(h, incarnations[i], []Member{consumer("c", name, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(3); got != "c/a/0 c/b/0 c/a/0 " {
		t.Errorf("at first: %s", got)
	}
	if err := table.add(h, incarnations[0], []Member{consumer("c", "a", 1), consumer("other", "a", 1)}); err != nil {
		t.Fatal(err)
	}
	if got := names(3); got != "c/a/1 c/b/0 c/a/0 " {
		t.Errorf("after one came: %s", got)
	}
	if err := table.leave(h, "a", incarnations[0]); err != nil {
		t.Fatal(err)
	}
	if got := names(2); got != "c/b/0 c/b/0 " {
		t.Errorf("after a node left: %s", got)
	}
	table.pass(testLease)
	if _, err := table.choose(Query{Channel: "c"}, 0); !errors.Is(err, ErrNobody) {
		t.Errorf("after all left: %v", err)
	}
}

func TestWhileWarmingUpNobodyIsNotTheAnswer(t *testing.T) {
	table, h, incarnations := tableWith(t, "n")
	table.warm = table.now + time.Second
	var e *WarmingError
	if _, err := table.choose(Query{Channel: "c", Role: Consumer}, 0); !errors.As(err, &e) || e.What != "consumer of channel c" {
		t.Errorf("in an unknown channel: %v", err)
	}
	if err := table.add(h, incarnations[0], []Member{consumer("c", "n", 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := table.choose(Query{Channel: "c", Role: Producer}, 0); !errors.Is(err, ErrWarming) {
		t.Errorf("when there is none of the role: %v", err)
	}
	if _, err := table.choose(Query{Channel: "c"}, 0); err != nil {
		t.Errorf("when there is one: %v", err)
	}
	if _, err := table.choose(Query{Channel: "c", Policy: ByKey}, 0); !errors.Is(err, ErrWarming) {
		t.Errorf("by key, among who may not be all: %v", err)
	}
	if r, err := table.roster("c", 0); err != nil || r.Warming != time.Second {
		t.Errorf("roster: %+v, %v", r, err)
	}
	table.pass(time.Second)
	if _, err := table.choose(Query{Channel: "c", Policy: ByKey}, 0); err != nil {
		t.Errorf("by key, afterwards: %v", err)
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		list := candidates(n, func(i int, c *Candidate) {
			c.Member.Index = i
			c.Node.Zone = fmt.Sprint("z", i%10)
		})
		slices.SortFunc(list, func(a, b Candidate) int { return a.Member.Compare(b.Member) })
		for _, policy := range Policies() {
			b.Run(fmt.Sprintf("%s/%d", policy, n), func(b *testing.B) {
				var c Chooser
				q := Query{Policy: policy, Key: []byte("key"), Zone: "z3"}
				for i := 0; b.Loop(); i++ {
					c.Choose(list, q, uint64(i)*0x9e3779b97f4a7c15)
				}
			})
		}
	}
}
