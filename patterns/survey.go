package patterns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/zfab/zfab/fabric"
)

// How a survey is taken. It is a call to all servers at once: the same records,
// the same ends, and a Replier does not know whether it was called or surveyed.
//
//  1. Whom the directory knows when the survey begins is asked, and nobody else.
//     One that has not said hello yet is asked as soon as it has. (survey_poll.go)
//  2. Each answers, fails, or is lost; once. That is an outcome of its request, as
//     of a call's. (request_replies.go)
//  3. The survey ends when all have an outcome, when a quorum has answered, or with
//     its context. Those that were asked and have not answered are told that nobody
//     waits any more.

// Respondent answers surveys. It is a Replier: whatever answers calls can be
// surveyed, and the other way round.
type Respondent = Replier

// RespondentConfig says how to open a Respondent.
type RespondentConfig[Q, A any] = ReplierConfig[Q, A]

// OpenRespondent is OpenReplier: handle answers each question.
//
// Delivery: a question is answered at most once. Order: none between questions;
// handlers run side by side. What blocks: nothing but a full Queue, which refuses.
// What a dead peer means: the contexts of a lost surveyor's handlers end.
func OpenRespondent[Q, A any](ctx context.Context, node *fabric.Node, cfg RespondentConfig[Q, A], handle func(context.Context, Q) (A, error)) (*Respondent, error) {
	return OpenReplier(ctx, node, cfg, handle)
}

// SurveyorConfig says how to open a Surveyor.
type SurveyorConfig[Q, A any] struct {
	// Channel is the respondents'. It and the one of that name with ".replies" behind
	// it carry nothing else.
	Channel string
	// MaxSurveys bounds the surveys under way; further ones wait. Default: 16; at most
	// 64. Each asks 16,384 respondents at most.
	MaxSurveys int
	// Patience is how long a respondent's node may be without connection until it is
	// lost. Default: 500 ms; at least 10 ms. A node that is lost for good, or started
	// anew, is noticed without it.
	Patience time.Duration
	// Questions and Answers encode and decode. Default: raw for []byte, else
	// MessagePack.
	Questions Codec[Q]
	Answers   Codec[A]
}

const (
	defaultSurveys = 16
	maxSurveys     = 64
	maxAsked       = maxSlots / maxSurveys // so that there is a slot for each question
)

// Surveyor asks all respondents of a channel. Its methods may be called by several
// goroutines.
//
// Delivery: each respondent gets a question once at most, and each answer is
// yielded once. An answer that comes when its survey has ended is dropped and
// counted.
//
// Order: none. Answers are yielded as they come.
//
// What blocks: the beginning of a survey, while MaxSurveys are under way; then the
// iteration, until the next answer. Nothing waits for one that takes no question
// because it is behind: it is asked as soon as it has room. All ends with the
// survey's context.
//
// What a dead peer means: a respondent that dies, or is without connection for
// longer than Patience, is yielded as lost at once, and not waited for.
type Surveyor[Q, A any] struct {
	core      *requester
	questions coder[Q]
	answers   coder[A]
}

// ErrTooManyRespondents: a survey cannot ask so many.
var ErrTooManyRespondents = errors.New("too many respondents")

// OpenSurveyor makes a surveyor. It waits, until ctx ends, for the directory.
func OpenSurveyor[Q, A any](ctx context.Context, node *fabric.Node, cfg SurveyorConfig[Q, A]) (*Surveyor[Q, A], error) {
	answers := newCoder(cfg.Answers)
	core, err := openSurveyor(ctx, node, cfg.MaxSurveys, requesterConfig{
		channel: cfg.Channel, patience: cfg.Patience, copying: answers.copying,
	})
	if err != nil {
		return nil, fmt.Errorf("patterns: surveyor on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Surveyor[Q, A]{core: core, questions: newCoder(cfg.Questions), answers: answers}, nil
}

func openSurveyor(ctx context.Context, node *fabric.Node, surveys int, cfg requesterConfig) (*requester, error) {
	if surveys == 0 {
		surveys = defaultSurveys
	}
	if surveys < 0 || surveys > maxSurveys {
		return nil, &fabric.ConfigError{Field: "MaxSurveys", Value: surveys, Reason: fmt.Sprintf("be 1 to %d", maxSurveys)}
	}
	cfg.outstanding = surveys
	return openRequester(ctx, node, cfg)
}

// SurveyOptions say how a survey is taken. The zero value waits for everybody.
type SurveyOptions struct {
	// Quorum is how many answers are enough: the survey ends with that many. Failures
	// do not count. Default: 0, all.
	Quorum int
}

// Answer is what one respondent has answered.
type Answer[A any] struct {
	From  fabric.Address // the respondent's consumer
	Value A              // belongs to the program; zero if there is an error
}

// Survey is one question to all respondents. It is for one goroutine at a time.
// Delivery, order, what blocks and what a dead peer means are those of Surveyor.
type Survey[Q, A any] struct {
	surveyor *Surveyor[Q, A]
	ctx      context.Context
	question Q
	opts     SurveyOptions
	taken    bool
	result   SurveyResult
}

// SurveyResult says what became of a survey. Every respondent that was to be asked
// is in one of the four lists, each by its address.
type SurveyResult struct {
	Answered []fabric.Address
	// Failed is who answered with an error, and its code. CodeBadReply is also that of
	// an answer which this end could not decode, and CodeBadRequest that of a question
	// which was too large for the respondent's node.
	Failed []*ReplyError
	// Lost is who was gone, or without connection for longer than Patience, before it
	// answered.
	Lost []*ServerLostError
	// Missing is who had not answered when the survey ended: by a quorum, by its
	// context, or because the iteration was left.
	Missing []fabric.Address
	// Err is what ended the survey before all had an outcome: the context's error, or
	// fabric.ErrClosed. It is nil if all had one, with a quorum, and when the iteration
	// was left.
	Err error
}

// Asked is how many were to be asked: whom the directory knew when the survey
// began.
func (r SurveyResult) Asked() int {
	return len(r.Answered) + len(r.Failed) + len(r.Lost) + len(r.Missing)
}

// Complete reports whether everyone has answered, and without an error.
func (r SurveyResult) Complete() bool {
	return r.Err == nil && len(r.Failed)+len(r.Lost)+len(r.Missing) == 0
}

// Ask returns a survey, which Answers takes. Its deadline is ctx's, and that of the
// respondents' handlers, too: as the time that is left, so that clocks need not
// agree. q must not be changed until the iteration has begun, if it refers to memory.
func (s *Surveyor[Q, A]) Ask(ctx context.Context, q Q, opts SurveyOptions) *Survey[Q, A] {
	return &Survey[Q, A]{surveyor: s, ctx: ctx, question: q, opts: opts}
}

// Answers takes the survey: it asks all respondents that the directory knows, and
// iterates over what they answer. It ends when each has answered, failed or is
// lost, when the quorum is reached, or when the context ends, which is no error
// here: Result says what is missing. Those that come after the beginning are not
// asked.
//
// An error is of one respondent, which Answer.From names, and the iteration goes on:
// a *ReplyError, a *ServerLostError, a *CodecError if the answer is of another type,
// or a *fabric.TooLargeError. One without a respondent is of the survey, and the last:
// *CodecError if the question cannot be encoded, ErrTooManyRespondents, ctx's before
// anybody was asked, or fabric.ErrClosed.
//
// A survey is taken once: a second iteration yields nothing.
func (s *Survey[Q, A]) Answers() iter.Seq2[Answer[A], error] {
	return func(yield func(Answer[A], error) bool) {
		if s.taken {
			return
		}
		s.taken = true
		question, err := s.surveyor.questions.pack(s.question, true)
		if err != nil {
			s.result.Err = err
			yield(Answer[A]{}, err)
			return
		}
		p, err := s.surveyor.core.poll(s.ctx, question)
		if err != nil {
			question.release()
			s.result.Err = err
			yield(Answer[A]{}, err)
			return
		}
		defer func() { s.result.Missing = p.end() }()
		s.take(p, yield)
	}
}

// take yields what comes until the survey ends.
func (s *Survey[Q, A]) take(p *poll, yield func(Answer[A], error) bool) {
	for s.opts.Quorum <= 0 || len(s.result.Answered) < s.opts.Quorum {
		v, more, err := p.next()
		if err != nil {
			s.result.Err = err
			if err == fabric.ErrClosed {
				yield(Answer[A]{}, err)
			}
			return
		}
		if !more {
			return
		}
		a := Answer[A]{From: v.from}
		if v.err == nil {
			v.err = s.surveyor.answers.decode(v.body.body(), &a.Value)
			v.body.release() // which is nothing, if the value may refer to it
		}
		s.note(v)
		if !yield(a, v.err) {
			return
		}
	}
}

// note puts a respondent where it belongs in the result.
func (s *Survey[Q, A]) note(v verdict) {
	var lost *ServerLostError
	var failed *ReplyError
	switch {
	case v.err == nil:
		s.result.Answered = append(s.result.Answered, v.from)
	case errors.As(v.err, &lost):
		s.result.Lost = append(s.result.Lost, lost)
	case errors.As(v.err, &failed):
		s.result.Failed = append(s.result.Failed, failed)
	case tooLarge(v.err):
		s.result.Failed = append(s.result.Failed, &ReplyError{Code: CodeBadRequest, Text: v.err.Error(), Server: v.from})
	default:
		s.result.Failed = append(s.result.Failed, &ReplyError{Code: CodeBadReply, Text: v.err.Error(), Server: v.from})
	}
}

// Result says what became of the survey, once Answers has ended.
func (s *Survey[Q, A]) Result() SurveyResult { return s.result }

// Respondents is the respondents that have said hello and are there now, in no
// order.
func (s *Surveyor[Q, A]) Respondents() []fabric.Address { return s.core.present() }

// WaitRespondents waits until at least count respondents are there, or ctx ends.
func (s *Surveyor[Q, A]) WaitRespondents(ctx context.Context, count int) error {
	n, err := waitMembers(ctx, s.core.ctx, &s.core.mu, s.core.servers, count)
	if err != nil && err != fabric.ErrClosed {
		return fmt.Errorf("patterns: %d of %d respondents of %s are there: %w", n, count, s.core.cfg.channel, err)
	}
	return err
}

// Drain begins no more surveys, waits until all have ended, or ctx ends, and closes
// the surveyor.
func (s *Surveyor[Q, A]) Drain(ctx context.Context) error { return s.core.drain(ctx) }

// Close ends the surveyor, and its surveys with fabric.ErrClosed; the contexts of
// respondents' handlers end.
func (s *Surveyor[Q, A]) Close() error { return s.core.close() }

// Stats returns the surveyor's counts, from its begin on.
func (s *Surveyor[Q, A]) Stats() SurveyorStats {
	st := s.core.statistics()
	return SurveyorStats{
		Surveys: st.Calls, Questions: st.Requests, Lost: st.Lost, Cancelled: st.Cancelled, LateAnswers: st.LateReplies,
		Malformed: st.Malformed, Running: st.Outstanding, Respondents: st.Servers,
	}
}

// SurveyorStats is a surveyor's state at one moment.
type SurveyorStats struct {
	Surveys     uint64 // begun
	Questions   uint64 // sent
	Lost        uint64 // questions whose respondent was lost before it answered
	Cancelled   uint64 // questions of surveys that ended before the answer came
	LateAnswers uint64 // to surveys that had ended
	Malformed   uint64 // messages on the replies channel that are no records of this pattern
	Running     int    // surveys now
	Respondents int
}
