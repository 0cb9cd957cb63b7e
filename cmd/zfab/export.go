package main

import (
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/compose"
	"github.com/zfab/zfab/cmd/zfab/internal/runner"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

func (c *command) exportCommand() *cli.Command {
	return &cli.Command{
		Name:            "export",
		Usage:           "write a topology as what others run: compose",
		HideHelpCommand: true,
		OnUsageError:    c.badFlags,
		Subcommands: []*cli.Command{c.newCommand(&cli.Command{
			Name:      "compose",
			Usage:     "write the compose file of a topology: a container for each node, and the run",
			ArgsUsage: "FILE",
			Description: "The file holds the topology, and needs nothing but an image with the program as its entry\n" +
				"point: `make image` builds one.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "image", Value: "zfab", Usage: "`name` of the image"},
			},
			Action: c.exportCompose,
		})},
		Action: func(ctx *cli.Context) error {
			if name := ctx.Args().First(); name != "" {
				return usagef("export: unknown form %q; known is: compose", name)
			}
			return usagef("export: name a form: compose")
		},
	}
}

// imageName matches the names of images, and nothing that is more in YAML than text.
var imageName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?$`)

func (c *command) exportCompose(ctx *cli.Context) error {
	if ctx.NArg() != 1 {
		return usagef("export compose: name one topology file")
	}
	if !imageName.MatchString(ctx.String("image")) {
		return usagef("export compose: --image is %q: give the name of an image, like registry.example:5000/zfab:v1", ctx.String("image"))
	}
	t, text, err := c.topologyText(ctx.Args().First())
	if err != nil {
		return err
	}
	if err := runner.Possible(t, runner.Compose); err != nil {
		return err
	}
	f := compose.New(t, text, ctx.String("image"))
	exported := struct {
		Image    string   `json:"image"`
		Services []string `json:"services"`
		Compose  string   `json:"compose"`
	}{Image: f.Image, Services: append([]string{compose.RunService}, f.Nodes...)}
	if ctx.String("format") == formatJSON {
		var b strings.Builder
		if err := f.Write(&b); err != nil {
			return err
		}
		exported.Compose = b.String()
	}
	return c.answer(ctx, exported, func(w io.Writer) error { return f.Write(w) })
}

// runComposed runs a topology in containers.
func (c *command) runComposed(ctx *cli.Context, t *topology.Topology, text string, o runner.Options) error {
	if o.Plant != runner.PlantNothing {
		return usagef("run: --plant is not for --runner %s", runner.Compose)
	}
	if err := runner.Possible(t, runner.Compose); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	image, err := compose.Image(ctx.Context, program, c.stderr)
	if err != nil {
		return err
	}
	f := compose.New(t, text, image)
	f.Timeout = o.Timeout.String()
	r, err := compose.Run(ctx.Context, f, c.stderr)
	if err != nil {
		return err
	}
	return c.answerReport(ctx, r)
}
