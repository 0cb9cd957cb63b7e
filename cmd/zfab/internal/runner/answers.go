package runner

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// answers is what one producer knows of the answers to its questions. A question is a
// stamped message; its answer is one of the same size with the same stamp, but that it
// names the consumer that answers. Any goroutine may use it.
type answers struct {
	asker int // the producer's number
	clock clock

	mu      sync.Mutex
	came    []check.Numbers // numbers of questions that were answered; see AnswersResult.Came
	wrong   uint64
	twice   uint64
	failed  uint64
	first   error // that came in the place of an answer
	latency latency
}

// An AnswersResult is what a producer tells of the answers to its questions.
type AnswersResult struct {
	// Came is how many questions were answered, wrongly or not: by consumer where each
	// is to answer, and else of all together.
	Came []uint64 `json:"came"`
	// Wrong are answers that are damaged, or belong to another question or consumer, Twice
	// those to a question that was answered already, and Failed is how many errors came in
	// the place of answers.
	Wrong   uint64  `json:"wrong,omitempty"`
	Twice   uint64  `json:"twice,omitempty"`
	Failed  uint64  `json:"failed,omitempty"`
	First   string  `json:"first,omitempty"` // of those errors
	Latency latency `json:"latency"`         // from the question's time to the answer
}

// newAnswers counts by so many consumers, or with 1 all together.
func newAnswers(asker, consumers int) *answers {
	return &answers{asker: asker, came: make([]check.Numbers, consumers), latency: newLatency()}
}

// take takes an answer to a question of that number from a consumer, whose number is -1
// where nobody knows which one answers.
func (a *answers) take(question check.Stamp, from int, body []byte) {
	stamp, sound := check.Open(body)
	right := sound && int(stamp.Producer) == a.asker && stamp.Sequence == question.Sequence && (from < 0 || int(stamp.Consumer) == from)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.came[max(from, 0)].Add(question.Sequence) {
		a.twice++
	}
	switch {
	case !right:
		a.wrong++
	case question.Planned != 0:
		a.latency.record(a.clock.now() - time.Duration(question.Planned))
	}
}

// stray takes an answer from a consumer that the channel does not have.
func (a *answers) stray() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrong++
}

// fail takes an error that came in the place of an answer.
func (a *answers) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed++
	if a.first == nil {
		a.first = err
	}
}

func (a *answers) failures() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.failed)
}

func (a *answers) result() *AnswersResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &AnswersResult{Wrong: a.wrong, Twice: a.twice, Failed: a.failed, Latency: a.latency}
	for i := range a.came {
		r.Came = append(r.Came, a.came[i].Len())
	}
	if a.first != nil {
		r.First = a.first.Error()
	}
	return r
}

// An asking is what ways have in common whose messages are questions: so many at a time
// are under way, each in a goroutine of its own, which counts what comes of it.
type asking struct {
	*answers
	ending *patterns.ExchangeProducer
	slots  chan []byte // a question's bytes for each that may be under way
	open   sync.WaitGroup
}

func newAsking(a *answers, inFlight int, ending *patterns.ExchangeProducer) *asking {
	w := &asking{answers: a, ending: ending, slots: make(chan []byte, inFlight)}
	for range inFlight {
		w.slots <- nil
	}
	return w
}

// send asks the load's questions, which are messages of t, and waits for their answers.
func (w *asking) send(ctx context.Context, s *sender, t *target, ask func(question check.Stamp, body []byte)) error {
	w.clock = s.clock
	err := s.each(ctx, t, func(body []byte) error {
		select {
		case own := <-w.slots:
			own = append(own[:0], body...)
			stamp, _ := check.Open(body)
			stamp.Sequence = t.sent - 1 // whatever it says, if it was broken
			w.open.Go(func() {
				ask(stamp, own)
				w.slots <- own
			})
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	w.open.Wait()
	return err
}

// finish tells all consumers that this producer asks no more.
func (w *asking) finish(ctx context.Context, drain func(context.Context) error) error {
	return errors.Join(drain(ctx), w.ending.Drain(ctx))
}

// openRepliers makes the node's consumers of a pattern that has answers, and opens an
// exchange beside its channel on which nothing is sent: by its end they know that all
// producers have ended, as the pattern has no end of its own.
func (m *member) openRepliers(ctx context.Context, c topology.Channel) (*patterns.Exchange, error) {
	end, err := patterns.OpenExchange(ctx, m.node, patterns.ExchangeConfig{
		Channel: c.Name + ".end", Nodes: m.spec.Nodes, Producers: c.Producers, Consumers: c.Consumers,
	})
	if err != nil {
		return nil, err
	}
	for i := range c.Consumers {
		if err := m.openReplier(ctx, c, i, end.Consumer(i)); err != nil {
			return nil, err
		}
	}
	return end, nil
}

// patience is how long a node that answers may be without connection until questions to
// it fail, where the file does not say: as long as the fabric waits for it.
func patience(c topology.Channel) time.Duration {
	if c.Patience > 0 {
		return c.Patience
	}
	return time.Minute
}

// openReplier makes the node's consumer of that index: a server, which answers until the
// end.
func (m *member) openReplier(ctx context.Context, c topology.Channel, index int, end *patterns.ExchangeConsumer) error {
	r := m.newReceiver(c, index, nil)
	r.sharer = check.NewSharer(m.spec.Nodes*c.Producers, 0)
	server, err := patterns.OpenReplier(ctx, m.node, patterns.ReplierConfig[[]byte, []byte]{Channel: c.Name, Queue: markOf(c)},
		func(ctx context.Context, question []byte) ([]byte, error) {
			stamp, sound := r.shared(check.Arrival{Source: check.Unnamed, Body: question})
			if sound && int(stamp.Producer)/c.Producers+1 != m.spec.Node {
				r.abroad.Add(1)
			}
			if err := r.pause(ctx); err != nil {
				return nil, err
			}
			return m.answerTo(question, stamp, sound, r.number), nil
		})
	if err != nil {
		return err
	}
	m.closers = append(m.closers, server.Close)
	if err := checkIndex(c, "server", index, server.Address()); err != nil {
		return err
	}
	r.listen = func(ctx context.Context) error {
		if _, err := end.Receive(ctx); !errors.Is(err, fabric.ErrEnd) {
			server.Close() // what it has seen is told now
			return err
		}
		return server.Drain(ctx)
	}
	m.receivers = append(m.receivers, r)
	return nil
}

// answerTo is what a consumer answers. A damaged question is sent back as it is, which
// is the answer to nothing.
func (m *member) answerTo(question []byte, stamp check.Stamp, sound bool, consumer int) []byte {
	answer := make([]byte, len(question))
	if !sound {
		copy(answer, question)
		return answer
	}
	if m.spec.Plant == PlantMisanswered && stamp.Producer == 0 && stamp.Sequence == plantedAt {
		stamp.Sequence++
	}
	stamp.Consumer = uint32(consumer)
	check.Seal(answer, stamp)
	return answer
}
