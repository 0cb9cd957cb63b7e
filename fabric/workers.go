package fabric

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/lanes"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// The workers of a node: processes of its host that are attached to it. The node
// passes their circuits on (circuits.go), and their words with the directory
// (relay.go).
//
// A worker's connection cannot break without either process's end, and a process
// that is stopped still has it. So its end says that the worker has died, unless
// the node itself or the worker's bye has ended it; and silence says nothing.

// maxWorkers bounds the workers of a node: each may call MaxCalls circuits.
const maxWorkers = 1024

// workers is what a node has to do with its workers.
type workers struct {
	listener  *transport.Listener
	links     link.Config
	directory *directories

	mu     sync.Mutex
	byName map[string]*worker
	relays int // workers' connections for the directory
}

// worker is an attached process.
type worker struct {
	name        string
	incarnation uint64
	link        *link.Link
	replaced    bool // its place is another connection's; under workers.mu
}

// openWorkers listens for workers.
func (n *Node) openWorkers(ctx context.Context) (*workers, error) {
	w := &workers{links: carrying(n.links), byName: make(map[string]*worker)}
	w.links.Hooks = link.Hooks{Called: n.calledByWorker, Cut: n.cutWorker, Down: n.workerDown}
	var err error
	if w.directory, err = openDirectories(ctx, n.dir, n.cfg.Name, n.cfg.Logger); err != nil {
		return nil, err
	}
	allowed := append([]uint32{0, uint32(os.Getuid())}, n.cfg.Workers.Users...)
	w.listener, err = transport.Listen(n.cfg.Workers.Listen, transport.Config{
		SocketType: transport.Dealer, Accepts: []transport.SocketType{transport.Router, transport.Dealer},
		Identity: n.cfg.Name, Logger: n.cfg.Logger, Mode: n.cfg.Workers.Mode,
		MaxFrame: max(lanes.MaxFrame, wire.MaxPacket), MaxMessage: lanes.MaxMessage,
		AdmitUser: func(uid uint32, known bool) error {
			if known && !slices.Contains(allowed, uid) {
				return fmt.Errorf("user %d may not attach", uid)
			}
			return nil
		},
	})
	if err != nil {
		w.directory.close()
		return nil, fmt.Errorf("attach socket: %w", err)
	}
	return w, nil
}

// carrying is cfg for a link between a worker and its node: it has no streams, and
// silence ends it never.
func carrying(cfg link.Config) link.Config {
	cfg.MaxStreams = 0
	cfg.PingTicks, cfg.DeadTicks = never, never
	return cfg
}

// never is a number of ticks that no link lives for.
const never = 1 << 30

// maxRelays bounds the connections of workers for the directory: a worker
// has one, and a second one for a moment when it dials again.
const maxRelays = 2 * maxWorkers

// relaying notes that there is a relay more, unless there are too many.
func (w *workers) relaying() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.relays >= maxRelays {
		return false
	}
	w.relays++
	return true
}

func (w *workers) relayed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.relays--
}

// hangUp lets nobody attach any more.
func (w *workers) hangUp() {
	w.listener.Close()
	w.directory.close()
}

// link is that of the worker called name, nil if none is attached.
func (w *workers) link(name string) *link.Link {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.byName[name]; a != nil {
		return a.link
	}
	return nil
}

// all is every attached worker.
func (w *workers) all() []*worker {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*worker, 0, len(w.byName))
	for _, a := range w.byName {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *worker) int { return compareAddress(Address{Node: a.name}, Address{Node: b.name}) })
	return list
}

// acceptWorkers takes connections until the listener closes: who comes as ROUTER
// attaches, who comes as DEALER asks the directory.
func (n *Node) acceptWorkers() {
	defer n.wg.Done()
	for {
		conn, err := n.workers.listener.Accept(n.ctx)
		if err != nil {
			return
		}
		serve := n.greetWorker
		if conn.PeerType() == transport.Dealer {
			serve = n.relay
		}
		n.mu.Lock()
		deaf := n.deaf
		if !deaf {
			n.wg.Add(1)
		}
		n.mu.Unlock()
		if deaf {
			conn.Close()
			return
		}
		go serve(conn)
	}
}

// greetWorker hears who attaches, and gives the connection to a link.
func (n *Node) greetWorker(conn *transport.Conn) {
	defer n.wg.Done()
	done := n.await(conn)
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	hello, err := link.AwaitHello(conn, handshakePatience)
	stop()
	done()
	if err != nil {
		conn.Close()
		if n.ctx.Err() == nil {
			n.cfg.Logger.Warn("worker refused", "reason", err)
		}
		return
	}
	code, reason := n.attach(conn, &hello)
	if reason != "" {
		n.cfg.Logger.Warn("worker refused", "worker", hello.Node, "reason", reason)
		link.Refuse(conn, code, reason, closePatience)
	}
}

// attach gives a worker its place, or says why not. A connection of the same life,
// or of one before, gives way.
func (n *Node) attach(conn *transport.Conn, h *wire.Hello) (code uint8, reason string) {
	if v := n.checkHello(h); v.Reason != "" {
		return v.Code, v.Reason
	}
	w := n.workers
	a := &worker{name: h.Node, incarnation: h.Incarnation, link: link.New(&w.links, h.Node)}
	w.mu.Lock()
	before := w.byName[a.name]
	if before == nil && len(w.byName) >= maxWorkers {
		w.mu.Unlock()
		return wire.CodeRefused, fmt.Sprintf("%d workers are attached: more are not taken", maxWorkers)
	}
	if before != nil {
		if before.incarnation > a.incarnation {
			w.mu.Unlock()
			return wire.CodeFenced, fmt.Sprintf("incarnation %d of %s is attached, a later one", before.incarnation, a.name)
		}
		before.replaced = true
	}
	w.byName[a.name] = a
	w.mu.Unlock()
	if before != nil {
		before.link.Cut(errors.New("the worker has attached anew"))
	}
	if err := link.SayHello(conn, n.hello(0), closePatience); err != nil {
		w.remove(a)
		conn.Close()
		return 0, ""
	}
	n.mu.Lock()
	ok := !n.deaf && a.link.Attach(conn, n.cfg.MaxMessage)
	n.mu.Unlock()
	if !ok {
		w.remove(a)
		return wire.CodeBusy, "the node is closing"
	}
	n.cfg.Logger.Info("worker attached", "worker", a.name, "incarnation", a.incarnation)
	return 0, ""
}

// remove takes a out, unless another has its place.
func (w *workers) remove(a *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byName[a.name] == a {
		delete(w.byName, a.name)
	}
}

// calledByWorker is a worker's call.
func (n *Node) calledByWorker(l *link.Link, k *link.Call) {
	switch {
	case k.From() != l.Peer():
		k.Refuse(wire.CodeRefused, "a worker calls in its own name")
	case directory.CheckName("node", k.Via()) != nil || directory.CheckName("node", k.To()) != nil:
		k.Refuse(wire.CodeRefused, "a name is not one")
	case k.Via() != n.cfg.Name:
		n.passOut(k)
	case k.To() == n.cfg.Name:
		n.take(k)
	default:
		n.passIn(k)
	}
}

// died reports whether the end of a worker's link says that its process has ended.
func (n *Node) died(l *link.Link, cause error) (a *worker, died bool) {
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	w := n.workers
	w.mu.Lock()
	defer w.mu.Unlock()
	a = w.byName[l.Peer()]
	if a == nil || a.link != l {
		return nil, false
	}
	var bye *link.ByeError
	return a, !closed && !a.replaced && !errors.As(cause, &bye)
}

// cutWorker is what those are told who had circuits with a worker.
func (n *Node) cutWorker(l *link.Link, cause error) (code uint8, text string) {
	if _, died := n.died(l, cause); died {
		return wire.CodeGone, fmt.Sprintf("the process of worker %s has ended", l.Peer())
	}
	return wire.CodeBusy, fmt.Sprintf("worker %s is detached", l.Peer())
}

// workerDown is the link's word that a worker's connection has ended.
func (n *Node) workerDown(l *link.Link, cause error) {
	a, died := n.died(l, cause)
	if a == nil {
		return
	}
	n.workers.remove(a)
	n.cfg.Logger.Info("worker detached", "worker", a.name, "died", died, "reason", cause)
	if !died {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.wg.Add(1)
		go n.evict(a)
	}
}

// evict takes a dead worker out of the directory. If that does not work, the end
// of its lease does it.
func (n *Node) evict(a *worker) {
	defer n.wg.Done()
	ctx, cancel := context.WithTimeout(n.ctx, directory.DefaultLease)
	defer cancel()
	for {
		err := n.dir.Evict(ctx, a.name, a.incarnation, true)
		if err == nil || errors.Is(err, directory.ErrUnknownNode) || errors.Is(err, directory.ErrStale) {
			return
		}
		n.cfg.Logger.Warn("a dead worker is still in the directory, trying on", "worker", a.name, "reason", err)
		n.pause(time.Second)
		if ctx.Err() != nil {
			return
		}
	}
}

// partWorkers says bye to the workers, which attach again when the node is back.
func (n *Node) partWorkers() {
	var parting sync.WaitGroup
	for _, a := range n.workers.all() {
		parting.Go(func() { a.link.Close(closePatience, true) })
	}
	if n.trunk != nil {
		n.trunk.close()
	}
	parting.Wait()
}

// limitParting ends what carries circuits if saying bye over them takes too long:
// where it is stuck, nothing else ends it.
func (n *Node) limitParting() (stop func()) {
	timer := time.AfterFunc(2*closePatience, func() {
		for _, a := range n.workers.all() {
			a.link.Cut(errClosing)
		}
		if n.trunk != nil {
			n.trunk.cut(errClosing)
		}
	})
	return func() { timer.Stop() }
}

var errClosing = errors.New("the node is closing")
