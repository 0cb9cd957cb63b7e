package fabric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// A worker needs no address of a directory: it asks its node, which passes its
// requests on and the replies back, as they are.

// The largest request and the largest reply, in bytes, with some room.
const (
	maxRequestFrame = 384 << 10
	maxReplyFrame   = 2 << 20
)

// directories are where a node's workers are registered.
type directories struct {
	addrs  []string
	server *directory.Server // of a registry in this process, or nil
}

// openDirectories finds out how to speak with dir for others.
func openDirectories(ctx context.Context, dir directory.Service, name string, logger *slog.Logger) (directories, error) {
	switch dir := dir.(type) {
	case *directory.Client:
		return directories{addrs: dir.Addrs()}, nil
	case *directory.Registry:
		server, err := directory.Serve(ctx, dir, fmt.Sprintf("mem://directory-of-%s-%p", name, dir), logger)
		if err != nil {
			return directories{}, err
		}
		return directories{addrs: []string{server.Addr()}, server: server}, nil
	}
	return directories{}, &ConfigError{"Directory", fmt.Sprintf("%T", dir), "be a *directory.Client or a *directory.Registry for a node that takes workers"}
}

func (d *directories) close() {
	if d.server != nil {
		d.server.Close()
	}
}

// dial connects to the first directory that can be reached, in the name of who asks.
func (d *directories) dial(ctx context.Context, identity string, logger *slog.Logger) (*transport.Conn, error) {
	var errs []error
	for _, addr := range d.addrs {
		conn, err := transport.Dial(ctx, addr, transport.Config{
			SocketType: transport.Dealer, Accepts: []transport.SocketType{transport.Router},
			Identity: identity, MaxFrame: maxReplyFrame, MaxMessage: 2 * maxReplyFrame, Logger: logger,
		})
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// relay passes on what a worker and the directory say to each other, until either
// ends.
func (n *Node) relay(conn *transport.Conn) {
	defer n.wg.Done()
	defer conn.Close()
	if !n.workers.relaying() {
		n.cfg.Logger.Warn("worker's directory connection refused", "reason", "there are too many")
		return
	}
	defer n.workers.relayed()
	ctx, cancel := context.WithTimeout(n.ctx, handshakePatience)
	up, err := n.workers.directory.dial(ctx, conn.PeerIdentity(), n.cfg.Logger)
	cancel()
	if err != nil {
		n.cfg.Logger.Debug("no directory for a worker", "reason", err)
		return // it tries again
	}
	defer up.Close()
	stop := context.AfterFunc(n.ctx, func() { conn.Close(); up.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		pump(conn, up)
	}()
	pump(up, conn)
	<-back
}

// pump writes to one connection what the other brings, and closes both when either
// ends. It holds one message.
func pump(to, from *transport.Conn) {
	defer to.Close()
	defer from.Close()
	for {
		frames, err := from.ReadMessage()
		if err != nil {
			return
		}
		if err := to.WriteMessage(frames...); err != nil {
			return
		}
	}
}
