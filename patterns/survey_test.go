package patterns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func openSurveyorOf[Q, A any](t testing.TB, n *fabric.Node, cfg SurveyorConfig[Q, A]) *Surveyor[Q, A] {
	t.Helper()
	if cfg.Channel == "" {
		cfg.Channel = "ask"
	}
	s, err := OpenSurveyor(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

// survey takes a whole survey.
func survey[Q, A any](ctx context.Context, s *Surveyor[Q, A], q Q, opts SurveyOptions) (map[fabric.Address]A, map[fabric.Address]error, SurveyResult) {
	taken := s.Ask(ctx, q, opts)
	answers, failures := make(map[fabric.Address]A), make(map[fabric.Address]error)
	for a, err := range taken.Answers() {
		if err != nil {
			failures[a.From] = err
		} else {
			answers[a.From] = a.Value
		}
	}
	return answers, failures, taken.Result()
}

// Several surveyors ask several respondents at several nodes, several times at
// once, and each has every answer.
func TestSurvey(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const nodes, each, surveyors, surveys = 3, 2, 2, 20
	for i := range nodes {
		node := openNode(t, dir, fmt.Sprint("r", i))
		for range each {
			openReplierOf(t, node, RespondentConfig[int, int]{}, double)
		}
	}
	for i := range surveyors {
		s := openSurveyorOf(t, openNode(t, dir, fmt.Sprint("s", i)), SurveyorConfig[int, int]{MaxSurveys: 4})
		check(t, s.WaitRespondents(ctx, nodes*each))
		var asking sync.WaitGroup
		for n := range surveys {
			asking.Go(func() {
				answers, failures, result := survey(ctx, s, n, SurveyOptions{})
				if len(answers) != nodes*each || len(failures) != 0 || !result.Complete() || result.Asked() != nodes*each {
					t.Errorf("%d: %v, %v, %+v", n, answers, failures, result)
				}
				for from, a := range answers {
					if a != 2*n {
						t.Errorf("%d: %s says %d", n, from, a)
					}
				}
			})
		}
		asking.Wait()
		check(t, s.Drain(ctx))
		st := s.Stats()
		if st.Surveys != surveys || st.Questions != surveys*nodes*each || st.Running != 0 || st.Lost+st.LateAnswers+st.Malformed+st.Cancelled > 0 {
			t.Errorf("%+v", st)
		}
		if _, failures, result := survey(ctx, s, 1, SurveyOptions{}); failures[fabric.Address{}] != fabric.ErrClosed || result.Err != fabric.ErrClosed {
			t.Errorf("after Drain: %v, %+v", failures, result)
		}
	}
}

// A survey ends with its deadline, and says who has not answered; their handlers'
// contexts end, and what they answer after all is dropped and counted.
func TestSurveyDeadline(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	fast := openReplierOf(t, openNode(t, dir, "fast"), RespondentConfig[int, int]{}, double)
	slow := openReplierOf(t, openNode(t, dir, "slow"), RespondentConfig[int, int]{}, b.handle)
	// One that is on the channel and never says hello is missed, too.
	mute, err := openNode(t, dir, "mute").Consumer(ctx, "ask", fabric.ConsumerConfig{})
	check(t, err)
	s := openSurveyorOf(t, openNode(t, dir, "s"), SurveyorConfig[int, int]{})
	check(t, s.WaitRespondents(ctx, 2))
	await(t, "the mute one to be known", func() bool { return len(s.core.producer.Consumers()) == 3 })
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answers, failures, result := survey(limited, s, 4, SurveyOptions{})
	if len(answers) != 1 || answers[fast.Address()] != 8 || len(failures) != 0 {
		t.Errorf("%v, %v", answers, failures)
	}
	if !errors.Is(result.Err, context.DeadlineExceeded) || result.Complete() || len(result.Missing) != 2 ||
		result.Missing[0] != mute.Address() || result.Missing[1] != slow.Address() {
		t.Errorf("%+v", result)
	}
	<-b.ended
}

// An answer to a survey that has ended is dropped and counted, and the next survey
// does not see it.
func TestSurveyLateAnswer(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	let := make(chan struct{})
	openReplierOf(t, openNode(t, dir, "deaf"), RespondentConfig[int, int]{}, func(_ context.Context, n int) (int, error) {
		<-let // whatever becomes of the survey
		return n, nil
	})
	openReplierOf(t, openNode(t, dir, "fast"), RespondentConfig[int, int]{}, double)
	s := openSurveyorOf(t, openNode(t, dir, "s"), SurveyorConfig[int, int]{})
	check(t, s.WaitRespondents(ctx, 2))
	if answers, _, result := survey(ctx, s, 7, SurveyOptions{Quorum: 1}); len(answers) != 1 || len(result.Missing) != 1 || result.Err != nil {
		t.Errorf("%v, %+v", answers, result)
	}
	// By hand: an answer to a number that is out of date, and records that are none.
	replies, err := openNode(t, dir, "x").Producer(ctx, "ask.replies", fabric.ProducerConfig{})
	check(t, err)
	check(t, replies.WaitConsumers(ctx, 1))
	check(t, replies.SendAll(ctx, append(appendRecord(nil, kindReply, 12345), 5)))
	check(t, replies.SendAll(ctx, []byte("hello")))
	await(t, "both to be counted", func() bool { st := s.Stats(); return st.LateAnswers == 1 && st.Malformed == 1 })
	close(let)
	answers, failures, result := survey(ctx, s, 8, SurveyOptions{})
	if len(answers) != 2 || len(failures) != 0 || !result.Complete() || answers[fabric.Address{Node: "deaf"}] != 8 {
		t.Errorf("%v, %v, %+v", answers, failures, result)
	}
}

// A loop that is left ends the survey.
func TestSurveyLeft(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	openReplierOf(t, openNode(t, dir, "fast"), RespondentConfig[int, int]{}, double)
	slow := openReplierOf(t, openNode(t, dir, "slow"), RespondentConfig[int, int]{}, b.handle)
	s := openSurveyorOf(t, openNode(t, dir, "s"), SurveyorConfig[int, int]{})
	check(t, s.WaitRespondents(ctx, 2))
	taken := s.Ask(ctx, 1, SurveyOptions{})
	for _, err := range taken.Answers() {
		check(t, err)
		<-b.begun
		break
	}
	<-b.ended
	if r := taken.Result(); r.Err != nil || len(r.Missing) != 1 || r.Missing[0] != slow.Address() {
		t.Errorf("%+v", r)
	}
	for range taken.Answers() {
		t.Error("a survey was taken twice")
	}
}

// Who comes while a survey runs is not asked; who dies is told as lost at once.
func TestSurveyComingAndGoing(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, n *fabric.Node, r *relay){
		"closed": func(t *testing.T, n *fabric.Node, _ *relay) { check(t, n.Close()) },
		"away":   func(_ *testing.T, _ *fabric.Node, r *relay) { r.hide(true) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
			relay := newRelay(t, dir)
			node := openRelayed(t, relay, fabric.Config{Name: "dies"})
			dies, err := OpenReplier(ctx, node, RespondentConfig[int, int]{Channel: "ask"}, b.handle)
			check(t, err)
			defer dies.Close()
			lives := openReplierOf(t, openNode(t, dir, "lives"), RespondentConfig[int, int]{}, b.handle)
			s := openSurveyorOf(t, openNodeOf(t, fabric.Config{Name: "s", Directory: hidden{dir}}), SurveyorConfig[int, int]{Patience: 50 * time.Millisecond})
			check(t, s.WaitRespondents(ctx, 2))
			taken, n := s.Ask(ctx, 1, SurveyOptions{}), 0
			var losing sync.WaitGroup
			losing.Go(func() {
				<-b.begun
				<-b.begun
				openReplierOf(t, openNode(t, dir, "late"), RespondentConfig[int, int]{}, double)
				check(t, s.WaitRespondents(ctx, 3))
				lose(t, node, relay)
			})
			for a, err := range taken.Answers() {
				var lost *ServerLostError
				switch n++; {
				case n == 1 && errors.As(err, &lost) && a.From == dies.Address() && lost.Server == a.From:
					close(b.let) // the other one answers only now
				case n == 2 && err == nil && a.From == lives.Address():
				default:
					t.Errorf("%+v, %v", a, err)
				}
			}
			losing.Wait()
			if r := taken.Result(); r.Asked() != 2 || len(r.Lost) != 1 || len(r.Answered) != 1 || r.Err != nil || r.Complete() {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestSurveyErrors(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const tooMuch = 2 << 20
	bad := func(_ context.Context, q string) (string, error) {
		switch q {
		case "coded":
			return "", &ReplyError{Code: CodeApplication + 4, Text: "not here"}
		case "panic":
			panic("no idea")
		}
		return q, nil
	}
	far := openReplierOf(t, openNodeOf(t, fabric.Config{Name: "r", Directory: dir, MaxMessage: 1 << 20}), RespondentConfig[string, string]{Replies: failing{}}, bad)
	s := openSurveyorOf(t, openNode(t, dir, "s"), SurveyorConfig[string, string]{Answers: failing{}})
	openReplierOf(t, s.core.node, RespondentConfig[string, string]{}, func(_ context.Context, q string) (string, error) { return "fine", nil })
	check(t, s.WaitRespondents(ctx, 2))
	for _, c := range []struct {
		q    string
		code Code
	}{
		{"coded", CodeApplication + 4},
		{"panic", CodePanic},
		{"fails", CodeBadReply},
		{"fails at the other end", CodeBadReply}, // which is this one
		{strings.Repeat("x", tooMuch), CodeBadRequest},
	} {
		answers, failures, result := survey(ctx, s, c.q, SurveyOptions{})
		if len(answers) != 1 || len(result.Failed) != 1 || failures[far.Address()] == nil || result.Failed[0].Code != c.code || result.Failed[0].Server != far.Address() {
			t.Errorf("%.20s: %v, %v, %+v", c.q, answers, failures, result.Failed)
		}
	}
	var codec *CodecError
	if _, failures, _ := survey(ctx, s, "fails at the other end", SurveyOptions{}); !errors.As(failures[far.Address()], &codec) || !codec.Decoding {
		t.Errorf("%v", failures)
	}
	other := openSurveyorOf(t, openNode(t, dir, "other"), SurveyorConfig[reading, reading]{})
	check(t, other.WaitRespondents(ctx, 2))
	_, _, result := survey(ctx, other, aReading, SurveyOptions{})
	if len(result.Failed) != 2 || result.Failed[0].Code != CodeBadRequest || result.Failed[1].Code != CodeBadRequest {
		t.Errorf("questions of another type: %+v", result)
	}
	unable := openSurveyorOf(t, s.core.node, SurveyorConfig[string, string]{Questions: failing{}})
	check(t, unable.WaitRespondents(ctx, 2))
	for _, q := range []string{"fails", "panics"} {
		if _, failures, result := survey(ctx, unable, q, SurveyOptions{}); !errors.As(failures[fabric.Address{}], &codec) || result.Err == nil || result.Asked() != 0 {
			t.Errorf("a question that cannot be encoded: %v, %+v", failures, result)
		}
	}
	if answers, _, result := survey(ctx, s, "good", SurveyOptions{}); !result.Complete() || answers[far.Address()] != "good" {
		t.Errorf("after all that: %v, %+v", answers, result)
	}
}

// A surveyor that closes ends its surveys; nobody to ask is a survey that is
// complete.
func TestSurveyorCloses(t *testing.T) {
	ctx, dir, b := testContext(t), directory.NewRegistry(), newBlocker()
	s := openSurveyorOf(t, openNode(t, dir, "s"), SurveyorConfig[int, int]{})
	if answers, failures, result := survey(ctx, s, 1, SurveyOptions{}); len(answers)+len(failures) != 0 || !result.Complete() || result.Asked() != 0 {
		t.Errorf("%v, %v, %+v", answers, failures, result)
	}
	openReplierOf(t, openNode(t, dir, "r"), RespondentConfig[int, int]{}, b.handle)
	check(t, s.WaitRespondents(ctx, 1))
	var closing sync.WaitGroup
	closing.Go(func() {
		<-b.begun
		check(t, s.Close())
	})
	_, failures, result := survey(ctx, s, 1, SurveyOptions{})
	if failures[fabric.Address{}] != fabric.ErrClosed || result.Err != fabric.ErrClosed || len(result.Missing) != 1 {
		t.Errorf("%v, %+v", failures, result)
	}
	closing.Wait()
	<-b.ended
}

func TestSurveyRefusesBadConfig(t *testing.T) {
	ctx, n := testContext(t), openNode(t, directory.NewRegistry(), "n")
	for _, cfg := range []SurveyorConfig[int, int]{{MaxSurveys: -1}, {MaxSurveys: maxSurveys + 1}, {Patience: 1}} {
		cfg.Channel = "ask"
		if _, err := OpenSurveyor(ctx, n, cfg); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := OpenSurveyor(ctx, n, SurveyorConfig[int, int]{Channel: "a/b"}); !errors.Is(err, directory.ErrInvalid) {
		t.Error(err)
	}
}

// Surveys through links that are cut every 200 ms are answered by all, once each.
func TestSurveyThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const nodes = 3
	var stops []func() int
	var relays []*relay
	var all []*Respondent
	for i := range nodes {
		relays = append(relays, newRelay(t, dir))
		all = append(all, openReplierOf(t, openRelayed(t, relays[i], fabric.Config{Name: fmt.Sprint("r", i)}), RespondentConfig[int, int]{}, double))
	}
	s := openSurveyorOf(t, openNodeOf(t, fabric.Config{Name: "s", Directory: hidden{dir}}), SurveyorConfig[int, int]{Patience: 20 * time.Second})
	check(t, s.WaitRespondents(ctx, nodes))
	for _, r := range relays {
		stops = append(stops, r.cutEvery(200*time.Millisecond))
	}
	const enough = 2 * 4 // both ends of four connections each
	cuts := func() (n int) {
		for _, r := range relays {
			r.mu.Lock()
			n += r.cuts
			r.mu.Unlock()
		}
		return n
	}
	surveys := uint64(0)
	for cuts() < enough*nodes && ctx.Err() == nil {
		if answers, failures, result := survey(ctx, s, 3, SurveyOptions{}); !result.Complete() || len(answers) != nodes {
			t.Fatalf("%v, %v, %+v", answers, failures, result)
		}
		surveys++
	}
	for _, stop := range stops {
		stop()
	}
	for _, r := range all {
		if st := r.Stats(); st.Started != surveys {
			t.Errorf("%d surveys, %+v", surveys, st)
		}
	}
	t.Logf("%d surveys through %d cuts", surveys, cuts())
}

// BenchmarkSurvey is surveys of a small struct among eight respondents at other
// nodes, one after another.
func BenchmarkSurvey(b *testing.B) {
	ctx, dir := context.Background(), directory.NewRegistry()
	const respondents = 8
	for i := range respondents {
		openReplierOf(b, openNode(b, dir, fmt.Sprint("r", i)), RespondentConfig[reading, reading]{}, func(_ context.Context, q reading) (reading, error) { return q, nil })
	}
	s := openSurveyorOf(b, openNode(b, dir, "s"), SurveyorConfig[reading, reading]{})
	check(b, s.WaitRespondents(ctx, respondents))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, result := survey(ctx, s, aReading, SurveyOptions{}); !result.Complete() {
			b.Fatalf("%+v", result)
		}
	}
	b.ReportMetric(float64(b.N*respondents)/b.Elapsed().Seconds(), "answers/s")
}
