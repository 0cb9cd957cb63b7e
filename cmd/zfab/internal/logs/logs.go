// Package logs makes the loggers that the nodes of a command write to.
package logs

import (
	"io"
	"log/slog"
)

// A handler is a text handler that can be hushed.
type handler struct {
	slog.Handler
	level *slog.LevelVar
	hush  bool
}

// New is a logger that writes to w: everything where verbose, else warnings and
// errors.
func New(w io.Writer, verbose bool) *slog.Logger {
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	if verbose {
		level.Set(slog.LevelDebug)
	}
	return slog.New(handler{slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}), level, !verbose})
}

// Hush lets a logger of New tell errors only, unless it is verbose. It is for
// when nodes see others go, and that is no news: links are broken on purpose, or
// the work is done and all nodes close.
func Hush(l *slog.Logger) {
	if h, ok := l.Handler().(handler); ok && h.hush {
		h.level.Set(slog.LevelError)
	}
}
