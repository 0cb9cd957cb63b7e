package main

import (
	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/runner"
)

// nodeCommandName is what a parent starts itself with, once for each node.
const nodeCommandName = "node-run"

// nodeCommand is one node of a run: not for people.
func (c *command) nodeCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:   nodeCommandName,
		Hidden: true,
		Flags:  []cli.Flag{verboseFlag},
		Action: func(ctx *cli.Context) error {
			return runner.Child(ctx.Context, c.stdin, c.stdout, logs.New(c.stderr, ctx.Bool("verbose")))
		},
	})
}
