// Package wordcount counts the words of files over the fabric: the smallest
// work that has the shape of every map and reduce.
//
//  1. The parent finds the files and gives each node a share (files.go).
//  2. Mappers on every node split their files into words (words.go) and count
//     them locally, to send each word once and not each time it occurs.
//  3. They send word and count by key on the channel words: all counts of one
//     word meet at one reducer.
//  4. A reducer adds up until every mapper has finished, and then sends its sums
//     on the channel sums to the collector, a node of the parent.
//  5. The collector has all when every reducer has finished; it sorts.
//
// The nodes are in this process or in one each; the work is the same.
package wordcount

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/patterns"
)

// Options are how to count.
type Options struct {
	Nodes   int
	Process bool     // each node in a process of its own
	Command []string // starts one: see Child
	Stderr  io.Writer
	Logger  *slog.Logger
	// Progress is told now and then how many of the files are read. It is called
	// by one goroutine at a time.
	Progress func(read, files int)
}

// A Result is the answer.
type Result struct {
	Files    int     `json:"files"`
	Bytes    int64   `json:"bytes"`
	Words    uint64  `json:"words"`
	Distinct int     `json:"distinct"`
	Seconds  float64 `json:"seconds"`
	Counts   []Count `json:"counts"` // most frequent first, ties by word
}

// A Count is one word's.
type Count struct {
	Word  string `json:"word"`
	Count uint64 `json:"count"`
}

// A FileError is an input that cannot be read.
type FileError struct{ Err error }

func (e *FileError) Error() string { return e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// Workers of each node.
const (
	mappers  = 2
	reducers = 2
)

// Channels.
const (
	wordsChannel = "words"
	sumsChannel  = "sums"
)

// Run counts the words of all files at and below paths.
func Run(ctx context.Context, paths []string, o Options) (*Result, error) {
	begin := time.Now()
	files, err := findFiles(paths)
	if err != nil {
		return nil, &FileError{err}
	}
	r := &Result{Files: len(files)}
	for _, f := range files {
		r.Bytes += f.size
	}
	read := &tally{}
	if o.Progress != nil {
		read.tell = func(n int) { o.Progress(n, len(files)) }
	}
	registry := directory.NewRegistry()
	defer registry.Close()
	node, err := fabric.Open(ctx, fabric.Config{Name: "collector", Directory: registry, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	defer node.Close()
	var open closers
	defer open.close()
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return runNodes(ctx, divide(files, o.Nodes), registry, o, &open, read) })
	all.Go(func() error {
		sums, err := patterns.OpenExchange(ctx, node, sumsConfig(o.Nodes, 0, 1))
		if err != nil {
			return err
		}
		open.add(sums)
		r.Counts, err = collect(ctx, sums.Consumer(0))
		return err
	})
	err = all.Wait()
	logs.Hush(o.Logger)
	if err != nil {
		return nil, err
	}
	for _, c := range r.Counts {
		r.Words += c.Count
	}
	r.Distinct = len(r.Counts)
	r.Seconds = time.Since(begin).Seconds()
	return r, nil
}

// runNodes returns when every node has done its share, or one has failed. What
// it opened stays open.
func runNodes(ctx context.Context, shares [][]string, registry *directory.Registry, o Options, open *closers, read *tally) error {
	if o.Process {
		return runProcesses(ctx, shares, registry, o, open, read)
	}
	all, ctx := errgroup.WithContext(ctx)
	for i, share := range shares {
		s := spec{Node: i + 1, Nodes: len(shares), Files: share}
		all.Go(func() error {
			node, err := openNode(ctx, s, registry, o.Logger)
			if err != nil {
				return err
			}
			open.add(node)
			return work(ctx, s, node, read)
		})
	}
	return all.Wait()
}

// collect takes the reducers' sums: each word comes once.
func collect(ctx context.Context, sums *patterns.ExchangeConsumer) ([]Count, error) {
	counts := []Count{}
	for m, err := range sums.Messages(ctx) {
		if err != nil {
			return nil, err
		}
		word, n, err := decode(m.Body)
		if err != nil {
			return nil, err
		}
		counts = append(counts, Count{string(word), n})
	}
	slices.SortFunc(counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Word, b.Word))
	})
	return counts, nil
}
