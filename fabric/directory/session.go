package directory

import (
	"errors"
	"fmt"
	"sort"
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

// session serves one connection, with two goroutines: run reads requests, deals with each and hands the reply to
// write; write also answers the requests for a watch's next events, once there are some.
type session struct {
	// immutable
	server  *Server
	conn    *transport.Conn
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

func newSession(server *Server, conn *transport.Conn) *session {
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
	s.holder = s.server.registry.attach(s.id)
	defer s.server.registry.detach(s.holder)
	go s.write()
	s.conn.SetControlWake(func() { signal(s.wake) })

	err := s.read()
	s.conn.Close()
	close(s.stop)
	<-s.written
	for _, w := range s.watches {
		w.feed.release()
	}
	var fault *transport.ProtocolError
	if errors.As(err, &fault) || errors.Is(err, errMalformed) {
		s.server.log.Warn("directory: connection closed", "remote", s.conn.RemoteAddr(), "error", err)
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

// serve deals with one request. No reply, and no error, means that write answers it.
func (s *session) serve(q *request, envelope [][]byte) (*reply, error) {
	registry := s.server.registry
	ctx := s.server.ctx
	r := &reply{ID: q.ID}
	var err error
	switch q.Op {
	case opPing:
		r.Epoch = registry.epoch
	case opJoin:
		r.Incarnation, err = registry.join(s.holder, NodeInfo{Name: q.Node, Incarnation: q.Incarnation, Endpoint: q.Endpoint})
	case opLeave:
		err = registry.leave(s.holder, q.Node, q.Incarnation)
	case opAdd:
		err = registry.add(s.holder, q.Incarnation, q.Members)
	case opRemove:
		err = registry.remove(s.holder, q.Incarnation, q.Members)
	case opRestate:
		err = registry.restate(s.holder)
	case opSettle:
		err = registry.settle(s.holder)
	case opNode:
		var info NodeInfo
		info, err = registry.Node(ctx, q.Node)
		r.Nodes = wireNodes{info}
	case opNodes:
		r.Nodes, r.More, err = page(s, q, q.After != "",
			func() ([]NodeInfo, error) { return registry.Nodes(ctx) },
			func(n NodeInfo) bool { return n.Name > q.After })
	case opChannels:
		r.Channels, r.More, err = page(s, q, q.After != "",
			func() ([]string, error) { return registry.Channels(ctx) },
			func(name string) bool { return name > q.After })
	case opMembers:
		r.Members, r.More, err = page(s, q, len(q.AfterMember) > 0,
			func() ([]Member, error) { return registry.Members(ctx, q.Channel) },
			func(m Member) bool { return m.Compare(q.AfterMember[0]) > 0 })
	case opWatch:
		return nil, s.watch(q, envelope)
	case opNext:
		return nil, s.next(q, envelope)
	case opUnwatch:
		s.unwatch(q.Watch)
	default:
		r.Error, r.Text = codeUnknownOp, fmt.Sprintf("directory: unknown op %q", q.Op)
	}
	return r, err
}

// listing is a list of which a client has had some pages: it is made once, and the pages are of one moment.
type listing struct {
	op, channel string
	items       any
}

// page gives the first items of a list, or those beyond the ones that the client has had.
func page[T any](s *session, q *request, later bool, list func() ([]T, error), beyond func(T) bool) ([]T, bool, error) {
	items, same := s.listing.items.([]T)
	if !later || !same || s.listing.op != q.Op || s.listing.channel != q.Channel {
		var err error
		if items, err = list(); err != nil {
			return nil, false, err
		}
	}
	from := 0
	if later {
		from = sort.Search(len(items), func(i int) bool { return beyond(items[i]) })
	}
	to := min(from+batchLen, len(items))
	s.listing = listing{}
	if to < len(items) {
		s.listing = listing{op: q.Op, channel: q.Channel, items: items}
	}
	return items[from:to], to < len(items), nil
}

// watch begins a watch under the number that the client chose.
func (s *session) watch(q *request, envelope [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[q.Watch] != nil {
		return invalid("watch %d is in use", q.Watch)
	}
	if len(s.watches) >= maxWatches {
		return &LimitError{What: "watches on one connection", Max: maxWatches}
	}
	feed, err := s.server.registry.open(q.Channel, q.Epoch, q.Revision, func() { signal(s.wake) })
	if err != nil {
		return err
	}
	s.watches[q.Watch] = &watch{feed: feed, asked: &poll{envelope, q.ID, true}}
	signal(s.wake)
	return nil
}

// next asks for the watch's next events.
func (s *session) next(q *request, envelope [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[q.Watch]
	switch {
	case w == nil:
		return errNoWatch
	case w.asked != nil:
		return invalid("watch %d was asked for its next events already", q.Watch)
	}
	w.asked = &poll{envelope, q.ID, false}
	signal(s.wake)
	return nil
}

// unwatch ends a watch; a request that waits for its events stays without an answer.
func (s *session) unwatch(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.watches[number]; w != nil {
		w.feed.release()
		delete(s.watches, number)
	}
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
	batch, err := w.feed.take(nil, batchLen)
	if err == nil && len(batch.events) == 0 && !w.asked.first {
		return outgoing{}, false
	}
	r := &reply{
		ID:       w.asked.id,
		Epoch:    s.server.registry.epoch,
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
