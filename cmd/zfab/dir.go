package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric/directory"
)

func (c *command) dirCommand() *cli.Command {
	commands := []*cli.Command{
		c.dirLsCommand(), c.dirGetCommand(), c.dirWatchCommand(), c.dirRmCommand(), c.dirCheckCommand(),
	}
	var names []string
	for _, command := range commands {
		names = append(names, command.Name)
	}
	return &cli.Command{
		Name:            "dir",
		Usage:           "ask a directory who is there: ls, get, watch, rm, check",
		HideHelpCommand: true,
		OnUsageError:    c.badFlags,
		Subcommands:     commands,
		Action: func(ctx *cli.Context) error {
			if name := ctx.Args().First(); name != "" {
				return usagef("dir: unknown command %q; known are: %s", name, strings.Join(names, ", "))
			}
			return usagef("dir: name a command: %s", strings.Join(names, ", "))
		},
	}
}

// newDirCommand gives a command of dir the flags that all of them have.
func (c *command) newDirCommand(command *cli.Command) *cli.Command {
	command.Flags = append([]cli.Flag{
		&cli.StringFlag{
			Name: "directory", Aliases: []string{"d"}, EnvVars: []string{"ZFAB_DIRECTORY"},
			Usage: "`address` of the directory, or of several, separated by commas",
		},
		&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long to wait for an answer"},
	}, command.Flags...)
	return c.newCommand(command)
}

// dialDirectory connects to what --directory names.
func dialDirectory(ctx *cli.Context, options directory.Options) (*directory.Client, error) {
	client, err := directory.Dial(ctx.Context, ctx.String("directory"), options)
	if errors.Is(err, directory.ErrInvalid) {
		return nil, usageError{err}
	}
	return client, err
}

// askDirectory connects to the directory and calls do with the client.
func (c *command) askDirectory(ctx *cli.Context, do func(context.Context, *directory.Client) error) error {
	name, addr, timeout := ctx.Command.Name, ctx.String("directory"), ctx.Duration("timeout")
	if addr == "" {
		return usagef("dir %s: say where the directory is, with --directory or ZFAB_DIRECTORY", name)
	}
	if timeout <= 0 {
		return usagef("dir %s: --timeout is %v: it must be positive", name, timeout)
	}
	client, err := dialDirectory(ctx, directory.Options{Timeout: timeout, Logger: logs.New(c.stderr, false)})
	if err != nil {
		return err
	}
	defer client.Close()
	err = do(ctx.Context, client)
	if errors.Is(err, directory.ErrInvalid) {
		return usageError{err}
	}
	return err
}

// A dirNode is a node in an answer.
type dirNode struct {
	Name        string  `json:"name"`
	Incarnation uint64  `json:"incarnation"`
	Endpoint    string  `json:"endpoint"`
	Zone        string  `json:"zone,omitempty"`
	Host        string  `json:"host,omitempty"`
	Weight      uint32  `json:"weight"`
	Load        uint32  `json:"load"`
	LeaseSecs   float64 `json:"lease_seconds,omitempty"`
	State       string  `json:"state,omitempty"`
}

// A dirMember is a member of a channel in an answer.
type dirMember struct {
	Channel string  `json:"channel,omitempty"`
	Role    string  `json:"role,omitempty"`
	Index   int     `json:"index"`
	Node    dirNode `json:"node"`
}

func dirNodeOf(n directory.NodeInfo, load uint32) dirNode {
	return dirNode{
		Name: n.Name, Incarnation: n.Incarnation, Endpoint: n.Endpoint, Zone: n.Zone, Host: n.Host,
		Weight: max(1, n.Weight), Load: load,
	}
}

func dirEntryOf(e directory.Entry) dirNode {
	n := dirNodeOf(e.Node, e.Load)
	n.LeaseSecs = e.Lease.Round(time.Millisecond).Seconds()
	n.State = "live"
	if e.Orphan {
		n.State = "orphan"
	}
	return n
}

func dirMemberOf(c directory.Candidate) dirMember {
	m := dirMember{Channel: c.Member.Channel, Index: c.Member.Index, Node: dirNodeOf(c.Node, c.Load)}
	if c.Member.Role != 0 {
		m.Role = c.Member.Role.String()
	}
	return m
}

// tellWarming says, beside an answer, that it may lack something.
func (c *command) tellWarming(warming time.Duration) {
	if warming > 0 {
		fmt.Fprintf(c.stderr, "zfab: the directory has started empty: for %v more, nodes may be missing that have not registered again\n",
			warming.Round(time.Millisecond))
	}
}

// orDash is a cell that is never empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func writeNodes(w io.Writer, nodes []dirNode) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tINCARNATION\tENDPOINT\tZONE\tHOST\tWEIGHT\tLOAD\tLEASE\tSTATE")
	for _, n := range nodes {
		lease := "-"
		if n.LeaseSecs > 0 {
			lease = fmt.Sprintf("%.1fs", n.LeaseSecs)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", n.Name, n.Incarnation, orDash(n.Endpoint),
			orDash(n.Zone), orDash(n.Host), n.Weight, n.Load, lease, n.State)
	}
	return t.Flush()
}

func writeMembers(w io.Writer, members []dirMember) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ROLE\tNODE\tINDEX\tENDPOINT\tZONE\tHOST\tWEIGHT\tLOAD")
	for _, m := range members {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%d\t%d\n", orDash(m.Role), m.Node.Name, m.Index, orDash(m.Node.Endpoint),
			orDash(m.Node.Zone), orDash(m.Node.Host), m.Node.Weight, m.Node.Load)
	}
	return t.Flush()
}
