package fabric

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Drain takes the node out of service without loss, as for a restart, and closes
// it:
//
//  1. It leaves the directory: nobody new sends to it. From now on Producer and
//     Consumer return ErrClosed.
//  2. Its consumers drain: they get what others have accepted for them. Their
//     Receive must go on being called, and returns ErrEnd at last.
//  3. Its producers finish, which makes their Send return ErrClosed, and all that
//     they sent is stored by its consumers' nodes.
//  4. It closes, and its peers hear that nothing is missing. One whose link is down
//     gets up to 5 s to come and hear it.
//
// Steps 2 and 3 wait for peers, also while the links to them are down. Drain ends
// early when ctx does; the node is closed then as well, and the error says what
// may not have been delivered. Other nodes go on: their SendKey and SendAll find
// other consumers, and a Send that names one of this node's gets an
// *UnknownConsumerError, its message not accepted.
func (n *Node) Drain(ctx context.Context) error {
	n.mu.Lock()
	n.draining = true
	channels := n.allChannels()
	n.mu.Unlock()
	errs := []error{n.leave(ctx)}
	errs = append(errs, n.drainConsumers(ctx, channels))
	for _, ch := range channels {
		for _, p := range ch.localProducers() {
			if err := p.Drain(ctx); err != nil && !errors.Is(err, ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	// Others were closed, and left their messages to the node.
	n.mu.Lock()
	links := n.allLinks()
	n.mu.Unlock()
	for _, l := range links {
		if err := l.Flush(ctx); err != nil {
			errs = append(errs, fmt.Errorf("fabric: drain node %s: %w", n.cfg.Name, public(err)))
		}
	}
	return errors.Join(append(errs, n.close(ctx, true))...)
}

// drainConsumers drains all consumers of the node at once.
func (n *Node) drainConsumers(ctx context.Context, channels []*channel) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, ch := range channels {
		for _, c := range ch.localConsumers() {
			wg.Go(func() {
				if err := c.Drain(ctx); err != nil && !errors.Is(err, ErrClosed) {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// leave takes the node out of the directory, once.
func (n *Node) leave(ctx context.Context) error {
	if n.left.Swap(true) {
		return nil
	}
	if err := n.dir.Leave(ctx, n.cfg.Name, n.incarnation); err != nil {
		return fmt.Errorf("fabric: node %s leaves the directory: %w", n.cfg.Name, err)
	}
	return nil
}

// Close deregisters the node and ends its producers, consumers and links. What
// was accepted but not delivered is dropped; Drain delivers it first. It waits
// for the node's goroutines, about a second at most for peers that do not read.
func (n *Node) Close() error { return n.close(context.Background(), false) }

// close closes the node. Peers whose links are down when they are told are
// waited for if there is a farewell, until that ends.
func (n *Node) close(until context.Context, farewell bool) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		n.wg.Wait()
		return nil
	}
	n.closed = true
	links := n.allLinks()
	channels := n.allChannels()
	n.mu.Unlock()
	var consumers []*Consumer
	orderly := !n.unfinished.Load()
	for _, ch := range channels {
		consumers = append(consumers, ch.localConsumers()...)
		for _, p := range ch.localProducers() {
			orderly = orderly && p.told.Load()
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	err := n.leave(ctx)
	if !farewell {
		n.hangUp()
	}
	for _, c := range consumers {
		c.inbox.Close()
	}
	stop := n.limitParting()
	patience := n.part(links, orderly)
	if farewell {
		n.linger(until, patience)
		n.hangUp()
	}
	n.greetings.Wait() // goodbyes may go over the trunk, or to workers
	stop()
	n.partWorkers()
	n.wg.Wait()
	if n.ownDir {
		err = errors.Join(err, n.dir.Close())
	}
	return err
}

// hangUp ends what listens, dials and watches.
func (n *Node) hangUp() {
	n.mu.Lock()
	n.deaf = true
	n.mu.Unlock()
	n.cancel()
	if n.listener != nil {
		n.listener.Close()
	}
	if n.workers != nil {
		n.workers.hangUp()
	}
}

// part says bye to all peers at once, and notes who has not heard it and may
// wait for the node: those that were connected, and have streams. It returns how
// long it takes those to dial again: not long if their links have just broken.
func (n *Node) part(links []*link.Link, orderly bool) (patience time.Duration) {
	var parting sync.WaitGroup
	var mu sync.Mutex
	owed := make(map[string]uint8)
	untold := false // somebody who has never come does not hear that something is missing
	patience = closePatience
	for _, l := range links {
		parting.Go(func() {
			up, waits, code := l.Up(), !l.Unused() && n.knows(l.Peer()), uint8(wire.CodeDone)
			if !orderly || l.Pending() {
				code = wire.CodeLost
			}
			if l.Close(closePatience, code == wire.CodeDone) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if !waits {
				untold = untold || code == wire.CodeLost
				return
			}
			owed[l.Peer()] = code
			if !up {
				patience = peering.RedialMax
			}
		})
	}
	parting.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.orderly, n.owed = orderly && !untold, owed
	close(n.parted)
	return patience
}

// knows reports whether the peer was connected, and may come back.
func (n *Node) knows(peer string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[peer]
	return p != nil && p.peering.Life() != 0 && !p.peering.Gone()
}

// goodbye is what a peer hears on a connection that comes when the node is closing,
// as it will not come back: that it has closed, once its links have. For that it
// waits.
func (n *Node) goodbye(peer string) peering.Verdict {
	<-n.parted
	n.mu.Lock()
	defer n.mu.Unlock()
	code, owed := n.owed[peer]
	if !owed && !n.orderly {
		code = wire.CodeLost
	}
	v := peering.Verdict{Code: code, Reason: "the node has closed"}
	if code == wire.CodeLost {
		v.Reason += " before all was finished and delivered"
	}
	return v
}

// partWith ends a connection on which hello was said, as the node is closing: it has
// no link any more, but the peer may.
func (n *Node) partWith(conn link.Conn, peer string) { n.refuse(conn, peer, n.goodbye(peer)) }

// told notes that a peer has heard goodbye.
func (n *Node) told(peer string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.owed, peer)
	if n.settled != nil && len(n.owed) == 0 {
		close(n.settled)
		n.settled = nil
	}
}

// linger waits for peers that have not heard that the node has closed: they dial
// it again, and would else wait out their resume windows.
func (n *Node) linger(ctx context.Context, patience time.Duration) {
	n.mu.Lock()
	if len(n.owed) == 0 {
		n.mu.Unlock()
		return
	}
	settled := make(chan struct{})
	n.settled = settled
	n.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-settled:
	case <-timeout.C:
	case <-ctx.Done():
	}
}
