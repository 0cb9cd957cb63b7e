package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/runner"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

func (c *command) runCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:      "run",
		Usage:     "run a topology, check every message, and judge its expectations",
		ArgsUsage: "FILE",
		Description: "Exit codes: 0 passed, 1 an expectation failed, 2 inconclusive (too little was\n" +
			"measured to say), 64 usage, 65 bad topology file, 69 unreachable, 130 interrupted.\n\n" +
			"Metrics that an expectation can name:\n" + metricHelp(),
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "runner", Value: string(runner.Embedded),
				Usage: "`embedded|process|remote|compose`: all nodes in this process, each in one of its own, in processes that others start\n" +
					"\twith zfab member, or each in a container",
			},
			&cli.StringFlag{Name: "control", Usage: "`host:port` at which the members of the remote runner reach this process"},
			&cli.StringFlag{Name: "env", Usage: "`VARIABLE` of the environment that holds the topology, instead of FILE"},
			&cli.DurationFlag{Name: "timeout", Value: 2 * time.Minute, Usage: "`duration` from the start of the load; what has not arrived by then is lost"},
			// For the tests of the check itself: break one message and see the run fail.
			&cli.StringFlag{Name: "plant", Hidden: true},
			verboseFlag,
		},
		Action: c.run,
	})
}

// runnerFlag is that of commands whose nodes this program starts.
var runnerFlag = &cli.StringFlag{
	Name:  "runner",
	Value: string(runner.Embedded),
	Usage: "`embedded|process`: all nodes in this process, or each in one of its own",
}

var verboseFlag = &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "tell what the nodes log, not only warnings"}

func (c *command) run(ctx *cli.Context) error {
	if variable := ctx.String("env"); ctx.NArg() > 1 || (ctx.NArg() == 1) == (variable != "") {
		return usagef("run: name one topology file, or with --env a variable that holds it")
	}
	options, err := c.runnerOptions(ctx, runner.Kinds)
	if err != nil {
		return err
	}
	if options.Control = ctx.String("control"); (options.Control != "") != (options.Kind == runner.Remote) {
		return usagef("run: --control goes with --runner %s, which needs it", runner.Remote)
	}
	if options.Control != "" {
		if err := runner.CheckControl(options.Control); err != nil {
			return usagef("run: --control: %w", err)
		}
	}
	options.Timeout = ctx.Duration("timeout")
	if options.Timeout <= 0 {
		return usagef("run: the timeout must be more than nothing")
	}
	options.Plant = runner.Plant(ctx.String("plant"))
	if options.Plant != runner.PlantNothing && !slices.Contains(runner.Plants, options.Plant) {
		return usagef("run: unknown plant %q; known are: %s", options.Plant, words(runner.Plants))
	}
	options.Waiting = func(addr string, members int) {
		fmt.Fprintf(c.stderr, "zfab: waiting for %d members: zfab member --control %s\n", members, addr)
	}
	t, text, err := c.topology(ctx)
	if err != nil {
		return err
	}
	if options.Kind == runner.Compose {
		return c.runComposed(ctx, t, text, options)
	}
	progress := c.newProgress("received", expectedMessages(t))
	options.Progress = progress.set
	r, err := runner.Run(ctx.Context, t, options)
	progress.end()
	if err != nil {
		return err
	}
	return c.answerReport(ctx, r)
}

// answerReport prints a report; the error is its outcome.
func (c *command) answerReport(ctx *cli.Context, r *report.Report) error {
	if err := c.answer(ctx, r, r.WriteTable); err != nil {
		return err
	}
	switch r.Outcome {
	case report.Failed:
		return errFailed
	case report.Inconclusive:
		return errInconclusive
	}
	return nil
}

func metricHelp() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, m := range report.Metrics {
		fmt.Fprintf(t, "  %s\t%s\n", m.Name, m.Help)
	}
	t.Flush()
	return b.String()
}

// runnerOptions are those that all commands with nodes have in common.
func (c *command) runnerOptions(ctx *cli.Context, known []runner.Kind) (runner.Options, error) {
	kind := runner.Kind(ctx.String("runner"))
	if !slices.Contains(known, kind) {
		return runner.Options{}, usagef("unknown runner %q; known are: %s", kind, words(known))
	}
	command, err := c.self(ctx, nodeCommandName)
	if err != nil {
		return runner.Options{}, err
	}
	return runner.Options{Kind: kind, Logger: logs.New(c.stderr, ctx.Bool("verbose")), Command: command, Stderr: c.stderr}, nil
}

// topology is what a run's arguments name, with its text.
func (c *command) topology(ctx *cli.Context) (*topology.Topology, string, error) {
	variable := ctx.String("env")
	if variable == "" {
		return c.topologyText(ctx.Args().First())
	}
	text, set := os.LookupEnv(variable)
	if !set {
		return nil, "", fileError{fmt.Errorf("the environment has no variable %s", variable)}
	}
	t, err := topology.Parse("$"+variable, []byte(text))
	return t, text, err
}

// topologyText is topologyFile with the file's text.
func (c *command) topologyText(name string) (*topology.Topology, string, error) {
	t, err := c.topologyFile(name)
	if err != nil {
		return nil, "", err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, "", fileError{err}
	}
	return t, string(text), nil
}

// topologyFile reads a file; one that cannot be read is as bad as a wrong one.
func (c *command) topologyFile(name string) (*topology.Topology, error) {
	t, err := topology.ReadFile(name)
	if err != nil {
		return nil, fileError{err}
	}
	return t, nil
}

// expectedMessages is how many deliveries a topology makes; 0 where time
// decides.
func expectedMessages(t *topology.Topology) int64 {
	total := int64(0)
	for _, l := range t.Loads {
		if l.Duration > 0 {
			return 0
		}
		channel, _ := t.Channel(l.Channel)
		n := int64(l.Messages) * int64(t.Nodes*channel.Producers)
		if l.Spread == topology.All {
			n *= int64(channel.AllConsumers(t.Nodes))
		}
		total += n
	}
	return total
}

func words[T ~string](known []T) string {
	var all []string
	for _, k := range known {
		all = append(all, string(k))
	}
	return strings.Join(all, ", ")
}
