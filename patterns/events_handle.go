package patterns

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// Handle runs handle for each event: those of a partition one after another, in their
// order, and of different partitions side by side, up to concurrency at a time. It
// goes on until all promised publishers have finished or the member drains; or until
// ctx ends or the member closes, which is an error. It returns when all handlers have;
// so must no handler close its member.
//
// An event whose handler returns nil is acknowledged. If it returns an error or
// panics, the event is tried again after a delay that doubles from 100 ms to 30 s, and
// those behind it in its partition wait, up to MaxAttempts times. Events that cannot
// be decoded and publishers that are lost are passed over: Stats counts the former.
func (m *EventMember[T]) Handle(ctx context.Context, concurrency int, handle func(context.Context, Event[T]) error) error {
	if concurrency < 1 {
		return &fabric.ConfigError{Field: "concurrency", Value: concurrency, Reason: "be at least 1"}
	}
	if !m.core.enter() {
		return fabric.ErrClosed
	}
	defer m.core.handling.Done()
	h := &eventHandling[T]{
		member: m, handle: handle, free: make(chan struct{}, concurrency), lines: make(map[int][]Event[T]),
	}
	h.ctx, h.cancel = context.WithCancel(ctx)
	defer h.cancel()
	stop := context.AfterFunc(m.core.ctx, h.cancel) // the member's Close
	defer stop()
	for {
		e, err := m.Receive(h.ctx)
		if m.core.ctx.Err() != nil {
			err = fabric.ErrClosed
		}
		switch {
		case err == fabric.ErrEnd:
			h.running.Wait()
			return nil
		case err != nil && !passing(err):
			h.cancel()
			h.running.Wait()
			return err
		case err == nil:
			h.add(e.Keep())
		}
	}
}

// eventHandling is a Handle under way. It owns a goroutine for each partition that has
// events; how many there are is bounded by what is in flight.
type eventHandling[T any] struct {
	member  *EventMember[T]
	handle  func(context.Context, Event[T]) error
	ctx     context.Context // of handlers
	cancel  context.CancelFunc
	free    chan struct{} // room for handlers
	running sync.WaitGroup

	mu    sync.Mutex
	lines map[int][]Event[T] // by partition, of those with a goroutine: what waits for it
}

// add puts an event behind the others of its partition.
func (h *eventHandling[T]) add(e Event[T]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line, running := h.lines[e.Partition]
	h.lines[e.Partition] = append(line, e)
	if !running {
		h.running.Go(func() { h.work(e.Partition) })
	}
}

// work handles a partition's events until there is none.
func (h *eventHandling[T]) work(partition int) {
	for {
		h.mu.Lock()
		line := h.lines[partition]
		if len(line) == 0 || h.ctx.Err() != nil {
			delete(h.lines, partition)
			h.mu.Unlock()
			return
		}
		e := line[0]
		h.lines[partition] = line[1:]
		h.mu.Unlock()
		h.do(e)
	}
}

// do handles one event, again if its handler fails.
func (h *eventHandling[T]) do(e Event[T]) {
	m := h.member
	for attempt := 1; ; attempt++ {
		if !h.enter(e.hand) {
			return
		}
		if e.hand.isOver() {
			<-h.free
			if attempt == 1 {
				m.core.stale.Add(1)
			}
			return
		}
		err := h.try(e)
		<-h.free
		if err == nil {
			_ = e.Ack() // an error says that it is somebody else's, who handles it again
			return
		}
		if h.ctx.Err() != nil {
			return // and it is delivered again
		}
		if attempt == m.attempts {
			m.failed.Add(1)
			m.logger.Error("an event is given up", "channel", m.core.channel, "partition", e.Partition, "attempts", attempt, "reason", err)
			_ = e.Ack()
			return
		}
		m.retried.Add(1)
		wait := time.NewTimer(backoff(attempt))
		select {
		case <-wait.C:
		case <-h.ctx.Done():
			wait.Stop()
			return
		}
	}
}

// enter waits until an event of the hand may be begun and there is room for a handler,
// which it takes; or until ctx ends: false.
func (h *eventHandling[T]) enter(hand *eventHand) bool {
	for {
		select {
		case h.free <- struct{}{}:
		case <-h.ctx.Done():
			return false
		}
		held := hand.held()
		if held == nil {
			return true
		}
		<-h.free
		select {
		case <-held:
		case <-h.ctx.Done():
			return false
		}
	}
}

// try runs the handler, whose panic is an error.
func (h *eventHandling[T]) try(e Event[T]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return h.handle(h.ctx, e)
}
