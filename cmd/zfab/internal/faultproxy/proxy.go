// Package faultproxy stands between the nodes of a run and breaks their links
// as a bad network does: it resets connections at an exact byte, lets bytes
// vanish without a word, holds them back, and slows them down.
//
// A Proxy listens once for each ordered pair of nodes that has to be broken, so
// that it knows who dials whom, and passes every connection on to the node that
// is really meant. A Link is the two listeners of a pair, and whatever
// connections come through them.
//
// One connection is two pipes, one per direction, each with two goroutines: the
// reader takes bytes off one end's socket and stamps them with the time, the
// writer gives them to the other end when they are due (pipe.go). All faults act
// in the writer, between two bytes of its choice.
//
// A black hole keeps connections open and stops the writer: what was sent stays
// in bounded buffers and in the sockets, as the retransmissions of a real TCP
// would keep it, and flows again when the hole is gone, if both ends are still
// there. No byte is swallowed: a TCP stream with a hole in it is nothing that a
// network can make. Neither the end of one side nor a new connection passes
// while a direction is black-holed; both would need packets both ways.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

// A Resolver tells where a node really listens, as tcp://host:port.
type Resolver func(ctx context.Context, node string) (endpoint string, err error)

// A Pair is two nodes that may have a link; the order of the names has a
// meaning for Forward and Backward only.
type Pair struct{ A, B string }

// A Proxy has the links of one run.
type Proxy struct {
	resolve Resolver
	links   map[Pair]*Link
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of the accepting goroutines, and of every connection's
}

// Listen opens the listeners of all pairs on host, where the nodes reach it.
func Listen(host string, pairs []Pair, resolve Resolver) (*Proxy, error) {
	p := &Proxy{resolve: resolve, links: make(map[Pair]*Link)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, pair := range pairs {
		if _, twice := p.links[pair]; twice {
			continue
		}
		l := newLink(p, pair)
		p.links[pair] = l
		for dialler := range l.listeners {
			ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
			if err != nil {
				p.Close()
				return nil, fmt.Errorf("a proxy for the link %s-%s: %w", pair.A, pair.B, err)
			}
			l.listeners[dialler] = ln
			p.wg.Go(func() { l.accept(ln, Direction(dialler)) })
		}
	}
	return p, nil
}

// Link is the link of a pair, nil if it was not among those of Listen.
func (p *Proxy) Link(pair Pair) *Link { return p.links[pair] }

// Endpoints says where a node finds its peers instead of where they are: by the
// peer's name.
func (p *Proxy) Endpoints(node string) map[string]string {
	all := make(map[string]string)
	for pair, l := range p.links {
		switch node {
		case pair.A:
			all[pair.B] = "tcp://" + l.listeners[Forward].Addr().String()
		case pair.B:
			all[pair.A] = "tcp://" + l.listeners[Backward].Addr().String()
		}
	}
	return all
}

// Close ends all connections and waits for the goroutines.
func (p *Proxy) Close() {
	p.cancel()
	for _, l := range p.links {
		for _, ln := range l.listeners {
			if ln != nil {
				ln.Close()
			}
		}
		l.mu.Lock()
		for c := range l.conns {
			c.close()
		}
		l.mu.Unlock()
	}
	p.wg.Wait()
}

// dial connects to the node that is meant.
func (p *Proxy) dial(node string) (net.Conn, error) {
	endpoint, err := p.resolve(p.ctx, node)
	if err != nil {
		return nil, err
	}
	address, isTCP := strings.CutPrefix(endpoint, "tcp://")
	if !isTCP {
		return nil, errors.New(endpoint + " is no TCP endpoint")
	}
	var d net.Dialer
	return d.DialContext(p.ctx, "tcp", address)
}
