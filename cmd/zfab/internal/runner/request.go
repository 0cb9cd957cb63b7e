package runner

import (
	"cmp"
	"context"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/patterns"
)

// A callerWay is a producer of the pattern request: each of its messages is a call.
type callerWay struct {
	*asking
	requester *patterns.Requester[[]byte, []byte]
	calls     *target // its one flow, to whichever consumer has least to do
}

// callsEach is how many calls a producer has under way where the file does not say.
const callsEach = 16

// openRequest makes the node's requesters and repliers, and waits until the requesters
// know all repliers.
func (m *member) openRequest(ctx context.Context, c topology.Channel) error {
	end, err := m.openRepliers(ctx, c)
	if err != nil {
		return err
	}
	for i := range c.Producers {
		r, err := patterns.OpenRequester(ctx, m.node, patterns.RequesterConfig[[]byte, []byte]{Channel: c.Name, Patience: patience(c)})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, r.Close)
		if err := r.WaitServers(ctx, m.spec.Nodes*c.Consumers); err != nil {
			return err
		}
		s, _ := m.newSender(c, i)
		s.way = &callerWay{
			asking:    newAsking(newAnswers(s.number, 1), cmp.Or(c.InFlight, callsEach), end.Producer(i)),
			requester: r, calls: &target{consumer: check.ToAll, planted: s.plantsFirst()},
		}
		m.senders = append(m.senders, s)
	}
	return nil
}

func (w *callerWay) send(ctx context.Context, s *sender) error {
	return w.asking.send(ctx, s, w.calls, func(question check.Stamp, body []byte) {
		if answer, err := w.requester.Call(ctx, body); err != nil {
			w.fail(err)
		} else {
			w.take(question, -1, answer)
		}
	})
}

func (w *callerWay) finish(ctx context.Context, _ *sender) error {
	return w.asking.finish(ctx, w.requester.Drain)
}

func (w *callerWay) tell(_ *sender, r *ProducerResult) {
	r.Flows, r.Answers = []uint64{w.calls.sent}, w.result()
}
