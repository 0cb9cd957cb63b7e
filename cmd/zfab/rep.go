package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

func (c *command) repCommand() *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:  "rep",
		Usage: "be a server of a channel: with --echo, or a command for each request",
		Description: "What the command of --exec writes to its standard output is the answer, up to its last\n" +
			"newline; one that fails answers with an error.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "echo", Usage: "answer with the request"},
			execFlag, countFlag,
			&cli.IntFlag{Name: "concurrency", Value: 1, Usage: "how many `requests` are worked on at a time"},
			&cli.DurationFlag{Name: "timeout", Usage: "end when no request has come for so long (default: never)"},
		},
		Action: c.rep,
	})
}

func (c *command) rep(ctx *cli.Context) error {
	command, count := ctx.String("exec"), int64(ctx.Int("count"))
	switch {
	case ctx.Bool("echo") == (command != ""):
		return usagef("rep: say how to answer, with --echo or --exec")
	case ctx.Int("concurrency") < 1:
		return usagef("rep: --concurrency is %d: it must be positive", ctx.Int("concurrency"))
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
			answer, err := shell(ctx, command, request)
			if err != nil {
				fmt.Fprintf(c.stderr, "zfab: %v\n", err)
				return nil, err
			}
			if n := len(answer); n > 0 && answer[n-1] == '\n' {
				answer = answer[:n-1]
			}
			return answer, nil
		}
		r, err := patterns.OpenReplier(serving, node, patterns.ReplierConfig[[]byte, []byte]{
			Channel: ctx.Args().First(), Concurrency: ctx.Int("concurrency"),
		}, handle)
		if err != nil {
			return channelError(err)
		}
		<-until.Done()
		drain, cancel := context.WithTimeout(context.Background(), drainPatience)
		defer cancel()
		err = r.Drain(drain)
		if st := r.Stats(); drain.Err() != nil && st.Running+st.Queued == 0 {
			err = nil // all that came is answered; a requester that has just gone need not be waited for
		}
		if n := done.Load(); ctx.Err() == nil && n < count {
			err = errors.Join(err, tooFew(ctx, int(n)))
		}
		return err
	})
}

// drainPatience is how long a server that ends waits for what it works on.
const drainPatience = 2 * time.Second
