package link

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Config is what all links of a node share. It must not change.
type Config struct {
	Node       string       // the name of this side
	MaxMessage int          // bytes; a larger one from the peer ends the connection
	MaxStreams int          // per link and direction
	Mark       flow.Mark    // of channels that nobody here has configured
	Budget     *flow.Budget // that consumers' windows are lent from
	PingTicks  int          // ticks without a word from the peer until it is asked
	DeadTicks  int          // and until it is given up
	// ResumeTicks is how many ticks a stream keeps what was accepted for a
	// consumer that has left the directory and is not connected.
	ResumeTicks int
	Logger      *slog.Logger
	Hooks       Hooks

	CheckChannel func(name string) error // of channels that a peer names
}

// Hooks tell the node what happens on a link. They are called without a lock,
// by the link's reader or by whoever closed the link, and must not block.
type Hooks struct {
	// Opened: the peer's consumer opened the stream.
	Opened func(l *Link, s *SendStream)
	// Failed: the stream's consumer is gone.
	Failed func(l *Link, s *SendStream)
	// Ended: the peer's producers' end has ended the stream, and the consumer
	// knows.
	Ended func(l *Link, r *RecvStream)
	// Down: the connection has ended, and both its goroutines; cause says why.
	Down func(l *Link, cause error)
	// Called: the peer asks for a circuit.
	Called func(l *Link, k *Call)
	// Cut: the connection has ended, for that cause, with circuits on it. It
	// returns what their other ends are told.
	Cut func(l *Link, cause error) (code uint8, text string)
}

// Counters are a link's counts since it was made.
type Counters struct {
	Connections uint64 // that were attached
	PacketsIn   uint64
	PacketsOut  uint64 // writes, each of one packet or more
	BytesIn     uint64 // of packets
	BytesOut    uint64
	States      uint64 // state records sent
	Backlogs    uint64 // backlog records sent
	Pings       uint64
	Duplicates  uint64 // messages dropped because they had arrived before
	Late        uint64 // records for streams that are gone
	Resent      uint64 // messages sent again after a reconnect
}

// Link is all that two nodes have in common, as one of them sees it.
type Link struct {
	cfg  *Config
	peer string

	mu       sync.Mutex
	core     core
	conn     Conn   // nil while down
	sleeping bool   // the writer waits for wake, and nobody has its part
	prompt   bool   // something arrived since a Send wrote by itself
	carry    *batch // begun by a Send that wrote by itself, for the writer to finish
	heard    bool   // since the last tick
	silent   int    // ticks since something was heard
	cause    error  // why the connection is being closed, if we know
	closed   bool
	unread   bool // the reader has stopped
	answered bool // the peer has said bye as well

	wake chan struct{} // to the writer
	wg   sync.WaitGroup
}

// New returns the link with the node called peer. It is down until Attach.
func New(cfg *Config, peer string) *Link {
	l := &Link{cfg: cfg, peer: peer, wake: make(chan struct{}, 1)}
	l.core = core{cfg: cfg, link: l, peer: peer, flows: make(map[string]*outFlow), maxBody: cfg.MaxMessage}
	return l
}

// Peer is the other node's name.
func (l *Link) Peer() string { return l.peer }

// Attach gives the link a connection on which both sides have said hello. The
// peer takes messages of up to maxBody bytes. It reports false, and leaves
// conn alone, if there is a connection or the link is closed.
func (l *Link) Attach(conn Conn, maxBody int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.conn != nil {
		return false
	}
	l.begin(conn, maxBody)
	select {
	case <-l.wake: // meant for the writer before
	default:
	}
	conn.SetPlacer(func(head []byte, size int) []byte {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.core.place(head, size)
	})
	conn.SetControlWake(func() { l.poke(conn) })
	written := make(chan struct{})
	l.wg.Add(2)
	go l.read(conn, written)
	go l.write(conn, written)
	return true
}

// begin is what a connection begins with. Under mu.
func (l *Link) begin(conn Conn, maxBody int) {
	l.conn, l.cause, l.unread = conn, nil, false
	l.heard, l.silent, l.sleeping = true, 0, false
	l.core.stats.Connections++
	l.core.attach(maxBody)
}

// Up reports whether there is a connection.
func (l *Link) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil
}

// rouseAt is after how many bytes consumers that wait are woken although more is
// there to be read: they have enough to do then.
const rouseAt = 256 << 10

// read is the reader's goroutine: it lives as long as the connection. It wakes
// consumers when nothing more is there to be read, rather than for each packet.
func (l *Link) read(conn Conn, written chan struct{}) {
	defer l.wg.Done()
	var deliveries []delivery
	var moves []move
	var err error
	var asleep []*Inbox // consumers that wait, and have something now
	var stirred []*Link // links to which something was passed on
	var waiting int     // bytes of it
	rouse := func() {
		for i, in := range asleep {
			in.rouse()
			asleep[i] = nil
		}
		for i, other := range stirred {
			other.stir()
			stirred[i] = nil
		}
		asleep, stirred, waiting = asleep[:0], stirred[:0], 0
	}
	conn.SetIdle(rouse)
	for err == nil {
		var p []byte
		var buf *transport.Buffer
		if p, buf, err = conn.ReadPacket(); err != nil {
			break
		}
		l.mu.Lock()
		l.heard, l.prompt = true, true
		l.core.stats.PacketsIn++
		l.core.stats.BytesIn += uint64(len(p))
		if l.core.placing.into != nil {
			l.core.placed(true)
		} else {
			err = l.core.handle(p, buf)
		}
		deliveries, l.core.deliveries = l.core.deliveries, deliveries
		moves, l.core.moves = l.core.moves, moves
		events := l.takeEvents()
		wake := l.rouse()
		l.mu.Unlock()
		if wake {
			l.wake <- struct{}{}
		}
		for i := range deliveries {
			d := &deliveries[i]
			if d.stream.inbox.put(d.stream, d.item) {
				asleep = append(asleep, d.stream.inbox)
			}
			*d = delivery{}
		}
		deliveries = deliveries[:0]
		for i := range moves {
			if other := l.perform(&moves[i]); other != nil && !slices.Contains(stirred, other) {
				stirred = append(stirred, other)
			}
			moves[i] = move{}
		}
		moves = moves[:0]
		if waiting += len(p); waiting >= rouseAt {
			rouse()
		}
		l.tellEvents(events)
	}
	rouse()
	l.parting(conn, err, written)
	l.mu.Lock()
	if l.cause == nil {
		l.cause = err // before Close makes the writer fail
	}
	err = l.cause
	l.mu.Unlock()
	conn.Close()
	l.mu.Lock()
	l.conn = nil
	l.core.placed(false)
	l.core.detach()
	cut := l.core.cut
	l.core.cut = nil
	events := l.takeEvents()
	wake := l.rouse()
	l.sleeping = false
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	<-written
	l.cutOff(cut, err)
	l.tellEvents(events)
	l.cfg.Hooks.Down(l, err)
}

// parting has the last word, if the peer takes it within partingPatience: one
// that broke the protocol is told why its connection ends, and one that has said
// bye, that it was heard. The reader has stopped, so nothing that the peer sends
// counts any more.
func (l *Link) parting(conn Conn, err error, written chan struct{}) {
	var fault *ProtocolError
	var bye *ByeError
	last := &wire.Record{}
	switch {
	case errors.As(err, &fault):
		last.Code, last.Text = wire.CodeProtocol, []byte(fault.Reason)
	case errors.As(err, &bye):
		last.Code, last.Text = wire.CodeDone, []byte("the bye was heard")
	default:
		return
	}
	l.mu.Lock()
	if l.closed {
		l.answered = bye != nil
		l.mu.Unlock()
		return
	}
	conn.SetWriteDeadline(time.Now().Add(partingPatience))
	l.core.bye, l.unread = last, true
	if l.cause == nil {
		l.cause = err
	}
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	<-written
}

const partingPatience = 100 * time.Millisecond

// takeEvents returns what the node is to be told. Under mu.
func (l *Link) takeEvents() []event {
	events := l.core.events
	l.core.events = nil
	return events
}

func (l *Link) tellEvents(events []event) {
	for _, e := range events {
		switch {
		case e.recv != nil:
			l.cfg.Hooks.Ended(l, e.recv)
		case e.opened:
			l.cfg.Hooks.Opened(l, e.send)
		default:
			l.cfg.Hooks.Failed(l, e.send)
		}
	}
}

// rouse reports whether the writer sleeps although there is something for it,
// and whoever asks must then wake it, without mu. Under mu.
func (l *Link) rouse() bool {
	if !l.sleeping || l.conn != nil && !l.core.busy() {
		return false
	}
	l.sleeping = false
	return true
}

// poke wakes the writer for conn's own control frames.
func (l *Link) poke(conn Conn) {
	l.mu.Lock()
	wake := l.sleeping && l.conn == conn
	if wake {
		l.sleeping = false
	}
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
}

// write is the writer's goroutine: it lives as long as the connection. It
// sends at once what is ready, and what became ready meanwhile with the next
// write. While there is nothing it holds no memory.
func (l *Link) write(conn Conn, written chan struct{}) {
	defer l.wg.Done()
	defer close(written)
	var b *batch
	l.mu.Lock()
	for l.conn == conn {
		if b == nil {
			b = batchPool.Get().(*batch)
		}
		bye := l.core.bye != nil
		var vec [][]byte
		switch {
		case l.carry != nil:
			batchPool.Put(b)
			b, l.carry, bye = l.carry, nil, false
			vec = b.out
		case l.core.gather(b) || conn.ControlPending():
			vec = b.seal()
			l.core.stats.PacketsOut++
			l.core.stats.BytesOut += uint64(b.size)
		default:
			batchPool.Put(b)
			b = nil
			l.sleeping = true
			l.mu.Unlock()
			<-l.wake
			l.mu.Lock()
			continue
		}
		l.mu.Unlock()
		err := conn.WriteBuffers(vec)
		if err != nil {
			conn.Close() // the reader notices
		}
		b.tellPassed()
		l.mu.Lock()
		l.core.fast = conn.AtOnce()
		b.reset()
		if err != nil && l.cause == nil {
			l.cause = err
		}
		if err == nil && bye {
			l.awaitAnswer(conn)
		}
		if err != nil || bye {
			break
		}
	}
	for _, b := range []*batch{b, l.carry} {
		if b != nil {
			b.reset()
			batchPool.Put(b)
		}
	}
	l.carry = nil
	l.mu.Unlock()
}

// awaitAnswer gives the peer partingPatience to answer the bye, and ends what this
// side writes then: a peer that answers no bye closes when it has read all. Under
// mu.
func (l *Link) awaitAnswer(conn Conn) {
	if l.conn != conn || !l.closed || l.unread {
		return
	}
	l.sleeping = true
	l.mu.Unlock()
	patience := time.NewTimer(partingPatience)
	defer patience.Stop()
	select {
	case <-l.wake:
		l.mu.Lock()
		return
	case <-patience.C:
	}
	conn.CloseWrite()
	l.mu.Lock()
	if !l.sleeping {
		l.mu.Unlock()
		<-l.wake
		l.mu.Lock()
	}
	l.sleeping = false
}

// promptMax is the most, in bytes, that a Send writes by itself: what surely
// fits an empty socket buffer.
const promptMax = 16 << 10

// promptly sends what is due when the writer sleeps. If byItself, whoever calls
// writes, which saves the change to the writer's goroutine and back. The write
// never waits; what it leaves over is the writer's. Under mu, which it unlocks.
func (l *Link) promptly(byItself bool) {
	if !l.sleeping || l.conn == nil || !l.core.busy() {
		l.mu.Unlock()
		return
	}
	l.sleeping = false
	if !byItself {
		l.mu.Unlock()
		l.wake <- struct{}{}
		return
	}
	conn, b := l.conn, batchPool.Get().(*batch)
	if l.core.bye == nil && l.core.gather(b) {
		vec := b.seal()
		l.core.stats.PacketsOut++
		l.core.stats.BytesOut += uint64(b.size)
		if len(vec) == 1 && len(vec[0]) <= promptMax {
			l.mu.Unlock()
			n, err := conn.WriteNow(vec[0])
			b.tellPassed()
			l.mu.Lock()
			if vec[0] = vec[0][n:]; len(vec[0]) == 0 || err != nil {
				vec = nil // done, or for nobody: the connection is closed, and the reader notices
			}
		}
		if len(vec) > 0 {
			l.carry, b = b, nil
		}
	}
	if b != nil {
		b.reset()
		batchPool.Put(b)
	}
	wake := l.conn != conn || l.carry != nil || l.core.busy() || conn.ControlPending()
	l.sleeping = !wake
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
}

// Tick is called at a steady interval, the unit of PingTicks and DeadTicks.
func (l *Link) Tick() {
	l.mu.Lock()
	l.core.age(l.conn != nil)
	if l.conn == nil {
		events := l.takeEvents()
		l.mu.Unlock()
		l.tellEvents(events)
		return
	}
	if l.silence() {
		l.cause = errSilent
		conn := l.conn
		l.mu.Unlock()
		conn.Close()
		return
	}
	l.core.tick()
	events := l.takeEvents()
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	l.tellEvents(events)
}

// silence counts a tick in which nothing was heard, and reports whether there were
// so many that the peer is to be given up; before that, it is asked. Under mu.
//
// The peer gets a sign of life at every tick, unasked. Its ping would wait behind
// what it sends, on a slow path for too long. And what is written here is to be
// acknowledged by its system, else the system here ends the connection: so a peer
// is given up too that is heard but hears nothing.
func (l *Link) silence() (dead bool) {
	if l.heard {
		l.heard, l.silent = false, 0
		l.core.alive()
	} else {
		l.silent++
	}
	if l.silent >= l.cfg.DeadTicks && !planted.Is(planted.SilenceEndured) {
		return true
	}
	if l.silent >= l.cfg.PingTicks {
		l.core.ping = true
	}
	l.core.pong = true
	return false
}

var errSilent = errors.New("nothing was heard from the peer for the heartbeat timeout")

// Cut closes the connection, if there is one; streams stay.
func (l *Link) Cut(cause error) {
	l.mu.Lock()
	conn := l.conn
	if conn != nil && l.cause == nil {
		l.cause = cause
	}
	l.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// Close ends the link. The peer is told within patience, if it is there, and
// whether the end is orderly: then nothing is missing. All streams end: Sends
// with ErrClosed. It reports whether the peer has confirmed that it knows. It
// waits for the link's goroutines, so it must not be called from a hook.
func (l *Link) Close(patience time.Duration, orderly bool) (heard bool) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.wg.Wait()
		return l.answered
	}
	l.shut(orderly)
	conn := l.conn
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	if conn != nil {
		conn.SetWriteDeadline(time.Now().Add(patience))
		timer := time.AfterFunc(patience, func() { conn.Close() })
		defer timer.Stop()
	}
	l.wg.Wait()
	return l.answered
}

// shut ends all streams, and has the peer told. Under mu.
func (l *Link) shut(orderly bool) {
	l.closed, l.core.closed = true, true
	l.core.failAll(func(*SendStream) error { return ErrClosed })
	for _, r := range l.core.in {
		if r != nil {
			l.core.drop(r)
			r.flags |= recvCancelled // what still comes is dropped, and lent nothing
		}
	}
	if l.conn != nil {
		l.cause = ErrClosed
		l.core.bye = &wire.Record{Code: wire.CodeDone, Text: []byte("the node has closed")}
		if !orderly {
			l.core.bye = &wire.Record{Code: wire.CodeLost, Text: []byte("the node has closed before all was finished and delivered")}
		}
	}
	l.core.events = nil
}

// Lose ends all streams of a link that is down because the peer will not come
// back, or came back as another incarnation that knows nothing of them. Sends
// get a *LostError with what is in doubt, and so do consumers unless the end is
// orderly. Stated says that the peer has said so itself. Streams that no consumer
// has opened yet are nobody's, and stay.
func (l *Link) Lose(reason string, orderly, stated bool) {
	l.mu.Lock()
	l.core.failAll(func(s *SendStream) error {
		if s.flags&(sendUsed|sendLeaving|sendDelisted) == 0 {
			return nil
		}
		return l.core.lost(s, reason)
	})
	l.core.ended = ends{}
	for _, r := range l.core.in {
		if r == nil {
			continue
		}
		if r.flags&(recvCancel|recvCancelled) == 0 {
			l.core.endReceive(r, reason, orderly, stated)
			l.core.events = append(l.core.events, event{recv: r})
		}
		l.core.forget(r.label)
	}
	deliveries := l.core.deliveries
	l.core.deliveries = nil
	events := l.takeEvents()
	l.mu.Unlock()
	for _, d := range deliveries {
		if d.stream.inbox.put(d.stream, d.item) {
			d.stream.inbox.rouse()
		}
	}
	l.tellEvents(events)
}
