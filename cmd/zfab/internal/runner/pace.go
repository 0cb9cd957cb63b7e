package runner

import (
	"context"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// A pacer says when a producer's next message is due. Where the load has a rate
// messages are due evenly, and one that is late does not delay the next: its
// latency counts from when it was due, so that a stall is not hidden by the
// sending that it held up. Without a rate every message is due at once.
type pacer struct {
	clock    clock
	interval time.Duration // 0: no rate
	duration time.Duration // 0: no end by time
	sample   uint64        // without a rate: read the clock for one message in so many
	count    uint64
	over     <-chan struct{} // closed when the load ends; nil: the duration or the amount says it
}

func newPacer(l topology.Load, c clock) *pacer {
	p := &pacer{clock: c, duration: l.Duration, sample: 1}
	if l.Rate > 0 {
		p.interval = time.Duration(float64(time.Second) / l.Rate)
	} else {
		// One reading per 4 KiB, at most one in 64 messages: it costs as much
		// as a small message.
		p.sample = uint64(min(64, max(1, 4*units.KiB/l.Size)))
	}
	return p
}

// begin lets the first message be due now, where the run began long ago.
func (p *pacer) begin() {
	if p.interval > 0 {
		p.count = uint64(max(0, p.clock.now()) / p.interval)
	}
}

// wakeInterval is the least time that a producer sleeps. A timer per message
// would take more than the messages do; at rates above 2,000 per second messages
// go out in small bursts instead, the first ones late by up to this much, which
// their latency tells.
const wakeInterval = 500 * time.Microsecond

func (p *pacer) wait(ctx context.Context, due time.Duration) bool {
	if p.interval < wakeInterval {
		if now := p.clock.now(); due > now {
			due = max(due, now+wakeInterval)
		}
	}
	return p.clock.untilOr(ctx, due, p.over)
}

// ended reports whether over is closed.
func (p *pacer) ended() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// pass lets the turns of targets go by that are not ready: where the load has a
// rate their messages come later, and are not sent to the others instead.
func (p *pacer) pass(turns int) {
	if p.interval > 0 {
		p.count += uint64(turns)
	}
}

// next waits until the next message is due and returns the time to stamp it
// with, 0 if it is not measured; false when the load's time is over or ctx
// ended.
func (p *pacer) next(ctx context.Context) (planned time.Duration, more bool) {
	n := p.count
	p.count++
	if p.interval > 0 {
		planned = time.Duration(n) * p.interval
		if p.duration > 0 && planned >= p.duration {
			return 0, false
		}
		return max(planned, 1), p.wait(ctx, planned)
	}
	if n%p.sample != 0 {
		return 0, true
	}
	now := p.clock.now()
	return max(now, 1), ctx.Err() == nil && !p.ended() && (p.duration == 0 || now < p.duration)
}
