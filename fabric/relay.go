package fabric

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/lanes"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// A worker needs no address of a directory: it asks its node, which passes its
// requests on and the replies back, as they are. All workers of a node share one
// connection with the directory, on which each has its lane: a thousand hosts are a
// thousand connections more there, whatever runs on them.
//
//  1. relay takes a worker's connection, opens a lane on the uplink, dialled if there
//     is none, and passes on what the worker asks.
//  2. The uplink's reader leaves what comes in the lane, and never waits for a worker:
//     one that does not read has its own connection ended (maxLaneQueue).
//  3. deliver writes to the worker what its lane has, and ends its connection when the
//     lane has ended and all is written.
//  4. The uplink's tend looks whether it is alive, and ends it if it is not. Whether the
//     directory takes another connection says nothing of this one, and a worker's
//     question may take long: so tend opens a lane of its own and ends it, of which the
//     directory has to tell the end.

const (
	// maxReplyFrame is the largest reply, in bytes, with some room.
	maxReplyFrame = 2 << 20
	// maxLaneQueue is how many bytes of replies may wait for a worker that does not
	// read: with a reply of the largest size for each of some watches.
	maxLaneQueue = 8 << 20
	// uplinkPatience is how long the directory may read nothing, and how long it may
	// take to answer a look whether it is there.
	uplinkPatience = 6 * time.Second
	// uplinkTick is how often it is looked, if something was asked since: so a dead
	// uplink ends 8 s after that at the latest. A client gives an answer up sooner,
	// and dials again in vain until then; the leases of its nodes have some 10 s left.
	uplinkTick = uplinkPatience / patientTicks
	// patientTicks is patience in ticks: they are counted, and not the time, as a
	// process that was stopped has not heard in time what was said in time.
	patientTicks = 3
)

// directories are where a node's workers are registered.
type directories struct {
	addrs    []string
	server   *directory.Server // of a registry in this process, or nil
	identity string
	logger   *slog.Logger

	dialling chan struct{} // room for one: whose turn it is to look for an uplink

	running sync.WaitGroup // the uplinks' read and tend

	mu     sync.Mutex
	up     *uplink // nil: none yet
	closed bool
}

// openDirectories finds out how to speak with dir for others.
func openDirectories(ctx context.Context, dir directory.Service, name string, logger *slog.Logger) (*directories, error) {
	var key [16]byte
	rand.Read(key[:])
	d := &directories{identity: lanes.Identity + hex.EncodeToString(key[:]), logger: logger, dialling: make(chan struct{}, 1)}
	switch dir := dir.(type) {
	case *directory.Client:
		d.addrs = dir.Addrs()
	case *directory.Registry:
		server, err := directory.Serve(ctx, dir, fmt.Sprintf("mem://directory-of-%s-%p", name, dir), logger)
		if err != nil {
			return nil, err
		}
		d.addrs, d.server = []string{server.Addr()}, server
	default:
		return nil, &ConfigError{"Directory", fmt.Sprintf("%T", dir), "be a *directory.Client or a *directory.Registry for a node that takes workers"}
	}
	return d, nil
}

// close ends the uplink, and lets nobody open another.
func (d *directories) close() {
	d.mu.Lock()
	up := d.up
	d.closed = true
	d.mu.Unlock()
	if up != nil {
		up.conn.Close()
	}
	d.running.Wait()
	if d.server != nil {
		d.server.Close()
	}
}

func (d *directories) current() *uplink {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.up
}

// dial connects to a directory. Each gets its part of the time, so that one that hangs
// does not hide those behind it.
func (d *directories) dial(ctx context.Context, addr string) (*transport.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakePatience/time.Duration(len(d.addrs)))
	defer cancel()
	return transport.Dial(ctx, addr, transport.Config{
		SocketType: transport.Dealer, Accepts: []transport.SocketType{transport.Router},
		Identity: d.identity, MaxFrame: maxReplyFrame, MaxMessage: 2 * maxReplyFrame, UserTimeout: uplinkPatience, Logger: d.logger,
	})
}

// open opens a lane for a worker, on an uplink to the first directory that can be
// reached if there is none. A lane that is nil says that the uplink has just ended.
func (d *directories) open(ctx context.Context, worker *transport.Conn) (*uplink, *workerLane, error) {
	select {
	case d.dialling <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	defer func() { <-d.dialling }()
	if up := d.current(); up != nil {
		if l, err := up.open(worker); l != nil || err != nil {
			return up, l, err
		}
		<-up.ended
	}
	var errs []error
	for _, addr := range d.addrs {
		conn, err := d.dial(ctx, addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		up := &uplink{conn: conn, lanes: make(map[uint64]*workerLane), ended: make(chan struct{})}
		if !d.use(up) {
			conn.Close()
			return nil, nil, ErrClosed
		}
		l, err := up.open(worker)
		return up, l, err
	}
	return nil, nil, errors.Join(errs...)
}

// use makes up the uplink, unless the node has closed.
func (d *directories) use(up *uplink) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.up = up
	d.running.Go(up.read)
	d.running.Go(up.tend)
	return true
}

// uplink is one connection with the directory.
type uplink struct {
	conn  *transport.Conn
	ended chan struct{} // closed when its reader has ended

	writing sync.Mutex // held over a write

	mu    sync.Mutex
	lanes map[uint64]*workerLane // nil: it has ended; of one that has ended here, and not yet there: nil
	given uint64                 // numbers
	asked bool                   // something, since the last look
	look  uint64                 // the lane that is to end; 0: none
	ticks int                    // since it was opened
}

// workerLane is what one worker has of it.
type workerLane struct {
	number uint64
	worker *transport.Conn
	wake   chan struct{} // room for one: there is something to deliver

	mu       sync.Mutex
	queue    [][][]byte
	queued   int  // bytes; over maxLaneQueue for good once it was
	finished bool // nothing more comes
}

var errLanes = errors.New("the directory has not told the end of too many workers' connections")

// open begins a lane; nil without an error says that the uplink has ended.
func (u *uplink) open(worker *transport.Conn) (*workerLane, error) {
	l := &workerLane{worker: worker, wake: make(chan struct{}, 1)}
	u.mu.Lock()
	workers := len(u.lanes)
	if u.look != 0 {
		workers--
	}
	switch {
	case u.lanes == nil:
		u.mu.Unlock()
		return nil, nil
	case workers == lanes.MaxLanes-1: // one is for a look
		u.mu.Unlock()
		return nil, errLanes
	}
	u.given++
	l.number = u.given
	u.lanes[l.number] = l
	u.mu.Unlock()
	if u.write(lanes.Append(nil, lanes.Open, l.number), []byte(worker.PeerIdentity())) != nil {
		return nil, nil
	}
	return l, nil
}

// end ends a lane, if it has not ended at the directory. It counts until it has.
func (u *uplink) end(l *workerLane) {
	u.mu.Lock()
	there := u.lanes[l.number] == l
	if there {
		u.lanes[l.number] = nil
	}
	u.mu.Unlock()
	if there {
		u.write(lanes.Append(nil, lanes.End, l.number))
	}
}

// write writes a worker's message.
func (u *uplink) write(frames ...[]byte) error {
	u.mu.Lock()
	u.asked = true
	u.mu.Unlock()
	return u.send(frames...)
}

// send writes a message. If the directory does not take it for uplinkPatience, or an
// error comes, the uplink ends.
func (u *uplink) send(frames ...[]byte) error {
	u.writing.Lock()
	defer u.writing.Unlock()
	err := u.conn.SetWriteDeadline(time.Now().Add(uplinkPatience))
	if err == nil {
		err = u.conn.WriteMessage(frames...)
	}
	if err != nil {
		u.conn.Close() // its reader ends the lanes
	}
	return err
}

// tend looks whether the directory answers, until the uplink ends.
func (u *uplink) tend() {
	ticker := time.NewTicker(uplinkTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-u.ended:
			return
		}
		number, late := u.tick()
		if late {
			u.conn.Close() // another may answer
		}
		if number != 0 && u.send(lanes.Append(nil, lanes.Open, number), nil) == nil {
			u.send(lanes.Append(nil, lanes.End, number))
		}
	}
}

// tick says which lane to open for a look, 0 if none, or that one is late to end.
func (u *uplink) tick() (number uint64, late bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.look != 0:
		u.ticks++
		return 0, u.ticks >= patientTicks
	case !u.asked || u.lanes == nil:
		return 0, false
	}
	u.given++
	u.asked, u.look, u.ticks = false, u.given, 0
	u.lanes[u.look] = nil
	return u.look, false
}

// read leaves what the directory says in the lanes, until the connection ends. Then
// the workers' connections end, too, when they have what has come: they dial again.
func (u *uplink) read() {
	defer close(u.ended)
	defer func() {
		u.conn.Close()
		u.mu.Lock()
		all := u.lanes
		u.lanes = nil
		u.mu.Unlock()
		for _, l := range all {
			if l != nil {
				l.finish()
			}
		}
	}()
	for {
		frames, err := u.conn.ReadMessage()
		if err != nil {
			return
		}
		kind, number, message, err := lanes.Parse(frames)
		if err != nil || kind == lanes.Open {
			return
		}
		u.mu.Lock()
		l := u.lanes[number]
		if kind == lanes.End {
			delete(u.lanes, number)
			if number == u.look {
				u.look = 0
			}
		}
		u.mu.Unlock()
		switch {
		case l == nil: // gone here, which the directory does not know yet
		case kind == lanes.End:
			l.finish()
		default:
			l.put(message)
		}
	}
}

// put leaves a message for the worker. One for which too much waits does not read: its
// connection ends at once.
func (l *workerLane) put(message [][]byte) {
	l.mu.Lock()
	l.queued += lanes.Size(message)
	full := l.queued > maxLaneQueue
	if full {
		l.queue = nil
	} else {
		l.queue = append(l.queue, message)
	}
	l.mu.Unlock()
	if full {
		l.worker.Close()
	}
	l.signal()
}

// finish says that nothing more comes: when the worker has what is there, which it has to
// read within uplinkPatience, its connection ends.
func (l *workerLane) finish() {
	l.mu.Lock()
	l.finished = true
	l.mu.Unlock()
	l.worker.SetWriteDeadline(time.Now().Add(uplinkPatience))
	l.signal()
}

func (l *workerLane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take is the next message for the worker, nil if there is none now, or ever.
func (l *workerLane) take() (message [][]byte, finished bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return nil, l.finished
	}
	message, l.queue[0] = l.queue[0], nil
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.queued -= lanes.Size(message)
	return message, false
}

// deliver writes to the worker what is there for it, until all is that ever comes, or an
// error does. Then the worker's connection ends.
func (l *workerLane) deliver() {
	defer l.worker.Close()
	for {
		message, finished := l.take()
		switch {
		case message != nil:
			if l.worker.WriteMessage(message...) != nil {
				return
			}
		case finished:
			return
		default:
			<-l.wake
		}
	}
}

// relay passes on what a worker and the directory say to each other, until either
// ends: if that is the directory, when the worker has heard what it has said.
func (n *Node) relay(conn *transport.Conn) {
	defer n.wg.Done()
	defer conn.Close()
	if !n.workers.relaying() {
		n.cfg.Logger.Warn("worker's directory connection refused", "reason", "there are too many")
		return
	}
	defer n.workers.relayed()
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	defer stop()
	ctx, cancel := context.WithTimeout(n.ctx, handshakePatience)
	up, l, err := n.workers.directory.open(ctx, conn)
	cancel()
	if err != nil || l == nil {
		n.cfg.Logger.Debug("no directory for a worker", "reason", err)
		return // it tries again
	}
	defer up.end(l)
	var delivering sync.WaitGroup
	delivering.Go(l.deliver)
	defer delivering.Wait()
	header := lanes.Append(nil, lanes.Message, l.number)
	for {
		frames, err := readRequest(conn)
		if err != nil {
			n.logUnruly(conn, err)
			conn.Close() // ends a write, too
			l.finish()
			return
		}
		if up.write(append([][]byte{header}, frames...)...) != nil {
			return // the lane ends with the uplink
		}
	}
}

// readRequest waits for what a worker asks, which is never more than the directory
// takes: that would end the connection of all.
func readRequest(conn *transport.Conn) ([][]byte, error) {
	frames, err := conn.ReadMessage()
	if err == nil && !lanes.Fits(frames) {
		err = &transport.ProtocolError{Op: "read", Remote: conn.RemoteAddr(), Reason: "a request of more than the directory takes"}
	}
	return frames, err
}

// logUnruly logs why a worker's connection ends, if that is the worker's fault.
func (n *Node) logUnruly(conn *transport.Conn, err error) {
	var fault *transport.ProtocolError
	if errors.As(err, &fault) {
		n.cfg.Logger.Warn("worker's directory connection ended", "worker", conn.PeerIdentity(), "reason", err)
	}
}
