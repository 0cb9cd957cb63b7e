package runner

import (
	"cmp"
	"context"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// A surveyorWay is a producer of the pattern survey: each of its messages is a question
// to all consumers.
type surveyorWay struct {
	*asking
	surveyor    *patterns.Surveyor[[]byte, []byte]
	questions   *target
	respondents map[fabric.Address]int
}

// surveysEach is how many surveys a producer has under way where the file does not say.
const surveysEach = 4

// openSurvey makes the node's surveyors and respondents, and waits until the surveyors
// know all respondents.
func (m *member) openSurvey(ctx context.Context, c topology.Channel) error {
	end, err := m.openRepliers(ctx, c)
	if err != nil {
		return err
	}
	respondents := numbers(m.spec.Nodes, c.Consumers)
	inFlight := cmp.Or(c.InFlight, surveysEach)
	for i := range c.Producers {
		y, err := patterns.OpenSurveyor(ctx, m.node, patterns.SurveyorConfig[[]byte, []byte]{
			Channel: c.Name, MaxSurveys: inFlight, Patience: patience(c),
		})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, y.Close)
		if err := y.WaitRespondents(ctx, len(respondents)); err != nil {
			return err
		}
		s, _ := m.newSender(c, i)
		m.setAllTargets(s, c)
		s.way = &surveyorWay{
			asking:   newAsking(newAnswers(s.number, len(respondents)), inFlight, end.Producer(i)),
			surveyor: y, questions: &target{consumer: check.ToAll, planted: s.plantsFirst()}, respondents: respondents,
		}
		m.senders = append(m.senders, s)
	}
	return nil
}

func (w *surveyorWay) send(ctx context.Context, s *sender) error {
	err := w.asking.send(ctx, s, w.questions, func(question check.Stamp, body []byte) {
		for a, err := range w.surveyor.Ask(ctx, body, patterns.SurveyOptions{}).Answers() {
			from, known := w.respondents[a.From]
			switch {
			case err != nil:
				w.fail(err)
			case known:
				w.take(question, from, a.Value)
			default:
				w.stray()
			}
		}
	})
	for _, t := range s.targets {
		t.sent = w.questions.sent
	}
	return err
}

func (w *surveyorWay) finish(ctx context.Context, _ *sender) error {
	return w.asking.finish(ctx, w.surveyor.Drain)
}

func (w *surveyorWay) tell(s *sender, r *ProducerResult) { r.Sent, r.Answers = s.sent(), w.result() }
