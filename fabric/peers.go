package fabric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Two nodes have one link, whoever dialled it:
//
//  1. A consumer's node wants a link to each producer's node, and dials it
//     while there is none.
//  2. The one that accepts decides. It refuses a peer older than one it knows
//     (fenced), and a second connection (duplicate) unless the dialler knows of
//     the first one and therefore has lost it.
//  3. Where both want one, the one with the greater name gives the other a
//     moment to dial. If both dial at once all the same, the one with the
//     lesser name refuses the other's connection while its own says hello.
//  4. A link that breaks is dialled again, after a random wait that grows from
//     50 ms to 5 s (full jitter), by whoever wants it. Its streams go on.
//  5. If none comes within the resume window, its streams are lost.

const (
	redialMin = 50 * time.Millisecond
	redialMax = 5 * time.Second
	// tellFailures is after how many dials that failed an operator is told. The
	// first ones tell nothing: the peer may be leaving, or dialling itself.
	tellFailures = 3

	deference = 100 * time.Millisecond // what the greater name waits for the lesser to dial
)

// peer is another node as this one knows it. Its fields are under the node's
// mu.
type peer struct {
	name        string
	link        *link.Link
	endpoint    string
	incarnation uint64              // of the peer's life that the link's streams belong to
	connection  uint64              // the last connection's number
	wanted      map[string]struct{} // channels on which it has producers and this node consumers: it dials
	dialing     bool                // a dial goroutine is there
	greeting    bool                // and has said hello
	consumes    bool                // it has consumers on channels that matter here, so it may dial too
	down        chan struct{}       // closed when the connection, or what takes its place, has ended; nil without one
	downSince   time.Time           // zero while up, or when nothing can be lost
	remote      string              // address of the connection
	failures    int                 // dials that failed, one after another
}

// peerOf returns the peer called name, made if needed. Under mu.
func (n *Node) peerOf(name string) *peer {
	p := n.peers[name]
	if p == nil {
		p = &peer{name: name, link: link.New(&n.links, name), wanted: make(map[string]struct{})}
		n.peers[name] = p
	}
	return p
}

// accept takes connections until the listener closes.
func (n *Node) accept() {
	defer n.wg.Done()
	for {
		conn, err := n.listener.Accept(n.ctx)
		if err != nil {
			return
		}
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			conn.Close()
			return
		}
		n.wg.Add(1)
		n.mu.Unlock()
		go n.admit(conn)
	}
}

// maxGreeting bounds the connections that have said no hello yet: beyond it the
// oldest of them is closed.
const maxGreeting = 256

// await notes that conn has to say hello, and returns what ends that.
func (n *Node) await(conn *transport.Conn) (done func()) {
	n.mu.Lock()
	var oldest *transport.Conn
	if len(n.greeting) >= maxGreeting {
		oldest = n.greeting[0]
		n.greeting = n.greeting[1:]
	}
	n.greeting = append(n.greeting, conn)
	n.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if i := slices.Index(n.greeting, conn); i >= 0 {
			n.greeting = slices.Delete(n.greeting, i, i+1)
		}
	}
}

// admit hears who has dialled, and gives the connection to its link, or refuses
// it.
func (n *Node) admit(conn *transport.Conn) {
	defer n.wg.Done()
	done := n.await(conn)
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	hello, err := link.AwaitHello(conn, handshakePatience)
	stop()
	done()
	if err != nil {
		conn.Close()
		var bye *link.ByeError
		if n.ctx.Err() == nil && !errors.As(err, &bye) {
			n.cfg.Logger.Warn("connection refused", "remote", conn.RemoteAddr(), "reason", err)
		}
		return
	}
	code, reason, wait := n.judge(&hello)
	if wait != nil {
		// A connection that the peer knows to be broken: end it here too.
		select {
		case <-wait:
			code, reason, wait = n.judge(&hello)
		case <-time.After(handshakePatience):
		}
		if wait != nil {
			code, reason = wire.CodeBusy, "the connection before is still being closed"
		}
	}
	if reason != "" {
		level := slog.LevelWarn
		if code == wire.CodeDuplicate || code == wire.CodeDone {
			level = slog.LevelDebug // as it should be
		}
		n.cfg.Logger.Log(n.ctx, level, "connection refused", "peer", hello.Node, "remote", conn.RemoteAddr(), "reason", reason)
		link.Refuse(conn, code, reason, closePatience)
		return
	}
	if err := n.install(conn, &hello, true); err != nil && n.ctx.Err() == nil {
		n.cfg.Logger.Debug("connection not taken", "peer", hello.Node, "remote", conn.RemoteAddr(), "reason", err)
	}
}

// judge decides about a peer that says hello: admitted if reason is empty.
// If wait is not nil, the decision is to be asked for again after it.
func (n *Node) judge(h *wire.Hello) (code uint8, reason string, wait <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return wire.CodeDone, "the node is closing", nil
	}
	if h.Node == n.cfg.Name {
		return wire.CodeRefused, fmt.Sprintf("the name %s is this node's own", h.Node), nil
	}
	if err := directory.CheckName("node", h.Node); err != nil {
		return wire.CodeRefused, err.Error(), nil
	}
	if h.Incarnation > directory.MaxIncarnation {
		return wire.CodeRefused, fmt.Sprintf("incarnation %d is over %d", h.Incarnation, uint64(directory.MaxIncarnation)), nil
	}
	p := n.peers[h.Node]
	switch {
	case p == nil:
	case h.Incarnation < p.incarnation:
		return wire.CodeFenced, fmt.Sprintf("incarnation %d of %s is older than %d, which was here before", h.Incarnation, h.Node, p.incarnation), nil
	case p.down != nil && (h.Incarnation > p.incarnation || h.Connection >= p.connection):
		p.link.Cut(errors.New("the peer has dialled anew"))
		return 0, "", p.down
	case p.down != nil:
		return wire.CodeDuplicate, "there is a connection already", nil
	case p.greeting && n.cfg.Name < h.Node:
		return wire.CodeDuplicate, "this node is dialling just now, and has the lesser name", nil
	}
	return 0, "", nil
}

// install makes conn the link's connection, or closes it and says why not.
// answer says that the peer dialled and has no answer yet.
func (n *Node) install(conn *transport.Conn, h *wire.Hello, answer bool) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		conn.Close()
		return ErrClosed
	}
	p := n.peerOf(h.Node)
	if p.down != nil || h.Incarnation < p.incarnation {
		code, reason := uint8(wire.CodeDuplicate), "there is a connection already"
		if p.down == nil {
			code, reason = wire.CodeFenced, fmt.Sprintf("incarnation %d is older than %d, which was here before", h.Incarnation, p.incarnation)
		}
		n.mu.Unlock()
		link.Refuse(conn, code, reason, closePatience)
		return errors.New(reason)
	}
	anew := h.Incarnation > p.incarnation && p.incarnation != 0
	p.incarnation = h.Incarnation
	p.connection = max(p.connection, h.Connection)
	if answer {
		p.connection++
	}
	p.down, p.downSince, p.failures, p.remote = make(chan struct{}), time.Time{}, 0, conn.RemoteAddr()
	own := n.hello(p.connection)
	n.mu.Unlock()

	if anew {
		p.link.Lose(fmt.Sprintf("node %s was started anew", p.name), false, false)
	}
	var err error
	if answer {
		err = link.Answer(conn, own, closePatience)
	}
	if err == nil && !p.link.Attach(conn, int(min(h.MaxMessage, uint32(n.cfg.MaxMessage)))) {
		err = ErrClosed
	}
	if err != nil {
		conn.Close()
		n.free(p)
		n.want(p)
		return err
	}
	n.cfg.Logger.Info("link up", "peer", p.name, "remote", conn.RemoteAddr(), "connection", own.Connection)
	return nil
}

// maxStrangers is how many peers are remembered of which nothing is known but
// that they have said hello: for their incarnations.
const maxStrangers = 1024

// free ends the time in which p has a connection, or something that takes its
// place: another one may come. Of peers that mean nothing here only so many are
// remembered.
func (n *Node) free(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	down := p.down
	p.down = nil
	if len(n.peers) > maxStrangers && len(p.wanted) == 0 && p.endpoint == "" && !p.dialing && p.link.Unused() {
		delete(n.peers, p.name)
	}
	close(down)
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
	p.downSince = time.Now()
	remote := p.remote
	closed := n.closed
	n.mu.Unlock()
	var bye *link.ByeError
	if errors.As(cause, &bye) && (bye.Code == wire.CodeDone || bye.Code == wire.CodeLost) {
		// Nobody will come back to these streams.
		if !closed {
			n.cfg.Logger.Info("link down", "peer", p.name, "remote", remote, "reason", cause)
			l.Lose(bye.Text, bye.Code == wire.CodeDone, true)
		}
		n.mu.Lock()
		p.downSince = time.Time{}
		n.mu.Unlock()
	} else if !closed {
		n.cfg.Logger.Warn("link down", "peer", p.name, "remote", remote, "reason", cause)
	}
	n.free(p)
	n.want(p)
}

// expired is the peers whose resume window is over. They take no connection
// until free. Under mu.
func (n *Node) expired() []*peer {
	var list []*peer
	for _, p := range n.peers {
		if p.down == nil && !p.downSince.IsZero() && time.Since(p.downSince) > n.cfg.ResumeWindow {
			p.down, p.downSince = make(chan struct{}), time.Time{}
			list = append(list, p)
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

// dials reports whether this node looks for a connection to p: it has consumers
// for producers there, or streams that are not at their end. Under the node's mu.
func (p *peer) dials() bool { return len(p.wanted) > 0 || p.link.Receiving() }

// want starts dialling p if this node wants it and nobody does so already.
func (n *Node) want(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || !p.dials() || p.dialing || p.down != nil || p.endpoint == "" {
		return
	}
	p.dialing = true
	n.wg.Add(1)
	go n.dial(p)
}

// dial tries to reach p until there is a link, or nobody wants one.
func (n *Node) dial(p *peer) {
	defer n.wg.Done()
	wait := redialMin
	n.mu.Lock()
	polite := p.consumes && n.cfg.Name > p.name && p.connection == 0
	n.mu.Unlock()
	if polite {
		n.pause(deference)
	}
	for {
		n.mu.Lock()
		endpoint := p.endpoint
		if n.closed || !p.dials() || p.down != nil || endpoint == "" {
			p.dialing = false
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		err := n.dialOnce(p, endpoint)
		if err != nil && n.ctx.Err() == nil {
			n.mu.Lock()
			p.failures++
			tell := p.failures == tellFailures && p.down == nil
			n.mu.Unlock()
			if tell {
				n.cfg.Logger.Warn("peer cannot be reached, trying on", "peer", p.name, "endpoint", endpoint, "reason", err)
			}
			n.pause(rand.N(wait))
			wait = min(wait*2, redialMax)
		}
	}
}

// pause waits for d, or until the node closes.
func (n *Node) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-n.ctx.Done():
	case <-timer.C:
	}
}

// dialOnce dials, says hello and installs the connection.
func (n *Node) dialOnce(p *peer, endpoint string) error {
	ctx, cancel := context.WithTimeout(n.ctx, handshakePatience)
	defer cancel()
	conn, err := transport.Dial(ctx, endpoint, transport.Config{
		SocketType: transport.Router, Accepts: []transport.SocketType{transport.Dealer},
		Identity: n.cfg.Name, MaxFrame: wire.MaxPacket, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	if p.down != nil {
		n.mu.Unlock()
		link.Refuse(conn, wire.CodeDuplicate, "there is a connection already", closePatience)
		return nil
	}
	p.greeting = true
	own := n.hello(p.connection)
	n.mu.Unlock()
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	h, err := link.Greet(conn, own, handshakePatience)
	stop()
	defer func() {
		n.mu.Lock()
		p.greeting = false
		n.mu.Unlock()
	}()
	if err == nil && h.Node != p.name {
		err = fmt.Errorf("%s answers at %s", h.Node, endpoint)
	}
	if err != nil {
		conn.Close()
		return err
	}
	return n.install(conn, &h, false)
}

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
	n.self, n.selfIn = link.New(&n.links, n.cfg.Name), link.New(&n.links, n.cfg.Name)
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
