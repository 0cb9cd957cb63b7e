package runner

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// A ledger holds what the producers of an open exchange say of every stream
// against what the consumers say. The rules are in the package's comment.
type ledger struct {
	channel  topology.Channel
	results  []Result
	sent     map[streamID]sentBy
	came     map[streamID][]cameTo
	problems []string
}

// A streamID names a stream over all lives. producer and consumer are numbers.
type streamID struct {
	producer, consumer int
	epoch              check.Epoch
}

// sentBy is a stream at its producer's end, and the life that had it.
type sentBy struct {
	SentStream
	life *Result
}

// cameTo is a stream at a consumer's end, and the life that had it.
type cameTo struct {
	check.StreamState
	life *Result
}

func newLedger(c topology.Channel, results []Result) *ledger {
	l := &ledger{channel: c, results: results, sent: make(map[streamID]sentBy), came: make(map[streamID][]cameTo)}
	for i := range results {
		life := &results[i]
		for _, p := range life.Producers {
			for _, s := range p.Streams {
				if p.Channel == c.Name {
					l.sent[streamID{p.Number, s.Consumer, s.Epoch}] = sentBy{s, life}
				}
			}
		}
		for _, k := range life.Consumers {
			for _, s := range k.Streams {
				if id := (streamID{s.Producer, k.Number, s.Epoch}); k.Channel == c.Name {
					l.came[id] = append(l.came[id], cameTo{s, life})
				}
			}
		}
	}
	return l
}

// settle accounts for every stream, by consumer.
func (l *ledger) settle(consumers int) []report.Messages {
	all := make([]report.Messages, consumers)
	ids := make([]streamID, 0, len(l.sent))
	for id := range l.sent {
		ids = append(ids, id)
	}
	for id := range l.came {
		if _, known := l.sent[id]; !known {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b streamID) int {
		return cmp.Or(a.consumer-b.consumer, a.producer-b.producer, cmp.Compare(a.epoch, b.epoch))
	})
	for _, id := range ids {
		if id.consumer < len(all) {
			all[id.consumer].Add(l.stream(id))
		}
	}
	l.checkEnds()
	return all
}

// stream accounts for one stream.
func (l *ledger) stream(id streamID) (m report.Messages) {
	s, told := l.sent[id]
	came := l.came[id]
	open := told && !s.Over && !s.life.span.killed // to the end of the run: all of it is acknowledged
	next := uint64(0)
	for _, c := range came {
		next = max(next, c.Next)
	}
	m.Sent = max(s.Accepted, next)
	if len(came) == 0 {
		came = []cameTo{{}} // to a life that did not live to tell, or not at all
	}
	if len(came) > 1 {
		l.problem(id, "went on in another life of its consumer")
	}
	for _, c := range came {
		if open || !l.mayBury(id, c) {
			m.Lost += c.Lost(s.Acknowledged)
			continue
		}
		m.Lost += c.Lost(min(s.Acknowledged, c.Next))
		m.Buried += s.Acknowledged - min(s.Acknowledged, c.Next)
	}
	switch {
	case s.Over:
		m.InDoubt += s.InDoubtTo - min(s.Acknowledged, s.InDoubtTo)
		if s.InDoubtTo != s.Accepted || s.Acknowledged > s.InDoubtTo {
			l.problem(id, fmt.Sprintf("failed with %d acknowledged and the rest up to %d in doubt, and %d were accepted", s.Acknowledged, s.InDoubtTo, s.Accepted))
		}
	case !open:
		m.Unpromised += m.Sent - max(s.Acknowledged, next)
	}
	return m
}

// mayBury reports whether what came to a consumer's end may have died with it.
// Where no life says that anything came, one that was killed may have had it.
func (l *ledger) mayBury(id streamID, c cameTo) bool {
	if c.life != nil {
		return c.life.span.killed
	}
	from, told := l.sent[id]
	return told && l.kills(id.consumer/l.channel.Consumers+1, from.life.span) > 0
}

// kills is how often a node was killed so that streams of a life of that span,
// to it, could fail.
func (l *ledger) kills(node int, s span) (n int) {
	for _, r := range l.results {
		if r.Node == node && r.span.killed && r.span.renewed >= s.began && (!s.killed || r.span.ended <= s.ended) {
			n++
		}
	}
	return n
}

// checkEnds finds streams that ended although nobody had been killed.
func (l *ledger) checkEnds() {
	type between struct {
		producer, consumer, life int
	}
	failed := make(map[between]int)
	for id, s := range l.sent {
		if s.Over {
			failed[between{id.producer, id.consumer, id.epoch.Life()}]++
		}
	}
	for b, n := range failed {
		id := streamID{b.producer, b.consumer, check.NewEpoch(b.life, 0)}
		var of span
		for _, r := range l.results {
			if r.Node == b.producer/l.channel.Producers+1 && r.Life == b.life {
				of = r.span
			}
		}
		if kills := l.kills(b.consumer/l.channel.Consumers+1, of); n > kills {
			l.problem(id, fmt.Sprintf("and those after it ended %d times, and its consumer's node was killed %d times", n, kills))
		}
	}
	slices.Sort(l.problems)
}

func (l *ledger) problem(id streamID, what string) {
	l.problems = append(l.problems, fmt.Sprintf("the stream from %s (life %d) to %s %s",
		workerName(l.channel.Name, id.producer, l.channel.Producers), id.epoch.Life()+1,
		workerName(l.channel.Name, id.consumer, l.channel.Consumers), what))
}
