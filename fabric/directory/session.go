package directory

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/transport"
)

const (
	// maxReplies bounds the replies that wait for a connection's writer. Then its reader waits as well: a client that
	// does not read its replies stops being served, and holds up nobody else.
	maxReplies = 4
	// maxWatches bounds the watches of one connection: one per channel of a large node, with room.
	maxWatches = 4096
	// writeTimeout ends a session whose client does not read.
	writeTimeout = 10 * time.Second
)

// clientLine is what a session serves: a *transport.Conn, or the lane of one.
type clientLine interface {
	ReadMessage() ([][]byte, error)
	WriteMessage(frames ...[]byte) error
	WriteBuffers(bufs [][]byte) error
	ControlPending() bool
	SetControlWake(wake func())
	SetWriteDeadline(t time.Time) error
	PeerIdentity() string
	RemoteAddr() string
	Close() error
}

// session serves one connection, with two goroutines: run reads requests, deals with each and hands the reply to
// write; write also answers the requests for a watch's next events, once there are some.
type session struct {
	// immutable
	server  *Server
	conn    clientLine
	id      string        // the holder's
	done    chan struct{} // closed when all is over
	stop    chan struct{} // closed by run: write ends
	written chan struct{} // closed by write: it has ended
	replies chan outgoing
	wake    chan struct{} // room for one: a watch may have events, or a PONG is due

	// run's
	holder  *holder
	listing listing

	mu      sync.Mutex
	watches map[uint64]*watch
}

// outgoing is a reply with the frames that precede it.
type outgoing struct {
	envelope [][]byte
	body     []byte
}

// watch is one feed of a session; under session.mu.
type watch struct {
	feed  *feed
	asked *poll // the request that waits for events; nil: none does
}

// poll is a request for a watch's next events.
type poll struct {
	envelope [][]byte
	id       uint64
	first    bool // it began the watch, and is answered at once
}

func newSession(server *Server, conn clientLine) *session {
	return &session{
		server:  server,
		conn:    conn,
		done:    make(chan struct{}),
		stop:    make(chan struct{}),
		written: make(chan struct{}),
		replies: make(chan outgoing, maxReplies),
		wake:    make(chan struct{}, 1),
		watches: make(map[uint64]*watch),
	}
}

// run serves the connection until it ends; after the session that it replaces, if any, is over.
func (s *session) run(replaced *session) {
	defer s.server.running.Done()
	defer close(s.done)
	defer s.server.ended(s)
	if replaced != nil {
		replaced.conn.Close()
		<-replaced.done
	}
	var connection uint64
	s.holder, connection = s.server.registry.attach(s.id, s.conn.PeerIdentity() != "")
	defer s.server.registry.detach(s.holder, connection)
	go s.write()
	s.conn.SetControlWake(func() { signal(s.wake) })

	err := s.read()
	s.conn.Close()
	close(s.stop)
	<-s.written
	for _, w := range s.watches {
		s.server.registry.release(w.feed)
	}
	s.server.logEnd(s.conn.RemoteAddr(), err)
}

// logEnd logs why a connection has ended, if that was the peer's fault.
func (s *Server) logEnd(remote string, err error) {
	var fault *transport.ProtocolError
	if errors.As(err, &fault) || errors.Is(err, errMalformed) {
		s.log.Warn("directory: connection closed", "remote", remote, "error", err)
	}
}

// read takes requests until the connection ends.
func (s *session) read() error {
	for {
		frames, err := s.conn.ReadMessage()
		if err != nil {
			return err
		}
		envelope, body, err := splitEnvelope(frames)
		if err != nil {
			return err
		}
		var r *reply
		var q request
		if err := decode(body, &q); err != nil {
			r = errorReply(0, fmt.Errorf("%w request: %v", errMalformed, err))
		} else if r, err = s.serve(&q, envelope); err != nil {
			r = errorReply(q.ID, err)
		}
		if r == nil {
			continue // write answers it
		}
		r.ID = q.ID
		select {
		case s.replies <- outgoing{envelope, encode(r)}:
		case <-s.written:
			return nil
		}
	}
}

// splitEnvelope parts a message: a body alone, or after frames of which the last is empty, as REQ sockets and devices send.
func splitEnvelope(frames [][]byte) (envelope [][]byte, body []byte, err error) {
	last := len(frames) - 1
	envelope, body = frames[:last], frames[last]
	if last > maxEnvelope || last > 0 && len(envelope[last-1]) != 0 {
		return nil, nil, fmt.Errorf("%w: %d frames, not an empty one and a body", errMalformed, len(frames))
	}
	return envelope, body, nil
}

// write sends what there is to send, until the session stops or the client does not read.
func (s *session) write() {
	defer close(s.written)
	for {
		var err error
		select {
		case out := <-s.replies:
			err = s.send(out)
		case <-s.wake:
			err = s.sendEvents()
		case <-s.stop:
			return
		}
		if err != nil {
			s.conn.Close() // ends read
			return
		}
	}
}

// sendEvents answers every waiting request for which there are events.
func (s *session) sendEvents() error {
	if s.conn.ControlPending() {
		if err := errors.Join(s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)), s.conn.WriteBuffers(nil)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	waiting := make([]*watch, 0, len(s.watches))
	for _, w := range s.watches {
		if w.asked != nil {
			waiting = append(waiting, w)
		}
	}
	s.mu.Unlock()
	for _, w := range waiting { // one batch in memory at a time
		if out, ok := s.events(w); ok {
			if err := s.send(out); err != nil {
				return err
			}
		}
	}
	return nil
}

// events makes the answer to a watch's waiting request, if there is one to give.
func (s *session) events(w *watch) (outgoing, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, err := s.server.registry.take(w.feed, nil, batchLen)
	if err == nil && len(batch.events) == 0 && !w.asked.first {
		return outgoing{}, false
	}
	r := &reply{
		ID:       w.asked.id,
		Epoch:    s.server.registry.table.epoch,
		Revision: batch.revision,
		Reset:    batch.reset,
		Events:   &wireEvents{list: batch.events},
	}
	if err != nil {
		r = errorReply(w.asked.id, err)
	}
	out := outgoing{w.asked.envelope, encode(r)}
	w.asked = nil
	return out, true
}

func (s *session) send(out outgoing) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return s.conn.WriteMessage(append(out.envelope[:len(out.envelope):len(out.envelope)], out.body)...)
}
