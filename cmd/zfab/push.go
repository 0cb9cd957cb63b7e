package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/patterns"
)

func (c *command) pushCommand() *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:  "push",
		Usage: "give jobs to the workers of a pipeline: the lines of the standard input",
		Description: "It ends when every job is done: acknowledged by a worker. A job whose worker dies goes to\n" +
			"another one.",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "at-most-once", Usage: "do not wait for acknowledgements: a job is lost with its worker"},
			&cli.IntFlag{Name: "max-deliveries", Usage: "give a job up after so many `times` (default: never)"},
			&cli.StringFlag{Name: "dead-letters", Usage: "`channel` that gets the jobs that were given up"},
			&cli.DurationFlag{Name: "timeout", Usage: "how long all of it may take (default: for ever)"},
		}, feedFlags...),
		Action: c.push,
	})
}

func (c *command) push(ctx *cli.Context) error {
	cfg := patterns.PusherConfig[[]byte]{
		Channel: ctx.Args().First(), MaxDeliveries: ctx.Int("max-deliveries"), DeadLetters: ctx.String("dead-letters"),
	}
	if ctx.Bool("at-most-once") {
		cfg.Delivery = patterns.AtMostOnce
	}
	switch {
	case cfg.DeadLetters != "" && !ctx.IsSet("max-deliveries"):
		return usagef("push: --dead-letters goes with --max-deliveries")
	case ctx.Bool("at-most-once") && ctx.IsSet("max-deliveries"):
		return usagef("push: --max-deliveries and --at-most-once: what is not waited for is never delivered again")
	case ctx.IsSet("max-deliveries") && cfg.MaxDeliveries < 1:
		return usagef("push: --max-deliveries is %d: it must be positive", cfg.MaxDeliveries)
	case cfg.DeadLetters != "" && cfg.DeadLetters == cfg.Channel:
		return usagef("push: --dead-letters is %s, the channel of the jobs themselves: name another one", cfg.DeadLetters)
	}
	begin, err := c.feedOf(ctx)
	if err != nil {
		return err
	}
	return c.onNode(ctx, func(pushing context.Context, node *fabric.Node) error {
		if timeout := ctx.Duration("timeout"); timeout > 0 {
			var cancel context.CancelFunc
			pushing, cancel = context.WithTimeout(pushing, timeout)
			defer cancel()
		}
		p, err := patterns.OpenPusher(pushing, node, cfg)
		if err != nil {
			return channelError(err)
		}
		defer p.Close() // nothing, after Drain
		jobs := begin()
		for {
			_, body, err := jobs.Next(pushing)
			if err == io.EOF {
				break
			}
			if err == nil {
				err = p.Push(pushing, body)
			}
			if err != nil {
				return errors.Join(late(ctx, pushing, err), settled(p.Stats()))
			}
		}
		if err := p.Drain(pushing); err != nil {
			return errors.Join(late(ctx, pushing, err), settled(p.Stats()))
		}
		return nil
	})
}

// settled says how far a pusher was that did not come to its end.
func settled(s patterns.PusherStats) error {
	return fmt.Errorf("of %d jobs pushed, %d are done, with %d workers there", s.Pushed, s.Settled, len(s.Workers))
}

// late is err, with what it means if the time of --timeout is over.
func late(ctx *cli.Context, limited context.Context, err error) error {
	if limited.Err() == context.DeadlineExceeded && ctx.Err() == nil {
		return fmt.Errorf("%s: not done after %v", ctx.Command.Name, ctx.Duration("timeout"))
	}
	return err
}

// channelError is a usage error if the command line has asked for what there is not.
func channelError(err error) error {
	if errors.Is(err, fabric.ErrConfig) || errors.Is(err, directory.ErrInvalid) || errors.As(err, new(*patterns.PatternError)) {
		return usageError{err}
	}
	return err
}

// idle ends a context when nothing has happened for a while; 0 is for ever.
type idle struct {
	timer *time.Timer
	after time.Duration
}

func newIdle(ctx context.Context, after time.Duration) (context.Context, *idle) {
	if after <= 0 {
		return ctx, &idle{}
	}
	ctx, cancel := context.WithCancel(ctx)
	return ctx, &idle{time.AfterFunc(after, cancel), after}
}

// begin says that something happens now, and end that it is over.
func (i *idle) begin() {
	if i.timer != nil {
		i.timer.Stop()
	}
}

func (i *idle) end() {
	if i.timer != nil {
		i.timer.Reset(i.after)
	}
}
