package fabric

import (
	"context"
	"fmt"

	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// selfLink returns the two sides of the node's link to itself: memory instead
// of a socket, and the same streams.
func (n *Node) selfLink() (out, in *link.Link, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil, ErrClosed
	}
	if n.self != nil {
		return n.self, n.selfIn, nil
	}
	a, b, err := memoryPair(n.ctx, fmt.Sprintf("mem://self-%s-%p", n.cfg.Name, n))
	if err != nil {
		return nil, nil, err
	}
	// Memory loses nothing, and nobody would dial again: however long this process
	// does not get to run, its link to itself lives.
	links := n.links
	links.PingTicks, links.DeadTicks = never, never
	n.self, n.selfIn = link.New(&links, n.cfg.Name), link.New(&links, n.cfg.Name)
	n.self.Attach(a, n.cfg.MaxMessage)
	n.selfIn.Attach(b, n.cfg.MaxMessage)
	return n.self, n.selfIn, nil
}

// memoryPair returns the two ends of a connection inside the process.
func memoryPair(ctx context.Context, addr string) (a, b *transport.Conn, err error) {
	ln, err := transport.Listen(addr, transport.Config{SocketType: transport.Dealer})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if b, err = transport.Dial(ctx, addr, transport.Config{SocketType: transport.Router}); err != nil {
		return nil, nil, err
	}
	if a, err = ln.Accept(ctx); err != nil {
		b.Close()
		return nil, nil, err
	}
	return a, b, nil
}
