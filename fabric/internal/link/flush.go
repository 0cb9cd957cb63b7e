package link

import (
	"context"
	"errors"
	"slices"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// flusher is a Flush that waits for acknowledgements.
type flusher struct {
	stream *SendStream
	until  uint64
	done   chan struct{}
}

// flushed lets those Flushes go on whose streams have come far enough.
func (c *core) flushed() {
	if len(c.flushers) == 0 {
		return
	}
	rest := c.flushers[:0]
	for _, f := range c.flushers {
		if f.stream.acked >= f.until || f.stream.failure != nil {
			close(f.done)
		} else {
			rest = append(rest, f)
		}
	}
	clear(c.flushers[len(rest):])
	c.flushers = rest
}

// flushing reports whether a Flush waits for s.
func (c *core) flushing(s *SendStream) bool {
	for _, f := range c.flushers {
		if f.stream == s {
			return true
		}
	}
	return false
}

// Flush waits until everything that the link has accepted so far is stored by
// its consumers' ends, or ctx ends. The error joins one for each stream that
// failed meanwhile with messages in doubt.
func (l *Link) Flush(ctx context.Context) error {
	l.mu.Lock()
	streams := slices.Clone(l.core.leave)
	for _, f := range l.core.flows {
		streams = append(streams, f.streams...)
	}
	l.mu.Unlock()
	var errs []error
	for _, s := range streams {
		if err := s.Flush(ctx); err != nil {
			if _, pending := s.Failure(); pending {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Flush waits until everything accepted so far is stored by the consumer's
// end, the stream fails, or ctx ends.
func (s *SendStream) Flush(ctx context.Context) error {
	l := s.link
	l.mu.Lock()
	if s.failure != nil || s.acked >= s.flow.Accepted.Messages {
		defer l.mu.Unlock()
		return s.failure
	}
	f := s.beginFlush()
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	select {
	case <-f.done:
		l.mu.Lock()
		defer l.mu.Unlock()
		return s.failure
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, g := range l.core.flushers {
			if g == f {
				l.core.flushers = append(l.core.flushers[:i], l.core.flushers[i+1:]...)
				break
			}
		}
		return ctx.Err()
	}
}

// beginFlush notes a Flush that waits for what is accepted now, and asks for the
// acknowledgement. Under mu.
func (s *SendStream) beginFlush() *flusher {
	c := &s.link.core
	f := &flusher{stream: s, until: s.flow.Accepted.Messages, done: make(chan struct{})}
	c.flushers = append(c.flushers, f)
	if !s.flow.Backlog() {
		c.mention(s, wire.BacklogAsk)
	}
	return f
}
