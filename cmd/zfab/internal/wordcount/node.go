package wordcount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/patterns"
)

// A spec is what one node has to do.
type spec struct {
	Node      int      `json:"node"` // 1-based
	Nodes     int      `json:"nodes"`
	Files     []string `json:"files"`
	Directory string   `json:"directory,omitempty"` // empty where it is in the process
}

// openNode opens the node of a spec.
func openNode(ctx context.Context, s spec, dir directory.Service, logger *slog.Logger) (*fabric.Node, error) {
	return fabric.Open(ctx, fabric.Config{Name: fmt.Sprintf("n%d", s.Node), Directory: dir, Logger: logger})
}

// work does the node's share. The node must stay open until the collector has
// all: a consumer that still reads would take its end for a loss.
func work(ctx context.Context, s spec, node *fabric.Node, read *tally) error {
	in, err := patterns.OpenExchange(ctx, node, patterns.ExchangeConfig{
		Channel: wordsChannel, Nodes: s.Nodes, Producers: mappers, Consumers: reducers,
	})
	if err != nil {
		return err
	}
	out, err := patterns.OpenExchange(ctx, node, sumsConfig(s.Nodes, reducers, 0))
	if err != nil {
		return err
	}
	files := make(chan string, len(s.Files))
	for _, f := range s.Files {
		files <- f
	}
	close(files)
	all, ctx := errgroup.WithContext(ctx)
	for _, p := range in.Producers() {
		all.Go(func() error { return mapFiles(ctx, files, p, read) })
	}
	for i, c := range in.Consumers() {
		all.Go(func() error { return reduce(ctx, c, out.Producer(i)) })
	}
	return all.Wait()
}

// sumsConfig is the exchange from all reducers to the collector, as a node with
// so many of them takes part.
func sumsConfig(nodes, producers, consumers int) patterns.ExchangeConfig {
	return patterns.ExchangeConfig{
		Channel: sumsChannel, Producers: producers, Consumers: consumers,
		TotalProducers: nodes * reducers, TotalConsumers: 1,
	}
}

// maxLocal bounds a mapper's table: at this many different words it sends them
// and begins anew.
const maxLocal = 1 << 16

// mapFiles is one mapper.
func mapFiles(ctx context.Context, files <-chan string, out *patterns.ExchangeProducer, read *tally) error {
	m := &mapper{ctx: ctx, out: out, counts: make(map[string]uint64), buffer: make([]byte, 256<<10)}
	for path := range files {
		if err := m.file(path); err != nil {
			return err
		}
		read.add(1)
	}
	if err := m.flush(); err != nil {
		return err
	}
	return out.Drain(ctx)
}

type mapper struct {
	ctx    context.Context
	out    *patterns.ExchangeProducer
	counts map[string]uint64
	buffer []byte
	body   []byte
}

func (m *mapper) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return &FileError{err}
	}
	defer f.Close()
	err = words(f, m.buffer, m.word)
	var read *os.PathError
	if errors.As(err, &read) || errors.Is(err, errLongWord) {
		return &FileError{fmt.Errorf("%s: %w", path, err)}
	}
	return err
}

func (m *mapper) word(word []byte) error {
	if n, known := m.counts[string(word)]; known {
		m.counts[string(word)] = n + 1
		return nil
	}
	if len(m.counts) == maxLocal {
		if err := m.flush(); err != nil {
			return err
		}
	}
	m.counts[string(word)] = 1
	return nil
}

// flush sends what was counted to the words' owners.
func (m *mapper) flush() error {
	for word, n := range m.counts {
		m.body = encode(m.body[:0], word, n)
		if err := m.out.SendKey(m.ctx, m.body[8:], m.body); err != nil {
			return err
		}
	}
	clear(m.counts)
	return nil
}

// reduce is one reducer.
func reduce(ctx context.Context, in *patterns.ExchangeConsumer, out *patterns.ExchangeProducer) error {
	sums := make(map[string]*uint64)
	for m, err := range in.Messages(ctx) {
		if err != nil {
			return err
		}
		word, n, err := decode(m.Body)
		if err != nil {
			return err
		}
		if sum, known := sums[string(word)]; known {
			*sum += n
		} else {
			sums[string(word)] = &n
		}
	}
	collector := out.Targets()[0]
	var body []byte
	for word, n := range sums {
		body = encode(body[:0], word, *n)
		if err := collector.Send(ctx, body); err != nil {
			return err
		}
	}
	return out.Drain(ctx)
}

// A message is a count of eight bytes, little-endian, and the word.

func encode(body []byte, word string, n uint64) []byte {
	return append(binary.LittleEndian.AppendUint64(body, n), word...)
}

func decode(body []byte) (word []byte, n uint64, err error) {
	if len(body) <= 8 {
		return nil, 0, fmt.Errorf("a message of %d bytes has no word", len(body))
	}
	return body[8:], binary.LittleEndian.Uint64(body), nil
}
