package fabric

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/peering"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// AttachConfig says how to attach to a node. The zero value works.
type AttachConfig struct {
	// Name is the worker's, unique in the directory as a node's is. Default: the
	// node's name, "-" and eight random hexadecimal digits.
	Name string
	// MemoryBudget and the others are as in Config.
	MemoryBudget      int64
	MaxMessage        int
	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration
	ResumeWindow      time.Duration
	Logger            *slog.Logger
}

// Attach makes this process a worker of the node that takes workers at address
// (Config.Workers, or zfab node): it gets a Node as Open makes one, with a name and
// streams of its own, whose connections all run over the one to its node and over
// the links that the nodes have with each other. The directory is asked by way of
// the node, too.
//
// When the node ends, the worker attaches again by itself as soon as there is one at
// the address, and its streams go on; Config.ResumeWindow bounds the wait. Its context
// bounds Attach only. Errors are those of Open; directory.ErrUnavailable matches
// those that tell that nobody answers at address.
func Attach(ctx context.Context, address string, cfg AttachConfig) (*Node, error) {
	n, err := attach(ctx, address, cfg)
	if err != nil {
		return nil, fmt.Errorf("fabric: attach to %s: %w", address, err)
	}
	return n, nil
}

func attach(ctx context.Context, address string, a AttachConfig) (*Node, error) {
	cfg, err := Config{
		Name: a.Name, MemoryBudget: a.MemoryBudget, MaxMessage: a.MaxMessage, HeartbeatInterval: a.HeartbeatInterval,
		HeartbeatTimeout: a.HeartbeatTimeout, ResumeWindow: a.ResumeWindow, Logger: a.Logger,
	}.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := directory.Dial(ctx, address, directory.Options{Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	conn, err := dialHost(ctx, address, cfg)
	if err != nil {
		dir.Close()
		return nil, err
	}
	if a.Name == "" {
		var b [4]byte
		rand.Read(b[:])
		cfg.Name = fmt.Sprintf("%.240s-%s", conn.PeerIdentity(), hex.EncodeToString(b[:]))
	}
	n := newNode(cfg)
	n.dir, n.ownDir = dir, true
	n.trunk = &trunk{node: n, address: address, host: conn.PeerIdentity(), up: make(chan struct{}), down: make(chan struct{}, 1)}
	n.trunk.links = carrying(n.links)
	n.trunk.links.Hooks = link.Hooks{Called: n.calledByHost, Cut: cutLink, Down: n.trunk.ended}
	n.endpoint = viaPrefix + n.trunk.host
	n.incarnation, err = dir.Join(ctx, directory.NodeInfo{Name: cfg.Name, Endpoint: n.endpoint})
	if err == nil {
		if err = n.trunk.greet(conn); err != nil {
			err = errors.Join(err, n.leave(ctx))
		}
	} else {
		conn.Close()
	}
	if err != nil {
		n.cancel()
		dir.Close()
		return nil, err
	}
	n.start()
	return n, nil
}

// dialHost connects to the node at address.
func dialHost(ctx context.Context, address string, cfg Config) (*transport.Conn, error) {
	conn, err := transport.Dial(ctx, address, transport.Config{
		SocketType: transport.Router, Accepts: []transport.SocketType{transport.Dealer},
		Identity: cfg.Name, MaxFrame: wire.MaxPacket, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	if err := directory.CheckName("node", conn.PeerIdentity()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("no node's attach socket: %w", err)
	}
	return conn, nil
}

// trunk is a worker's link to its node, which carries its circuits and nothing
// else. There is another link for each connection.
type trunk struct {
	node    *Node
	address string
	host    string // the node's name
	links   link.Config
	down    chan struct{} // room for one: the link has ended

	mu     sync.Mutex
	link   *link.Link    // nil while down
	up     chan struct{} // closed while there is one
	closed bool
}

// await waits for the link.
func (t *trunk) await(ctx context.Context) (*link.Link, error) {
	for {
		t.mu.Lock()
		l, up := t.link, t.up
		t.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, fmt.Errorf("node %s: %w", t.host, errDetached)
		}
	}
}

var errDetached = errors.New("the worker is not attached")

// greet says hello on a new connection, and makes it the link's.
func (t *trunk) greet(conn *transport.Conn) error {
	if conn.PeerIdentity() != t.host {
		conn.Close()
		return fmt.Errorf("the socket is that of node %s now, and not of %s", conn.PeerIdentity(), t.host)
	}
	stop := context.AfterFunc(t.node.ctx, func() { conn.Close() })
	h, err := link.Greet(conn, t.node.hello(0), handshakePatience)
	stop()
	if err == nil && h.Node != t.host {
		err = fmt.Errorf("%s answers at the socket of %s", h.Node, t.host)
	}
	if err != nil {
		conn.Close()
		return err
	}
	l := link.New(&t.links, t.host)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		conn.Close()
		return ErrClosed
	}
	l.Attach(conn, int(h.MaxMessage))
	t.link = l
	close(t.up)
	return nil
}

// ended is the link's word that its connection has ended.
func (t *trunk) ended(l *link.Link, cause error) {
	t.mu.Lock()
	if t.link == l {
		t.link, t.up = nil, make(chan struct{})
	}
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return
	}
	t.node.cfg.Logger.Warn("detached from the node, trying to attach again", "node", t.host, "reason", cause)
	select {
	case t.down <- struct{}{}:
	default:
	}
}

// keepAttached attaches again whenever the link has ended, until the worker closes.
func (n *Node) keepAttached() {
	defer n.wg.Done()
	t := n.trunk
	for {
		select {
		case <-t.down:
		case <-n.ctx.Done():
			return
		}
		for bound := peering.RedialMin; n.ctx.Err() == nil; bound = min(2*bound, peering.RedialMax) {
			n.pause(mathrand.N(bound)) // all of it random: a node's workers come at once
			err := t.again()
			if err == nil {
				n.cfg.Logger.Info("attached again", "node", t.host)
				break
			}
			n.cfg.Logger.Debug("not attached", "node", t.host, "reason", err)
		}
	}
}

// again attaches once.
func (t *trunk) again() error {
	ctx, cancel := context.WithTimeout(t.node.ctx, handshakePatience)
	defer cancel()
	conn, err := dialHost(ctx, t.address, t.node.cfg)
	if err != nil {
		return err
	}
	return t.greet(conn)
}

// current is the link, nil while there is none, or this is no worker.
func (t *trunk) current() *link.Link {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.link
}

// cut ends the connection.
func (t *trunk) cut(cause error) {
	if l := t.current(); l != nil {
		l.Cut(cause)
	}
}

// close ends the link for good.
func (t *trunk) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	if l := t.current(); l != nil {
		l.Close(closePatience, true)
	}
}
