package fabric

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// tellFailures is after how many dials that failed an operator is told. The
// first ones tell nothing: the peer may be leaving, or dialling itself.
const tellFailures = 3

// dials reports whether this node looks for a connection to p: it has consumers
// for producers there, or streams that are not at their end. Under mu.
func (n *Node) dials(p *peer) bool {
	return !n.closed && (len(p.wanted) > 0 || p.reaches > 0 || p.link.Receiving())
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
		if ok {
			n.greetings.Add(1)
		}
		n.mu.Unlock()
		if !ok {
			return
		}
		wait = 0
		err := n.dialOnce(p, endpoint)
		n.greetings.Done()
		if err != nil {
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
	conn, err := n.connect(ctx, p.name, endpoint)
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
	h, err := n.greet(conn, p.name, connection)
	if err == nil && h.Node != p.name {
		err = fmt.Errorf("%s answers at %s", h.Node, endpoint)
	}
	if err != nil {
		conn.Close()
		n.dismissed(p, err)
		return err
	}
	v, err := n.judgeAnswer(p, conn, &h)
	switch {
	case err != nil:
		n.partWith(conn, p.name)
		return err
	case v.Do != peering.Admit:
		link.Refuse(conn, v.Code, v.Reason, closePatience)
		return errors.New(v.Reason)
	}
	return n.install(p, conn, &h, v, false)
}

// greet says hello to who was dialled, and waits for its hello. A node that closes
// meanwhile says goodbye: the peer may have a link already, and would wait for it.
func (n *Node) greet(conn link.Conn, peer string, connection uint64) (wire.Hello, error) {
	if err := link.SayHello(conn, n.hello(connection), closePatience); err != nil {
		return wire.Hello{}, err
	}
	parted := make(chan struct{})
	stop := context.AfterFunc(n.ctx, func() {
		defer close(parted)
		n.partWith(conn, peer)
	})
	h, err := link.AwaitHello(conn, handshakePatience)
	if !stop() {
		<-parted
		return wire.Hello{}, ErrClosed
	}
	return h, err
}

// connect makes a connection to the peer called name, which is at endpoint: over a
// socket, or a circuit if the peer or this process is a worker.
func (n *Node) connect(ctx context.Context, name, endpoint string) (link.Conn, error) {
	host, isWorker := strings.CutPrefix(endpoint, viaPrefix)
	if !isWorker {
		host = name
	}
	if isWorker || n.trunk != nil {
		conn, err := n.callOut(ctx, name, host)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	conn, err := transport.Dial(ctx, endpoint, transport.Config{
		SocketType: transport.Router, Accepts: []transport.SocketType{transport.Dealer},
		Identity: n.cfg.Name, MaxFrame: wire.MaxPacket, UserTimeout: n.cfg.userTimeout(), Logger: n.cfg.Logger,
	})
	if err != nil {
		return nil, err // and no Conn that is not nil and holds a nil
	}
	return conn, nil
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

// judgeAnswer decides about a peer that was dialled and has answered. It is
// ErrClosed if the node is closing.
func (n *Node) judgeAnswer(p *peer, conn link.Conn, h *wire.Hello) (peering.Verdict, error) {
	for word := peering.NotAsked; ; word = n.lookUp(p) {
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			return peering.Verdict{}, ErrClosed
		}
		v := p.peering.Answered(h, word)
		n.taken(p, conn, v)
		n.mu.Unlock()
		if v.Do != peering.Confirm {
			return v, nil
		}
	}
}
