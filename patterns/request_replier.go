package patterns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime/debug"

	"github.com/zfab/zfab/fabric"
)

// ReplierConfig says how to open a Replier.
type ReplierConfig[Q, A any] struct {
	// Channel is the one that requesters call.
	Channel string
	// Concurrency bounds the handlers that run at a time. Default: 64; at most 65,536.
	Concurrency int
	// Queue bounds the requests that wait for a handler; what is beyond it is
	// refused, and its call moves to another server. Requesters are served in turn.
	// Default: 16,384 requests, 64 MiB.
	Queue fabric.HighWaterMark
	// Logger takes the panics of handlers, with their stacks. Default:
	// slog.Default().
	Logger *slog.Logger
	// Requests and Replies decode and encode. Default: raw for []byte, else
	// MessagePack.
	Requests Codec[Q]
	Replies  Codec[A]
}

const (
	defaultConcurrency = 64
	maxConcurrency     = 1 << 16
	defaultQueueJobs   = 1 << 14
	defaultQueueBytes  = 64 << 20
)

// Replier answers the calls of a channel's requesters. Its methods may be called
// by any goroutine.
//
// Delivery: each request is handed to a handler once, or refused. Its reply
// arrives once, if its requester lives and still waits.
//
// Order: none; handlers run side by side.
//
// What blocks: a handler's stream, while its requester has taken no more of it
// than its window, until the handler's context ends.
//
// What a dead peer means: the contexts of its requests' handlers end, and those
// that wait are dropped, when the requester's node is lost.
type Replier struct{ core *replier }

// OpenReplier makes a server that answers each request with one reply. handle
// runs in a goroutine of its own, up to Concurrency at a time; its context ends
// with the call's deadline, when the caller waits no more, and when the server
// closes. A request that is a []byte is valid until handle returns.
//
// An error that handle returns is the call's *ReplyError: as it is, or with
// CodeError. A panic is one with CodePanic, and is logged.
func OpenReplier[Q, A any](ctx context.Context, node *fabric.Node, cfg ReplierConfig[Q, A], handle func(context.Context, Q) (A, error)) (*Replier, error) {
	requests, replies := newCoder(cfg.Requests), newCoder(cfg.Replies)
	return newReplier(ctx, node, cfg, func(ctx context.Context, body []byte, to *request) error {
		var q Q
		if err := requests.decode(body, &q); err != nil {
			return &ReplyError{Code: CodeBadRequest, Text: err.Error()}
		}
		a, err := handle(ctx, q)
		if err != nil {
			return err
		}
		return reply(ctx, to, replies, kindReply, a)
	})
}

// OpenStreamReplier makes a server that answers each request with a stream: what
// handle iterates over, up to its first error. The sequence runs in a goroutine of
// its own, as a handler; it waits in yield when the caller is behind, and ends
// early, with yield returning false, when nobody waits for it any more.
func OpenStreamReplier[Q, A any](ctx context.Context, node *fabric.Node, cfg ReplierConfig[Q, A], handle func(context.Context, Q) iter.Seq2[A, error]) (*Replier, error) {
	requests, replies := newCoder(cfg.Requests), newCoder(cfg.Replies)
	return newReplier(ctx, node, cfg, func(ctx context.Context, body []byte, to *request) error {
		if to.window == 0 {
			return &ReplyError{Code: CodeStream, Text: "the server answers with a stream: use Stream"}
		}
		var q Q
		if err := requests.decode(body, &q); err != nil {
			return &ReplyError{Code: CodeBadRequest, Text: err.Error()}
		}
		for a, err := range handle(ctx, q) {
			if err != nil {
				return err
			}
			if err := to.await(ctx); err != nil {
				return err
			}
			if err := reply(ctx, to, replies, kindItem, a); err != nil {
				return err
			}
		}
		to.end()
		return nil
	})
}

// reply sends one reply.
func reply[A any](ctx context.Context, to *request, c coder[A], kind uint64, a A) error {
	body, err := c.pack(a, false)
	if err != nil {
		return &ReplyError{Code: CodeBadReply, Text: err.Error()}
	}
	defer body.release()
	return to.reply(ctx, kind, body)
}

func newReplier[Q, A any](ctx context.Context, node *fabric.Node, cfg ReplierConfig[Q, A], handle handler) (*Replier, error) {
	core, err := openReplier(ctx, node, replierConfig{
		channel: cfg.Channel, concurrency: cfg.Concurrency, queue: cfg.Queue, logger: cfg.Logger,
	}, handle)
	if err != nil {
		return nil, fmt.Errorf("patterns: replier on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Replier{core}, nil
}

// Drain takes no new requests, answers those that have come and were on their
// way, and closes the server. It ends early when ctx does; what is left is then
// as with Close.
func (r *Replier) Drain(ctx context.Context) error { return r.core.drain(ctx) }

// Close ends the server: requests that wait are refused, and move to other
// servers; the contexts of running handlers end. It waits for the handlers to
// return.
func (r *Replier) Close() error { return r.core.close() }

// Address is the server's own: the consumer of requests.
func (r *Replier) Address() fabric.Address { return r.core.consumer.Address() }

// Stats returns the server's counts, from its begin on.
func (r *Replier) Stats() ReplierStats { return r.core.statistics() }

// ReplierStats is a server's state at one moment.
type ReplierStats struct {
	Requests      uint64 // that have come
	Started       uint64 // handed to a handler
	Errors        uint64 // answered with an error, panics included
	Panics        uint64 // of handlers
	Refused       uint64 // not started: the queue was full, the server closing, or the deadline over
	Cancelled     uint64 // whose caller waited no more, or was lost, before the answer
	Undeliverable uint64 // answers that could not be sent: the requester is gone
	Malformed     uint64 // messages on the channel that are no records of this pattern
	Orphaned      uint64 // requests of requesters that were gone before they could be received
	Running       int    // handlers now
	Queued        int    // requests that wait now
	Requesters    int    // that have asked, and are not gone
}

// replierConfig is a ReplierConfig without its types.
type replierConfig struct {
	channel     string
	concurrency int
	queue       fabric.HighWaterMark
	logger      *slog.Logger
}

func (c replierConfig) withDefaults() (replierConfig, error) {
	if c.concurrency == 0 {
		c.concurrency = defaultConcurrency
	}
	if c.queue.Messages == 0 {
		c.queue.Messages = defaultQueueJobs
	}
	if c.queue.Bytes == 0 {
		c.queue.Bytes = defaultQueueBytes
	}
	if c.logger == nil {
		c.logger = slog.Default()
	}
	switch {
	case c.concurrency < 0 || c.concurrency > maxConcurrency:
		return c, &fabric.ConfigError{Field: "Concurrency", Value: c.concurrency, Reason: fmt.Sprintf("be 1 to %d", maxConcurrency)}
	case c.queue.Messages < 0:
		return c, &fabric.ConfigError{Field: "Queue.Messages", Value: c.queue.Messages, Reason: "not be negative"}
	case c.queue.Bytes < 0:
		return c, &fabric.ConfigError{Field: "Queue.Bytes", Value: c.queue.Bytes, Reason: "not be negative"}
	}
	return c, nil
}

// handler answers a request with its replies. An error is the answer, unless the
// request has had one.
type handler func(ctx context.Context, body []byte, to *request) error

// run runs the handler, whose panic is an error.
func (h handler) run(ctx context.Context, r *replier, q *request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.panics.Add(1)
			r.cfg.logger.Error("a handler panicked", "channel", r.cfg.channel, "panic", p, "stack", string(debug.Stack()))
			err = &ReplyError{Code: CodePanic, Text: fmt.Sprint("the handler panicked: ", p)}
		}
	}()
	return h(ctx, q.body.body(), q)
}

// answer is the error that a caller gets for a handler's.
func answer(err error) *ReplyError {
	var e *ReplyError
	if errors.As(err, &e) {
		return e
	}
	return &ReplyError{Code: CodeError, Text: err.Error()}
}
