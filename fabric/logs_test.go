package fabric

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// logBook is a logger whose lines a test can wait for.
type logBook struct {
	mu    sync.Mutex
	lines []string      // "LEVEL message key=value ..."
	grown chan struct{} // closed, and made anew, with every line
	hook  func(message string)
}

func newLogBook() *logBook { return &logBook{grown: make(chan struct{})} }

func (b *logBook) logger() *slog.Logger { return slog.New(b) }

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *logBook) WithGroup(string) slog.Handler            { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	fmt.Fprintf(&line, "%s %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&line, " %s=%v", a.Key, a.Value)
		return true
	})
	b.mu.Lock()
	b.lines = append(b.lines, line.String())
	close(b.grown)
	b.grown = make(chan struct{})
	hook := b.hook
	b.mu.Unlock()
	if hook != nil {
		hook(r.Message)
	}
	return nil
}

// with returns the lines that contain all of words.
func (b *logBook) with(words ...string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.withLocked(words...)
}

func (b *logBook) withLocked(words ...string) []string {
	var found []string
next:
	for _, line := range b.lines {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// await waits until count lines contain all of words, and returns them.
func (b *logBook) await(t testing.TB, ctx context.Context, count int, words ...string) []string {
	t.Helper()
	for {
		b.mu.Lock()
		found, grown := b.withLocked(words...), b.grown
		b.mu.Unlock()
		if len(found) >= count {
			return found
		}
		select {
		case <-grown:
		case <-ctx.Done():
			t.Fatalf("%d of %d log lines with %q; all:\n%s", len(found), count, words, strings.Join(b.with(), "\n"))
		}
	}
}
