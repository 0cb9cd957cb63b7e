package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/lines"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

func (c *command) surveyCommand() *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:  "survey",
		Usage: "ask all respondents of a channel: each line of the standard input, one after another",
		Description: "Those that the directory knows when a survey begins are asked. Their answers are lines of the\n" +
			"standard output, as they come; with --format json a line says who has answered which question.\n" +
			"A survey ends when all have answered, failed or died, with --quorum, or with --timeout. Who has\n" +
			"not answered is told on the standard error and, with --format json, in a line with \"error\".\n\n" +
			"Exit code 1: a survey ended without enough answers, which are --quorum or else all. Those behind\n" +
			"it are taken nevertheless. `zfab respond` answers, and so does `zfab rep`.",
		Flags: append([]cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, Usage: "how long one survey may take, the wait for respondents included"},
			&cli.IntFlag{Name: "quorum", Usage: "end a survey with so many `answers` (default: with everybody's)"},
			&cli.IntFlag{Name: "wait", Usage: "begin a survey when so many `respondents` are there (default: --quorum, or 1)"},
		}, feedFlags...),
		Action: c.survey,
	})
}

func (c *command) survey(ctx *cli.Context) error {
	for _, name := range []string{"quorum", "wait"} {
		if ctx.IsSet(name) && ctx.Int(name) <= 0 {
			return usagef("survey: --%s is %d: it must be positive", name, ctx.Int(name))
		}
	}
	begin, err := c.feedOf(ctx)
	if err != nil {
		return err
	}
	return c.onNode(ctx, func(asking context.Context, node *fabric.Node) error {
		s, err := patterns.OpenSurveyor(asking, node, patterns.SurveyorConfig[[]byte, []byte]{Channel: ctx.Args().First()})
		if err != nil {
			return channelError(err)
		}
		defer s.Close()
		a := asker{
			command: c, surveyor: s, out: lines.NewWriter(c.stdout, lines.Format(ctx.String("format"))),
			timeout: ctx.Duration("timeout"), quorum: ctx.Int("quorum"), wait: ctx.Int("wait"),
		}
		if a.wait == 0 {
			a.wait = max(1, a.quorum)
		}
		questions := begin()
		short := 0
		for {
			_, body, err := questions.Next(asking)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			enough, err := a.ask(asking, questions.Given(), body)
			if err != nil {
				return fmt.Errorf("survey %d: %w", questions.Given(), err)
			}
			if !enough {
				short++
			}
		}
		if short > 0 {
			return fmt.Errorf("survey: %d of %d ended without enough answers", short, questions.Given())
		}
		return nil
	})
}

// An asker takes surveys, and tells what comes of them.
type asker struct {
	*command
	surveyor *patterns.Surveyor[[]byte, []byte]
	out      *lines.Writer
	timeout  time.Duration // of one survey
	quorum   int           // 0: all
	wait     int           // for so many respondents
}

// ask takes a survey, the number-th from 1, and reports whether it had enough answers.
// An error ends those behind it, too.
func (a *asker) ask(ctx context.Context, number int, question []byte) (enough bool, err error) {
	limited, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := a.surveyor.WaitRespondents(limited, a.wait); err != nil {
		if limited.Err() == nil || ctx.Err() != nil {
			return false, err
		}
		fmt.Fprintf(a.stderr, "zfab: survey %d: %v\n", number, err)
		return false, a.out.Note(lines.Line{Question: number, Error: err.Error()})
	}
	survey := a.surveyor.Ask(limited, question, patterns.SurveyOptions{Quorum: a.quorum})
	for answer, failed := range survey.Answers() {
		l := lines.Line{Question: number}
		if answer.From != (fabric.Address{}) {
			l.From = answer.From.String()
		}
		switch {
		case failed == nil:
			err = a.out.Write(l, answer.Value)
		case l.From != "":
			fmt.Fprintf(a.stderr, "zfab: survey %d: %v\n", number, failed)
			l.Error = failed.Error()
			err = a.out.Note(l)
		case limited.Err() == nil: // of the survey, and not that its time was over before anybody was asked
			err = failed
		}
		if err != nil {
			return false, err
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return a.judge(number, survey.Result())
}

// judge tells who has not answered, and reports whether enough have.
func (a *asker) judge(number int, r patterns.SurveyResult) (enough bool, err error) {
	came, how := len(r.Answered), "the quorum"
	if errors.Is(r.Err, context.DeadlineExceeded) {
		how = fmt.Sprintf("after %v", a.timeout)
	}
	if r.Asked() == 0 && r.Err != nil {
		fmt.Fprintf(a.stderr, "zfab: survey %d: nobody was asked: %v\n", number, r.Err)
		if err := a.out.Note(lines.Line{Question: number, Error: r.Err.Error()}); err != nil {
			return false, err
		}
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(a.stderr, "zfab: survey %d: %d of %d have answered, %s; not %s\n", number, came, r.Asked(), how, some(r.Missing))
	}
	for _, who := range r.Missing {
		if err := a.out.Note(lines.Line{From: who.String(), Question: number, Error: "no answer, " + how}); err != nil {
			return false, err
		}
	}
	if a.quorum > 0 {
		if came < a.quorum {
			fmt.Fprintf(a.stderr, "zfab: survey %d: %d answers, %d are the quorum\n", number, came, a.quorum)
		}
		return came >= a.quorum, nil
	}
	return r.Complete() && came > 0, nil
}

// maxNamed is how many are named in one line.
const maxNamed = 10

// some names the first of them.
func some(all []fabric.Address) string {
	var b strings.Builder
	for i, who := range all {
		switch {
		case i == maxNamed:
			fmt.Fprintf(&b, " and %d more", len(all)-i)
			return b.String()
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(who.String())
	}
	return b.String()
}
