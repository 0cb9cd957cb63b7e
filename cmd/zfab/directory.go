package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/datadir"
	"github.com/zfab/zfab/cmd/zfab/internal/etcddir"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric/directory"
)

func (c *command) directoryCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:  "directory",
		Usage: "run a directory, where the nodes of a fabric find each other",
		Description: "Prints its address once it is ready, and runs until it is interrupted. A node that does\n" +
			"not renew its registration within the lease is taken out.\n\n" +
			"With --data, registrations outlive a restart. Without it, nodes register again by\n" +
			"themselves within a third of a lease, and for one lease after its start the directory says\n" +
			"`not known yet` rather than `unknown`.\n\n" +
			"With --store, registrations are kept in an etcd cluster, and any number of directories share\n" +
			"them: give their addresses to the nodes, and any may die.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: "tcp://127.0.0.1:7370", Usage: "`address` to serve at: tcp://host:port, ipc://path"},
			&cli.StringFlag{Name: "data", Usage: "`directory` to keep registrations in (default: keep none)"},
			&cli.StringFlag{Name: "store", Usage: "`etcd://host:port[,host:port...][/prefix]` to share registrations with other directories"},
			&cli.DurationFlag{Name: "lease", Value: directory.DefaultLease, Usage: "how long a registration lives without renewal"},
			verboseFlag,
		},
		Action: c.directory,
	})
}

// A listenError is that an address cannot be served at.
type listenError struct{ error }

func (c *command) directory(ctx *cli.Context) (err error) {
	if ctx.NArg() > 0 {
		return usagef("directory takes no arguments")
	}
	logger := logs.New(c.stderr, ctx.Bool("verbose"))
	cfg := directory.RegistryConfig{Lease: ctx.Duration("lease"), WarmUp: true, Logger: logger}
	if cfg.Lease < directory.MinLease || cfg.Lease > directory.MaxLease {
		return usagef("directory: --lease is %v: give %v to %v", cfg.Lease, directory.MinLease, directory.MaxLease)
	}
	if ctx.String("data") != "" && ctx.String("store") != "" {
		return usagef("directory: --data and --store: registrations are kept in one place")
	}
	if dir := ctx.String("data"); dir != "" {
		store, failure := datadir.Open(dir)
		if failure != nil {
			return failure
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		cfg.Store = store
	}
	if url := ctx.String("store"); url != "" {
		store, failure := etcddir.Open(url)
		if failure != nil {
			return usagef("directory: --store: %w", failure)
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		cfg.Shared = store
		if !ctx.IsSet("lease") {
			cfg.Lease = 0 // that of the others
		}
	}
	registry, err := directory.OpenRegistry(cfg)
	if errors.Is(err, directory.ErrInvalid) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	defer registry.Close()
	server, err := directory.Serve(ctx.Context, registry, ctx.String("listen"), logger)
	if err != nil {
		return listenError{fmt.Errorf("%w (does another directory run there?)", err)}
	}
	defer server.Close()
	ready := struct {
		Address string `json:"address"`
	}{server.Addr()}
	if err := c.answer(ctx, ready, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, ready.Address)
		return err
	}); err != nil {
		return err
	}
	select {
	case <-ctx.Done(): // as it should end
	case <-registry.Done():
	}
	return registry.Err()
}
