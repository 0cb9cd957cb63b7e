package patterns

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// hub is what the subscribers of one channel at one node share: the consumer that
// gets one copy of each message, and the producer that speaks to publishers. It
// owns a goroutine that reads and one that looks who has come.
type hub struct {
	key      hubKey
	consumer *fabric.Consumer
	producer *fabric.Producer // beside the channel
	ctx      context.Context  // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	// The reading goroutine's.
	last  *source       // of the message before
	rouse []*subscriber // that sleep, and have something to read

	malformed atomic.Uint64 // messages on the channel that are no records of this pattern
	unwanted  atomic.Uint64 // messages that came for who has unsubscribed

	mu          sync.Mutex
	subscribers slots[*subscriber]
	sources     map[fabric.Address]*source // by their producers
	byAnswer    map[fabric.Address]*source // by their consumers beside the channel
	news        chan struct{}              // closed when something has changed that a subscriber may wait for
	away        map[*source]struct{}       // that the reading goroutine is to give up
	sleep       context.Context            // in which it waits, and rises from when there are some
	rise        context.CancelFunc         // of sleep
	closed      bool
}

// source is a publisher, as a hub knows it.
type source struct {
	addr   fabric.Address
	answer fabric.Address // its consumer beside the channel
	token  uint64         // what it calls this hub
	target atomic.Pointer[fabric.Target]
	deaf   atomic.Bool // it has not taken what was said to it, up to saidMost

	routes *matcher[*tie, *wanting] // the reading goroutine's: of those that are confirmed

	// Under the hub's mu.
	ties     map[uint64]*tie // by subscriber
	finished bool
	absence  absence
	given    bool // up: what it still sends is dropped, until it begins anew; set by the reading goroutine
	untold   bool // that it is to begin anew
}

// wanting is who wants a topic.
type wanting struct {
	topic string
	ties  []*tie
}

// tie is one subscriber's subscription at one publisher. The hub's mu guards it,
// unless it is said otherwise.
//
//	        confirmed              over, evicted, publisher finished or gone
//	asked ------------> confirmed -------------------------------------------> none
type tie struct {
	subscriber *subscriber
	source     *source
	confirmed  bool
	quality    Quality // set once, with confirmed

	flow tieFlow // under the subscriber's mu
}

// hubKey tells hubs apart.
type hubKey struct {
	node    *fabric.Node
	channel string
}

// hubs are those of this process, by node and channel: subscribers find the one that
// they share.
var hubs = struct {
	mu   sync.Mutex
	open map[hubKey]*hubRef
}{open: make(map[hubKey]*hubRef)}

// hubRef is a hub with those who use it. Until ready is closed, the first of them
// opens it.
type hubRef struct {
	users int
	ready chan struct{}
	hub   *hub
}

// useHub returns the hub of a node and channel, and opens it if there is none. The
// caller leaves it with leave.
func useHub(ctx context.Context, node *fabric.Node, channel string) (*hub, error) {
	key := hubKey{node, channel}
	for {
		hubs.mu.Lock()
		ref := hubs.open[key]
		if ref == nil {
			ref = &hubRef{ready: make(chan struct{})}
			hubs.open[key] = ref
			hubs.mu.Unlock()
			h, err := openHub(ctx, key)
			hubs.mu.Lock()
			ref.hub, ref.users = h, 1
			if err != nil {
				delete(hubs.open, key)
			}
			close(ref.ready)
			hubs.mu.Unlock()
			return h, err
		}
		hubs.mu.Unlock()
		select {
		case <-ref.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		hubs.mu.Lock()
		if hubs.open[key] == ref {
			ref.users++
			hubs.mu.Unlock()
			return ref.hub, nil
		}
		hubs.mu.Unlock() // it could not be opened, maybe because another's context ended; or it has closed since
	}
}

// leave gives the hub up, which closes with its last user.
func (h *hub) leave() error {
	hubs.mu.Lock()
	ref := hubs.open[h.key]
	if ref == nil || ref.hub != h { // its node has closed
		hubs.mu.Unlock()
		h.wg.Wait()
		return nil
	}
	ref.users--
	last := ref.users == 0
	if last {
		delete(hubs.open, h.key)
	}
	hubs.mu.Unlock()
	if last {
		return h.close()
	}
	return nil
}

func openHub(ctx context.Context, key hubKey) (*hub, error) {
	h := &hub{
		key: key, sources: make(map[fabric.Address]*source), byAnswer: make(map[fabric.Address]*source),
		news: make(chan struct{}), away: make(map[*source]struct{}),
	}
	h.sleep, h.rise = context.WithCancel(context.Background())
	// First, so that a publisher that says hello can be answered.
	var err error
	h.producer, err = key.node.Producer(ctx, subscriptionChannel(key.channel), fabric.ProducerConfig{HighWaterMark: saidMost})
	if err != nil {
		return nil, err
	}
	if h.consumer, err = key.node.Consumer(ctx, key.channel, fabric.ConsumerConfig{}); err != nil {
		return nil, errors.Join(err, h.producer.Close())
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.wg.Go(h.read)
	h.wg.Go(h.look)
	return h, nil
}

// close says goodbye to publishers.
func (h *hub) close() error {
	var told []*fabric.Target
	h.mu.Lock()
	for _, s := range h.sources {
		if t := s.target.Load(); t != nil && !s.finished {
			s.tell(appendRecord(nil, kindUnhub, s.token))
			told = append(told, t)
		}
	}
	h.mu.Unlock()
	h.cancel()
	err := h.consumer.Close()
	h.wg.Wait()
	h.rise()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	for _, t := range told {
		_ = t.Flush(ctx) // a publisher that does not hear it learns from its stream
	}
	return errors.Join(err, h.producer.Close())
}

// saidMost bounds what waits for a publisher to hear it: many times what all
// subscriptions of a node take. One that does not hear so much is given up.
var saidMost = fabric.HighWaterMark{Bytes: 64 << 20, Messages: 1 << 20}

// tell says something to a publisher. One that is gone need not hear it.
func (s *source) tell(record []byte) {
	if t := s.target.Load(); t != nil && t.TrySend(record) == fabric.ErrHighWater {
		s.deaf.Store(true)
	}
}

// look reaches publishers as the node gets to know them, until the hub is closed. It
// has those given up whose lease has ended and who have no connection.
func (h *hub) look() {
	tick := time.NewTicker(lookEvery(defaultPubSubPatience))
	defer tick.Stop()
	changed := h.producer.Changed()
	for {
		there, now := make(map[fabric.Address]bool), time.Now()
		for _, addr := range h.producer.Consumers() {
			there[addr] = true
		}
		h.mu.Lock()
		for _, s := range h.sources {
			gone := s.absence.look(there[s.answer] || h.key.node.Connected(s.addr.Node), now)
			switch {
			case there[s.answer]:
				delete(h.away, s)
				h.reach(s)
			case s.finished:
				h.remove(s)
			case !s.given && gone > defaultPubSubPatience:
				h.miss(s)
			}
			if s.untold {
				h.sayAnew(s)
			}
		}
		h.mu.Unlock()
		select {
		case <-changed:
			changed = h.producer.Changed()
			h.mu.Lock()
			h.news = signal(h.news)
			h.mu.Unlock()
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
	}
}

// miss has a publisher given up, which is the reading goroutine's to do. Under mu.
func (h *hub) miss(s *source) {
	h.away[s] = struct{}{}
	h.rise()
}

// sayAnew has a publisher that was given up begin anew. If there is no way to it, or no
// room, that is to be said later. Under mu.
func (h *hub) sayAnew(s *source) {
	t := s.target.Load()
	s.untold = t == nil || t.TrySend(appendRecord(nil, kindAnew, s.token)) != nil
}

// reach finds the way to a publisher, and says all subscriptions on one that is
// new, or that it is to begin anew: also if only the stream is new, as what was said on
// the one before may be lost. Under mu.
func (h *hub) reach(s *source) {
	t, err := h.producer.To(s.answer)
	if err != nil {
		return // not known yet, or about to go
	}
	if old := s.target.Load(); old != nil && *old == *t {
		return
	}
	s.target.Store(t)
	s.untold = s.given
	h.subscribers.all(func(_ uint64, sub *subscriber) { h.ask(s, sub) })
}

// ask subscribes at a publisher. Under mu.
func (h *hub) ask(s *source, sub *subscriber) {
	if s.target.Load() == nil || s.finished || s.given || sub.leaving {
		return
	}
	t := s.ties[sub.id]
	if t == nil {
		t = &tie{subscriber: sub, source: s}
		s.ties[sub.id] = t
		sub.ties++
	}
	c := &sub.cfg
	record := appendRecord(nil, kindSubscribe, s.token, sub.id, uint64(c.quality), flag(c.conflate),
		uint64(c.queue.Messages), uint64(c.queue.Bytes), uint64(c.replay), flag(c.retained))
	s.tell(appendFilters(record, c.filters))
	if t.confirmed && t.quality == Reliable {
		s.tell(sub.handledRecord(t))
	}
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// add takes a subscriber in, and subscribes for it.
func (h *hub) add(sub *subscriber) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fabric.ErrClosed
	}
	if h.subscribers.used >= maxNodeSubscriptions {
		return &DeniedError{Channel: h.key.channel}
	}
	sub.id = h.subscribers.add(sub)
	for _, s := range h.sources {
		h.ask(s, sub)
	}
	return nil
}

// askAgain is how often the directory is asked for publishers that do not confirm:
// they may be gone.
const askAgain = time.Second

// confirmed waits until all publishers that the directory knows have confirmed a
// subscriber, or ctx ends.
func (h *hub) confirmed(ctx context.Context, sub *subscriber) error {
	again := time.NewTicker(askAgain)
	defer again.Stop()
	changed := h.producer.Changed()
	publishers := h.publishers(ctx)
	for {
		h.mu.Lock()
		news, closed := h.news, h.closed
		var missing []string
		for addr := range publishers {
			// One that has finished and is in the directory is about to leave it; or it is of
			// another life than the one that is there, and what it had said was late.
			if s := h.byAnswer[addr]; s == nil || s.ties[sub.id] == nil || !s.ties[sub.id].confirmed {
				missing = append(missing, addr.Node)
			}
		}
		h.mu.Unlock()
		if err := sub.refused(); err != nil {
			return err
		}
		switch {
		case closed:
			return fabric.ErrClosed
		case len(missing) == 0:
			return nil
		}
		select {
		case <-news:
		case <-changed:
			changed = h.producer.Changed()
			publishers = h.publishers(ctx)
		case <-again.C:
			publishers = h.publishers(ctx)
		case <-ctx.Done():
			slices.Sort(missing)
			return &UnconfirmedError{Channel: h.key.channel, Nodes: slices.Compact(missing), Err: ctx.Err()}
		}
	}
}

// publishers is those that the directory knows, by their consumers beside the
// channel: the node may be a moment behind it. Without the directory, what the node
// knows must do.
func (h *hub) publishers(ctx context.Context) map[fabric.Address]bool {
	known := make(map[fabric.Address]bool)
	members, err := h.key.node.Directory().Members(ctx, subscriptionChannel(h.key.channel))
	if err != nil {
		for _, addr := range h.producer.Consumers() {
			known[addr] = true
		}
	}
	for _, m := range members {
		if m.Role == directory.Consumer {
			known[fabric.Address{Node: m.Node, Index: m.Index}] = true
		}
	}
	return known
}

// unsubscribe ends a subscriber's subscriptions. It gets what is published until
// publishers hear of that. Under mu.
func (h *hub) unsubscribe(sub *subscriber) {
	if sub.leaving {
		return
	}
	sub.leaving = true
	for _, s := range h.sources {
		if s.ties[sub.id] != nil {
			s.tell(appendRecord(nil, kindUnsubscribe, s.token, sub.id))
		}
	}
}

// drain lets a subscriber get what was published until now, and then its end.
func (h *hub) drain(sub *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unsubscribe(sub)
	sub.draining = true
	if sub.ties == 0 {
		sub.end(fabric.ErrEnd)
	}
}

// forget takes a subscriber out.
func (h *hub) forget(sub *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unsubscribe(sub)
	h.subscribers.remove(sub.id)
}

// loosen takes a tie away. Only the reading goroutine calls it, under mu.
func (h *hub) loosen(t *tie) {
	delete(t.source.ties, t.subscriber.id)
	t.source.routes.remove(t)
	sub := t.subscriber
	if sub.ties--; sub.ties == 0 && sub.draining {
		sub.end(fabric.ErrEnd)
	}
	h.news = signal(h.news)
}
