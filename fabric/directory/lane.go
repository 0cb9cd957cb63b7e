package directory

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/lanes"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// A relay's connection has several clients, each on a lane of its own: package lanes says how. A lane is served as a
// connection is, with a session of its own. A message's way:
//
//  1. read leaves a request with its lane, and never waits: a lane for which too much waits is ended.
//  2. The lane's session takes the requests in their order.
//  3. What it answers, write takes and writes. A session waits for that, and for nothing more once its lane has ended.
//  4. When a session is over, write tells the end of its lane; until then it counts among the relay's lanes.

// relayed is a relay's connection, as the directory has it, with two goroutines: run, which reads, and write.
type relayed struct {
	// immutable
	server  *Server
	conn    *transport.Conn
	out     chan [][]byte // to write
	wake    chan struct{} // room for one: there is an end to tell, or a PONG is due
	stop    chan struct{} // closed by run: write ends
	written chan struct{} // closed by write: it has ended

	mu    sync.Mutex
	lanes map[uint64]*lane // all of which the end has not been told
	over  []uint64         // of those: that are at their end
}

const (
	// maxLaneRequests bounds the requests that wait for a lane's session: all watches asked at once, and as many others.
	maxLaneRequests = 2 * maxWatches
	// maxLaneBytes bounds the bytes of those: as many watches of channels with the longest names take 1.6 MiB.
	maxLaneBytes = 2 << 20
	// maxIdentity is ZMTP's bound of an identity, in bytes.
	maxIdentity = 255
)

func isRelay(conn *transport.Conn) bool {
	return strings.HasPrefix(conn.PeerIdentity(), lanes.Identity)
}

func newRelayed(server *Server, conn *transport.Conn) *relayed {
	return &relayed{
		server:  server,
		conn:    conn,
		out:     make(chan [][]byte),
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		written: make(chan struct{}),
		lanes:   make(map[uint64]*lane),
	}
}

// run serves the lanes until the connection ends.
func (r *relayed) run() {
	defer r.server.running.Done()
	defer r.server.relayEnded(r)
	go r.write()
	r.conn.SetControlWake(func() { signal(r.wake) })
	err := r.read()
	r.conn.Close()
	close(r.stop)
	r.mu.Lock()
	for _, l := range r.lanes {
		l.Close()
	}
	r.mu.Unlock()
	<-r.written
	r.server.logEnd(r.conn.RemoteAddr(), err)
}

func (r *relayed) read() error {
	for {
		frames, err := r.conn.ReadMessage()
		if err != nil {
			return err
		}
		kind, number, rest, err := lanes.Parse(frames)
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		r.mu.Lock()
		l, count := r.lanes[number], len(r.lanes)
		r.mu.Unlock()
		switch {
		case kind == lanes.Open && count == lanes.MaxLanes:
			return fmt.Errorf("%w: more than %d lanes", errMalformed, lanes.MaxLanes)
		case kind == lanes.Open && (l != nil || len(rest[0]) > maxIdentity):
			return fmt.Errorf("%w: lane %d is open, or its identity has more than %d bytes", errMalformed, number, maxIdentity)
		case kind == lanes.Open:
			r.open(number, string(rest[0]))
		case l == nil: // its end was told, and the relay does not know yet
		case kind == lanes.End:
			l.Close()
		case !l.put(rest):
			r.server.log.Warn("directory: lane ended", "remote", l.RemoteAddr(), "reason", "too many requests wait")
			l.Close()
		}
	}
}

// open begins a client's session.
func (r *relayed) open(number uint64, identity string) {
	l := &lane{relay: r, number: number, identity: identity, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	r.mu.Lock()
	r.lanes[number] = l
	r.mu.Unlock()
	if err := r.server.begin(l); err != nil {
		r.server.log.Warn("directory: connection refused", "remote", l.RemoteAddr(), "error", err)
		l.Close()
		l.ended()
	}
}

// write writes what there is to write, until the connection ends or the relay does not read.
func (r *relayed) write() {
	defer close(r.written)
	for {
		var err error
		select {
		case frames := <-r.out:
			err = r.send(frames)
		case <-r.wake:
			err = r.sendEnds()
		case <-r.stop:
			return
		}
		if err != nil {
			r.conn.Close() // ends read
			return
		}
	}
}

// sendEnds tells the ends of lanes, and what is pending of control. A lane does not count any more once its end is on
// its way: who has heard of it may open another.
func (r *relayed) sendEnds() error {
	r.mu.Lock()
	over := r.over
	r.over = nil
	for _, number := range over {
		delete(r.lanes, number)
	}
	r.mu.Unlock()
	for _, number := range over {
		if err := r.send([][]byte{lanes.Append(nil, lanes.End, number)}); err != nil {
			return err
		}
	}
	if !r.conn.ControlPending() {
		return nil
	}
	return errors.Join(r.conn.SetWriteDeadline(time.Now().Add(writeTimeout)), r.conn.WriteBuffers(nil))
}

func (r *relayed) send(frames [][]byte) error {
	if err := r.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return r.conn.WriteMessage(frames...)
}

// lane is the connection of one of a relay's clients.
type lane struct {
	relay    *relayed
	number   uint64
	identity string
	wake     chan struct{} // room for one: there is a request
	once     sync.Once
	gone     chan struct{} // closed when it has ended

	mu       sync.Mutex
	requests [][][]byte
	bytes    int // that they take
}

// put leaves a request for the session, unless too much waits already. For a lane that has ended it is nothing.
func (l *lane) put(message [][]byte) bool {
	if l.isGone() {
		return true
	}
	size := lanes.Size(message)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.requests) == maxLaneRequests || l.bytes+size > maxLaneBytes {
		return false
	}
	l.requests = append(l.requests, message)
	l.bytes += size
	signal(l.wake)
	return true
}

// take is the next request, nil if there is none.
func (l *lane) take() (message [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.requests) == 0 {
		return nil
	}
	message, l.requests[0] = l.requests[0], nil
	if l.requests = l.requests[1:]; len(l.requests) == 0 {
		l.requests = nil
	}
	l.bytes -= lanes.Size(message)
	return message
}

func (l *lane) isGone() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// Close ends the lane, and with it the session, which does not wait for the relay then.
func (l *lane) Close() error {
	l.once.Do(func() { close(l.gone) })
	return nil
}

// ended says that the session is over.
func (l *lane) ended() {
	l.relay.mu.Lock()
	l.relay.over = append(l.relay.over, l.number)
	l.relay.mu.Unlock()
	signal(l.relay.wake)
}

func (l *lane) ReadMessage() ([][]byte, error) {
	for !l.isGone() {
		if message := l.take(); message != nil {
			return message, nil
		}
		select {
		case <-l.wake:
		case <-l.gone:
		}
	}
	return nil, io.EOF
}

// WriteMessage returns when the message is about to be written, or never will.
func (l *lane) WriteMessage(frames ...[]byte) error {
	if l.isGone() {
		return net.ErrClosed
	}
	select {
	case l.relay.out <- append([][]byte{lanes.Append(nil, lanes.Message, l.number)}, frames...):
		return nil
	case <-l.gone:
	case <-l.relay.written:
	}
	return net.ErrClosed
}

func (l *lane) PeerIdentity() string { return l.identity }
func (l *lane) RemoteAddr() string {
	return fmt.Sprintf("%s, lane %d", l.relay.conn.RemoteAddr(), l.number)
}

// What is the whole connection's: its relay looks after it.

func (l *lane) SetWriteDeadline(time.Time) error { return nil }
func (l *lane) WriteBuffers([][]byte) error      { return nil }
func (l *lane) ControlPending() bool             { return false }
func (l *lane) SetControlWake(func())            {}
