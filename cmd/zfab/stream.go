package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// What commands share that take messages from the standard input, or write them to
// the standard output: a line for each.

const (
	lineRaw  = "raw"
	lineHex  = "hex"
	lineJSON = "json"

	// maxLine bounds a line of input: the largest message, in hexadecimal, with what
	// JSON has around it.
	maxLine = 130 << 20
)

var lineFormats = []string{lineRaw, lineJSON, lineHex}

// newStreamCommand gives a command what all of these have.
func (c *command) newStreamCommand(command *cli.Command) *cli.Command {
	action := command.Action
	command.Flags = append([]cli.Flag{
		&cli.StringFlag{
			Name: "directory", Aliases: []string{"d"}, EnvVars: []string{"ZFAB_DIRECTORY"},
			Usage: "`address` of the directory, or of several, separated by commas",
		},
		&cli.StringFlag{Name: "listen", Value: "tcp://127.0.0.1:0", Usage: "`address` at which other nodes reach this one"},
		&cli.StringFlag{Name: "name", Usage: "`name` of this node; by default one that nobody has"},
		&cli.StringFlag{Name: "format", Value: lineRaw, Usage: "`raw|json|hex`: what a line has of a message"},
		&cli.IntFlag{Name: "count", Usage: "end after so many messages"},
		&cli.DurationFlag{Name: "timeout", Usage: "fail if it takes longer"},
	}, command.Flags...)
	command.OnUsageError = c.badFlags
	command.HideHelpCommand = true
	command.Action = func(ctx *cli.Context) error {
		if err := c.checkArguments(ctx); err != nil {
			return err
		}
		switch format := ctx.String("format"); {
		case !slices.Contains(lineFormats, format):
			return usagef("unknown format %q; known are: %s", format, strings.Join(lineFormats, ", "))
		case ctx.String("directory") == "":
			return usagef("%s: say where the directory is, with --directory or ZFAB_DIRECTORY", command.Name)
		case ctx.Int("count") < 0:
			return usagef("%s: --count is %d: it must not be negative", command.Name, ctx.Int("count"))
		case ctx.Duration("timeout") < 0:
			return usagef("%s: --timeout is %v: it must not be negative", command.Name, ctx.Duration("timeout"))
		}
		return action(ctx)
	}
	return command
}

// errTimeout: a stream command took longer than --timeout.
var errTimeout = errors.New("not done in time (--timeout)")

// withNode opens a node for a stream command, and calls do within its --timeout.
func (c *command) withNode(ctx *cli.Context, do func(context.Context, *fabric.Node) error) error {
	within := ctx.Context
	if d := ctx.Duration("timeout"); d > 0 {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeoutCause(within, d, errTimeout)
		defer cancel()
	}
	logger := logs.New(c.stderr, false)
	client, err := directory.Dial(within, ctx.String("directory"), directory.Options{Logger: logger})
	if errors.Is(err, directory.ErrInvalid) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	defer client.Close()
	logs.Hush(logger) // links come and go with the peers' commands
	node, err := fabric.Open(within, fabric.Config{Name: ctx.String("name"), Listen: ctx.String("listen"), Directory: client, Logger: logger})
	if errors.Is(err, directory.ErrInvalid) {
		return usageError{err}
	}
	if err == nil {
		err = do(within, node)
		err = errors.Join(err, node.Close())
	}
	if err != nil && context.Cause(within) == errTimeout {
		return fmt.Errorf("%w: %w", errTimeout, err)
	}
	return err
}

// A line is a message as JSON has it.
type line struct {
	Topic     string  `json:"topic,omitempty"`
	Publisher string  `json:"publisher,omitempty"`
	Replayed  bool    `json:"replayed,omitempty"`
	Text      *string `json:"text,omitempty"` // the body, if that is UTF-8
	Hex       *string `json:"hex,omitempty"`  // or else this
	Missed    uint64  `json:"missed,omitempty"`
}

// body is what the line has as its message's body.
func (l *line) body() ([]byte, error) {
	switch {
	case (l.Text == nil) == (l.Hex == nil):
		return nil, errors.New(`give "text" or "hex"`)
	case l.Text != nil:
		return []byte(*l.Text), nil
	}
	return hex.DecodeString(*l.Hex)
}

// setBody makes body the line's.
func (l *line) setBody(body []byte) {
	text := string(body)
	if utf8.ValidString(text) {
		l.Text = &text
		return
	}
	text = hex.EncodeToString(body)
	l.Hex = &text
}

// writeLine writes a message.
func (c *command) writeLine(format string, l line, body []byte) error {
	var err error
	switch format {
	case lineJSON:
		l.setBody(body)
		err = c.writeJSONLine(l)
	case lineHex:
		_, err = fmt.Fprintf(c.stdout, "%x\n", body)
	default:
		_, err = fmt.Fprintf(c.stdout, "%s\n", body)
	}
	return err
}

func (c *command) writeJSONLine(l line) error {
	e := json.NewEncoder(c.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(l)
}

// readLines calls do with each line of the input, until there are count of them (0:
// any), its end, or ctx's. A line that is none in the format is a *fileError. Input
// that never comes does not keep it from ending with ctx.
func (c *command) readLines(ctx context.Context, format string, count int, do func(l line, body []byte) error) error {
	type read struct {
		text []byte
		err  error
	}
	lines := make(chan read)
	go func() { // ends with the input, or when nobody wants more of it; a read that waits ends with the process
		defer close(lines)
		in := bufio.NewScanner(c.stdin)
		in.Buffer(nil, maxLine)
		for in.Scan() {
			select {
			case lines <- read{text: slices.Clone(in.Bytes())}:
			case <-ctx.Done():
				return
			}
		}
		if err := in.Err(); err != nil && err != io.ErrClosedPipe {
			select {
			case lines <- read{err: err}:
			case <-ctx.Done():
			}
		}
	}()
	for n := 1; count == 0 || n <= count; n++ {
		var r read
		var more bool
		select {
		case r, more = <-lines:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return nil
		}
		if r.err != nil {
			return fileError{fmt.Errorf("standard input: %w", r.err)}
		}
		l, body, err := parseLine(format, r.text)
		if err != nil {
			return fileError{fmt.Errorf("line %d: %w", n, err)}
		}
		if err := do(l, body); err != nil {
			return err
		}
	}
	return nil
}

func parseLine(format string, text []byte) (l line, body []byte, err error) {
	switch format {
	case lineJSON:
		if err = json.Unmarshal(text, &l); err == nil {
			body, err = l.body()
		}
	case lineHex:
		body, err = hex.DecodeString(strings.TrimSpace(string(text)))
	default:
		body = text
	}
	return l, body, err
}

// A paced loop does so many things per second; 0: as fast as it goes.
type paced struct {
	rate float64
	done int
	from time.Time
}

// wait waits until it is time for the next one, or ctx ends.
func (p *paced) wait(ctx context.Context) error {
	if p.rate == 0 {
		return ctx.Err()
	}
	if p.done == 0 {
		p.from = time.Now()
	}
	at := p.from.Add(time.Duration(float64(p.done) / p.rate * float64(time.Second)))
	p.done++
	left := time.Until(at)
	if left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
