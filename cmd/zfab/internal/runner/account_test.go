package runner

import (
	"strings"
	"testing"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// The stream of these cases goes from n1's producer to n2's consumer, ten
// messages are accepted, and each case says what is known of it in the end.
func TestLedger(t *testing.T) {
	const (
		n1, n2    = 1, 2
		producer0 = 0
		consumer1 = 1 // n2's
	)
	killed := span{killed: true, ended: 5 * time.Second, renewed: 6 * time.Second}
	again := span{began: 6 * time.Second}
	sends := func(life span, s SentStream) Result {
		s.Consumer = consumer1
		return Result{Node: n1, span: life, Producers: []ProducerResult{{Channel: "a", Number: producer0, Streams: []SentStream{s}}}}
	}
	sees := func(life span, number int, s check.StreamState) Result {
		s.Producer = producer0
		return Result{Node: n2, Life: number, span: life, Consumers: []ConsumerResult{{Channel: "a", Number: consumer1, Streams: []check.StreamState{s}}}}
	}
	alive := span{}
	open := SentStream{Accepted: 10, Acknowledged: 10, InDoubtTo: 10}
	ended := SentStream{Accepted: 10, Acknowledged: 6, InDoubtTo: 10, Over: true}
	dying := SentStream{Accepted: 10, Acknowledged: 6}
	state := func(next, gaps uint64) check.StreamState { return check.StreamState{Next: next, Gaps: gaps} }

	for name, c := range map[string]struct {
		results                           []Result
		lost, inDoubt, unpromised, buried uint64
		problem                           string
	}{
		"all came":         {[]Result{sends(alive, open), sees(alive, 0, state(10, 0))}, 0, 0, 0, 0, ""},
		"the last missing": {[]Result{sends(alive, open), sees(alive, 0, state(9, 0))}, 1, 0, 0, 0, ""},
		"one missing":      {[]Result{sends(alive, open), sees(alive, 0, state(10, 1))}, 1, 0, 0, 0, ""},
		"nothing came":     {[]Result{sends(alive, open), {Node: n2}}, 10, 0, 0, 0, ""},

		"consumer killed, all told":        {[]Result{sends(alive, ended), sees(killed, 0, state(8, 0)), {Node: n2, Life: 1, span: again}}, 0, 4, 0, 0, ""},
		"consumer killed, before it said":  {[]Result{sends(alive, ended), sees(killed, 0, state(5, 0)), {Node: n2, Life: 1, span: again}}, 0, 4, 0, 1, ""},
		"consumer killed, said nothing":    {[]Result{sends(alive, ended), {Node: n2, span: killed}, {Node: n2, Life: 1, span: again}}, 0, 4, 0, 6, ""},
		"consumer killed, one missing":     {[]Result{sends(alive, ended), sees(killed, 0, state(8, 1)), {Node: n2, Life: 1, span: again}}, 1, 4, 0, 0, ""},
		"consumer killed, stream goes on":  {[]Result{sends(alive, open), sees(killed, 0, state(5, 0)), sees(again, 1, state(10, 5))}, 10, 0, 0, 0, "went on in another life of its consumer"},
		"consumer killed, error too short": {[]Result{sends(alive, SentStream{Accepted: 10, Acknowledged: 6, InDoubtTo: 9, Over: true}), sees(killed, 0, state(8, 0))}, 0, 3, 0, 0, "failed with 6 acknowledged and the rest up to 9 in doubt, and 10 were accepted"},
		"consumer killed, error backwards": {[]Result{sends(alive, SentStream{Accepted: 10, Acknowledged: 11, InDoubtTo: 10, Over: true}), sees(killed, 0, state(11, 0))}, 0, 0, 0, 0, "failed with 11 acknowledged"},
		"nobody killed, and it ended":      {[]Result{sends(alive, ended), sees(alive, 0, state(8, 0))}, 0, 4, 0, 0, "ended 1 times, and its consumer's node was killed 0 times"},
		"nobody killed, acked is missing":  {[]Result{sends(alive, ended), sees(alive, 0, state(5, 0))}, 1, 4, 0, 0, "ended 1 times"},
		"killed before the producer began": {[]Result{sends(span{began: 7 * time.Second}, ended), {Node: n2, span: killed}}, 6, 4, 0, 0, "ended 1 times"},
		"killed after the producer was":    {[]Result{sends(killed, ended), {Node: n2, span: span{killed: true, ended: 8 * time.Second, renewed: 9 * time.Second}}}, 6, 4, 0, 0, "ended 1 times"},

		"producer killed":                      {[]Result{sends(killed, dying), sees(alive, 0, state(8, 0))}, 0, 0, 2, 0, ""},
		"producer killed, more came than told": {[]Result{sends(killed, dying), sees(alive, 0, state(12, 0))}, 0, 0, 0, 0, ""},
		"producer killed, acked is missing":    {[]Result{sends(killed, dying), sees(alive, 0, state(5, 0))}, 1, 0, 4, 0, ""},
		"producer killed, one missing":         {[]Result{sends(killed, dying), sees(alive, 0, state(8, 1))}, 1, 0, 2, 0, ""},
		"producer killed, nothing came":        {[]Result{sends(killed, dying), {Node: n2}}, 6, 0, 4, 0, ""},
		"producer killed, nothing was told":    {[]Result{{Node: n1, span: killed}, sees(alive, 0, state(8, 0))}, 0, 0, 0, 0, ""},
		"both killed":                          {[]Result{sends(killed, dying), sees(killed, 0, state(5, 0))}, 0, 0, 4, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(topology.Channel{Name: "a", Producers: 1, Consumers: 1}, c.results)
			m := l.settle(2)[consumer1]
			if m.Lost != c.lost || m.InDoubt != c.inDoubt || m.Unpromised != c.unpromised || m.Buried != c.buried {
				t.Errorf("%d lost, %d in doubt, %d unpromised, %d buried; want %d, %d, %d, %d",
					m.Lost, m.InDoubt, m.Unpromised, m.Buried, c.lost, c.inDoubt, c.unpromised, c.buried)
			}
			if problems := strings.Join(l.problems, "; "); (c.problem == "") != (problems == "") || !strings.Contains(problems, c.problem) {
				t.Errorf("problems %q, want %q", problems, c.problem)
			}
		})
	}
}
