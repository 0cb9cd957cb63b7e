package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/fabric/directory"
)

// What `zfab dir` asks and is answered at once.

func (c *command) dirLsCommand() *cli.Command {
	return c.newDirCommand(&cli.Command{
		Name:        "ls",
		Usage:       "list the nodes, the members of a channel, or the channels",
		ArgsUsage:   "[CHANNEL]",
		Description: "A node is `live` while it is connected to the directory, else an `orphan`, until its lease ends.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "channels", Usage: "list the channels that have members"}},
		Action:      c.dirLs,
	})
}

func (c *command) dirLs(ctx *cli.Context) error {
	channel := ctx.Args().First()
	if ctx.NArg() > 1 || channel != "" && ctx.Bool("channels") {
		return usagef("dir ls: name one channel at most, and none with --channels")
	}
	return c.askDirectory(ctx, func(asking context.Context, d *directory.Client) error {
		status, err := d.Status(asking)
		if err != nil {
			return err
		}
		list := dirList{Channel: channel, WarmingSecs: status.Warming.Seconds()}
		switch {
		case ctx.Bool("channels"):
			err = list.channels(asking, d)
		case channel != "":
			err = list.members(asking, d)
		default:
			err = list.nodes(asking, d)
		}
		if err != nil {
			return err
		}
		c.tellWarming(status.Warming)
		return c.answer(ctx, list, list.write)
	})
}

// A dirList is one of three lists.
type dirList struct {
	Nodes       []dirNode   `json:"nodes,omitzero"`
	Channels    []string    `json:"channels,omitzero"`
	Channel     string      `json:"channel,omitempty"`
	Members     []dirMember `json:"members,omitzero"`
	WarmingSecs float64     `json:"warming_seconds"`
}

func (l *dirList) channels(ctx context.Context, d *directory.Client) error {
	names, err := d.Channels(ctx)
	l.Channels = append([]string{}, names...)
	return err
}

func (l *dirList) members(ctx context.Context, d *directory.Client) error {
	roster, err := d.Roster(ctx, l.Channel, 0)
	l.Members = make([]dirMember, 0, len(roster.Candidates))
	for _, m := range roster.Candidates {
		l.Members = append(l.Members, dirMemberOf(m))
	}
	return err
}

func (l *dirList) nodes(ctx context.Context, d *directory.Client) error {
	entries, err := d.Entries(ctx)
	l.Nodes = make([]dirNode, 0, len(entries))
	for _, e := range entries {
		l.Nodes = append(l.Nodes, dirEntryOf(e))
	}
	return err
}

func (l *dirList) write(w io.Writer) error {
	switch {
	case l.Channels != nil:
		_, err := io.WriteString(w, strings.Join(append(l.Channels, ""), "\n"))
		return err
	case l.Members != nil:
		return writeMembers(w, l.Members)
	}
	return writeNodes(w, l.Nodes)
}

func (c *command) dirGetCommand() *cli.Command {
	return c.newDirCommand(&cli.Command{
		Name:      "get",
		Usage:     "look a node up, or have the directory choose a member of a channel",
		ArgsUsage: "[NODE]",
		Description: "Without NODE the directory chooses: a member of --channel, or else a node, by --policy.\n" +
			"Exit code 1: there is none. 2: the directory has started empty and cannot tell yet.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "channel", Usage: "choose a member of the `channel`"},
			&cli.StringFlag{Name: "role", Usage: "`producer|consumer`: choose among these only"},
			&cli.StringFlag{Name: "policy", Usage: "`how`: " + policyNames()},
			&cli.StringFlag{Name: "key", Usage: "for the policy key: the owner of this `key`"},
			&cli.StringFlag{Name: "zone", Usage: "for the policy nearest: the `zone` to be near to"},
			&cli.StringFlag{Name: "host", Usage: "for the policy nearest: the `host` in that zone"},
		},
		Action: c.dirGet,
	})
}

func policyNames() string {
	var names []string
	for _, p := range directory.Policies() {
		names = append(names, string(p))
	}
	return strings.Join(names, "|")
}

func (c *command) dirGet(ctx *cli.Context) error {
	chooses := false
	for _, flag := range []string{"channel", "role", "policy", "key", "zone", "host"} {
		chooses = chooses || ctx.IsSet(flag)
	}
	if ctx.NArg() > 1 || (ctx.NArg() == 1) == chooses {
		return usagef("dir get: name one node, or say with --channel and --policy what to choose")
	}
	if chooses {
		return c.dirChoose(ctx)
	}
	return c.askDirectory(ctx, func(asking context.Context, d *directory.Client) error {
		e, err := d.Lookup(asking, ctx.Args().First())
		if err != nil {
			return err
		}
		node := dirEntryOf(e)
		return c.answer(ctx, node, func(w io.Writer) error { return writeNodes(w, []dirNode{node}) })
	})
}

func (c *command) dirChoose(ctx *cli.Context) error {
	q := directory.Query{
		Channel: ctx.String("channel"), Policy: directory.Policy(ctx.String("policy")), Key: []byte(ctx.String("key")),
		Zone: ctx.String("zone"), Host: ctx.String("host"),
	}
	switch role := ctx.String("role"); role {
	case "":
	case directory.Producer.String():
		q.Role = directory.Producer
	case directory.Consumer.String():
		q.Role = directory.Consumer
	default:
		return usagef("dir get: unknown role %q; known are: producer, consumer", role)
	}
	return c.askDirectory(ctx, func(asking context.Context, d *directory.Client) error {
		choice, err := d.Choose(asking, q)
		if err != nil {
			return err
		}
		member := dirMemberOf(choice.Candidate)
		return c.answer(ctx, member, func(w io.Writer) error { return writeMembers(w, []dirMember{member}) })
	})
}

func (c *command) dirRmCommand() *cli.Command {
	return c.newDirCommand(&cli.Command{
		Name:      "rm",
		Usage:     "take a node out that is not connected any more, with all its members",
		ArgsUsage: "NODE",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "also one that is connected: it is told, and cannot register again"},
			&cli.Uint64Flag{Name: "incarnation", Usage: "only if this is its `number`"},
		},
		Action: c.dirRm,
	})
}

func (c *command) dirRm(ctx *cli.Context) error {
	if ctx.NArg() != 1 {
		return usagef("dir rm: name one node")
	}
	removed := struct {
		Removed string `json:"removed"`
	}{ctx.Args().First()}
	return c.askDirectory(ctx, func(asking context.Context, d *directory.Client) error {
		if err := d.Evict(asking, removed.Removed, ctx.Uint64("incarnation"), ctx.Bool("force")); err != nil {
			return err
		}
		return c.answer(ctx, removed, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "removed %s\n", removed.Removed)
			return err
		})
	})
}

func (c *command) dirCheckCommand() *cli.Command {
	return c.newDirCommand(&cli.Command{
		Name:        "check",
		Usage:       "ask whether a directory is there",
		Description: "Exit code 69: none can be reached.",
		Action:      c.dirCheck,
	})
}

func (c *command) dirCheck(ctx *cli.Context) error {
	if ctx.NArg() > 0 {
		return usagef("dir check takes no arguments")
	}
	return c.askDirectory(ctx, func(asking context.Context, d *directory.Client) error {
		s, err := d.Status(asking)
		if err != nil {
			return err
		}
		status := dirStatus{
			s.Addr, s.Nodes, s.Channels, s.Members, s.Lease.Seconds(), s.Warming.Seconds(), s.Epoch, s.Revision,
		}
		return c.answer(ctx, status, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s is up: %d nodes, %d channels, %d members, leases of %v\n",
				s.Addr, s.Nodes, s.Channels, s.Members, s.Lease)
			if err == nil && s.Warming > 0 {
				_, err = fmt.Fprintf(w, "it has started empty, and knows all nodes in %v\n", s.Warming.Round(time.Millisecond))
			}
			return err
		})
	})
}

type dirStatus struct {
	Address     string  `json:"address"`
	Nodes       int     `json:"nodes"`
	Channels    int     `json:"channels"`
	Members     int     `json:"members"`
	LeaseSecs   float64 `json:"lease_seconds"`
	WarmingSecs float64 `json:"warming_seconds"`
	Epoch       uint64  `json:"epoch"`
	Revision    uint64  `json:"revision"`
}
