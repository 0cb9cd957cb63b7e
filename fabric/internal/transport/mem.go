package transport

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// memBacklog is how many connections a mem listener holds that its accept loop has not taken: as with a kernel's accept
// queue, Dial waits beyond it.
const memBacklog = 128

// memListeners are the listeners of this process by name.
var memListeners = struct {
	mu     sync.Mutex
	byName map[string]*memListener
}{byName: map[string]*memListener{}}

// memAddr is a mem listener's name.
type memAddr string

func (memAddr) Network() string  { return schemeMem }
func (a memAddr) String() string { return string(a) }

// memListener is the net.Listener of a mem address.
type memListener struct {
	name   memAddr
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func listenMem(name string) (net.Listener, error) {
	memListeners.mu.Lock()
	defer memListeners.mu.Unlock()
	if memListeners.byName[name] != nil {
		return nil, ErrAddressInUse
	}
	l := &memListener{name: memAddr(name), queue: make(chan net.Conn, memBacklog), closed: make(chan struct{})}
	memListeners.byName[name] = l
	return l, nil
}

func dialMem(ctx context.Context, name string) (net.Conn, error) {
	memListeners.mu.Lock()
	l := memListeners.byName[name]
	memListeners.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("mem %q: %w", name, ErrNotListening)
	}
	near, far := memPipe(l.name)
	select {
	case l.queue <- far:
	case <-l.closed:
		return nil, fmt.Errorf("mem %q: %w", name, ErrNotListening)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-l.closed: // it may have gone into the queue after Close emptied that
		l.empty()
	default:
	}
	return near, nil
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case nc := <-l.queue:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Addr() net.Addr { return l.name }

func (l *memListener) Close() error {
	l.once.Do(func() {
		memListeners.mu.Lock()
		delete(memListeners.byName, string(l.name))
		memListeners.mu.Unlock()
		close(l.closed)
		l.empty()
	})
	return nil
}

// empty closes the connections that nobody will accept.
func (l *memListener) empty() {
	for {
		select {
		case nc := <-l.queue:
			nc.Close()
		default:
			return
		}
	}
}
