package fabric

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// proxy is a directory for one node that gives the node's peers the address of
// a relay instead of its own, and that relay: it cuts connections after a
// number of bytes, or all of them on demand.
type proxy struct {
	directory.Service
	ln net.Listener
	// life is how many bytes the next connection may carry, both ways together,
	// until it is cut; negative: no end. Called by the accepting goroutine only.
	life func() int64
	// pace, if there is one, waits before n bytes from the target are passed on.
	pace func(n int)

	mu     sync.Mutex
	target string
	shut   bool // accepted connections are closed at once
	mute   bool // what the dialling end says is lost: for connections that are cut then
	conns  map[net.Conn]struct{}
	cuts   int

	wg sync.WaitGroup
}

func newProxy(t testing.TB, dir directory.Service, life func() int64) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Service: dir, ln: ln, life: life, conns: make(map[net.Conn]struct{})}
	p.wg.Add(1)
	go p.accept()
	t.Cleanup(func() {
		ln.Close()
		p.shutdown(true)
		p.wg.Wait()
	})
	return p
}

func forever() int64 { return -1 }

// randomLife draws a number of bytes between 1 and most, small ones as likely
// as large ones.
func randomLife(seed uint64, most int64) func() int64 {
	rng := rand.New(rand.NewPCG(seed, 2))
	return func() int64 {
		n := most
		for range rng.IntN(12) {
			n /= 2
		}
		return 1 + rng.Int64N(max(n, 1))
	}
}

// Join notes where the node really is, and registers the relay.
func (p *proxy) Join(ctx context.Context, info directory.NodeInfo) (uint64, error) {
	p.mu.Lock()
	p.target = strings.TrimPrefix(info.Endpoint, "tcp://")
	p.mu.Unlock()
	info.Endpoint = "tcp://" + p.ln.Addr().String()
	return p.Service.Join(ctx, info)
}

func (p *proxy) accept() {
	defer p.wg.Done()
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target, shut := p.target, p.shut
		p.mu.Unlock()
		if shut {
			c.Close()
			continue
		}
		d, err := net.Dial("tcp", target)
		if err != nil {
			c.Close()
			continue
		}
		r := &relay{proxy: p, ends: [2]net.Conn{c, d}, left: p.life()}
		p.mu.Lock()
		p.conns[c], p.conns[d] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wg.Add(2)
		go r.copy(0)
		go r.copy(1)
	}
}

// relay is one connection through the proxy.
type relay struct {
	proxy *proxy
	ends  [2]net.Conn

	mu   sync.Mutex
	left int64
}

func (r *relay) copy(from int) {
	defer r.proxy.wg.Done()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.ends[from].Read(buf)
		r.mu.Lock()
		ended := false
		if r.left >= 0 && int64(n) >= r.left {
			n, ended = int(r.left), true
		}
		if r.left >= 0 {
			r.left -= int64(n)
		}
		r.mu.Unlock()
		if n > 0 && (from == 1 || !r.proxy.muted()) {
			if from == 1 && r.proxy.pace != nil {
				r.proxy.pace(n)
			}
			if _, werr := r.ends[1-from].Write(buf[:n]); werr != nil {
				break
			}
		}
		if ended {
			r.proxy.mu.Lock()
			r.proxy.cuts++
			r.proxy.mu.Unlock()
		}
		if err != nil || ended {
			break
		}
	}
	r.proxy.mu.Lock()
	for _, c := range r.ends {
		c.Close()
		delete(r.proxy.conns, c)
	}
	r.proxy.mu.Unlock()
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) muted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mute
}

func (p *proxy) setMute(mute bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = mute
}

// shutdown ends all connections and, if shut, lets no new one through until it
// is called again.
func (p *proxy) shutdown(shut bool) {
	p.mu.Lock()
	p.shut = shut
	p.mu.Unlock()
	if shut {
		p.cut()
	}
}

func (p *proxy) countCuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}
