package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
			&cli.StringFlag{Name: "store", Usage: "`etcd://host:port[,host:port...][/prefix]` to share registrations with other directories; etcds:// with TLS"},
			&cli.StringFlag{Name: "store-ca", Usage: "PEM `file` of the authorities of the store's certificates, read once at the start (default: the system's)"},
			&cli.StringFlag{Name: "store-cert", Usage: "PEM `file` of this directory's certificate for the store, read anew for each connection"},
			&cli.StringFlag{Name: "store-key", Usage: "PEM `file` of its key"},
			&cli.StringFlag{Name: "store-server-name", Usage: "`name` that the store's certificates are for (default: the host in --store)"},
			&cli.StringFlag{Name: "store-user-file", Usage: "`file` whose first line is user:password for the store, read once at the start (default: what ZFAB_STORE_USER has)"},
			&cli.DurationFlag{Name: "lease", Value: directory.DefaultLease, Usage: "how long a registration lives without renewal"},
			verboseFlag,
		},
		Action: c.directory,
	})
}

// storeFlags say how to get at what --store names.
var storeFlags = []string{"store-ca", "store-cert", "store-key", "store-server-name", "store-user-file"}

// storeUserVariable has user:password for the store, which others could read on a
// command line.
const storeUserVariable = "ZFAB_STORE_USER"

func storeAccess(ctx *cli.Context) (etcddir.Access, error) {
	access := etcddir.Access{
		CA: ctx.String("store-ca"), Cert: ctx.String("store-cert"), Key: ctx.String("store-key"),
		ServerName: ctx.String("store-server-name"), User: os.Getenv(storeUserVariable),
	}
	if file := ctx.String("store-user-file"); file != "" {
		var err error
		if access.User, err = etcddir.ReadUser(file); err != nil {
			return access, storeError("--store-user-file", err)
		}
	} else if access.User != "" {
		if err := etcddir.CheckUser(access.User); err != nil {
			return access, usagef("directory: %s: %w", storeUserVariable, err)
		}
	}
	return access, nil
}

// storeError is a mistake in what a flag says, or in a file.
func storeError(flag string, err error) error {
	err = fmt.Errorf("directory: %s: %w", flag, err)
	if errors.As(err, new(*etcddir.FileError)) {
		return fileError{err}
	}
	return usageError{err}
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
	url := ctx.String("store")
	for _, name := range storeFlags {
		if url == "" && ctx.IsSet(name) {
			return usagef("directory: --%s goes with --store", name)
		}
	}
	if url != "" {
		access, failure := storeAccess(ctx)
		if failure != nil {
			return failure
		}
		store, failure := etcddir.Open(url, access)
		if failure != nil {
			return storeError("--store", failure)
		}
		if access.User != "" && !strings.HasPrefix(url, "etcds:") {
			logger.Warn("the store is told its password without encryption: etcds:// is with it", "store", url)
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
	if errors.Is(err, directory.ErrInvalid) {
		return usageError{err}
	}
	if err != nil {
		return listenError{err}
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
