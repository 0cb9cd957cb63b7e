package patterns

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestFilters(t *testing.T) {
	for _, c := range []struct {
		filter Filter
		takes  string // topics
		not    string
	}{
		{Filter{}, "a a.b", ""},
		{Prefix(""), "a a.b", ""},
		{Prefix("a.b"), "a.b a.bc a.b.c", "a b.a.b"},
		{Prefix("a."), "a.b", "a ab"},
		{Pattern("a"), "a", "b a.b ab"},
		{Pattern("a.b"), "a.b", "a a.c a.b.c a.bc"},
		{Pattern("*"), "a b", "a.b"},
		{Pattern("a.*"), "a.b a.c", "a a.b.c b.c"},
		{Pattern("*.b"), "a.b c.b", "b a.c a.b.b"},
		{Pattern("*.*"), "a.b", "a a.b.c"},
		{Pattern("a.>"), "a.b a.b.c", "a b.c"},
		{Pattern(">"), "a a.b a.b.c", ""},
		{Pattern("a.*.>"), "a.b.c a.b.c.d", "a a.b b.b.c"},
		{Pattern("a.*.c"), "a.b.c", "a.b.d a.c a.b.c.c"},
	} {
		m := newMatcher(func(_ string, list []Filter) bool { return len(list) > 0 })
		check(t, c.filter.check())
		m.add(c.filter, []Filter{c.filter})
		for want, topics := range map[bool]string{true: c.takes, false: c.not} {
			for _, topic := range strings.Fields(topics) {
				if c.filter.Matches(topic) != want || m.match(topic) != want {
					t.Errorf("%s and %s: %v, in a matcher %v", c.filter, topic, c.filter.Matches(topic), m.match(topic))
				}
			}
		}
	}
}

func TestBadFiltersAndTopics(t *testing.T) {
	long := strings.Repeat("x", maxTopic+1)
	var bad *PatternError
	for _, f := range []Filter{Pattern(""), Pattern("a..b"), Pattern(".a"), Pattern("a."), Pattern(">.a"), Pattern("a.>.b"), Pattern(long), Prefix(long), {7, "a"}} {
		if err := f.check(); !errors.As(err, &bad) || bad.Filter != f {
			t.Errorf("%s: %v", f, err)
		}
	}
	var topic *TopicError
	for _, s := range []string{"", ".", "a.", ".a", "a..b", "*", "a.*", ">", "a.>.b", long} {
		if err := checkTopic(s); !errors.As(err, &topic) || topic.Topic != s {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"a", "a.b", "a*.b>", "æ.\x00", long[1:]} {
		check(t, checkTopic(s))
	}
}

// bothMatch holds a matcher of lists against each filter by itself.
type bothMatch struct {
	m   *matcher[int, []int]
	all map[int][]Filter
}

func newBothMatch() *bothMatch {
	return &bothMatch{newMatcher(func(_ string, list []int) []int { return slices.Sorted(slices.Values(list)) }), make(map[int][]Filter)}
}

func (b *bothMatch) check(t *testing.T, topic string) {
	t.Helper()
	var want []int
	for who, filters := range b.all {
		if anyMatches(filters, topic) {
			want = append(want, who)
		}
	}
	slices.Sort(want)
	got, ok := b.m.matchBytes([]byte(topic))
	if again := b.m.match(topic); !ok || !slices.Equal(got, want) || !slices.Equal(again, want) {
		t.Fatalf("%s: %v, again %v, want %v of %v", topic, got, again, want, b.all)
	}
}

func randomTokens(random *rand.Rand, words string) string {
	var tokens []string
	for range 1 + random.IntN(4) {
		tokens = append(tokens, words[random.IntN(len(words)):][:1])
	}
	return strings.Join(tokens, ".")
}

// Whoever comes and goes, a matcher finds who one by one would be found; and keeps
// nothing of those who have gone.
func TestMatcherAgainstEachFilter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		b := newBothMatch()
		for step := range 100 {
			switch who := random.IntN(20); random.IntN(3) {
			case 0:
				var filters []Filter
				for range 1 + random.IntN(3) {
					f := Prefix(strings.TrimRight(randomTokens(random, "abc"), "c"))
					if random.IntN(3) > 0 {
						f = Pattern(randomTokens(random, "ab*"))
						if random.IntN(3) == 0 {
							f.text += ".>"
						}
					}
					check(t, f.check())
					filters = append(filters, f)
				}
				b.m.add(who, filters)
				b.all[who] = filters
			case 1:
				b.m.remove(who)
				delete(b.all, who)
			}
			b.check(t, randomTokens(random, "abc"))
			if step%10 == 0 {
				b.check(t, "b."+randomTokens(random, "abc"))
			}
		}
		for who := range b.all {
			b.m.remove(who)
		}
		if r := b.m.root; len(r.next)+len(r.here)+len(r.rest)+len(b.m.prefixes)+len(b.m.entries) > 0 || r.any != nil || slices.Max(b.m.lengths) > 0 {
			t.Fatalf("an empty matcher has %+v, %v", r, b.m.prefixes)
		}
	}
}

func FuzzMatcher(f *testing.F) {
	f.Add("a.b", "a", "a.*", "a.>")
	f.Add("a.b.c", "a.b.", "*.*.*", ">")
	f.Add("\x00.\xff", "", "\x00.*", "*.>")
	f.Fuzz(func(t *testing.T, topic, prefix, pattern, other string) {
		b := newBothMatch()
		for who, filters := range [][]Filter{{Prefix(prefix)}, {Pattern(pattern)}, {Pattern(other), Prefix(prefix)}, {Pattern(topic)}} {
			if slices.ContainsFunc(filters, func(f Filter) bool { return f.check() != nil }) {
				continue
			}
			b.m.add(who, filters)
			b.all[who] = filters
		}
		if checkTopic(topic) != nil {
			if _, ok := b.m.matchBytes([]byte(topic)); ok {
				t.Errorf("%q is matched as a topic", topic)
			}
			return
		}
		b.check(t, topic)
		for who := range b.all {
			b.m.remove(who)
			delete(b.all, who)
			b.check(t, topic)
		}
	})
}

// Filters that come over the wire are what went into it, or are refused.
func FuzzFilters(f *testing.F) {
	f.Add(appendFilters(nil, []Filter{Prefix("a"), Pattern("a.*.>")}))
	f.Add([]byte{0x92, 1, 0xa1, '>'})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, ok := readFilters(b)
		if !ok {
			return
		}
		again, ok := readFilters(appendFilters(nil, list))
		if !ok || !slices.Equal(list, again) || len(list) > maxFilters {
			t.Errorf("%v became %v, %v", list, again, ok)
		}
		for _, f := range list {
			check(t, f.check())
		}
	})
}

// tenThousand is a matcher with as many subscriptions, a third each of prefixes,
// patterns with "*", and patterns with ">"; and topics that find a few of them.
func tenThousand() (m *matcher[int, []int], topics []string) {
	m = newMatcher(func(_ string, list []int) []int { return slices.Clone(list) })
	for i := range 10_000 {
		region, site := fmt.Sprint("region", i%100), fmt.Sprint("site", i)
		switch i % 3 {
		case 0:
			m.add(i, []Filter{Prefix(region + "." + site)})
		case 1:
			m.add(i, []Filter{Pattern(region + "." + site + ".*")})
		case 2:
			m.add(i, []Filter{Pattern("*." + site + ".>")})
		}
		if i < 4096 {
			topics = append(topics, region+"."+site+".temperature")
		}
	}
	return m, topics
}

func TestMatchingAllocatesNothing(t *testing.T) {
	m, topics := tenThousand()
	found := 0
	for _, topic := range topics {
		found += len(m.match(topic))
	}
	if found < len(topics) {
		t.Fatalf("%d found for %d topics", found, len(topics))
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() { m.match(topics[i%len(topics)]); i++ }); n != 0 {
		t.Errorf("%v allocations per match", n)
	}
}

// BenchmarkMatch is a message's match among 10,000 subscriptions: on topics seen
// before, and on topics that each have to be searched for.
func BenchmarkMatch(b *testing.B) {
	m, topics := tenThousand()
	b.Run("seen", func(b *testing.B) {
		for _, topic := range topics {
			m.match(topic)
		}
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			m.match(topics[i%len(topics)])
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "matches/s")
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			m.search(topics[i%len(topics)])
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "matches/s")
	})
}
