package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/feed"
	"github.com/zfab/zfab/cmd/zfab/internal/lines"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/cmd/zfab/internal/units"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// The commands with which a shell script takes part in a pattern: push, pull, req,
// rep, survey, respond, pub, sub. Each is a node of its own for as long as it runs, and
// a message is a line of its standard input or output.

// maxLineBody is the largest message that they take, in bytes: fabric's default, with
// room for what a pattern puts before it.
const maxLineBody = 64<<20 - 1<<10

// newNetcatCommand gives such a command the flags that all of them have. Its first
// argument is a channel.
func (c *command) newNetcatCommand(command *cli.Command) *cli.Command {
	action := command.Action
	if command.ArgsUsage == "" {
		command.ArgsUsage = "CHANNEL"
	}
	command.Flags = append([]cli.Flag{
		&cli.StringFlag{
			Name: "directory", Aliases: []string{"d"}, EnvVars: []string{"ZFAB_DIRECTORY"},
			Usage: "`address` of the fabric's directory, or of several, separated by commas",
		},
		&cli.StringFlag{Name: "name", Usage: "`name` of the node that the command is (default: the command's, and something random)"},
		&cli.StringFlag{Name: "listen", Usage: "`address` at which other nodes reach this one (default: some port on loopback)"},
		&cli.StringFlag{Name: "format", Value: string(lines.Raw), Usage: "`raw|json|hex`: how a message is a line"},
		verboseFlag,
	}, command.Flags...)
	command.OnUsageError = c.badFlags
	command.HideHelpCommand = true
	command.Action = func(ctx *cli.Context) error {
		if err := c.checkArguments(ctx); err != nil {
			return err
		}
		name := ctx.Command.Name
		switch {
		case ctx.NArg() == 0 || command.ArgsUsage == "CHANNEL" && ctx.NArg() > 1:
			return usagef("%s: name one channel", name)
		case ctx.String("directory") == "":
			return usagef("%s: say where the directory is, with --directory or ZFAB_DIRECTORY", name)
		case !slices.Contains(lines.Formats, lines.Format(ctx.String("format"))):
			return usagef("%s: unknown format %q; known are: %s", name, ctx.String("format"), words(lines.Formats))
		case ctx.Int("count") < 0, ctx.IsSet("count") && ctx.Int("count") == 0:
			return usagef("%s: --count is %d: it must be positive", name, ctx.Int("count"))
		case ctx.IsSet("timeout") && ctx.Duration("timeout") <= 0:
			return usagef("%s: --timeout is %v: it must be positive", name, ctx.Duration("timeout"))
		}
		return action(ctx)
	}
	return command
}

var (
	feedFlags = []cli.Flag{
		&cli.IntFlag{Name: "count", Usage: "end after so many `messages` (default: at the end of the input)"},
		&cli.Float64Flag{Name: "rate", Usage: "`messages` per second at the most (default: no limit)"},
		&cli.StringFlag{Name: "size", Usage: "make messages up, of so many `bytes`, like 64 or 1KiB, instead of reading them"},
	}
	countFlag = &cli.IntFlag{Name: "count", Usage: "end after so many `messages` (default: never)"}
	execFlag  = &cli.StringFlag{Name: "exec", Usage: "run a shell `command` for each message, which is its standard input: as it is or, with --format json or hex, a line"}
)

// feedOf is where a command's messages come from: what it returns begins to read.
func (c *command) feedOf(ctx *cli.Context) (begin func() *feed.Feed, err error) {
	cfg := feed.Config{
		In: c.stdin, Format: lines.Format(ctx.String("format")), Most: maxLineBody,
		Count: ctx.Int("count"), Rate: ctx.Float64("rate"),
	}
	if ctx.IsSet("size") {
		size, err := units.ParseSize(ctx.String("size"))
		if err != nil || size < 0 || size > maxLineBody {
			return nil, usagef("%s: --size is %q: give 0 to %s", ctx.Command.Name, ctx.String("size"), units.Size(maxLineBody))
		}
		cfg.Made, cfg.Size = true, int(size)
	}
	if ctx.IsSet("rate") && !(cfg.Rate >= topology.MinRate && cfg.Rate <= topology.MaxRate) { // also NaN is none
		return nil, usagef("%s: --rate is %v: give %.6f to %.0f, or leave it out for no limit", ctx.Command.Name, cfg.Rate, topology.MinRate, topology.MaxRate)
	}
	return func() *feed.Feed { return feed.New(cfg) }, nil
}

// onNode opens the node that the command is, and calls do with it.
func (c *command) onNode(ctx *cli.Context, do func(context.Context, *fabric.Node) error) (err error) {
	logger := logs.New(c.stderr, ctx.Bool("verbose"))
	dir, err := dialDirectory(ctx, directory.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer dir.Close()
	name := ctx.String("name")
	if name == "" {
		name = ctx.Command.Name + "-" + strings.ToLower(rand.Text()[:8])
	}
	node, err := openNode(ctx.Context, fabric.Config{Name: name, Listen: ctx.String("listen"), Directory: dir, Logger: logger}, logger)
	if err != nil {
		return err
	}
	defer func() {
		logs.Hush(logger)
		err = errors.Join(err, node.Close())
	}()
	return do(ctx.Context, node)
}

// interrupted reports whether ctx has ended because the user wants it so: that is
// how what serves without a count ends, and no failure.
func interrupted(ctx *cli.Context, err error) bool {
	return err != nil && ctx.Err() != nil && ctx.Int("count") == 0
}

// A shellError is that a command of --exec has failed.
type shellError struct {
	command string
	err     error
	said    string
}

func (e *shellError) Error() string {
	return fmt.Sprintf("%q: %v: %s", e.command, e.err, strings.TrimSpace(e.said))
}

func (e *shellError) Unwrap() error { return e.err }

// maxSaid is how much of what a failed command says is told, in bytes.
const maxSaid = 1 << 10

// shell runs the command of --exec on a message, and returns its standard output.
func shell(ctx context.Context, command string, body []byte, environment ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	x := exec.CommandContext(ctx, "sh", "-c", command)
	x.Stdin, x.Stdout, x.Stderr = bytes.NewReader(body), &bounded{b: &stdout, most: maxLineBody}, &bounded{b: &stderr, most: maxSaid, quiet: true}
	x.Env = append(os.Environ(), environment...)
	killWithChildren(x)
	x.WaitDelay = time.Second // for what has left its group
	if err := x.Run(); err != nil {
		return nil, &shellError{command, err, stderr.String()}
	}
	return stdout.Bytes(), nil
}

// commandInput is what the command of --exec reads for a message.
func commandInput(format lines.Format, l lines.Line, body []byte) ([]byte, error) {
	if format == lines.Raw {
		return body, nil
	}
	var line bytes.Buffer
	err := lines.NewWriter(&line, format).Write(l, body)
	return line.Bytes(), err
}

// commandAnswer is the message that the command has written: all up to a last newline or,
// with the formats json and hex, its first line.
func commandAnswer(format lines.Format, command string, said []byte) ([]byte, error) {
	if format == lines.Raw {
		return bytes.TrimSuffix(said, []byte{'\n'}), nil
	}
	_, answer, err := lines.NewReader(bytes.NewReader(said), format, maxLineBody).Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%q has written no answer", command)
	case err != nil:
		return nil, fmt.Errorf("what %q has written is no answer in the format %s: %w", command, format, err)
	}
	return answer, nil
}

// bounded takes most bytes. What comes then is an error or, if it is quiet,
// dropped.
type bounded struct {
	b     *bytes.Buffer
	most  int
	quiet bool
}

func (w *bounded) Write(p []byte) (int, error) {
	if room := w.most - w.b.Len(); len(p) > room {
		if !w.quiet {
			return 0, fmt.Errorf("more than %d bytes", w.most)
		}
		w.b.Write(p[:room])
		return len(p), nil
	}
	return w.b.Write(p)
}
