package main

import (
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// A command is one invocation: what it was given and where it answers.
type command struct {
	args   []string
	stdin  io.Reader
	stdout *outlet
	stderr io.Writer
}

func (c *command) app() *cli.App {
	return &cli.App{
		Name:                 "zfab",
		Usage:                "run, check and measure exchanges over one link per pair of nodes",
		Version:              version().Version,
		HideVersion:          true,                     // `zfab version` says it
		Flags:                []cli.Flag{cli.HelpFlag}, // which the library gives only an app without a command help
		HideHelpCommand:      true,
		Writer:               c.stdout,
		ErrWriter:            c.stderr,
		EnableBashCompletion: true,
		Suggest:              true,
		Action:               c.noCommand,
		OnUsageError:         c.badFlags,
		ExitErrHandler:       func(*cli.Context, error) {}, // run decides
		Commands: []*cli.Command{
			c.runCommand(),
			c.validateCommand(),
			c.benchCommand(),
			c.wordcountCommand(),
			c.memberCommand(),
			c.exportCommand(),
			c.pushCommand(),
			c.pullCommand(),
			c.reqCommand(),
			c.repCommand(),
			c.surveyCommand(),
			c.respondCommand(),
			c.pubCommand(),
			c.subCommand(),
			c.hostNodeCommand(),
			c.directoryCommand(),
			c.dirCommand(),
			c.versionCommand(),
			c.completionCommand(),
			c.helpCommand(),
			c.nodeCommand(),
			c.benchEndCommand(),
			c.wordcountNodeCommand(),
		},
	}
}

// noCommand is what happens when no known command is named.
func (c *command) noCommand(ctx *cli.Context) error {
	var names []string
	for _, command := range ctx.App.VisibleCommands() {
		names = append(names, command.Name)
	}
	if name := ctx.Args().First(); name != "" {
		return usagef("unknown command %q; known are: %s", name, strings.Join(names, ", "))
	}
	return usagef("name a command: %s (zfab --help says more)", strings.Join(names, ", "))
}

func (c *command) badFlags(ctx *cli.Context, err error, _ bool) error {
	if path := path(ctx); path != "" {
		return usagef("%s: %w (zfab %s --help tells the flags)", path, err, path)
	}
	return usagef("%w (zfab --help tells the commands)", err)
}

// path is the command as it was called, without the program: `dir ls`.
func path(ctx *cli.Context) string {
	_, path, _ := strings.Cut(ctx.Command.HelpName, " ")
	return path
}

// newCommand gives a command what all have: --format, usage errors of our own,
// and the check of its arguments.
func (c *command) newCommand(command *cli.Command) *cli.Command {
	action := command.Action
	command.Flags = append(command.Flags, formatFlag)
	command.OnUsageError = c.badFlags
	command.HideHelpCommand = true
	command.Action = func(ctx *cli.Context) error {
		if err := c.checkArguments(ctx); err != nil {
			return err
		}
		if err := checkFormat(ctx); err != nil {
			return err
		}
		return action(ctx)
	}
	return command
}

// checkArguments refuses a flag that stands after an argument: the library
// would take it for one more argument and say nothing. What follows `--` is
// meant as it is.
func (c *command) checkArguments(ctx *cli.Context) error {
	arguments := ctx.Args().Slice()
	if i := slices.Index(c.args, "--"); i >= 0 {
		arguments = arguments[:max(0, len(arguments)-(len(c.args)-i-1))]
	}
	for _, a := range arguments {
		if strings.HasPrefix(a, "-") && a != "-" {
			return usagef("%s stands after an argument: flags come first, as in `zfab %s %s ...`", a, path(ctx), a)
		}
	}
	return nil
}
