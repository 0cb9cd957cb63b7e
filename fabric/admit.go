package fabric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// accept takes connections until the listener closes.
func (n *Node) accept() {
	defer n.wg.Done()
	for {
		conn, err := n.listener.Accept(n.ctx)
		if err != nil {
			return
		}
		n.hear(conn)
	}
}

// hear starts to hear who has connected, unless the node hears nobody any more.
func (n *Node) hear(conn link.Conn) {
	n.mu.Lock()
	deaf := n.deaf
	if !deaf {
		n.wg.Add(1)
		n.greetings.Add(1)
	}
	n.mu.Unlock()
	if deaf {
		conn.Close()
		return
	}
	go n.admit(conn)
}

// maxGreeting bounds the connections that have said no hello yet: beyond it the
// oldest of them is closed.
const maxGreeting = 256

// await notes that conn has to say hello, and returns what ends that.
func (n *Node) await(conn link.Conn) (done func()) {
	n.mu.Lock()
	var oldest link.Conn
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
func (n *Node) admit(conn link.Conn) {
	defer n.wg.Done()
	defer n.greetings.Done()
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
func (n *Node) refuse(conn link.Conn, peer string, v peering.Verdict) {
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
func (n *Node) judge(conn link.Conn, h *wire.Hello) (*peer, peering.Verdict) {
	if v := n.checkHello(h); v.Reason != "" {
		return nil, v
	}
	timeout := time.NewTimer(handshakePatience)
	defer timeout.Stop()
	for word := peering.NotAsked; ; {
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			return nil, n.goodbye(h.Node)
		}
		p := n.peerOf(h.Node)
		v := p.peering.Accept(h, word)
		n.taken(p, conn, v)
		free := p.free
		if v.Do == peering.Replace {
			p.link.Cut(errors.New(v.Reason)) // now, as another connection may take its place
		}
		n.mu.Unlock()
		switch v.Do {
		case peering.Confirm:
			word = n.lookUp(p)
		case peering.Replace:
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
func (n *Node) taken(p *peer, conn link.Conn, v peering.Verdict) {
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
