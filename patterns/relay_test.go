package patterns

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// relay is a directory for one node that gives the node's peers the address of
// a relay instead of its own, and that relay: it cuts connections on demand.
type relay struct {
	directory.Service
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	target string
	shut   bool // no connection is let through
	rate   int  // bytes that pass in a second, each way; 0: as many as there are
	conns  map[net.Conn]struct{}
	cuts   int // connections cut
}

func newRelay(t testing.TB, dir directory.Service) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Service: dir, ln: ln, conns: make(map[net.Conn]struct{})}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		ln.Close()
		r.hide(true)
		r.wg.Wait()
	})
	return r
}

// newRelayTo returns a relay to an address that is known already.
func newRelayTo(t testing.TB, target string) *relay {
	t.Helper()
	r := newRelay(t, nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
	return r
}

// slow lets so many bytes pass in a second, each way, on connections from now on.
func (r *relay) slow(rate int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = rate
}

// openRelayed opens a node behind a relay: whoever dials it can be cut off.
func openRelayed(t testing.TB, r *relay, cfg fabric.Config) *fabric.Node {
	t.Helper()
	cfg.Directory = r
	return openNodeOf(t, cfg)
}

// Join notes where the node really is, and registers the relay.
func (r *relay) Join(ctx context.Context, info directory.NodeInfo) (uint64, error) {
	r.mu.Lock()
	r.target = strings.TrimPrefix(info.Endpoint, "tcp://")
	r.mu.Unlock()
	info.Endpoint = "tcp://" + r.ln.Addr().String()
	return r.Service.Join(ctx, info)
}

func (r *relay) accept() {
	for {
		near, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		target, shut, rate := r.target, r.shut, r.rate
		r.mu.Unlock()
		far, err := net.Dial("tcp", target)
		if err != nil || shut {
			near.Close()
			if err == nil {
				far.Close()
			}
			continue
		}
		r.mu.Lock()
		r.conns[near], r.conns[far] = struct{}{}, struct{}{}
		r.mu.Unlock()
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			r.wg.Go(func() {
				passOn(pair[0], pair[1], rate)
				r.mu.Lock()
				defer r.mu.Unlock()
				for _, c := range pair {
					c.Close()
					delete(r.conns, c)
				}
			})
		}
	}
}

// passOn passes on what comes from one connection to another, until either ends. With a
// rate it does so in small pieces, and buffers little.
func passOn(to, from net.Conn, rate int) {
	if rate == 0 {
		_, _ = io.Copy(to, from)
		return
	}
	piece := make([]byte, 16<<10)
	_ = from.(*net.TCPConn).SetReadBuffer(len(piece))
	_ = to.(*net.TCPConn).SetWriteBuffer(len(piece))
	for due := time.Now(); ; time.Sleep(time.Until(due)) {
		n, err := from.Read(piece)
		if n > 0 {
			_, err = to.Write(piece[:n])
		}
		if err != nil {
			return
		}
		if now := time.Now(); due.Before(now) {
			due = now
		}
		due = due.Add(time.Second * time.Duration(n) / time.Duration(rate))
	}
}

// cut ends all connections, with whatever is in them.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		r.cuts++
	}
}

// hide ends all connections and lets no new one through, until it is called
// again.
func (r *relay) hide(shut bool) {
	r.mu.Lock()
	r.shut = shut
	r.mu.Unlock()
	if shut {
		r.cut()
	}
}

// cutEvery cuts until the test calls what it returns, which says how often.
func (r *relay) cutEvery(d time.Duration) (stop func() int) {
	done := make(chan struct{})
	r.wg.Go(func() {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				r.cut()
			}
		}
	})
	return func() int {
		close(done)
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.cuts
	}
}

// await waits until something is so.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx := testContext(t)
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
