package patterns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
)

// RequesterConfig says how to open a Requester.
type RequesterConfig[Q, A any] struct {
	// Channel is the servers'. It and the one of that name with ".replies" behind it
	// carry nothing else.
	Channel string
	// MaxOutstanding bounds the calls that have no answer yet; further ones wait.
	// Default: 65,536; at most 500,000.
	MaxOutstanding int
	// Patience is how long a server's node may be without connection until its
	// calls fail, or move if they are idempotent. Default: 500 ms; at least 10 ms.
	// A node that is lost for good, or started anew, is noticed without it.
	Patience time.Duration
	// StreamWindow is how many items of a stream may wait for the program that reads
	// it; the server waits then. Default: 64.
	StreamWindow int
	// Requests and Replies encode and decode. Default: raw for []byte, else
	// MessagePack.
	Requests Codec[Q]
	Replies  Codec[A]
}

const (
	defaultOutstanding     = 1 << 16
	maxOutstanding         = 500_000 // with as many hedges, less than maxSlots
	defaultRequestPatience = 500 * time.Millisecond
	defaultStreamWindow    = 64
	maxStreamWindow        = 1 << 20
)

// Requester calls the servers of a channel, its Repliers. Its methods may be
// called by several goroutines.
//
// Delivery: a request is done at most once, unless its call is marked as
// idempotent or hedged: then once at least, if it is answered. A call that fails
// with a *ServerLostError, or whose context ends, may have been done.
//
// Order: none between calls. The items of a stream come in theirs.
//
// What blocks: a call, until it is answered; and before that, while too many are
// outstanding or the server's node takes no more. It ends with its context, and
// so does its handler at the server.
//
// What a dead peer means: calls to a dead server fail with a *ServerLostError, or
// move to another one if idempotent, as soon as its node is lost, started anew, or
// without connection for longer than Patience; not at their deadline.
type Requester[Q, A any] struct {
	core     *requester
	requests coder[Q]
	replies  coder[A]
}

// CallOptions say how a call is made. The zero value is a call that is done at
// most once, by the server with the least outstanding.
type CallOptions struct {
	// Key makes the call go to the server that owns it: the same one for all
	// requesters that know the same servers. Such a call moves to no other.
	Key []byte
	// Idempotent says that it does no harm if the request is done twice: the call
	// moves to another server if its own is lost.
	Idempotent bool
	// Hedge sends the request to a second server if there is no answer after that
	// time; the first answer counts, and the other call is cancelled. It is worth
	// its load where few calls are slow; a usual value is the 95th percentile. It
	// implies Idempotent. Default: 0, never.
	Hedge time.Duration
}

// OpenRequester makes a requester. It waits, until ctx ends, for the directory.
func OpenRequester[Q, A any](ctx context.Context, node *fabric.Node, cfg RequesterConfig[Q, A]) (*Requester[Q, A], error) {
	replies := newCoder(cfg.Replies)
	core, err := openRequester(ctx, node, requesterConfig{
		channel: cfg.Channel, outstanding: cfg.MaxOutstanding, patience: cfg.Patience, window: cfg.StreamWindow, copying: replies.copying,
	})
	if err != nil {
		return nil, fmt.Errorf("patterns: requester on %q at node %s: %w", cfg.Channel, node.Name(), err)
	}
	return &Requester[Q, A]{core: core, requests: newCoder(cfg.Requests), replies: replies}, nil
}

// Call asks a server and returns its answer, which belongs to the caller. If ctx
// has a deadline, the server's handler has it too: as the time that is left, so
// that clocks need not agree.
//
// The error is ctx's, *ReplyError, *ServerLostError, *CodecError,
// *fabric.TooLargeError, fabric.ErrClosed, or it matches ErrNoServer if there is
// no server at all.
func (r *Requester[Q, A]) Call(ctx context.Context, q Q) (A, error) {
	return r.CallWith(ctx, q, CallOptions{})
}

// CallWith is Call with options.
func (r *Requester[Q, A]) CallWith(ctx context.Context, q Q, opts CallOptions) (a A, err error) {
	request, err := r.requests.pack(q, false)
	if err != nil {
		return a, err
	}
	c, err := r.core.begin(ctx, request, opts, 0)
	if err != nil {
		request.release()
		return a, err
	}
	defer c.end()
	o, err := c.wait()
	if err != nil {
		return a, err
	}
	return a, r.decode(o.body, &a)
}

// decode decodes a reply, and gives its memory back.
func (r *Requester[Q, A]) decode(body parcel, a *A) error {
	err := r.replies.decode(body.body(), a)
	body.release() // which is nothing, if a may refer to it
	return err
}

// Pending is a call under way, whose delivery and order are those of its Requester's
// calls. Only Wait blocks; a dead server ends it as it ends Call.
type Pending[A any] struct {
	done   chan struct{}
	answer A
	err    error
}

// Done is closed when the call has ended.
func (p *Pending[A]) Done() <-chan struct{} { return p.done }

// Wait waits for the call's end, until ctx ends; the call goes on then. It returns
// what CallWith would have.
func (p *Pending[A]) Wait(ctx context.Context) (A, error) {
	select {
	case <-p.done:
		return p.answer, p.err
	case <-ctx.Done():
		var none A
		return none, ctx.Err()
	}
}

// Start is CallWith that does not wait: the answer comes with Pending. The call
// ends with ctx. q must not be changed until then, if it is a []byte.
func (r *Requester[Q, A]) Start(ctx context.Context, q Q, opts CallOptions) *Pending[A] {
	p := &Pending[A]{done: make(chan struct{})}
	if !r.core.enter() {
		p.err = fabric.ErrClosed
		close(p.done)
		return p
	}
	go func() {
		defer r.core.started.Done()
		defer close(p.done)
		p.answer, p.err = r.CallWith(ctx, q, opts)
	}()
	return p
}

// Stream asks a server and iterates over its answers, which belong to the caller.
// The request is sent when the iteration begins. An error is yielded as the last;
// without one the stream was whole. A loop that ends early tells the server, and
// its handler's context ends. A server that answers with one reply is a stream of
// one.
//
// The server waits while as many items as StreamWindow are not yielded yet. A
// stream that has yielded something does not move to another server.
func (r *Requester[Q, A]) Stream(ctx context.Context, q Q, opts CallOptions) iter.Seq2[A, error] {
	return func(yield func(A, error) bool) {
		var none A
		request, err := r.requests.pack(q, false)
		if err != nil {
			yield(none, err)
			return
		}
		c, err := r.core.begin(ctx, request, opts, r.core.cfg.window)
		if err != nil {
			request.release()
			yield(none, err)
			return
		}
		defer c.end()
		for {
			body, more, err := c.next()
			if err != nil {
				yield(none, err)
				return
			}
			if !more {
				return
			}
			var a A
			if err := r.decode(body, &a); err != nil {
				yield(none, err)
				return
			}
			if !yield(a, nil) {
				return
			}
		}
	}
}

// Servers is the servers that are there now, in no order.
func (r *Requester[Q, A]) Servers() []fabric.Address { return r.core.present() }

// WaitServers waits until at least count servers are there, or ctx ends.
func (r *Requester[Q, A]) WaitServers(ctx context.Context, count int) error {
	n, err := waitMembers(ctx, r.core.ctx, &r.core.mu, r.core.servers, count)
	if err != nil && err != fabric.ErrClosed {
		return fmt.Errorf("patterns: %d of %d servers of %s are there: %w", n, count, r.core.cfg.channel, err)
	}
	return err
}

// Drain takes no more calls, waits until all have ended, or ctx ends, and closes
// the requester.
func (r *Requester[Q, A]) Drain(ctx context.Context) error { return r.core.drain(ctx) }

// Close ends the requester, and its calls with fabric.ErrClosed; their handlers'
// contexts end.
func (r *Requester[Q, A]) Close() error { return r.core.close() }

// Stats returns the requester's counts, from its begin on.
func (r *Requester[Q, A]) Stats() RequesterStats { return r.core.statistics() }

// RequesterStats is a requester's state at one moment.
type RequesterStats struct {
	Calls       uint64 // begun
	Requests    uint64 // sent: more than calls, by those that moved and hedges
	Moved       uint64 // requests that were sent because another server refused the call or was lost
	Hedged      uint64 // requests that were sent because an answer took too long
	Lost        uint64 // requests whose server was lost before it answered
	Cancelled   uint64 // requests of calls that ended before the answer came
	LateReplies uint64 // answers to calls that had ended
	Malformed   uint64 // messages on the replies channel that are no records of this pattern
	Outstanding int    // calls that have no answer yet
	Servers     int
}

// requesterConfig is a RequesterConfig without its types.
type requesterConfig struct {
	channel             string
	outstanding, window int
	patience            time.Duration
	copying             bool // values of replies refer to nothing in them
}

func (c requesterConfig) withDefaults() (requesterConfig, error) {
	if c.outstanding == 0 {
		c.outstanding = defaultOutstanding
	}
	if c.window == 0 {
		c.window = defaultStreamWindow
	}
	if c.patience == 0 {
		c.patience = defaultRequestPatience
	}
	switch {
	case c.outstanding < 0 || c.outstanding > maxOutstanding:
		return c, &fabric.ConfigError{Field: "MaxOutstanding", Value: c.outstanding, Reason: fmt.Sprintf("be 1 to %d", maxOutstanding)}
	case c.window < 0 || c.window > maxStreamWindow:
		return c, &fabric.ConfigError{Field: "StreamWindow", Value: c.window, Reason: fmt.Sprintf("be 1 to %d", maxStreamWindow)}
	case c.patience < minPatience:
		return c, &fabric.ConfigError{Field: "Patience", Value: c.patience, Reason: fmt.Sprintf("be at least %v", minPatience)}
	}
	return c, nil
}

// requester is a Requester without its types. It owns a goroutine that reads
// replies and one that watches servers, and one for each call that was started.
type requester struct {
	cfg      requesterConfig
	node     *fabric.Node
	producer *fabric.Producer
	replies  *fabric.Consumer
	ctx      context.Context // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	started  sync.WaitGroup // calls of Start
	free     chan struct{}  // room for calls: cfg.outstanding of them

	mu       sync.Mutex
	attempts slots[*attempt]
	servers  *roster[duty]
	calls    int
	idle     chan struct{} // closed when there is no call; nil while nobody asks
	closed   bool
	stats    RequesterStats

	closing sync.Once
	closeIt error
}

// server is a Replier as a requester knows it.
type server = member[duty]

// duty is what a server has to answer.
type duty struct {
	first *attempt // of a list
	owed  []uint64 // cancellations that found no room, to be sent later
}

// maxOwed bounds what waits to be cancelled at a server: what is beyond it ends
// with its deadline, or when it is done.
const maxOwed = 1 << 12

func openRequester(ctx context.Context, node *fabric.Node, cfg requesterConfig) (_ *requester, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	r := &requester{cfg: cfg, node: node, free: make(chan struct{}, cfg.outstanding)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if r.replies, err = node.Consumer(ctx, replyChannel(cfg.channel), fabric.ConsumerConfig{}); err != nil {
		return nil, err
	}
	if r.producer, err = node.Producer(ctx, cfg.channel, fabric.ProducerConfig{}); err != nil {
		r.replies.Close()
		return nil, err
	}
	r.servers = newRoster(node, r.producer, cfg.patience, r.lost)
	r.servers.meet = func(m *server) error {
		var mem [headRoom]byte
		return m.target.TrySend(appendRecord(mem[:0], kindMeet, r.index(), m.session))
	}
	r.wg.Go(r.hear)
	r.wg.Go(r.keep)
	return r, nil
}

// index is what servers address this requester by.
func (r *requester) index() uint64 { return uint64(r.replies.Address().Index) }

// present is the servers that are there now, in no order.
func (r *requester) present() []fabric.Address {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []fabric.Address
	for _, m := range r.servers.present() {
		list = append(list, m.addr)
	}
	return list
}

// enter counts a call of Start in, unless the requester is closed.
func (r *requester) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.started.Add(1)
	return true
}

// keep watches servers until the requester closes.
func (r *requester) keep() {
	tick := time.NewTicker(r.servers.interval())
	defer tick.Stop()
	changed := r.reachAll()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-changed:
			changed = r.reachAll()
		case <-tick.C:
			r.mu.Lock()
			r.servers.watch(time.Now())
			for _, m := range r.servers.members {
				r.settle(m)
			}
			r.mu.Unlock()
		}
	}
}

// reachAll finds the servers' consumers, and returns what is closed when that is to be
// done again.
func (r *requester) reachAll() (changed <-chan struct{}) {
	changed = r.producer.Changed()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers.reachAll()
	return changed
}

// settle sends a server the cancellations that it is owed. Under mu.
func (r *requester) settle(m *server) {
	for len(m.who.owed) > 0 {
		var mem [headRoom]byte
		if m.target.TrySend(appendRecord(mem[:0], kindCancel, r.index(), m.who.owed[0])) == fabric.ErrHighWater {
			return
		}
		m.who.owed = m.who.owed[1:]
	}
	m.who.owed = nil
}

func (r *requester) drain(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	idle := make(chan struct{})
	if r.calls == 0 {
		close(idle)
	} else {
		r.idle = idle
	}
	r.mu.Unlock()
	var err error
	select {
	case <-idle:
	case <-r.ctx.Done():
	case <-ctx.Done():
		err = fmt.Errorf("patterns: calls of %s are outstanding: %w", r.cfg.channel, ctx.Err())
	}
	return errors.Join(err, r.close())
}

func (r *requester) close() error {
	r.closing.Do(func() {
		r.mu.Lock()
		r.closed = true
		leave := appendRecord(nil, kindLeave, r.index())
		for _, m := range r.servers.present() {
			_ = m.target.TrySend(leave) // one that is gone need not know
		}
		r.cancel()
		r.attempts.all(func(_ uint64, a *attempt) {
			r.remove(a)
			a.results <- outcome{of: a, kind: failed, err: fabric.ErrClosed}
		})
		r.mu.Unlock()
		r.started.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		_ = r.producer.Drain(ctx) // a server that does not hear it notices when the node goes
		if drained := r.replies.Drain(ctx); ctx.Err() == nil {
			r.closeIt = drained
		}
		r.wg.Wait()
	})
	return r.closeIt
}

func (r *requester) statistics() RequesterStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.stats
	st.Outstanding, st.Servers = r.calls, len(r.servers.present())
	return st
}

// anyRoom is the room of a server, whose own queue bounds what it takes.
const anyRoom = math.MaxInt
