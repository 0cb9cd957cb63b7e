package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/fabric/directory"
)

func (c *command) dirWatchCommand() *cli.Command {
	return c.newDirCommand(&cli.Command{
		Name:      "watch",
		Usage:     "tell which nodes, or members of a channel, are there, come and go",
		ArgsUsage: "[CHANNEL]",
		Description: "A line for each that is there, one that says `synced`, and a line for each that comes or goes,\n" +
			"until it is interrupted. One that goes because nobody has renewed its lease has `expired`. It lasts\n" +
			"while the directory is restarted. With --format json each line is an object.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "once", Usage: "end when all that are there have been told"}},
		Action: c.dirWatch,
	})
}

// A dirEvent is a line of a watch.
type dirEvent struct {
	Event       string     `json:"event"`
	Revision    uint64     `json:"revision"`
	Expired     bool       `json:"expired,omitempty"` // of removed: nobody has renewed the lease
	Member      *dirMember `json:"member,omitempty"`
	WarmingSecs float64    `json:"warming_seconds,omitempty"`
}

func (c *command) dirWatch(ctx *cli.Context) error {
	if ctx.NArg() > 1 {
		return usagef("dir watch: name one channel at most")
	}
	return c.askDirectory(ctx, func(asking context.Context, d *directory.Client) error {
		var w directory.Watcher
		var err error
		if channel := ctx.Args().First(); channel != "" {
			w, err = d.Watch(asking, channel)
		} else {
			w, err = d.WatchNodes(asking)
		}
		if err != nil {
			return err
		}
		defer w.Close()
		return c.writeEvents(ctx, w)
	})
}

// writeEvents writes what the watcher tells, until it is interrupted.
func (c *command) writeEvents(ctx *cli.Context, w directory.Watcher) error {
	for {
		e, err := w.Next(ctx.Context)
		if ctx.Err() != nil {
			return nil // as it should end
		}
		if err != nil {
			return err
		}
		if err := c.writeEvent(ctx, e); err != nil {
			return err
		}
		if e.Kind == directory.Synced {
			c.tellWarming(e.Warming)
			if ctx.Bool("once") {
				return nil
			}
		}
	}
}

func (c *command) writeEvent(ctx *cli.Context, e directory.Event) error {
	if ctx.String("format") == formatJSON {
		line := dirEvent{Event: e.Kind.String(), Revision: e.Revision, Expired: e.Expired, WarmingSecs: e.Warming.Seconds()}
		if e.Kind != directory.Synced {
			m := dirMemberOf(directory.Candidate{Member: e.Member, Node: e.Node})
			line.Member = &m
		}
		return json.NewEncoder(c.stdout).Encode(line)
	}
	what := e.Kind.String()
	if e.Expired {
		what = "expired"
	}
	var err error
	switch {
	case e.Kind == directory.Synced:
		_, err = fmt.Fprintln(c.stdout, "synced")
	case e.Member.Channel == "":
		_, err = fmt.Fprintf(c.stdout, "%s %s %s\n", what, e.Node.Name, orDash(e.Node.Endpoint))
	default:
		_, err = fmt.Fprintf(c.stdout, "%s %v %v %s\n", what, e.Member.Role, e.Member, orDash(e.Node.Endpoint))
	}
	return err
}
