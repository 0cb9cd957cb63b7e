package fabric

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Workers' links run over circuits. A circuit's way from one worker to another:
//
//  1. The worker that dials calls the other over its link to its node: callOut.
//  2. The node is told (called), and passes the call on: to the link of another
//     worker of its own, or to the link to the other one's node, for which it waits if
//     that is down (passOn). From then on packets pass without the node's doing.
//  3. The other node passes it on to its worker, which takes it: there it is a
//     connection like any other, on which somebody says hello (hear).
//
// A node that has no workers takes calls all the same, from workers elsewhere, and
// calls those that it has to dial.

// viaPrefix begins the endpoint of a worker; the name of its node follows.
const viaPrefix = "via:"

// callOut calls to, by way of the node host.
func (n *Node) callOut(ctx context.Context, to, host string) (*link.Circuit, error) {
	l, err := n.towards(ctx, to, host)
	if err != nil {
		return nil, err
	}
	c, err := l.Dial(n.cfg.Name, to, host)
	if err != nil {
		return nil, err
	}
	if err := c.Accepted(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// towards is the link over which the worker or node called to is called.
func (n *Node) towards(ctx context.Context, to, host string) (*link.Link, error) {
	if n.trunk != nil {
		return n.trunk.await(ctx)
	}
	if host == n.cfg.Name {
		if l := n.workers.link(to); l != nil {
			return l, nil
		}
		return nil, fmt.Errorf("%s is not attached here", to)
	}
	n.mu.Lock()
	p := n.peerOf(host)
	n.mu.Unlock()
	return p.link, n.reach(ctx, p)
}

// called is a link's word that its peer, a node, asks for a circuit.
func (n *Node) called(l *link.Link, k *link.Call) {
	switch {
	case n.trunk != nil || l.Nested():
		k.Refuse(wire.CodeRefused, "no circuit runs over a circuit")
	case k.Via() == n.cfg.Name && k.To() == n.cfg.Name:
		n.take(k)
	case k.Via() == n.cfg.Name:
		n.passIn(k)
	default:
		k.Refuse(wire.CodeRefused, "this node passes on what comes from its own workers only")
	}
}

// calledByHost is a worker's node's word that somebody calls it.
func (n *Node) calledByHost(_ *link.Link, k *link.Call) {
	if k.To() != n.cfg.Name {
		k.Refuse(wire.CodeUnknown, "this is another worker")
		return
	}
	n.take(k)
}

// take takes a call to this node.
func (n *Node) take(k *link.Call) {
	if conn := k.Take(); conn != nil {
		n.hear(conn)
	}
}

// passIn passes a call on to a worker of this node.
func (n *Node) passIn(k *link.Call) {
	if l := n.workers.link(k.To()); l == nil {
		k.Refuse(wire.CodeBusy, "no such worker is attached now")
	} else if err := k.Pass(l); err != nil {
		k.Refuse(wire.CodeBusy, err.Error())
	}
}

// passOut passes a call of a worker of this node on to another node.
func (n *Node) passOut(k *link.Call) {
	n.mu.Lock()
	p := n.peerOf(k.Via())
	n.mu.Unlock()
	if p.link.Up() && k.Pass(p.link) == nil {
		return
	}
	n.mu.Lock()
	closed := n.closed
	if !closed {
		if p.calls = append(p.calls, k); len(p.calls) == 1 {
			n.wg.Add(1)
			go n.passOn(p)
		}
	}
	n.mu.Unlock()
	if closed {
		k.Refuse(wire.CodeBusy, "the node is closing")
	}
}

// passOn waits for a link to p, and passes on the calls that wait for it. They are
// bounded by the labels of the workers' links.
func (n *Node) passOn(p *peer) {
	defer n.wg.Done()
	ctx, cancel := context.WithTimeout(n.ctx, handshakePatience)
	defer cancel()
	failed := n.reach(ctx, p)
	n.mu.Lock()
	calls := p.calls
	p.calls = nil
	n.forget(p) // it may be a name that a worker has made up
	n.mu.Unlock()
	for _, k := range calls {
		err := failed
		if err == nil {
			err = k.Pass(p.link)
		}
		if err != nil {
			k.Refuse(wire.CodeBusy, fmt.Sprintf("node %s cannot be reached: %v", p.name, err))
		}
	}
}

// reach waits until there is a link to p, and looks for one meanwhile.
func (n *Node) reach(ctx context.Context, p *peer) error {
	n.mu.Lock()
	p.reaches++
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		p.reaches--
		n.mu.Unlock()
	}()
	for again := lookAgainMin; ; again *= 2 {
		n.mu.Lock()
		up, closed := p.link.Up(), n.closed
		if p.reached == nil && !up {
			p.reached = make(chan struct{})
		}
		reached := p.reached
		n.mu.Unlock()
		if up {
			return nil
		}
		if closed {
			return ErrClosed
		}
		// Nobody may have told of a node that has no producers and consumers itself,
		// and one that was started anew is elsewhere.
		if info, err := n.dir.Node(ctx, p.name); err == nil {
			n.listed(p, info.Incarnation, info.Endpoint)
		} else if errors.Is(err, directory.ErrUnknownNode) {
			return err
		}
		n.want(p)
		timer := time.NewTimer(again)
		select {
		case <-reached:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// lookAgainMin is the first wait before a node that was not reached is looked up
// again; each further one is twice as long.
const lookAgainMin = 250 * time.Millisecond

// cutLink is what the ends of circuits are told whose way over another node has
// broken.
func cutLink(l *link.Link, _ error) (code uint8, text string) {
	return wire.CodeBusy, fmt.Sprintf("the link with %s is down", l.Peer())
}

// goneOf is the peer's bye in the words of its node, if cause says that the peer's
// process has ended.
func goneOf(cause error) *peering.Bye {
	var e *link.CircuitError
	if !errors.As(cause, &e) || e.Code != wire.CodeGone {
		return nil
	}
	return &peering.Bye{Code: wire.CodeLost, Text: e.Text}
}
