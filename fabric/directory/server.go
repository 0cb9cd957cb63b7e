package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/lanes"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// maxSessions bounds the connections of one server, and with them a relay's clients; each costs two goroutines and some KiB
// while idle.
const maxSessions = 1 << 16

// Server offers a Registry to other processes, as PROTOCOL.md says.
type Server struct {
	// immutable
	registry *Registry
	listener *transport.Listener
	log      *slog.Logger
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup // accept, keepTime and the sessions

	mu       sync.Mutex
	sessions map[*session]struct{}
	relays   map[*relayed]struct{}
	named    map[string]*session // by the identity their clients gave
	unnamed  uint64              // sessions without an identity, so far
	closed   bool
}

// Serve listens on an address of any transport ("tcp://host:port", port 0 picks one; "ipc://path"; "mem://name") and
// serves registry there until Close. The context bounds the start only. The logger may be nil. An address that cannot be
// one matches ErrInvalid.
func Serve(ctx context.Context, registry *Registry, listen string, logger *slog.Logger) (*Server, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if logger == nil {
		logger = slog.Default()
	}
	if err := transport.CheckAddress(listen); err != nil {
		return nil, invalid("address %q: %v", listen, err)
	}
	listener, err := transport.Listen(listen, transport.Config{
		SocketType: transport.Router,
		MaxFrame:   maxRequest,
		MaxMessage: lanes.MaxMessage + lanes.HeaderSize,
		Logger:     logger,
	})
	if errors.Is(err, transport.ErrAddressInUse) {
		return nil, fmt.Errorf("directory: %w (does another directory run there?)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	s := &Server{
		registry: registry,
		listener: listener,
		log:      logger,
		sessions: make(map[*session]struct{}),
		relays:   make(map[*relayed]struct{}),
		named:    make(map[string]*session),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Add(2)
	go s.accept()
	go s.keepTime()
	return s, nil
}

// Addr is the address to dial.
func (s *Server) Addr() string { return s.listener.Addr() }

// Close ends the server: it closes every connection, and returns when all is quiet. The clients' nodes stay in the
// registry, which stays open, as orphans; their leases stand still until the registry is served again.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	for relay := range s.relays {
		relay.conn.Close() // before its lanes, which would tell it
	}
	for session := range s.sessions {
		session.conn.Close()
	}
	s.mu.Unlock()

	var err error
	if first {
		s.cancel()
		err = s.listener.Close()
	}
	s.running.Wait()
	return err
}

// accept starts a session for every connection.
func (s *Server) accept() {
	defer s.running.Done()
	for {
		conn, err := s.listener.Accept(s.ctx)
		if err != nil {
			if s.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				s.log.Error("directory: accepting ended", "listener", s.Addr(), "error", err)
			}
			return
		}
		if isRelay(conn) {
			err = s.beginRelay(conn)
		} else {
			err = s.begin(conn)
		}
		if err != nil {
			s.log.Warn("directory: connection refused", "remote", conn.RemoteAddr(), "error", err)
			conn.Close()
		}
	}
}

// keepTime has leases end when they are over, also while nobody asks for anything.
func (s *Server) keepTime() {
	defer s.running.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		patience, err := s.registry.pass()
		if err != nil {
			return // the registry is closed
		}
		timer.Reset(patience)
	}
}

// begin starts a connection's session. One with the identity of an earlier session replaces that: its client gave
// the older connection up, whether or not its end has shown here yet.
func (s *Server) begin(conn clientLine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.full(); err != nil {
		return err
	}
	next := newSession(s, conn)
	var replaced *session
	if identity := conn.PeerIdentity(); identity != "" {
		replaced = s.named[identity]
		s.named[identity] = next
		next.id = "identity " + identity
	} else {
		s.unnamed++
		next.id = fmt.Sprintf("connection %d", s.unnamed)
	}
	s.sessions[next] = struct{}{}
	s.running.Add(1)
	go next.run(replaced)
	return nil
}

// full is why there may be no connection more, nil if there may. Under mu.
func (s *Server) full() error {
	if s.closed {
		return ErrClosed
	}
	if len(s.sessions)+len(s.relays) >= maxSessions {
		return &LimitError{What: "connections", Max: maxSessions}
	}
	return nil
}

// beginRelay serves a relay's connection.
func (s *Server) beginRelay(conn *transport.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.full(); err != nil {
		return err
	}
	r := newRelayed(s, conn)
	s.relays[r] = struct{}{}
	s.running.Add(1)
	go r.run()
	return nil
}

func (s *Server) relayEnded(r *relayed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.relays, r)
}

// ended takes a session out.
func (s *Server) ended(session *session) {
	if l, ok := session.conn.(*lane); ok {
		defer l.ended()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, session)
	if identity := session.conn.PeerIdentity(); s.named[identity] == session {
		delete(s.named, identity)
	}
}
