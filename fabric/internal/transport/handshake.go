package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
)

// handshake makes a Conn of a fresh connection, by deadline and while ctx lasts; if ctx ends first, its cause is the
// error. On error nc is closed.
func handshake(ctx context.Context, nc net.Conn, cfg Config, local, remote string, deadline time.Time) (*Conn, error) {
	// Closing is the one thing that ends a read in the library at once; ending it with a deadline would race with the
	// one set here.
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	nc.SetDeadline(deadline)
	g := &guard{Conn: nc, remote: remote}
	meta, err := openZMTP(g, cfg)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	peerType := SocketType(meta[propertySocketType])
	if err == nil && len(cfg.Accepts) > 0 && !slices.Contains(cfg.Accepts, peerType) {
		err = g.violation(fmt.Sprintf("the peer is a %s, accepted are %v", peerType, cfg.Accepts))
	}
	if !stop() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return newConn(nc, cfg, local, remote, peerType, meta[propertyIdentity]), nil
	}
	nc.Close()
	switch {
	case ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrHandshakeTimeout
	case ctx.Err() == nil && g.err != nil:
		err = g.err // closer to the cause than what the library made of it
	}
	return nil, opError("handshake", remote, err)
}

// openZMTP has the library do the handshake, and makes an error of its panics: should the guard have missed something, it
// costs this one connection.
func openZMTP(g *guard, cfg Config) (meta zmq4.Metadata, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = g.violation(quote(fmt.Append(nil, "the handshake panicked: ", r)))
		}
	}()
	zc, err := zmq4.Open(g, null.Security(), zmq4.SocketType(cfg.SocketType), zmq4.SocketIdentity(cfg.Identity), false, nil)
	if err != nil {
		return nil, err
	}
	return zc.Peer.Meta, nil
}
