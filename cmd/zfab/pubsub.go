package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/feed"
	"github.com/zfab/zfab/cmd/zfab/internal/lines"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

func (c *command) pubCommand() *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:      "pub",
		Usage:     "publish the lines of the standard input",
		ArgsUsage: "CHANNEL TOPIC",
		Description: "With --format json a line may have a \"topic\" of its own. It ends when all is stored at the nodes\n" +
			"of its subscribers.",
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "wait", Usage: "begin when so many `subscribers` are there"},
			&cli.DurationFlag{Name: "timeout", Usage: "how long all of it may take (default: for ever)"},
			&cli.IntFlag{Name: "retain", Usage: "keep the last message of so many `topics` for who subscribes later"},
			&cli.IntFlag{Name: "replay", Usage: "keep so many of the last `messages` for who subscribes later"},
			&cli.DurationFlag{Name: "evict-after", Usage: "wait no longer for a reliable subscriber; by default for ever"},
		}, feedFlags...),
		Action: c.pub,
	})
}

func (c *command) pub(ctx *cli.Context) error {
	if ctx.NArg() != 2 {
		return usagef("pub: name a channel and a topic")
	}
	if ctx.IsSet("wait") && ctx.Int("wait") <= 0 {
		return usagef("pub: --wait is %d: it must be positive", ctx.Int("wait"))
	}
	begin, err := c.feedOf(ctx)
	if err != nil {
		return err
	}
	return c.onNode(ctx, func(publishing context.Context, node *fabric.Node) error {
		if timeout := ctx.Duration("timeout"); timeout > 0 {
			var cancel context.CancelFunc
			publishing, cancel = context.WithTimeout(publishing, timeout)
			defer cancel()
		}
		p, err := patterns.OpenPublisher(publishing, node, patterns.PublisherConfig[[]byte]{
			Channel: ctx.Args().First(), Retain: ctx.Int("retain"), Replay: ctx.Int("replay"), EvictAfter: ctx.Duration("evict-after"),
		})
		if err != nil {
			return channelError(err)
		}
		err = publishAll(publishing, p, begin(), ctx.Args().Get(1), ctx.Int("wait"))
		var topic *patterns.TopicError
		if errors.As(err, &topic) {
			err = usageError{err}
		}
		if err != nil {
			return errors.Join(late(ctx, publishing, err), p.Close())
		}
		return late(ctx, publishing, p.Drain(publishing))
	})
}

// publishAll publishes messages, once so many subscribers are there, under the topic
// if they have none.
func publishAll(ctx context.Context, p *patterns.Publisher[[]byte], messages *feed.Feed, topic string, subscribers int) error {
	if err := p.WaitSubscribers(ctx, subscribers); err != nil {
		return err
	}
	for {
		l, body, err := messages.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if l.Topic == "" {
			l.Topic = topic
		}
		if err == nil {
			err = p.Publish(ctx, l.Topic, body)
		}
		if err != nil {
			return err
		}
	}
}

var qualities = map[string]patterns.Quality{
	"": patterns.PublisherQuality, "latest": patterns.Latest, "bounded-drop": patterns.BoundedDrop, "reliable": patterns.Reliable,
}

func (c *command) subCommand() *cli.Command {
	return c.newNetcatCommand(&cli.Command{
		Name:      "sub",
		Usage:     "write what is published to the standard output, a line for each message",
		ArgsUsage: "CHANNEL [PATTERN...]",
		Description: "A PATTERN has tokens with dots between them: `*` is any one, `>` at the end any one or more. Without\n" +
			"patterns and prefixes it is all. It ends when it is interrupted, or as --count, --publishers and\n" +
			"--timeout say; exit code 1: fewer than --count came. What was missed is told on the standard error and, with --format json, in a line.\n\n" +
			"The command of --exec finds the message's publisher in ZFAB_SOURCE and its topic in ZFAB_TOPIC;\n" +
			"what it writes is written. One that fails is told on the standard error, and the next message comes.",
		Flags: []cli.Flag{
			countFlag, execFlag,
			&cli.DurationFlag{Name: "timeout", Usage: "end when no message has come for so long (default: never)"},
			&cli.StringSliceFlag{Name: "prefix", Usage: "take topics that begin with these `bytes`"},
			&cli.StringFlag{Name: "quality", Usage: "`latest|bounded-drop|reliable`: what becomes of messages when this end is behind"},
			&cli.BoolFlag{Name: "conflate", Usage: "with latest: of what waits keep only the newest of each topic"},
			&cli.Int64Flag{Name: "queue", Usage: "let so many `messages` wait"},
			&cli.BoolFlag{Name: "retained", Usage: "begin with the last message of each topic"},
			&cli.IntFlag{Name: "replay", Usage: "begin with so many of the last `messages`"},
			&cli.IntFlag{Name: "publishers", Usage: "end when so many publishers have finished"},
		},
		Action: c.sub,
	})
}

func (c *command) sub(ctx *cli.Context) error {
	quality, known := qualities[ctx.String("quality")]
	if !known {
		return usagef("sub: unknown quality %q; known are: latest, bounded-drop, reliable", ctx.String("quality"))
	}
	var filters []patterns.Filter
	for _, p := range ctx.Args().Tail() {
		filters = append(filters, patterns.Pattern(p))
	}
	for _, p := range ctx.StringSlice("prefix") {
		filters = append(filters, patterns.Prefix(p))
	}
	if len(filters) == 0 {
		filters = []patterns.Filter{patterns.Prefix("")}
	}
	return c.onNode(ctx, func(hearing context.Context, node *fabric.Node) error {
		s, err := patterns.OpenSubscriber(hearing, node, patterns.SubscriberConfig[[]byte]{
			Channel: ctx.Args().First(), Filters: filters, Quality: quality, Conflate: ctx.Bool("conflate"),
			Queue: fabric.HighWaterMark{Messages: ctx.Int64("queue")}, Retained: ctx.Bool("retained"), Replay: ctx.Int("replay"),
			Publishers: ctx.Int("publishers"),
		})
		if err != nil {
			return channelError(err)
		}
		return errors.Join(c.writeMessages(ctx, s), s.Close())
	})
}

// heard writes a message, or what the command of --exec says to it.
func (c *command) heard(ctx *cli.Context, out *lines.Writer, m patterns.Publication[[]byte]) error {
	l := lines.Line{From: m.Publisher.String(), Topic: m.Topic, Replayed: m.Replayed}
	command := ctx.String("exec")
	if command == "" {
		return out.Write(l, m.Value)
	}
	input, err := commandInput(lines.Format(ctx.String("format")), l, m.Value)
	if err != nil {
		return err
	}
	said, err := shell(ctx.Context, command, input, "ZFAB_SOURCE="+l.From, "ZFAB_TOPIC="+l.Topic)
	var failed *shellError
	switch {
	case errors.As(err, &failed) && ctx.Err() == nil:
		fmt.Fprintf(c.stderr, "zfab: %v\n", err)
		return nil
	case err != nil:
		return err
	}
	_, err = c.stdout.Write(said)
	return err
}

// writeMessages writes what comes, until there is enough of it.
func (c *command) writeMessages(ctx *cli.Context, s *patterns.Subscriber[[]byte]) error {
	count, out := ctx.Int("count"), lines.NewWriter(c.stdout, lines.Format(ctx.String("format")))
	hearing, waiting := newIdle(ctx.Context, ctx.Duration("timeout"))
	for n := 0; count == 0 || n < count; {
		waiting.end()
		m, err := s.Receive(hearing)
		waiting.begin()
		var missed *patterns.MissedError
		var lost *fabric.PeerLostError
		var strange *patterns.RecordError
		switch {
		case err == nil:
			n++
			err = c.heard(ctx, out, m)
		case err == fabric.ErrEnd && count == 0:
			return nil
		case err == fabric.ErrEnd:
			return fmt.Errorf("sub: %d of %d messages came, and all publishers have finished", n, count)
		case hearing.Err() != nil && ctx.Err() == nil:
			return tooFew(ctx, n)
		case interrupted(ctx, err):
			return nil
		case errors.As(err, &missed):
			fmt.Fprintf(c.stderr, "zfab: %v\n", err)
			err = out.Note(lines.Line{From: missed.Publisher.String(), Missed: missed.Messages})
		case errors.As(err, &lost), errors.As(err, &strange):
			fmt.Fprintf(c.stderr, "zfab: %v\n", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}
