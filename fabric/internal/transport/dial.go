package transport

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

// Dial connects to a listener and finishes the handshake. It waits until then, for at most cfg.HandshakeTimeout, or until
// ctx ends, with the context's cause as its error.
func Dial(ctx context.Context, addr string, cfg Config) (*Conn, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, opError("dial", addr, err)
	}
	scheme, rest, err := splitAddress(addr)
	if err != nil {
		return nil, opError("dial", addr, err)
	}
	deadline := time.Now().Add(cfg.HandshakeTimeout)
	limited, cancel := context.WithDeadlineCause(ctx, deadline, ErrHandshakeTimeout)
	defer cancel()

	nc, err := dialRaw(limited, scheme, rest)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case limited.Err() != nil, os.IsTimeout(err): // the dialer's own timer may be a little earlier
			err = ErrHandshakeTimeout
		}
		return nil, opError("dial", addr, err)
	}
	local, remote := addr, addr
	if scheme == schemeTCP {
		setTCPOptions(nc, cfg.UserTimeout)
		local, remote = schemeTCP+"://"+nc.LocalAddr().String(), schemeTCP+"://"+nc.RemoteAddr().String()
	}
	setIPCOptions(nc)
	return handshake(ctx, nc, cfg, local, remote, deadline)
}

func dialRaw(ctx context.Context, scheme, rest string) (net.Conn, error) {
	var d net.Dialer
	switch scheme {
	case schemeTCP:
		return d.DialContext(ctx, "tcp", rest)
	case schemeIPC:
		nc, err := d.DialContext(ctx, "unix", rest)
		return nc, tooLong(rest, err)
	case schemeMem:
		return dialMem(ctx, rest)
	}
	return nil, fmt.Errorf("%w %q", ErrUnknownScheme, scheme)
}
