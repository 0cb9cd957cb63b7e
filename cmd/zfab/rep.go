package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/lines"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

func (c *command) repCommand() *cli.Command {
	return c.newServerCommand("rep", "be a server of a channel: with --echo, or a command for each request", "requests")
}

// respondCommand is repCommand by the name that goes with surveys: a respondent is a
// server.
func (c *command) respondCommand() *cli.Command {
	return c.newServerCommand("respond", "answer the surveys of a channel: with --echo, or a command for each question", "questions")
}

func (c *command) newServerCommand(name, usage, what string) *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:  name,
		Usage: usage,
		Description: "What the command of --exec writes to its standard output is the answer, up to its last\n" +
			"newline or, with --format json or hex, its first line in that format; one that fails answers\n" +
			"with an error. It is ended when nobody waits any more.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "echo", Usage: "answer with what is asked"},
			execFlag, countFlag,
			&cli.IntFlag{Name: "concurrency", Value: 1, Usage: fmt.Sprintf("how many `%s` are worked on at a time", what)},
			&cli.DurationFlag{Name: "timeout", Usage: fmt.Sprintf("end when none of the %s has come for so long (default: never)", what)},
		},
		Action: c.rep,
	})
}

func (c *command) rep(ctx *cli.Context) error {
	name, command, count := ctx.Command.Name, ctx.String("exec"), int64(ctx.Int("count"))
	format := lines.Format(ctx.String("format"))
	switch {
	case ctx.Bool("echo") == (command != ""):
		return usagef("%s: say how to answer, with --echo or --exec", name)
	case ctx.Bool("echo") && ctx.IsSet("format"):
		return usagef("%s: --format says what the command of --exec reads and writes: --echo has none", name)
	case ctx.Int("concurrency") < 1:
		return usagef("%s: --concurrency is %d: it must be positive", name, ctx.Int("concurrency"))
	}
	return c.onNode(ctx, func(serving context.Context, node *fabric.Node) error {
		until, waiting := newIdle(serving, ctx.Duration("timeout"))
		until, enough := context.WithCancel(until)
		defer enough()
		var begun, done atomic.Int64
		handle := func(ctx context.Context, request []byte) ([]byte, error) {
			if n := begun.Add(1); count > 0 && n > count {
				return nil, &patterns.ReplyError{Code: patterns.CodeClosing, Text: "it has answered as often as it was to"}
			}
			waiting.begin()
			defer func() {
				if n := done.Add(1); n == count {
					enough()
				} else if n == begun.Load() {
					waiting.end()
				}
			}()
			if command == "" {
				return request, nil
			}
			answer, err := answerBy(ctx, command, format, request)
			if err != nil {
				fmt.Fprintf(c.stderr, "zfab: %v\n", err)
			}
			return answer, err
		}
		r, err := patterns.OpenReplier(serving, node, patterns.ReplierConfig[[]byte, []byte]{
			Channel: ctx.Args().First(), Concurrency: ctx.Int("concurrency"),
		}, handle)
		if err != nil {
			return channelError(err)
		}
		<-until.Done()
		err = drainServer(r)
		if n := done.Load(); ctx.Err() == nil && n < count {
			err = errors.Join(err, tooFew(ctx, int(n)))
		}
		return err
	})
}

// answerBy is what a command answers.
func answerBy(ctx context.Context, command string, format lines.Format, request []byte) ([]byte, error) {
	input, err := commandInput(format, lines.Line{}, request)
	if err != nil {
		return nil, err
	}
	said, err := shell(ctx, command, input)
	if err != nil {
		return nil, err
	}
	return commandAnswer(format, command, said)
}

const (
	// workPatience is how long a server that ends waits for what it works on.
	workPatience = 5 * time.Second
	// awayPatience is how long it waits for requesters without connection, which may
	// have asked something that has not come, or may have been killed.
	awayPatience = 2 * time.Second
)

// drainServer has a server end. It is no failure that some requester was away if all
// that came is answered: what did not come was not done, and the requester knows.
func drainServer(r *patterns.Replier) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	answered := func() bool {
		st := r.Stats()
		return st.Running+st.Queued == 0
	}
	var unanswered atomic.Bool
	defer time.AfterFunc(awayPatience, func() {
		if answered() {
			cancel()
		}
	}).Stop()
	defer time.AfterFunc(workPatience, func() {
		unanswered.Store(!answered())
		cancel()
	}).Stop()
	if err := r.Drain(ctx); ctx.Err() == nil || unanswered.Load() {
		return err
	}
	return nil
}
