package fabric

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Which connection between two nodes is their link is decided by package
// peering. The node asks it under its mu, does what it says, and has the sockets
// and goroutines.

// peer is another node as this one knows it. Its fields are under the node's
// mu.
type peer struct {
	name    string
	link    *link.Link
	peering *peering.Peering
	wanted  map[string]struct{} // channels on which it has producers and this node consumers: it dials
	free    chan struct{}       // closed when the peering's slot is free again; nil while it is
	remote  string              // address of the connection
	reached chan struct{}       // closed when there is a link; nil unless somebody waits
	reaches int                 // who waits for that, beside consumers
	calls   []*link.Call        // circuits of workers that are to be passed on to it
	refusal string              // why the peer has refused this node, as last told
}

// peerOf returns the peer called name, made if needed. Under mu.
func (n *Node) peerOf(name string) *peer {
	p := n.peers[name]
	if p == nil {
		p = &peer{
			name: name, link: link.New(&n.links, name), peering: peering.New(n.cfg.Name, name),
			wanted: make(map[string]struct{}),
		}
		n.peers[name] = p
	}
	return p
}

// learn notes what the directory says of a node.
func (n *Node) learn(info directory.NodeInfo, consumes bool) {
	if info.Name == n.cfg.Name {
		return
	}
	n.mu.Lock()
	p := n.peerOf(info.Name)
	if consumes {
		p.peering.Expect()
	}
	n.mu.Unlock()
	n.listed(p, info.Incarnation, info.Endpoint)
	n.want(p)
}

// gone reports whether the node was connected, and is not expected back.
func (n *Node) gone(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[node]
	return p != nil && p.peering.Gone()
}

// peerClosed reports whether the node has said that it is over, so that nothing more
// comes from it.
func (n *Node) peerClosed(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[node]
	return p != nil && p.peering.Closed()
}

// listed takes the directory's word on a peer; no endpoint tells nothing.
func (n *Node) listed(p *peer, incarnation uint64, endpoint string) {
	n.mu.Lock()
	act := p.peering.Listed(incarnation, endpoint)
	switch act {
	case peering.Cut: // now, as another connection may take its place
		p.link.Cut(fmt.Errorf("the directory names incarnation %d of %s", incarnation, p.name))
	case peering.Lose:
		p.free = make(chan struct{})
	}
	n.mu.Unlock()
	if act == peering.Lose {
		n.lose(p, p.peering.Anew())
		n.free(p)
	}
}

func (n *Node) lose(p *peer, l peering.Loss) { p.link.Lose(l.Reason, l.Orderly, l.Stated) }

// install makes an admitted connection the link's, or closes it and says why
// not. answer says that the peer dialled and has no answer yet.
func (n *Node) install(p *peer, conn link.Conn, h *wire.Hello, v peering.Verdict, answer bool) error {
	if v.Anew {
		n.lose(p, p.peering.Anew())
	}
	var err error
	if answer {
		err = link.SayHello(conn, n.hello(v.Connection), closePatience)
	}
	closed := false
	if err == nil {
		n.mu.Lock()
		closed = n.closed
		if n.closed || !p.peering.Up() || !p.link.Attach(conn, int(min(h.MaxMessage, uint32(n.cfg.MaxMessage)))) {
			err = errOvertaken
		} else if p.reached != nil {
			close(p.reached)
			p.reached = nil
		}
		n.mu.Unlock()
	}
	if err != nil {
		if closed {
			n.partWith(conn, p.name)
		}
		conn.Close()
		n.free(p)
		n.want(p)
		return err
	}
	n.cfg.Logger.Info("link up", "peer", p.name, "remote", conn.RemoteAddr(), "connection", v.Connection)
	return nil
}

var errOvertaken = errors.New("another connection takes its place, or the node is closing")

// maxStrangers is how many peers are remembered of which nothing is known but
// that they have said hello: for their incarnations.
const maxStrangers = 1024

// forget lets p go if it means nothing here, and there are too many of those.
// Under mu.
func (n *Node) forget(p *peer) {
	if len(n.peers) > maxStrangers && len(p.wanted) == 0 && p.reaches == 0 && len(p.calls) == 0 && p.peering.Forgettable() && p.link.Unused() {
		delete(n.peers, p.name)
	}
}

// free gives the slot of p's peering back: another connection may come.
func (n *Node) free(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.peering.Free()
	close(p.free)
	p.free = nil
	n.forget(p)
}

func (n *Node) hello(connection uint64) wire.Hello {
	return wire.Hello{
		Version: wire.Version, Node: n.cfg.Name, Incarnation: n.incarnation,
		MaxMessage: uint32(n.cfg.MaxMessage), Connection: connection,
	}
}

// down is the link's word that its connection has ended.
func (n *Node) down(l *link.Link, cause error) {
	n.mu.Lock()
	p := n.peers[l.Peer()]
	if p == nil || p.link != l {
		n.mu.Unlock()
		return
	}
	bye := byeOf(cause)
	if bye == nil {
		bye = goneOf(cause)
	}
	loss, lost := p.peering.Ended(time.Now(), bye)
	remote, closed := p.remote, n.closed
	n.mu.Unlock()
	if !closed {
		level := slog.LevelWarn
		if loss.Stated {
			level = slog.LevelInfo
		}
		n.cfg.Logger.Log(n.ctx, level, "link down", "peer", p.name, "remote", remote, "reason", cause)
		if lost {
			n.lose(p, loss)
		}
	}
	n.free(p)
	n.want(p)
}

// lapse is the end of a peer's resume window.
type lapse struct {
	peer *peer
	loss peering.Loss
}

// expired is the peers whose resume window is over. Under mu.
func (n *Node) expired() []lapse {
	var list []lapse
	for _, p := range n.peers {
		if loss, over := p.peering.Expired(time.Now(), n.cfg.ResumeWindow); over {
			p.free = make(chan struct{})
			list = append(list, lapse{p, loss})
		}
	}
	return list
}

// unwant says that the node has no producers on the channel any more.
func (n *Node) unwant(node, channel string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.peers[node]; p != nil {
		delete(p.wanted, channel)
	}
}
