package wordcount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric/directory"
)

// An answer is a line from a child. That with Read comes any number of times, and
// another one ends it.
type answer struct {
	Read    *int   `json:"read,omitempty"` // files, since the line before
	Failed  string `json:"failed,omitempty"`
	BadFile bool   `json:"bad_file,omitempty"` // a file is what failed
}

// runProcesses has a process for each node.
func runProcesses(ctx context.Context, shares [][]string, registry *directory.Registry, o Options, open *closers, read *tally) error {
	server, err := directory.Serve(ctx, registry, "tcp://127.0.0.1:0", o.Logger)
	if err != nil {
		return err
	}
	open.add(server)
	all, ctx := errgroup.WithContext(ctx)
	for i, share := range shares {
		s := spec{Node: i + 1, Nodes: len(shares), Files: share, Directory: server.Addr()}
		all.Go(func() error { return runProcess(ctx, s, o, open, read) })
	}
	return all.Wait()
}

func runProcess(ctx context.Context, s spec, o Options, open *closers, read *tally) error {
	p, err := child.Start(fmt.Sprintf("node n%d", s.Node), o.Command, o.Stderr)
	if err != nil {
		return err
	}
	open.add(p)
	stop := context.AfterFunc(ctx, func() { p.Close() }) // which ends Hear
	defer stop()
	if err := p.Tell(s); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	var a answer
	for {
		a = answer{}
		if err := p.Hear(&a); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		if a.Read == nil {
			break
		}
		read.add(*a.Read)
	}
	switch {
	case a.BadFile:
		return &FileError{errors.New(a.Failed)}
	case a.Failed != "":
		return fmt.Errorf("%s: %s", p.Name(), a.Failed)
	}
	return nil
}

// Child is one node in a process of its own. It returns when its input ends.
func Child(ctx context.Context, in io.Reader, out io.Writer, logger *slog.Logger) error {
	ctx, orders := child.Orders[spec](ctx, in)
	s, err := child.Next(ctx, orders)
	if err != nil {
		return nil
	}
	var open closers
	defer open.close()
	answers := json.NewEncoder(out) // the tally's until serve has returned
	told := 0
	read := &tally{every: tallyInterval, tell: func(n int) {
		more := n - told
		told = n
		answers.Encode(answer{Read: &more}) // a parent that is gone ends this process
	}}
	var a answer
	if err := serve(ctx, s, logger, &open, read); err != nil {
		var bad *FileError
		a = answer{Failed: err.Error(), BadFile: errors.As(err, &bad)}
	}
	if ctx.Err() != nil {
		return nil
	}
	logs.Hush(logger)
	if err := answers.Encode(a); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func serve(ctx context.Context, s spec, logger *slog.Logger, open *closers, read *tally) error {
	dir, err := directory.Dial(ctx, s.Directory, directory.Options{Logger: logger})
	if err != nil {
		return err
	}
	open.add(dir)
	node, err := openNode(ctx, s, dir, logger)
	if err != nil {
		return err
	}
	open.add(node)
	return work(ctx, s, node, read)
}
