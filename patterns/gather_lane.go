package patterns

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zfab/zfab/fabric"
)

// gatherer is a Gatherer without its type. It owns a goroutine for each lane.
type gatherer struct {
	channel  string
	promised int
	lanes    []*gatherLane
	offers   chan *gatherLane // lanes that have something, each once at most: served in turn
	ctx      context.Context  // ends with close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	values, undecodable, malformed atomic.Uint64

	// The receiving goroutine's.
	current *gatherLane // whose message it has
	over    int         // lanes that have ended
	closed  bool        // one of them because it was closed

	mu           sync.Mutex
	contributors map[fabric.Address]contribution // that have not finished
	finished     int                             // contributors that are no more
	gone         int                             // that are lost
	lost         map[string]error                // nodes, with contributors that had not finished
	drained      bool                            // all that was sent was received

	closing sync.Once
	closeIt error
}

// contribution is what is known of a contributor that has not finished.
type contribution struct {
	lane *gatherLane // on which it sends
	lost bool
}

// gatherLane is one way to the gatherer.
type gatherLane struct {
	consumer *fabric.Consumer
	taken    chan struct{} // capacity 1: the program is through with what was offered

	// The lane's goroutine's, and between an offer and taken the receiving one's.
	message fabric.Message
	err     error
}

func openGatherer[T any](ctx context.Context, node *fabric.Node, cfg GathererConfig[T]) (_ *gatherer, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	g := &gatherer{
		channel: cfg.Channel, promised: cfg.Contributors, lanes: make([]*gatherLane, cfg.Lanes), offers: make(chan *gatherLane, cfg.Lanes),
		contributors: make(map[fabric.Address]contribution), lost: make(map[string]error),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	for i := cfg.Lanes - 1; i >= 0; i-- { // the first lane last: who knows it knows all
		c, err := node.Consumer(ctx, cfg.Channel, fabric.ConsumerConfig{Index: i, HighWaterMark: cfg.HighWaterMark})
		if err == nil && c.Address().Index != i {
			c.Close()
			err = fabric.ErrIndexTaken
		}
		if err != nil {
			g.lanes = g.lanes[i+1:]
			g.close()
			return nil, err
		}
		g.lanes[i] = &gatherLane{consumer: c, taken: make(chan struct{}, 1)}
	}
	for _, l := range g.lanes {
		g.wg.Go(func() { l.offer(g) })
	}
	return g, nil
}

// offer offers what comes on the lane, one thing at a time, until it has ended or the
// gatherer is closed.
func (l *gatherLane) offer(g *gatherer) {
	for {
		l.message, l.err = l.consumer.Receive(context.Background())
		over := l.err != nil && lostPeer(l.err) == nil
		g.offers <- l
		if over {
			return
		}
		select {
		case <-l.taken:
		case <-g.ctx.Done():
			return
		}
	}
}

// receive waits for the next value. What it returned before is the lane's again.
func (g *gatherer) receive(ctx context.Context) ([]byte, fabric.Address, error) {
	for {
		if g.current != nil {
			g.current.taken <- struct{}{}
			g.current = nil
		}
		if err := g.end(); err != nil {
			return nil, fabric.Address{}, err
		}
		if g.ctx.Err() != nil { // what is offered still is dropped
			return nil, fabric.Address{}, g.closedBy()
		}
		if len(g.offers) == 0 {
			// The lane that was served last would be the first to run, and offer again,
			// and so on for as long as the scheduler likes it: the others go before.
			runtime.Gosched()
		}
		select {
		case l := <-g.offers:
			if body, source, ok, err := g.take(l); ok {
				return body, source, err
			}
		case <-g.ctx.Done():
			return nil, fabric.Address{}, g.closedBy()
		case <-ctx.Done():
			return nil, fabric.Address{}, ctx.Err()
		}
	}
}

// take takes what a lane offers, and reports whether it is for the program.
func (g *gatherer) take(l *gatherLane) (body []byte, source fabric.Address, ok bool, err error) {
	lost := lostPeer(l.err)
	if l.err != nil && lost == nil {
		if g.over++; l.err == fabric.ErrClosed { // and not drained
			g.closed = true
		}
		return nil, source, false, nil
	}
	g.current = l
	if lost != nil {
		return nil, source, g.lose(l, lost), lost
	}
	source = l.message.Source()
	kind, f := readRecord(l.message.Body)
	switch {
	case !f.end():
	case kind == kindShare:
		g.values.Add(1)
		return f.rest, source, true, nil
	case kind == kindJoin:
		g.join(l, source)
		return nil, source, false, nil
	case kind == kindLast && g.finish(source):
		return nil, source, false, nil
	}
	g.malformed.Add(1)
	return nil, source, true, &RecordError{Channel: g.channel, From: source}
}

// join notes that a contributor is there. One that was lost is back, in another life,
// and may be lost again.
func (g *gatherer) join(l *gatherLane, addr fabric.Address) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before, known := g.contributors[addr]
	g.contributors[addr] = contribution{lane: l}
	if !known || !before.lost {
		return
	}
	g.gone--
	for a, c := range g.contributors {
		if a.Node == addr.Node && c.lost {
			return
		}
	}
	delete(g.lost, addr.Node)
}

// finish notes that a contributor has finished, and reports whether there is such a
// one. Another one may take its place.
func (g *gatherer) finish(addr fabric.Address) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, known := g.contributors[addr]; !known || c.lost {
		return false
	}
	delete(g.contributors, addr)
	g.finished++
	return true
}

// lose notes that a node is lost on a lane, and reports whether that is news: some of
// its contributors had not finished, and no other lane has told of it.
func (g *gatherer) lose(l *gatherLane, lost *fabric.PeerLostError) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	some := false
	for a, c := range g.contributors {
		if a.Node == lost.Node && c.lane == l && !c.lost {
			g.contributors[a] = contribution{l, true}
			g.gone++
			some = true
		}
	}
	if !some || g.lost[lost.Node] != nil {
		return false
	}
	g.lost[lost.Node] = lost
	return true
}

// closedBy is what Receive says when the gatherer has ended.
func (g *gatherer) closedBy() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.drained {
		return fabric.ErrEnd
	}
	return fabric.ErrClosed
}

// end is what Receive says when there is nothing more to come, nil before.
func (g *gatherer) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.over == len(g.lanes) && g.closed:
		return fabric.ErrClosed
	case g.over == len(g.lanes):
		return fabric.ErrEnd
	case g.promised == 0 || g.finished+g.gone < g.promised:
		return nil
	case g.gone == 0:
		return fabric.ErrEnd
	}
	e := &UnfinishedError{Channel: g.channel, Consumer: g.lanes[0].consumer.Address(), Finished: g.finished, Promised: g.promised}
	for a, c := range g.contributors {
		if c.lost {
			e.Unfinished = append(e.Unfinished, a)
		}
	}
	slices.SortFunc(e.Unfinished, compareAddress)
	var errs []error
	for _, err := range g.lost {
		errs = append(errs, err)
	}
	e.Err = errors.Join(errs...)
	return e
}

// drain drains all lanes at once.
func (g *gatherer) drain(ctx context.Context) error {
	var draining sync.WaitGroup
	errs := make([]error, len(g.lanes))
	for i, l := range g.lanes {
		draining.Go(func() { errs[i] = l.consumer.Drain(ctx) })
	}
	draining.Wait()
	g.mu.Lock()
	g.drained = ctx.Err() == nil
	g.mu.Unlock()
	if !g.drained {
		errs = append(errs[:0], fmt.Errorf("patterns: draining the gatherer of %s: %w", g.channel, ctx.Err()))
	}
	return errors.Join(append(errs, g.close())...)
}

func (g *gatherer) close() error {
	g.closing.Do(func() {
		g.cancel()
		var errs []error
		for _, l := range g.lanes {
			errs = append(errs, l.consumer.Close())
		}
		g.wg.Wait()
		g.closeIt = errors.Join(errs...)
	})
	return g.closeIt
}

func (g *gatherer) statistics() GathererStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return GathererStats{
		Values: g.values.Load(), Undecodable: g.undecodable.Load(), Malformed: g.malformed.Load(),
		Contributors: len(g.contributors) - g.gone, Finished: g.finished, Lost: g.gone,
	}
}
