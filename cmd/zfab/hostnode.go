package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func (c *command) hostNodeCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:  "node",
		Usage: "run the node of a host, which the host's worker processes share",
		Description: "Prints where it can be reached once it is ready, and runs until it is interrupted. Programs\n" +
			"attach with fabric.Attach. When the node ends they go on as soon as it runs again: with the\n" +
			"same name and the same --attach.\n\n" +
			"Who may write the attach socket may attach, if it belongs to the user who runs the node, to\n" +
			"root, or to one of --attach-user.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "`name` of the node, unique in the directory"},
			&cli.StringFlag{
				Name: "directory", Aliases: []string{"d"}, EnvVars: []string{"ZFAB_DIRECTORY"},
				Usage: "`address` of the directory, or of several, separated by commas",
			},
			&cli.StringFlag{Name: "listen", Value: "tcp://127.0.0.1:0", Usage: "`address` that other nodes dial, one of this host that they reach"},
			&cli.StringFlag{Name: "attach", Usage: "`address` at which workers attach: ipc:///path/of/a/socket"},
			&cli.StringFlag{Name: "attach-mode", Value: "0600", Usage: "permissions of the attach socket, in `octal`"},
			&cli.UintSliceFlag{Name: "attach-user", Usage: "number of another `user` who may attach; may be repeated"},
			verboseFlag,
		},
		Action: c.hostNode,
	})
}

// nameFree is how long a name is tried that another node has: the node's own life
// before may have ended just now, and the directory may not know yet.
const nameFree = 2 * time.Second

func (c *command) hostNode(ctx *cli.Context) error {
	if ctx.NArg() > 0 {
		return usagef("node takes no arguments")
	}
	for _, flag := range []string{"name", "directory", "attach"} {
		if ctx.String(flag) == "" {
			return usagef("node: give --%s", flag)
		}
	}
	mode, err := strconv.ParseUint(ctx.String("attach-mode"), 8, 32)
	if err != nil || mode == 0 || mode > uint64(fs.ModePerm) {
		return usagef("node: --attach-mode is %q: give permissions, like 0660", ctx.String("attach-mode"))
	}
	logger := logs.New(c.stderr, ctx.Bool("verbose"))
	cfg := fabric.Config{
		Name: ctx.String("name"), Listen: ctx.String("listen"), Logger: logger,
		Workers: fabric.Workers{Listen: ctx.String("attach"), Mode: fs.FileMode(mode)},
	}
	for _, user := range ctx.UintSlice("attach-user") {
		cfg.Workers.Users = append(cfg.Workers.Users, uint32(user))
	}
	dir, err := dialDirectory(ctx, directory.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer dir.Close()
	cfg.Directory = dir
	node, err := openNode(ctx.Context, cfg, logger)
	if err != nil {
		return err
	}
	defer node.Close()
	ready := struct {
		Node     string `json:"node"`
		Endpoint string `json:"endpoint"`
		Attach   string `json:"attach"`
	}{node.Name(), node.Endpoint(), cfg.Workers.Listen}
	if err := c.answer(ctx, ready, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s at %s, workers at %s\n", ready.Node, ready.Endpoint, ready.Attach)
		return err
	}); err != nil {
		return err
	}
	<-ctx.Done() // as it should end
	return nil
}

// openNode opens the node, and says which kind of mistake it is if that fails.
func openNode(ctx context.Context, cfg fabric.Config, logger *slog.Logger) (*fabric.Node, error) {
	for begin := time.Now(); ; {
		node, err := fabric.Open(ctx, cfg)
		switch {
		case err == nil:
			return node, nil
		case errors.Is(err, directory.ErrNameTaken) && time.Since(begin) < nameFree:
			logger.Debug("the name is taken, trying on", "node", cfg.Name, "reason", err)
			select {
			case <-time.After(nameFree / 20):
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case errors.Is(err, fabric.ErrConfig), errors.Is(err, directory.ErrInvalid):
			return nil, usageError{err}
		case errors.Is(err, directory.ErrNameTaken), errors.Is(err, directory.ErrUnavailable), ctx.Err() != nil:
			return nil, err
		}
		return nil, listenError{err}
	}
}
