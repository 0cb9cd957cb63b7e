// Package feed is where messages come from that a command sends: lines of its
// input, or made up, at a steady rate if one is asked for.
package feed

import (
	"context"
	"io"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/lines"
)

// Config says what a Feed gives.
type Config struct {
	In     io.Reader // lines; unused with Size
	Format lines.Format
	Most   int     // bytes of a message
	Made   bool    // messages are made up, of Size bytes
	Size   int     // of those
	Count  int     // messages in all; 0: as many as there are
	Rate   float64 // messages a second at the most; 0: no limit
}

// A Feed gives messages, one after another. Its goroutine reads the input; as a
// read cannot be interrupted, it ends with the input or the process.
type Feed struct {
	cfg   Config
	lines chan line     // nil where messages are made up
	taken chan struct{} // the line given last is no longer used
	given int
	began time.Time
	body  []byte
}

type line struct {
	line lines.Line
	body []byte
	err  error
}

// New returns a Feed. It begins to read at once.
func New(cfg Config) *Feed {
	f := &Feed{cfg: cfg}
	if cfg.Made {
		f.body = make([]byte, cfg.Size)
		for i := range f.body {
			f.body[i] = 'a' + byte(i%26)
		}
		return f
	}
	f.lines, f.taken = make(chan line), make(chan struct{}, 1)
	f.taken <- struct{}{}
	go f.read(lines.NewReader(cfg.In, cfg.Format, cfg.Most))
	return f
}

func (f *Feed) read(r *lines.Reader) {
	for range f.taken {
		l, body, err := r.Read()
		f.lines <- line{l, body, err}
		if err != nil {
			return
		}
	}
}

// Given is how many messages it has given.
func (f *Feed) Given() int { return f.given }

// Next returns the next message, valid until the next call, when its time has
// come; io.EOF behind the last; ctx's error if that ends first.
func (f *Feed) Next(ctx context.Context) (lines.Line, []byte, error) {
	if f.cfg.Count > 0 && f.given == f.cfg.Count {
		return lines.Line{}, nil, io.EOF
	}
	l := line{body: f.body}
	if f.lines != nil {
		if f.given > 0 {
			f.taken <- struct{}{}
		}
		select {
		case l = <-f.lines:
		case <-ctx.Done():
			return lines.Line{}, nil, ctx.Err()
		}
	}
	if l.err != nil {
		return lines.Line{}, nil, l.err
	}
	if err := f.pace(ctx); err != nil {
		return lines.Line{}, nil, err
	}
	f.given++
	return l.line, l.body, nil
}

// longest is how far ahead a message's time may be, in nanoseconds: a century.
const longest = 100 * 365 * 24 * float64(time.Hour)

// pace waits for the message's time: they are due at equal distances from the
// first on, and one that is late does not put off those behind it.
func (f *Feed) pace(ctx context.Context) error {
	if f.cfg.Rate <= 0 {
		return ctx.Err()
	}
	if f.given == 0 {
		f.began = time.Now()
	}
	due := f.began.Add(time.Duration(min(float64(f.given)/f.cfg.Rate*float64(time.Second), longest)))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
