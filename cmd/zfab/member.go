package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/runner"
)

func (c *command) memberCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:  "member",
		Usage: "be one of the nodes of `zfab run --runner remote`, on this or another host",
		Description: "It waits until the run is there, is the node that it is told to be, and ends with the run.\n" +
			"The node listens at the address from which this host reaches the run.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "control", Usage: "`host:port` that the run was given as --control"},
			&cli.IntFlag{Name: "node", Usage: "`number` of the node to be, from 1 (default: any that is free)"},
			&cli.StringFlag{Name: "attach", Usage: "be a worker of the node that takes some at this `address`, instead of a node of its own"},
			&cli.DurationFlag{Name: "wait", Value: time.Minute, Usage: "how long to wait for the run"},
			verboseFlag,
		},
		Action: c.member,
	})
}

func (c *command) member(ctx *cli.Context) error {
	control, node, wait := ctx.String("control"), ctx.Int("node"), ctx.Duration("wait")
	switch {
	case ctx.NArg() > 0:
		return usagef("member takes no arguments")
	case control == "":
		return usagef("member: say with --control where the run is")
	case node < 0:
		return usagef("member: --node is %d: nodes are counted from 1", node)
	case wait <= 0:
		return usagef("member: --wait is %v: it must be positive", wait)
	}
	if err := runner.CheckControl(control); err != nil {
		return usagef("member: --control: %w", err)
	}
	m := runner.Membership{Control: control, Place: node, Wait: wait, Attach: ctx.String("attach")}
	return runner.Join(ctx.Context, m, logs.New(c.stderr, ctx.Bool("verbose")))
}
