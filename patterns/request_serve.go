package patterns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric"
)

// replier is a Replier without its types. It owns a goroutine that reads
// requests, one that greets requesters, and up to cfg.concurrency that run
// handlers, each as long as there are requests.
type replier struct {
	cfg      replierConfig
	handle   handler
	consumer *fabric.Consumer
	producer *fabric.Producer // of replies
	greeter  *greeter
	ctx      context.Context // handlers'; ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup // the reader and the greeter
	handlers sync.WaitGroup
	greeting context.Context
	stop     context.CancelFunc // of greeting

	panics, undeliverable atomic.Uint64

	mu      sync.Mutex
	clients map[fabric.Address]*client // by their consumers of replies
	met     map[fabric.Address]bool    // requesters that have answered this server's hello, likewise
	queue   fairQueue[*client, *request]
	bytes   int64 // in the queue
	running int
	resting []chan *request // of goroutines that have no request, the last one to rest last; capacity 1
	refuse  bool            // all that comes: the server is closing
	idle    chan struct{}   // closed when nothing runs or waits; nil while nobody asks
	stats   ReplierStats

	closing sync.Once
	closeIt error
}

// client is a requester as a server knows it. Under the server's mu.
type client struct {
	addr     fabric.Address // its consumer of replies
	requests map[uint64]*request
}

// request is one request at its server.
type request struct {
	r       *replier
	client  *client
	to      *fabric.Target
	id      uint64
	body    parcel
	expires time.Time // zero: never

	// Under the server's mu.
	over   bool               // nobody waits for it
	cancel context.CancelFunc // of its handler; nil while it waits

	// Of a stream.
	window  int           // 0: one reply is asked for
	sent    uint64        // the handler's
	allowed atomic.Uint64 // items in all
	more    chan struct{} // capacity 1: allowed has grown
}

func openReplier(ctx context.Context, node *fabric.Node, cfg replierConfig, handle handler) (*replier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &replier{cfg: cfg, handle: handle, clients: make(map[fabric.Address]*client), met: make(map[fabric.Address]bool)}
	if r.consumer, err = node.Consumer(ctx, cfg.channel, fabric.ConsumerConfig{}); err != nil {
		return nil, err
	}
	if r.producer, err = node.Producer(ctx, replyChannel(cfg.channel), fabric.ProducerConfig{}); err != nil {
		r.consumer.Close()
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.greeting, r.stop = context.WithCancel(context.Background())
	r.greeter = newGreeter(r.producer, kindServe, r.consumer.Address().Index, 1)
	r.wg.Go(func() { r.greeter.greet(r.greeting) })
	r.wg.Go(r.hear)
	return r, nil
}

// hear takes what requesters say, until the server closes. It waits for nothing
// else, so that a cancellation is heard whatever waits.
func (r *replier) hear() {
	for {
		m, err := r.consumer.Receive(context.Background())
		lost := lostPeer(err)
		if err != nil && lost == nil {
			return
		}
		if lost != nil {
			r.lost(lost.Node)
		} else if !r.take(m.Source().Node, m.Body) {
			r.mu.Lock()
			r.stats.Malformed++
			r.mu.Unlock()
		}
	}
}

// take takes a record, and reports whether it is one.
func (r *replier) take(node string, record []byte) bool {
	kind, f := readRecord(record)
	from := fabric.Address{Node: node, Index: int(f.number())}
	switch kind {
	case kindRequest:
		id, left, window := f.number(), f.number(), f.number()
		if !f.end() || window > maxStreamWindow {
			return false
		}
		r.arrived(from, id, left, int(window), f.rest)
	case kindCancel:
		id := f.number()
		if !f.end() {
			return false
		}
		r.mu.Lock()
		if c := r.clients[from]; c != nil && c.requests[id] != nil {
			r.drop(c.requests[id])
		}
		r.mu.Unlock()
	case kindCredit:
		id, items := f.number(), f.number()
		if !f.end() {
			return false
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if c := r.clients[from]; c != nil && c.requests[id] != nil {
			c.requests[id].allow(items)
		}
	case kindLeave:
		if !f.end() {
			return false
		}
		r.mu.Lock()
		r.dropAll(from)
		delete(r.met, from)
		r.mu.Unlock()
	case kindMeet:
		session := f.number()
		if !f.end() {
			return false
		}
		if session == r.greeter.session && r.greeter.find(from) != nil {
			r.mu.Lock()
			r.met[from] = true
			r.mu.Unlock()
		}
	default:
		return false
	}
	return true
}

// arrived takes a request: to a handler, to the queue, or not at all.
func (r *replier) arrived(from fabric.Address, id, left uint64, window int, body []byte) {
	e := r.greeter.find(from)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Requests++
	if e == nil {
		r.stats.Orphaned++ // gone, and its call over
		return
	}
	if r.refuse || !r.met[from] {
		r.refused(e.target, id, CodeClosing)
		return
	}
	full := int64(r.queue.len) >= r.cfg.queue.Messages || r.bytes+int64(len(body)) > r.cfg.queue.Bytes && r.queue.len > 0
	if r.running == r.cfg.concurrency && full {
		r.refused(e.target, id, CodeBusy)
		return
	}
	q := &request{r: r, to: e.target, id: id, body: packed(body), window: window}
	if left > 0 {
		q.expires = time.Now().Add(time.Duration(min(left, maxMicros)) * time.Microsecond)
	}
	if window > 0 {
		q.more = make(chan struct{}, 1)
		q.allowed.Store(uint64(window))
	}
	q.client = r.clients[from]
	if q.client == nil {
		q.client = &client{addr: from, requests: make(map[uint64]*request)}
		r.clients[from] = q.client
	}
	q.client.requests[id] = q
	if r.running == r.cfg.concurrency {
		r.queue.push(q.client, q)
		r.bytes += int64(len(body))
		return
	}
	r.running++
	if last := len(r.resting) - 1; last >= 0 {
		r.resting[last] <- q
		r.resting = r.resting[:last]
		return
	}
	r.handlers.Go(func() { r.work(q) })
}

// maxResting is how many goroutines are kept for further requests: one that has
// run a handler before has a stack that is large enough.
const maxResting = 64

// maxMicros is the longest time that a request may take, in microseconds: longer
// ones have no deadline that matters.
const maxMicros = 1 << 50

// refused says that a request was not started. Under mu.
func (r *replier) refused(to *fabric.Target, id uint64, code Code) {
	r.stats.Refused++
	var mem [headRoom]byte
	if to.TrySend(appendRecord(mem[:0], kindRefused, id, uint64(code))) != nil {
		r.undeliverable.Add(1)
	}
}

// drop ends a request for which nobody waits. Under mu.
func (r *replier) drop(q *request) {
	delete(q.client.requests, q.id)
	q.over = true
	r.stats.Cancelled++
	if q.cancel != nil {
		q.cancel()
	}
}

// dropAll ends all requests of a requester, who is gone. Under mu.
func (r *replier) dropAll(from fabric.Address) {
	c := r.clients[from]
	if c == nil {
		return
	}
	delete(r.clients, from)
	for _, q := range c.requests {
		r.drop(q)
	}
	for _, q := range r.queue.drop(c) {
		r.bytes -= int64(len(q.body.body()))
		q.body.release()
	}
	r.settle()
}

// lost drops the requests of all requesters at a node.
func (r *replier) lost(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr := range r.clients {
		if addr.Node == node {
			r.dropAll(addr)
		}
	}
	maps.DeleteFunc(r.met, func(addr fabric.Address, _ bool) bool { return addr.Node == node })
}

// work runs handlers for a request and then for others, until the server closes or
// enough goroutines rest.
func (r *replier) work(q *request) {
	rest := make(chan *request, 1)
	for q != nil {
		r.serve(q)
		q.body.release()
		if q = r.next(rest); q == nil {
			q = <-rest
		}
	}
}

// next is the next request that waits. If none does, nil: the goroutine rests, and
// the next one comes by rest, or nil if it is not needed.
func (r *replier) next(rest chan *request) *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		q, ok := r.queue.pop()
		if !ok {
			r.running--
			r.settle()
			if r.refuse || len(r.resting) == maxResting {
				rest <- nil
			} else {
				r.resting = append(r.resting, rest)
			}
			return nil
		}
		r.bytes -= int64(len(q.body.body()))
		switch {
		case q.over:
			q.body.release()
		case r.refuse:
			delete(q.client.requests, q.id)
			r.refused(q.to, q.id, CodeClosing)
			q.body.release()
		default:
			return q
		}
	}
}

// settle tells a Drain that nothing runs and nothing waits. Under mu.
func (r *replier) settle() {
	if r.running == 0 && r.queue.len == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// serve runs the handler of a request, and answers.
func (r *replier) serve(q *request) {
	ctx, cancel := r.context(q)
	defer cancel()
	if !r.start(q, ctx, cancel) {
		return
	}
	err := r.handle.run(ctx, r, q)
	if err == nil || !q.claim(true) {
		return
	}
	switch {
	case errors.Is(err, context.Canceled) && r.ctx.Err() != nil:
		err = &ReplyError{Code: CodeClosing, Text: "the server has closed"}
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == context.DeadlineExceeded:
		err = &ReplyError{Code: CodeExpired, Text: "the deadline has passed at the server"}
	}
	q.fail(answer(err))
}

// fail answers with an error.
func (q *request) fail(e *ReplyError) {
	r := q.r
	r.mu.Lock()
	r.stats.Errors++
	r.mu.Unlock()
	var mem [maxHead]byte
	r.sent(q.to.Send(r.ctx, appendTextRecord(mem[:0], e.Text, kindFailure, q.id, uint64(e.Code))))
}

// context is that of a request's handler.
func (r *replier) context(q *request) (context.Context, context.CancelFunc) {
	if q.expires.IsZero() {
		return context.WithCancel(r.ctx)
	}
	return context.WithDeadline(r.ctx, q.expires)
}

// start reports whether the handler is to be run: somebody still waits.
func (r *replier) start(q *request, ctx context.Context, cancel context.CancelFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case q.over:
		return false
	case ctx.Err() == context.DeadlineExceeded:
		delete(q.client.requests, q.id)
		q.over = true
		r.refused(q.to, q.id, CodeExpired)
		return false
	}
	q.cancel = cancel
	r.stats.Started++
	return true
}

// claim reports whether somebody waits for an answer. With the last one nobody
// does any more.
func (q *request) claim(last bool) bool {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	if q.over {
		return false
	}
	if last {
		delete(q.client.requests, q.id)
		q.over = true
	}
	return true
}

// sent counts an answer that found nobody.
func (r *replier) sent(err error) {
	if err != nil {
		r.undeliverable.Add(1)
	}
}

// errUnwanted ends a handler that nobody waits for.
var errUnwanted = errors.New("nobody waits for the reply")

// reply sends a reply, or an item of a stream. What is too large is an error for
// the caller instead.
func (q *request) reply(ctx context.Context, kind uint64, body parcel) error {
	last := kind == kindReply
	if !q.claim(last) {
		return errUnwanted
	}
	var mem [headRoom]byte
	err := body.send(ctx, q.to, appendRecord(mem[:0], kind, q.id))
	q.sent++
	switch {
	case tooLarge(err) && last:
		q.fail(&ReplyError{Code: CodeBadReply, Text: err.Error()})
	case tooLarge(err):
		return &ReplyError{Code: CodeBadReply, Text: err.Error()}
	default:
		q.r.sent(err)
	}
	return nil
}

// await waits until another item may be sent.
func (q *request) await(ctx context.Context) error {
	for q.sent >= q.allowed.Load() {
		select {
		case <-q.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// allow lets the stream have so many items in all.
func (q *request) allow(items uint64) {
	if q.more == nil || items <= q.allowed.Load() {
		return
	}
	q.allowed.Store(items)
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// end says that the stream is whole.
func (q *request) end() {
	if q.claim(true) {
		var mem [headRoom]byte
		q.r.sent(q.to.Send(q.r.ctx, appendRecord(mem[:0], kindEnd, q.id)))
	}
}

func (r *replier) drain(ctx context.Context) error {
	err := r.consumer.Drain(ctx) // which the reader sees to its end
	r.mu.Lock()
	idle := make(chan struct{})
	r.idle = idle
	r.settle()
	r.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("patterns: requests on %s are not answered: %w", r.cfg.channel, ctx.Err()))
	}
	return errors.Join(err, r.close())
}

// close refuses what comes and what waits, ends the handlers and says goodbye.
func (r *replier) close() error {
	r.closing.Do(func() {
		r.mu.Lock()
		r.refuse = true
		for _, rest := range r.resting {
			rest <- nil
		}
		r.resting = nil
		r.mu.Unlock()
		r.cancel()
		r.handlers.Wait() // and they refuse what waits
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		// What was sent before requesters knew is refused, too: they then know that it
		// was not started.
		err := r.consumer.Drain(ctx)
		r.stop()
		r.wg.Wait()
		r.greeter.bye(kindGone)
		_ = r.producer.Drain(ctx) // a requester that does not hear it notices when the node goes
		if ctx.Err() == nil {
			r.closeIt = err
		}
	})
	return r.closeIt
}

func (r *replier) statistics() ReplierStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.stats
	st.Panics, st.Undeliverable = r.panics.Load(), r.undeliverable.Load()
	st.Running, st.Queued, st.Requesters = r.running, r.queue.len, len(r.clients)
	return st
}
