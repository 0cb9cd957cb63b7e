package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/lines"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

func (c *command) pullCommand() *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:  "pull",
		Usage: "be a worker of a pipeline: jobs are lines of the standard output",
		Description: "A job is done when its line is written or, with --exec, when the command has ended well; else\n" +
			"it is delivered again, to some worker, after a while. The command finds the job's source in\n" +
			"ZFAB_SOURCE and how often it was delivered in ZFAB_DELIVERIES; what it writes is written.\n\n" +
			"Exit code 1: fewer than --count came.",
		Flags: []cli.Flag{
			countFlag, execFlag,
			&cli.DurationFlag{Name: "timeout", Usage: "end when no job has come for so long (default: never)"},
		},
		Action: c.pull,
	})
}

// retryAfter is after how long a job is delivered again whose command has failed.
const retryAfter = time.Second

func (c *command) pull(ctx *cli.Context) error {
	return c.onNode(ctx, func(pulling context.Context, node *fabric.Node) error {
		p, err := patterns.OpenPuller(pulling, node, patterns.PullerConfig[[]byte]{Channel: ctx.Args().First(), InFlight: 2})
		if err != nil {
			return channelError(err)
		}
		defer p.Close() // what is not done goes to others
		out := lines.NewWriter(c.stdout, lines.Format(ctx.String("format")))
		pulling, waiting := newIdle(pulling, ctx.Duration("timeout"))
		for done := 0; ctx.Int("count") == 0 || done < ctx.Int("count"); {
			waiting.end()
			job, err := p.Receive(pulling)
			waiting.begin()
			var lost *fabric.PeerLostError
			var foreign *patterns.RecordError
			switch {
			case errors.As(err, &lost), errors.As(err, &foreign):
				fmt.Fprintf(c.stderr, "zfab: %v\n", err)
				continue
			case err != nil && pulling.Err() != nil && ctx.Err() == nil:
				return tooFew(ctx, done)
			case interrupted(ctx, err):
				return nil
			case err != nil:
				return err
			}
			if err := c.work(ctx, out, job); err != nil {
				var failed *shellError
				if !errors.As(err, &failed) {
					return err
				}
				fmt.Fprintf(c.stderr, "zfab: the job is given back: %v\n", err)
				_ = job.Reject(retryAfter) // of a pusher that is gone it is no longer ours
				continue
			}
			if err := job.Ack(); err == nil {
				done++
			}
		}
		return nil
	})
}

// work does a job.
func (c *command) work(ctx *cli.Context, out *lines.Writer, job patterns.Job[[]byte]) error {
	l := lines.Line{From: job.Source().String()}
	if job.Redelivered() {
		l.Deliveries = job.Deliveries()
	}
	if command := ctx.String("exec"); command != "" {
		input, err := commandInput(lines.Format(ctx.String("format")), l, job.Value)
		if err != nil {
			return err
		}
		said, err := shell(ctx.Context, command, input, "ZFAB_SOURCE="+job.Source().String(), fmt.Sprint("ZFAB_DELIVERIES=", job.Deliveries()))
		if err != nil {
			return err
		}
		_, err = c.stdout.Write(said)
		return err
	}
	return out.Write(l, job.Value)
}

// tooFew is the end of a command that has waited long enough.
func tooFew(ctx *cli.Context, came int) error {
	if count := ctx.Int("count"); count > 0 {
		return fmt.Errorf("%s: %d of %d messages came, and none for %v", ctx.Command.Name, came, count, ctx.Duration("timeout"))
	}
	return nil
}
