package main

import (
	"encoding/json"
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	"github.com/urfave/cli/v2"
)

// An outlet is the standard output.
type outlet struct {
	w        io.Writer
	unwanted atomic.Bool // its reader has gone
}

func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		o.unwanted.Store(true)
	}
	return n, err
}

const (
	formatTable = "table"
	formatJSON  = "json"
)

var formatFlag = &cli.StringFlag{
	Name:  "format",
	Value: formatTable,
	Usage: "`table|json`: the answer for people or for programs",
}

func checkFormat(ctx *cli.Context) error {
	if f := ctx.String("format"); f != formatTable && f != formatJSON {
		return usagef("unknown format %q; known are: %s, %s", f, formatTable, formatJSON)
	}
	return nil
}

// answer prints value on stdout as --format asks: as JSON, or with table.
func (c *command) answer(ctx *cli.Context, value any, table func(io.Writer) error) error {
	if ctx.String("format") == formatTable {
		return table(c.stdout)
	}
	e := json.NewEncoder(c.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
