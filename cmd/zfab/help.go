package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func (c *command) helpCommand() *cli.Command {
	return &cli.Command{
		Name:            "help",
		Usage:           "tell the commands, or the flags of one, as `zfab COMMAND --help` does",
		ArgsUsage:       "[COMMAND...]",
		HideHelpCommand: true,
		OnUsageError:    c.badFlags,
		Action:          c.help,
		BashComplete: func(ctx *cli.Context) {
			if commands, err := helpOn(ctx.App.Commands, ctx.Args().Slice()); err == nil {
				for _, command := range visible(commands) {
					fmt.Fprintln(c.stdout, command.Name)
				}
			}
		},
	}
}

func (c *command) help(ctx *cli.Context) error {
	if err := c.checkArguments(ctx); err != nil {
		return err
	}
	names := ctx.Args().Slice()
	if _, err := helpOn(ctx.App.Commands, names); err != nil {
		return err
	}
	return c.app().RunContext(ctx.Context, append(append([]string{ctx.App.Name}, names...), "--help"))
}

// helpOn follows names to the commands below the last of them.
func helpOn(commands []*cli.Command, names []string) ([]*cli.Command, error) {
next:
	for i, name := range names {
		var known []string
		for _, command := range visible(commands) {
			if command.Name == name {
				commands = command.Subcommands
				continue next
			}
			known = append(known, command.Name)
		}
		above := strings.Join(append([]string{"help"}, names[:i]...), " ")
		if len(known) == 0 {
			return nil, usagef("%s: it has no commands, and none is %q", above, name)
		}
		return nil, usagef("%s: unknown command %q; known are: %s", above, name, strings.Join(known, ", "))
	}
	return commands, nil
}

// visible are the commands that help tells of.
func visible(commands []*cli.Command) (all []*cli.Command) {
	for _, command := range commands {
		if !command.Hidden {
			all = append(all, command)
		}
	}
	return all
}
