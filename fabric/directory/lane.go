package directory

import (
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
// connection is, with a session of its own.

// relayed is a relay's connection, as the directory has it. Its one goroutine reads. It waits for a client's session to
// take a request, which waits for nobody but the registry, and for the relay to read replies. So a relay reads, whoever of
// its clients does not.
type relayed struct {
	server *Server
	conn   *transport.Conn

	writing sync.Mutex // held over a write

	mu    sync.Mutex
	lanes map[uint64]*lane
	ended bool
}

func isRelay(conn *transport.Conn) bool {
	return strings.HasPrefix(conn.PeerIdentity(), lanes.Identity)
}

// run serves the lanes until the connection ends.
func (r *relayed) run() {
	defer r.server.running.Done()
	defer r.server.relayEnded(r)
	r.conn.SetControlWake(func() { r.write(nil) })
	err := r.read()
	r.conn.Close()
	r.mu.Lock()
	r.ended = true
	for _, l := range r.lanes {
		l.hangUp()
	}
	r.mu.Unlock()
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
		l := r.lanes[number]
		r.mu.Unlock()
		switch {
		case kind == lanes.Open && (l != nil || len(rest[0]) > maxIdentity):
			return fmt.Errorf("%w: lane %d is open, or its identity has more than %d bytes", errMalformed, number, maxIdentity)
		case kind == lanes.Open:
			r.open(number, string(rest[0]))
		case l == nil: // it has ended here, and the relay does not know yet
		case kind == lanes.End:
			l.hangUp()
		default:
			select {
			case l.requests <- rest:
			case <-l.gone:
			}
		}
	}
}

// maxIdentity is ZMTP's bound of an identity, in bytes.
const maxIdentity = 255

// open begins a client's session.
func (r *relayed) open(number uint64, identity string) {
	l := &lane{relay: r, number: number, identity: identity, requests: make(chan [][]byte, maxReplies), gone: make(chan struct{})}
	r.mu.Lock()
	r.lanes[number] = l
	r.mu.Unlock()
	if err := r.server.begin(l); err != nil {
		r.server.log.Warn("directory: connection refused", "remote", l.RemoteAddr(), "error", err)
		l.Close()
	}
}

// write writes a message, or what is pending of control. An error ends the connection.
func (r *relayed) write(frames [][]byte) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	err := r.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil && frames == nil {
		err = r.conn.WriteBuffers(nil)
	} else if err == nil {
		err = r.conn.WriteMessage(frames...)
	}
	if err != nil {
		r.conn.Close()
	}
	return err
}

// lane is the connection of one of a relay's clients.
type lane struct {
	relay    *relayed
	number   uint64
	identity string
	requests chan [][]byte
	once     sync.Once
	gone     chan struct{} // closed when it has ended
}

// hangUp ends the lane here.
func (l *lane) hangUp() { l.once.Do(func() { close(l.gone) }) }

// Close ends the lane, and tells the relay.
func (l *lane) Close() error {
	l.hangUp()
	l.relay.mu.Lock()
	there := !l.relay.ended && l.relay.lanes[l.number] == l
	delete(l.relay.lanes, l.number)
	l.relay.mu.Unlock()
	if !there {
		return nil
	}
	return l.relay.write([][]byte{lanes.Append(nil, lanes.End, l.number)})
}

func (l *lane) ReadMessage() ([][]byte, error) {
	select {
	case frames := <-l.requests:
		return frames, nil
	case <-l.gone:
		return nil, io.EOF
	}
}

func (l *lane) WriteMessage(frames ...[]byte) error {
	select {
	case <-l.gone:
		return net.ErrClosed
	default:
	}
	return l.relay.write(append([][]byte{lanes.Append(nil, lanes.Message, l.number)}, frames...))
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
