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
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Which connection between two nodes is their link is decided by package
// peering. The node asks it under its mu, does what it says, and has the sockets
// and goroutines.

// tellFailures is after how many dials that failed an operator is told. The
// first ones tell nothing: the peer may be leaving, or dialling itself.
const tellFailures = 3

// peer is another node as this one knows it. Its fields are under the node's
// mu.
type peer struct {
	name    string
	link    *link.Link
	peering *peering.Peering
	wanted  map[string]struct{} // channels on which it has producers and this node consumers: it dials
	free    chan struct{}       // closed when the peering's slot is free again; nil while it is
	remote  string              // address of the connection
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

// accept takes connections until the listener closes.
func (n *Node) accept() {
	defer n.wg.Done()
	for {
		conn, err := n.listener.Accept(n.ctx)
		if err != nil {
			return
		}
		n.mu.Lock()
		if n.deaf {
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
	if err != nil {
		done()
		conn.Close()
		var bye *link.ByeError
		if n.ctx.Err() == nil && !errors.As(err, &bye) {
			n.cfg.Logger.Warn("connection refused", "remote", conn.RemoteAddr(), "reason", err)
		}
		return
	}
	p, v := n.judge(conn, &hello)
	done()
	if v.Do != peering.Admit {
		n.refuse(conn, hello.Node, v)
		return
	}
	if err := n.install(p, conn, &hello, v, true); err != nil && n.ctx.Err() == nil {
		n.cfg.Logger.Debug("connection not taken", "peer", hello.Node, "remote", conn.RemoteAddr(), "reason", err)
	}
}

// refuse ends a connection on which a peer has said hello, and says why.
func (n *Node) refuse(conn *transport.Conn, peer string, v peering.Verdict) {
	level := slog.LevelWarn
	switch v.Code {
	case wire.CodeDuplicate, wire.CodeDone, wire.CodeLost: // as it should be
		level = slog.LevelDebug
	}
	n.cfg.Logger.Log(n.ctx, level, "connection refused", "peer", peer, "remote", conn.RemoteAddr(), "reason", v.Reason)
	link.Refuse(conn, v.Code, v.Reason, closePatience)
	if v.Code == wire.CodeDone || v.Code == wire.CodeLost {
		n.told(peer)
	}
}

// judge decides about a peer that has dialled and says hello. It waits, for
// handshakePatience at most, for the directory or for the end of the connection
// that the new one is to replace.
func (n *Node) judge(conn *transport.Conn, h *wire.Hello) (*peer, peering.Verdict) {
	if v := n.checkHello(h); v.Reason != "" {
		return nil, v
	}
	timeout := time.NewTimer(handshakePatience)
	defer timeout.Stop()
	for word := peering.NotAsked; ; {
		n.mu.Lock()
		if n.closed {
			v := n.goodbye(h.Node)
			n.mu.Unlock()
			return nil, v
		}
		p := n.peerOf(h.Node)
		v := p.peering.Accept(h, word)
		n.taken(p, conn, v)
		free := p.free
		n.mu.Unlock()
		switch v.Do {
		case peering.Confirm:
			word = n.lookUp(p)
		case peering.Replace:
			p.link.Cut(errors.New(v.Reason))
			select {
			case <-free:
			case <-n.ctx.Done():
			case <-timeout.C:
				return p, peering.Verdict{Code: wire.CodeBusy, Reason: "the connection before is still being closed"}
			}
		default:
			return p, v
		}
	}
}

// taken notes what belongs to a slot that v takes, if it does, and else forgets
// peers of which there are too many. Under mu.
func (n *Node) taken(p *peer, conn *transport.Conn, v peering.Verdict) {
	if v.Do == peering.Admit {
		p.free, p.remote, p.refusal = make(chan struct{}), conn.RemoteAddr(), ""
	} else if v.Do == peering.Refuse {
		n.forget(p)
	}
}

// checkHello refuses what no peer says of itself.
func (n *Node) checkHello(h *wire.Hello) peering.Verdict {
	reason := ""
	if err := directory.CheckName("node", h.Node); err != nil {
		reason = err.Error()
	} else if h.Node == n.cfg.Name {
		reason = fmt.Sprintf("the name %s is this node's own: two nodes claim it", h.Node)
	} else if h.Incarnation > directory.MaxIncarnation {
		reason = fmt.Sprintf("incarnation %d is over %d", h.Incarnation, uint64(directory.MaxIncarnation))
	}
	return peering.Verdict{Code: wire.CodeRefused, Reason: reason}
}

// lookUp asks the directory for a peer's incarnation.
func (n *Node) lookUp(p *peer) peering.Word {
	ctx, cancel := context.WithTimeout(n.ctx, handshakePatience)
	defer cancel()
	info, err := n.dir.Node(ctx, p.name)
	if errors.Is(err, directory.ErrUnknownNode) {
		return peering.Unknown
	}
	if err != nil {
		return peering.Silent
	}
	n.listed(p, info.Incarnation, "")
	return peering.Known
}

// listed takes the directory's word on a peer; no endpoint tells nothing.
func (n *Node) listed(p *peer, incarnation uint64, endpoint string) {
	n.mu.Lock()
	act := p.peering.Listed(incarnation, endpoint)
	if act == peering.Lose {
		p.free = make(chan struct{})
	}
	n.mu.Unlock()
	switch act {
	case peering.Cut:
		p.link.Cut(fmt.Errorf("the directory names incarnation %d of %s", incarnation, p.name))
	case peering.Lose:
		n.lose(p, p.peering.Anew())
		n.free(p)
	}
}

func (n *Node) lose(p *peer, l peering.Loss) { p.link.Lose(l.Reason, l.Orderly, l.Stated) }

// install makes an admitted connection the link's, or closes it and says why
// not. answer says that the peer dialled and has no answer yet.
func (n *Node) install(p *peer, conn *transport.Conn, h *wire.Hello, v peering.Verdict, answer bool) error {
	if v.Anew {
		n.lose(p, p.peering.Anew())
	}
	var err error
	if answer {
		err = link.Answer(conn, n.hello(v.Connection), closePatience)
	}
	if err == nil {
		n.mu.Lock()
		if n.closed || !p.peering.Up() || !p.link.Attach(conn, int(min(h.MaxMessage, uint32(n.cfg.MaxMessage)))) {
			err = errOvertaken
		}
		n.mu.Unlock()
	}
	if err != nil {
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
	if len(n.peers) > maxStrangers && len(p.wanted) == 0 && p.peering.Forgettable() && p.link.Unused() {
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
	loss, lost := p.peering.Ended(time.Now(), byeOf(cause))
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

// dials reports whether this node looks for a connection to p: it has consumers
// for producers there, or streams that are not at their end. Under mu.
func (n *Node) dials(p *peer) bool {
	return !n.closed && (len(p.wanted) > 0 || p.link.Receiving())
}

// want starts dialling p if this node wants it and nobody does so already.
func (n *Node) want(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if wait, ok := p.peering.StartDialing(n.dials(p), rand.Float64()); ok {
		n.wg.Add(1)
		go n.dial(p, wait)
	}
}

// dial tries to reach p, after a wait, until there is a link or nobody wants
// one.
func (n *Node) dial(p *peer, wait time.Duration) {
	defer n.wg.Done()
	for {
		n.pause(wait)
		n.mu.Lock()
		endpoint, ok := p.peering.NextDial(n.dials(p))
		n.mu.Unlock()
		if !ok {
			return
		}
		wait = 0
		if err := n.dialOnce(p, endpoint); err != nil {
			wait = n.dialFailed(p, endpoint, err)
		}
	}
}

// dialFailed tells an operator what they should know of a dial that failed, and
// returns the wait before the next one.
func (n *Node) dialFailed(p *peer, endpoint string, err error) (wait time.Duration) {
	n.mu.Lock()
	wait = p.peering.DialFailed(rand.Float64())
	trying := !p.peering.Taken() && !n.closed
	tell := trying && p.peering.Failures() == tellFailures
	bye := byeOf(err)
	refused := trying && bye != nil && (bye.Code == wire.CodeFenced || bye.Code == wire.CodeRefused) && bye.Text != p.refusal
	if refused {
		p.refusal = bye.Text
	}
	n.mu.Unlock()
	switch {
	case refused:
		// It will not help to try on until somebody does something about it.
		n.cfg.Logger.Error("peer refuses this node", "peer", p.name, "endpoint", endpoint, "reason", bye.Text)
	case tell:
		n.cfg.Logger.Warn("peer cannot be reached, trying on", "peer", p.name, "endpoint", endpoint, "reason", err)
	}
	return wait
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
		Identity: n.cfg.Name, MaxFrame: wire.MaxPacket, UserTimeout: n.cfg.userTimeout(), Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	connection, ok := p.peering.Greet()
	n.mu.Unlock()
	if !ok {
		link.Refuse(conn, wire.CodeDuplicate, "there is a connection already", closePatience)
		return nil
	}
	defer func() {
		n.mu.Lock()
		p.peering.GreetingOver()
		n.mu.Unlock()
	}()
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	h, err := link.Greet(conn, n.hello(connection), handshakePatience)
	stop()
	if err == nil && h.Node != p.name {
		err = fmt.Errorf("%s answers at %s", h.Node, endpoint)
	}
	if err != nil {
		conn.Close()
		n.dismissed(p, err)
		return err
	}
	v := n.judgeAnswer(p, conn, &h)
	if v.Do != peering.Admit {
		link.Refuse(conn, v.Code, v.Reason, closePatience)
		return errors.New(v.Reason)
	}
	return n.install(p, conn, &h, v, false)
}

// dismissed ends the streams if the peer has said bye instead of hello because
// it is closing.
func (n *Node) dismissed(p *peer, err error) {
	n.mu.Lock()
	loss, over := p.peering.Dismissed(byeOf(err))
	if over {
		p.free = make(chan struct{})
	}
	closed := n.closed
	n.mu.Unlock()
	if !over {
		return
	}
	if !closed {
		n.cfg.Logger.Info("peer has closed", "peer", p.name, "reason", err)
		n.lose(p, loss)
	}
	n.free(p)
}

// byeOf is the peer's bye, if that is what err is.
func byeOf(err error) *peering.Bye {
	var said *link.ByeError
	if !errors.As(err, &said) {
		return nil
	}
	return &peering.Bye{Code: said.Code, Text: said.Text}
}

// judgeAnswer decides about a peer that was dialled and has answered.
func (n *Node) judgeAnswer(p *peer, conn *transport.Conn, h *wire.Hello) peering.Verdict {
	for word := peering.NotAsked; ; word = n.lookUp(p) {
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			return peering.Verdict{Code: wire.CodeBusy, Reason: "the node is closing"}
		}
		v := p.peering.Answered(h, word)
		n.taken(p, conn, v)
		n.mu.Unlock()
		if v.Do != peering.Confirm {
			return v
		}
	}
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
