package link

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// smallConfig is a world small enough to see all that can happen in it.
type smallConfig struct {
	name     string
	from     []int     // for each stream the side that produces
	sizes    []int     // of the messages of each stream, in bytes; -1 is a producer's end
	again    int       // so many of the last ones once more after a restart of the producer
	flush    bool      // whoever has sent all waits for the acknowledgement
	mark     flow.Mark // the window that consumers lend
	hold     uint64    // messages that producers may hold; the window's if 0
	cuts     uint8     // connections that break
	restarts uint8     // of either node, as a new incarnation
	closes   uint8     // consumers that close or drain, and begin anew
	underway int       // packets that fit the network, each way
	fault    plantedFault
}

// smallWorld is two nodes' sides of their link and the network between them. It
// changes by one action at a time. There is no order among those that may
// happen, and none has to.
type smallWorld struct {
	cfg     *smallConfig
	side    [2]*Link
	budget  [2]*flow.Budget
	life    [2]uint8    // incarnation of the node
	knows   [2]uint8    // the peer's, that the streams here belong to
	up      [2]bool     // the side is on the connection
	broken  bool        // what is written is lost
	way     [2][][]byte // packets under way from a side
	streams []*smallStream

	cuts, restarts, closes uint8 // left
	told                   uint8 // state records, up to the one that a fault is about
	trouble                error // what a hook found
}

// smallStream is a stream with both its ends, and what must be true of it. When
// one end is lost another stream begins, which is called a life of this one. The
// numbers of messages run through all lives.
type smallStream struct {
	index int
	from  int

	// The producer.
	out     *SendStream
	waiting *Waiting
	flushed <-chan struct{}
	left    uint8  // messages not accepted yet
	taken   uint8  // messages accepted in all lives
	base    uint8  // number of the first one of out
	bases   uint16 // a bit for each base there was

	// The consumer.
	in     *Inbox
	recv   *RecvStream
	next   uint8 // number that it must get next, if inside
	inside bool  // it has had a message of the current life
	count  uint8 // of that life that it has had
	shut   bool  // it has closed, and there is no other
	drains bool  // it takes what was accepted, and waits for the end
	owed   uint8 // with drains: so many messages it must get in all
	stored uint8 // by consumers' ends that are gone, of out
}

const smallChannel = "c"

func newSmallWorld(cfg *smallConfig) *smallWorld {
	w := &smallWorld{cfg: cfg, cuts: cfg.cuts, restarts: cfg.restarts, closes: cfg.closes}
	w.side[0], w.side[1] = w.node(0), w.node(1)
	for i, from := range cfg.from {
		s := &smallStream{index: i, from: from, left: uint8(len(cfg.sizes))}
		w.streams = append(w.streams, s)
		w.produce(s)
		w.open(s)
	}
	return w
}

var smallNames = [2]string{"n0", "n1"}

// node begins a life of node i. Nothing ends by silence here.
func (w *smallWorld) node(i int) *Link {
	w.budget[i] = flow.NewBudget(64 << 20)
	return New(&Config{
		MaxMessage: 1 << 20, MaxStreams: 8, Mark: w.cfg.mark, Budget: w.budget[i],
		CheckChannel: func(string) error { return nil }, PingTicks: math.MaxInt, DeadTicks: math.MaxInt, ResumeTicks: math.MaxInt,
		Hooks: Hooks{
			Opened: func(*Link, *SendStream) {},
			Failed: func(_ *Link, s *SendStream) { w.failed(s) },
			Ended:  func(_ *Link, r *RecvStream) { w.ended(r) },
		},
	}, smallNames[1-i])
}

// produce gives s a producer's end, which begins with the next message.
func (w *smallWorld) produce(s *smallStream) {
	s.base, s.stored, s.flushed = s.taken, 0, nil
	s.bases |= 1 << s.base
	mark := w.cfg.mark
	mark.Messages = max(mark.Messages, w.cfg.hold)
	s.out = w.side[s.from].Stream(smallChannel, s.index, mark)
}

// open gives s a consumer, with its end of the stream.
func (w *smallWorld) open(s *smallStream) {
	s.in = NewInbox(&Flow{Channel: smallChannel, Mark: w.cfg.mark}, s.index, nil)
	s.inside, s.shut, s.count, s.drains = false, false, 0, false
	s.recv = w.side[1-s.from].Receive(s.in)
}

// apply does one action. An error is a promise that was broken.
func (w *smallWorld) apply(a action) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v: panic: %v", a, r)
		}
	}()
	i := a.which()
	switch a.kind() {
	case doSend:
		err = w.send(w.streams[i])
	case doConsume:
		err = w.consume(w.streams[i])
	case doGather:
		w.gather(i)
	case doDeliver:
		p := w.way[i][0]
		w.way[i] = w.way[i][1:]
		err = Drive(w.side[1-i]).Packet(p, &heldBytes{p})
	case doTick, doIdle:
		w.tick(a)
	case doCut:
		w.cuts--
		w.broken = true
	case doNotice:
		w.leave(i)
		Drive(w.side[i]).Unbind()
	case doAttach:
		w.attach(i)
	case doRestart:
		w.restarts--
		w.restart(i)
	case doClose:
		w.closes--
		w.close(w.streams[i])
	case doDrain:
		w.closes--
		w.streams[i].drains = true
		w.streams[i].recv.Drain()
	case doReopen:
		w.open(w.streams[i])
	}
	if err == nil {
		err = w.trouble
	}
	if err != nil {
		err = fmt.Errorf("%v: %w", a, err)
	}
	return err
}

// sizeOf is the size of the next message of s.
func (w *smallWorld) sizeOf(s *smallStream) int { return w.cfg.sizes[len(w.cfg.sizes)-int(s.left)] }

func (w *smallWorld) send(s *smallStream) error {
	var err error
	switch size := w.sizeOf(s); {
	case s.waiting != nil:
		done, err := s.waiting.Poll()
		if !done {
			return nil
		}
		if s.waiting = nil; err != nil {
			return nil // not accepted: it goes to the life that began meanwhile
		}
	case size < 0:
		err = s.out.Finish(testSenders[s.taken])
	default:
		body := slices.Clone(noise[:size])
		if size > 0 {
			body[0] = s.label(s.taken)
		}
		// Two of one producer, which may share a record, then another one's.
		if s.waiting, err = s.out.BeginSend(testSenders[s.taken/2], body); s.waiting != nil {
			return nil
		}
	}
	s.left--
	s.taken++
	if s.left == 0 && w.cfg.flush {
		s.flushed = s.out.BeginFlush()
	}
	return err
}

// label is what the first byte of a message says.
func (s *smallStream) label(number uint8) byte { return byte(s.index)<<4 | number }

// gather lets side i write one record: the batch is full as soon as anything is
// in it.
func (w *smallWorld) gather(i int) {
	b := batchPool.Get().(*batch)
	b.size = fullBatch - 1
	w.side[i].core.gather(b)
	var p []byte
	for _, v := range b.seal() {
		p = append(p, v...)
	}
	b.reset()
	batchPool.Put(b)
	if len(p) == 0 || w.broken {
		return
	}
	if p = p[frameHeaderSize:]; w.cfg.fault != noFault {
		p = w.plant(p)
	}
	if p != nil {
		w.way[i] = append(w.way[i], p)
	}
}

// tick lets time pass. For how long streams were idle is not counted: either all
// that are idle have been so for long, or none.
func (w *smallWorld) tick(a action) {
	for i, l := range w.side {
		if a.which() != i && a.which() != both {
			continue
		}
		for _, s := range l.core.out {
			if s != nil {
				s.quiet = 0
				if a.kind() == doIdle {
					s.quiet = idleTicks
				}
			}
		}
		Drive(l).Tick()
		l.core.pong = false // signs of life are no part of this world
	}
}

// leave takes side i off the connection.
func (w *smallWorld) leave(i int) {
	w.way[1-i] = nil
	w.up[i] = false
	if w.broken = w.up[1-i]; !w.broken {
		w.way[i] = nil
	}
}

// attach puts side i on the new connection. A peer that has begun a new life
// knows of none of the streams.
func (w *smallWorld) attach(i int) {
	if w.knows[i] != w.life[1-i] && w.cfg.fault != noFencing {
		w.side[i].Lose("it was started anew", false, false)
	}
	w.knows[i] = w.life[1-i]
	Drive(w.side[i]).Bind(1 << 20)
	w.up[i] = true
	if w.cfg.fault == noRestate && w.cuts < w.cfg.cuts {
		for c := &w.side[i].core; c.tells.first != nil; c.tells.first = c.tells.first.next {
			c.tells.first.flags &^= recvListed | recvState
		}
		w.side[i].core.tells.last = nil
	}
}

func (w *smallWorld) restart(i int) {
	w.leave(i)
	w.side[i] = w.node(i)
	w.life[i]++
	w.knows[i] = w.life[1-i]
	for _, s := range w.streams {
		if s.from == i {
			s.waiting = nil
			s.left = min(s.left+uint8(w.cfg.again), uint8(len(w.cfg.sizes)))
			w.produce(s)
		} else {
			s.noteStored()
			w.open(s)
		}
	}
}

// close ends the consumer of s.
func (w *smallWorld) close(s *smallStream) {
	s.noteStored()
	s.in.Close()
	s.recv.Cancel()
	s.shut, s.drains = true, false
}

// free gives back what a world that is done with holds of the pools.
func (w *smallWorld) free() {
	for _, l := range w.side {
		for _, f := range l.core.flows {
			for _, s := range f.streams {
				if s.q != nil {
					s.q.free()
					s.q = nil
				}
			}
		}
	}
}

// print writes the state of w down.
func (w *smallWorld) print(c *canon) {
	c.out, c.seen = c.out[:0], c.seen[:0]
	writeSmallWorld(c, unsafe.Pointer(w))
}

// plantedFault is one that is planted, to see that it is found.
type plantedFault uint8

const (
	noFault    plantedFault = iota
	loseState               // the third state record told in all is lost, and nothing else
	widenLimit              // limits arrive higher by one message
	noRestate               // a new connection begins without the state of any stream
	noFencing               // a peer's new life goes on with the streams of the one before
)

// plant puts the configured fault into a packet of one record; nil if it is lost.
func (w *smallWorld) plant(p []byte) []byte {
	var rec wire.Record
	if _, err := wire.Next(p, 0, &rec); err != nil || rec.Kind != wire.KindState {
		return p
	}
	switch w.cfg.fault {
	case loseState:
		if w.told < 3 {
			if w.told++; w.told == 3 {
				return nil
			}
		}
	case widenLimit:
		rec.State.LimitMessages++
		p = wire.AppendState(nil, &rec.State)
	}
	return p
}
