package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/lines"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

func (c *command) reqCommand() *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:        "req",
		Usage:       "ask the servers of a channel: each line of the standard input, one after another",
		Description: "Answers are lines of the standard output. The first call that fails ends it.",
		Flags: append([]cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, Usage: "how long one call may take, the wait for a server included"},
			&cli.StringFlag{Name: "key", Usage: "ask the server that owns the `key`"},
			&cli.BoolFlag{Name: "idempotent", Usage: "ask another server if one is lost before it has answered"},
		}, feedFlags...),
		Action: c.req,
	})
}

func (c *command) req(ctx *cli.Context) error {
	options := patterns.CallOptions{Key: []byte(ctx.String("key")), Idempotent: ctx.Bool("idempotent")}
	begin, err := c.feedOf(ctx)
	if err != nil {
		return err
	}
	return c.onNode(ctx, func(asking context.Context, node *fabric.Node) error {
		r, err := patterns.OpenRequester(asking, node, patterns.RequesterConfig[[]byte, []byte]{Channel: ctx.Args().First()})
		if err != nil {
			return channelError(err)
		}
		defer r.Close()
		requests := begin()
		out := lines.NewWriter(c.stdout, lines.Format(ctx.String("format")))
		for {
			_, body, err := requests.Next(asking)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			answer, err := call(asking, r, body, options, ctx.Duration("timeout"))
			if err != nil {
				return fmt.Errorf("req: call %d: %w", requests.Given(), err)
			}
			if err := out.Write(lines.Line{}, answer); err != nil {
				return err
			}
		}
	})
}

func call(ctx context.Context, r *patterns.Requester[[]byte, []byte], body []byte, o patterns.CallOptions, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := r.WaitServers(ctx, 1); err != nil {
		return nil, err
	}
	return r.CallWith(ctx, body, o)
}
