package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/cmd/zfab/internal/units"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

func (c *command) pubCommand() *cli.Command {
	return c.newStreamCommand(&cli.Command{
		Name:      "pub",
		Usage:     "publish the lines of the standard input, or messages of a size",
		ArgsUsage: "CHANNEL TOPIC",
		Description: "With --format json a line is {\"topic\": ..., \"text\": ...}, or \"hex\" for what is no text; without its own\n" +
			"topic it has TOPIC. It ends when all is stored at the nodes of its subscribers.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "wait", Usage: "begin when so many subscribers are there"},
			&cli.Float64Flag{Name: "rate", Usage: "messages per `second`; by default as fast as it goes"},
			&cli.StringFlag{Name: "size", Usage: "publish --count messages of this `size`, like 64B, and read nothing"},
			&cli.IntFlag{Name: "retain", Usage: "keep the last message of so many `topics` for who subscribes later"},
			&cli.IntFlag{Name: "replay", Usage: "keep so many of the last `messages` for who subscribes later"},
			&cli.DurationFlag{Name: "evict-after", Usage: "wait no longer for a reliable subscriber; by default for ever"},
		},
		Action: c.pub,
	})
}

func (c *command) pub(ctx *cli.Context) error {
	if ctx.NArg() != 2 {
		return usagef("pub: name a channel and a topic")
	}
	var made []byte
	if text := ctx.String("size"); text != "" {
		size, err := units.ParseSize(text)
		switch {
		case err != nil:
			return usagef("pub: --size: %v", err)
		case size < 0 || size > topology.MaxMessage:
			return usagef("pub: --size is %s: give up to %s", text, topology.MaxMessage)
		case ctx.Int("count") == 0:
			return usagef("pub: --size needs --count: say how many messages")
		}
		made = bytes.Repeat([]byte("x"), int(size))
	}
	rate := ctx.Float64("rate")
	if !(rate >= 0 && rate <= topology.MaxRate) {
		return usagef("pub: --rate is %v: give messages per second, up to %.0f", rate, topology.MaxRate)
	}
	return c.withNode(ctx, func(within context.Context, node *fabric.Node) error {
		p, err := patterns.OpenPublisher(within, node, patterns.PublisherConfig[[]byte]{
			Channel: ctx.Args().First(), Retain: ctx.Int("retain"), Replay: ctx.Int("replay"), EvictAfter: ctx.Duration("evict-after"),
		})
		if err != nil {
			return badConfig(err)
		}
		if err := p.WaitSubscribers(within, ctx.Int("wait")); err != nil {
			return errors.Join(err, p.Close())
		}
		pace := paced{rate: rate}
		publish := func(l line, body []byte) error {
			if l.Topic == "" {
				l.Topic = ctx.Args().Get(1)
			}
			if err := pace.wait(within); err != nil {
				return err
			}
			return p.Publish(within, l.Topic, body)
		}
		if made == nil {
			err = c.readLines(within, ctx.String("format"), ctx.Int("count"), publish)
		}
		for range ctx.Int("count") {
			if made == nil || err != nil {
				break
			}
			err = publish(line{}, made)
		}
		var topic *patterns.TopicError
		if errors.As(err, &topic) {
			err = usageError{err}
		}
		if err != nil {
			return errors.Join(err, p.Close())
		}
		return p.Drain(within)
	})
}

// badConfig is a usage error if the command line has asked for what there is not.
func badConfig(err error) error {
	var pattern *patterns.PatternError
	if errors.Is(err, fabric.ErrConfig) || errors.As(err, &pattern) {
		return usageError{err}
	}
	return err
}

var qualities = map[string]patterns.Quality{
	"": patterns.PublisherQuality, "latest": patterns.Latest, "bounded-drop": patterns.BoundedDrop, "reliable": patterns.Reliable,
}

func (c *command) subCommand() *cli.Command {
	return c.newStreamCommand(&cli.Command{
		Name:      "sub",
		Usage:     "write what is published to the standard output, a line for each message",
		ArgsUsage: "CHANNEL [PATTERN...]",
		Description: "A PATTERN has tokens with dots between them: `*` is any one, `>` at the end any one or more. Without\n" +
			"patterns and prefixes it is all. It ends when it is interrupted, or as --count, --publishers and\n" +
			"--timeout say. What was missed is told on the standard error and, with --format json, in a line.",
		Flags: []cli.Flag{
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
	if ctx.NArg() == 0 {
		return usagef("sub: name a channel")
	}
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
	return c.withNode(ctx, func(within context.Context, node *fabric.Node) error {
		s, err := patterns.OpenSubscriber(within, node, patterns.SubscriberConfig[[]byte]{
			Channel: ctx.Args().First(), Filters: filters, Quality: quality, Conflate: ctx.Bool("conflate"),
			Queue: fabric.HighWaterMark{Messages: ctx.Int64("queue")}, Retained: ctx.Bool("retained"), Replay: ctx.Int("replay"),
			Publishers: ctx.Int("publishers"),
		})
		if err != nil {
			return badConfig(err)
		}
		return errors.Join(c.writeMessages(ctx, within, s), s.Close())
	})
}

// writeMessages writes what comes, until there is enough of it.
func (c *command) writeMessages(ctx *cli.Context, within context.Context, s *patterns.Subscriber[[]byte]) error {
	format, count := ctx.String("format"), ctx.Int("count")
	for n := 0; count == 0 || n < count; {
		m, err := s.Receive(within)
		var missed *patterns.MissedError
		var lost *fabric.PeerLostError
		var strange *patterns.RecordError
		switch {
		case err == nil:
			n++
			l := line{Topic: m.Topic, Publisher: m.Publisher.String(), Replayed: m.Replayed}
			if err := c.writeLine(format, l, m.Value); err != nil {
				return err
			}
		case err == fabric.ErrEnd && (count == 0 || n == count):
			return nil
		case err == fabric.ErrEnd:
			return fmt.Errorf("%d of %d messages came, and all publishers have finished", n, count)
		case ctx.Err() != nil && count == 0:
			return nil // interrupted, as it should end
		case errors.As(err, &missed):
			fmt.Fprintf(c.stderr, "zfab: %v\n", err)
			if format == lineJSON {
				if err := c.writeJSONLine(line{Publisher: missed.Publisher.String(), Missed: missed.Messages}); err != nil {
					return err
				}
			}
		case errors.As(err, &lost), errors.As(err, &strange):
			fmt.Fprintf(c.stderr, "zfab: %v\n", err)
		default:
			return err
		}
	}
	return nil
}
