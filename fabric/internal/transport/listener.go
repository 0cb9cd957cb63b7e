package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// acceptPause is how long the listener rests when the system cannot give it a connection (most often: out of
// descriptors), so that it neither spins nor ends.
const acceptPause = 50 * time.Millisecond

// Listener accepts connections and runs their handshakes, several at a time.
type Listener struct {
	// immutable
	nl     net.Listener
	cfg    Config
	scheme string
	addr   string
	adm    *admission
	ready  chan *Conn // unbuffered: a finished handshake keeps its place until Accept takes it
	ctx    context.Context
	cancel context.CancelFunc

	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Listen listens on "tcp://host:port" (port 0: the system picks one; host "*": all addresses), "ipc://path" (a stale
// socket file is replaced), or "mem://name" (within this process). An address that another listener has is
// ErrAddressInUse.
func Listen(addr string, cfg Config) (*Listener, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, opError("listen", addr, err)
	}
	scheme, rest, err := splitAddress(addr)
	if err != nil {
		return nil, opError("listen", addr, err)
	}
	nl, err := listenRaw(scheme, rest)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, ErrAddressInUse) {
			err = fmt.Errorf("%w: %w", ErrAddressInUse, err)
		}
		return nil, opError("listen", addr, err)
	}
	// Before that the umask's permissions hold for a moment: AdmitUser is asked all the same.
	if scheme == schemeIPC && cfg.Mode != 0 && !strings.HasPrefix(rest, "@") {
		if err := os.Chmod(rest, cfg.Mode); err != nil {
			nl.Close()
			return nil, opError("listen", addr, err)
		}
	}
	if scheme == schemeTCP {
		addr = schemeTCP + "://" + nl.Addr().String()
	}
	l := &Listener{
		nl: nl, cfg: cfg, scheme: scheme, addr: addr,
		adm:   newAdmission(cfg.MaxHandshakes, cfg.HandshakeTimeout),
		ready: make(chan *Conn),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Add(1)
	go l.acceptLoop()
	return l, nil
}

func listenRaw(scheme, rest string) (net.Listener, error) {
	switch scheme {
	case schemeTCP:
		return net.Listen("tcp", rest)
	case schemeIPC:
		return listenIPC(rest)
	case schemeMem:
		return listenMem(rest)
	}
	return nil, fmt.Errorf("%w %q", ErrUnknownScheme, scheme)
}

// Addr is the address with the port that was picked: what Dial takes, unless the host is unspecified ("*", 0.0.0.0).
func (l *Listener) Addr() string { return l.addr }

// Accept waits for the next connection whose handshake is finished, until ctx ends or the listener is closed
// (net.ErrClosed). A handshake that fails is a line in the log and no error here.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	if l.ctx.Err() != nil {
		return nil, opError("accept", l.addr, net.ErrClosed)
	}
	select {
	case c := <-l.ready:
		return c, nil
	case <-ctx.Done():
		return nil, opError("accept", l.addr, context.Cause(ctx))
	case <-l.ctx.Done():
		return nil, opError("accept", l.addr, net.ErrClosed)
	}
}

// Close stops listening, closes the handshakes under way and the connections that Accept has not taken, and waits for
// the listener's goroutines. Connections that Accept returned live on.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		l.cancel()
		l.closeErr = l.nl.Close()
	})
	l.wg.Wait()
	return l.closeErr
}

// acceptLoop accepts as long as there are places for handshakes.
func (l *Listener) acceptLoop() {
	defer l.wg.Done()
	for l.adm.wait(l.ctx) == nil {
		nc, err := l.nl.Accept()
		if err != nil {
			l.adm.giveBack()
			if !l.pause(err) {
				return
			}
			continue
		}
		ctx, evict := context.WithCancelCause(l.ctx)
		p := l.adm.begin(evict)
		l.wg.Add(1)
		go l.shake(ctx, evict, nc, p)
	}
}

// pause lets a failing accept rest; false: the listener is closed.
func (l *Listener) pause(err error) bool {
	if l.ctx.Err() != nil {
		return false
	}
	l.cfg.Logger.Error("transport: accept failed", "listener", l.addr, "error", err)
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// admit asks whether the process that has connected may.
func (l *Listener) admit(nc net.Conn) error {
	if l.scheme != schemeIPC || l.cfg.AdmitUser == nil {
		return nil
	}
	uid, known := peerUser(nc)
	return l.cfg.AdmitUser(uid, known)
}

// shake runs one handshake and hands the connection to Accept. It holds a place until then.
func (l *Listener) shake(ctx context.Context, evict context.CancelCauseFunc, nc net.Conn, p *place) {
	defer l.wg.Done()
	defer l.adm.giveBack()
	defer evict(nil)
	remote := l.addr
	local := l.addr
	if l.scheme == schemeTCP {
		setTCPOptions(nc, l.cfg.UserTimeout)
		local, remote = schemeTCP+"://"+nc.LocalAddr().String(), schemeTCP+"://"+nc.RemoteAddr().String()
	}
	if err := l.admit(nc); err != nil {
		l.adm.finished(p)
		nc.Close()
		l.cfg.Logger.Warn("transport: connection refused", "listener", l.addr, "error", err)
		return
	}
	setIPCOptions(nc)
	c, err := handshake(ctx, nc, l.cfg, local, remote, p.began.Add(l.cfg.HandshakeTimeout))
	l.adm.finished(p)
	if err != nil {
		if l.ctx.Err() == nil {
			l.cfg.Logger.Warn("transport: handshake failed", "listener", l.addr, "remote", remote, "error", err)
		}
		return
	}
	select {
	case l.ready <- c:
	case <-l.ctx.Done():
		c.Close()
	}
}
