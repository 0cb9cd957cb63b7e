package runner

import (
	"context"
	"time"
)

// A clock counts from the start of the run. Each process has its own; the wall
// clock is read once, at the start, and never again.
type clock struct{ start time.Time }

// startedAt is a clock whose zero is wall, in nanoseconds of the wall clock. The
// reading of the monotonic clock stays with start, so that later jumps of the
// wall clock do nothing.
func startedAt(wall int64) clock {
	now := time.Now()
	return clock{now.Add(-time.Duration(now.UnixNano() - wall))}
}

func (c clock) now() time.Duration { return time.Since(c.start) }

// until waits for a moment of the run; false if ctx ended first.
func (c clock) until(ctx context.Context, moment time.Duration) bool {
	return c.untilOr(ctx, moment, nil)
}

// untilOr waits for a moment of the run; false if ctx ended or over was closed
// first.
func (c clock) untilOr(ctx context.Context, moment time.Duration, over <-chan struct{}) bool {
	wait := moment - c.now()
	if wait <= 0 {
		select {
		case <-over:
			return false
		default:
			return ctx.Err() == nil
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-over:
	case <-ctx.Done():
	}
	return false
}
