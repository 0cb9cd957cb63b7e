package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/runner"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/cmd/zfab/internal/wordcount"
)

// wordcountCommandName is what a count starts itself with for each node.
const wordcountCommandName = "wordcount-run"

func (c *command) wordcountCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:      "wordcount",
		Usage:     "count the words of files over an exchange by key",
		ArgsUsage: "PATH...",
		Description: "Prints `count word` lines, most frequent first, ties by word. A word is\n" +
			"[A-Za-z_][A-Za-z0-9_]*, in files of any kind, and directories are walked without\n" +
			"following links; the answer is that of, but for the order of ties,\n\n" +
			"  LC_ALL=C grep -raohE '[A-Za-z_][A-Za-z0-9_]*' PATH... | sort | uniq -c | sort -rn",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "nodes", Value: 4, Usage: "`number` of nodes, each with mappers and reducers"},
			runnerFlag,
			&cli.IntFlag{Name: "top", Usage: "print only the `number` most frequent words (default: all)"},
			verboseFlag,
		},
		Action: c.wordcount,
	})
}

func (c *command) wordcount(ctx *cli.Context) error {
	if ctx.NArg() == 0 {
		return usagef("wordcount: name at least one file or directory")
	}
	nodes, top := ctx.Int("nodes"), ctx.Int("top")
	if nodes < 1 || nodes > topology.MaxNodes {
		return usagef("wordcount: the number of nodes must be from 1 to %d", topology.MaxNodes)
	}
	if top < 0 {
		return usagef("wordcount: the number of words to print must not be negative")
	}
	options, err := c.runnerOptions(ctx, []runner.Kind{runner.Embedded, runner.Process})
	if err != nil {
		return err
	}
	o := wordcount.Options{Nodes: nodes, Process: options.Kind == runner.Process, Stderr: c.stderr, Logger: options.Logger}
	if o.Command, err = c.self(ctx, wordcountCommandName); err != nil {
		return err
	}
	progress := c.newProgress("files read", 0)
	o.Progress = func(read, files int) { progress.of(uint64(read), int64(files)) }
	r, err := wordcount.Run(ctx.Context, ctx.Args().Slice(), o)
	progress.end()
	var bad *wordcount.FileError
	if errors.As(err, &bad) {
		return fileError{err}
	}
	if err != nil {
		return err
	}
	if top > 0 {
		r.Counts = r.Counts[:min(top, len(r.Counts))]
	}
	return c.answer(ctx, r, func(w io.Writer) error { return writeCounts(w, r.Counts) })
}

func writeCounts(w io.Writer, counts []wordcount.Count) error {
	b := bufio.NewWriter(w)
	for _, k := range counts {
		fmt.Fprintf(b, "%d %s\n", k.Count, k.Word)
	}
	return b.Flush()
}

// wordcountNodeCommand is one node of a count: not for people.
func (c *command) wordcountNodeCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:   wordcountCommandName,
		Hidden: true,
		Flags:  []cli.Flag{verboseFlag},
		Action: func(ctx *cli.Context) error {
			return wordcount.Child(ctx.Context, c.stdin, c.stdout, logs.New(c.stderr, ctx.Bool("verbose")))
		},
	})
}
