package peering

import (
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Peering is what the node own knows of the node peer. The zero value is not
// ready; New makes one. It is for one goroutine at a time.
type Peering struct {
	own, peer string

	// The slot.
	taken      bool
	doomed     bool      // the connection in it is not to be used
	greeting   bool      // own has said hello on a connection that it dialled
	connection uint64    // number of the last connection that both know of
	since      time.Time // when streams began to wait for another one; zero if none does

	// Lives of the peer.
	life   uint64 // that had the last connection; 0: none had one
	bound  bool   // there may be streams of that life
	listed uint64 // the greatest that the directory has told; 0: it never has
	over   uint64 // the greatest that has said it is over; 0: none has

	// Dialling.
	endpoint string // of the life listed, where it is dialled
	expected bool   // the peer may dial, too
	dialing  bool
	dialled  uint64 // the life whose endpoint was dialled last
	failures int    // dials that failed, one after another
}

// New returns what the node own knows of peer at first: nothing.
func New(own, peer string) *Peering { return &Peering{own: own, peer: peer} }

// Taken reports whether the slot is not free: there is a connection, or
// something that takes its place.
func (p *Peering) Taken() bool { return p.taken }

// Gone reports whether the peer's last life is over, or was given up, and no
// other one is known of.
func (p *Peering) Gone() bool {
	last := max(p.life, p.over)
	return last != 0 && !p.bound && p.listed <= last
}

// Closed reports whether the peer has said that its last life is over, and no
// other one is known of: nothing more comes from it. One that was given up may
// come back.
func (p *Peering) Closed() bool {
	return p.over != 0 && !p.bound && max(p.life, p.listed) <= p.over
}

// Life is the incarnation that had the last connection, 0 if none had one.
func (p *Peering) Life() uint64 { return p.life }

// Act is what follows from the directory's word.
type Act uint8

const (
	// Nothing is to be done.
	Nothing Act = iota
	// Cut the connection. If that of an older life, Ended says what is lost; else
	// its streams go on when the peer, which has to say hello again, bears its
	// claim out.
	Cut
	// Lose all streams: they are of a life that is over. The slot is taken until
	// Free.
	Lose
)

// Listed is the directory's word that peer is registered with that incarnation
// and endpoint; an empty endpoint tells nothing. Words may come late: the
// greatest incarnation counts.
func (p *Peering) Listed(incarnation uint64, endpoint string) Act {
	if incarnation < p.listed {
		return Nothing
	}
	if incarnation > p.listed || endpoint != "" {
		p.listed, p.endpoint = incarnation, endpoint
	}
	switch {
	case !p.bound || p.life == incarnation:
		return Nothing
	case p.taken:
		p.doomed = true
		return Cut
	case p.life < incarnation && !planted.Is(planted.LivesMixed):
		p.taken, p.since = true, time.Time{}
		p.bound = false
		return Lose
	}
	return Nothing
}

// Up says that the connection just admitted is ready. It reports false if it is
// not to be used after all: close it then, and Free the slot.
func (p *Peering) Up() bool {
	if p.doomed {
		return false
	}
	p.since, p.failures = time.Time{}, 0
	return true
}

// Loss is what the streams' ends are told when all of them are lost.
type Loss struct {
	Reason  string
	Orderly bool // nothing is missing
	Stated  bool // by the peer itself
}

// Anew is the loss of all streams of a life that another one has followed.
func (p *Peering) Anew() Loss { return Loss{Reason: fmt.Sprintf("node %s was started anew", p.peer)} }

// Bye is the peer's word that it closes the connection.
type Bye struct {
	Code uint8 // wire.CodeDone and others
	Text string
}

// final reports whether the bye is that of a life that is over.
func (b *Bye) final() bool { return b != nil && (b.Code == wire.CodeDone || b.Code == wire.CodeLost) }

func (b *Bye) loss() Loss {
	return Loss{Reason: b.Text, Orderly: b.Code == wire.CodeDone, Stated: true}
}

// Dismissed says that the peer, where own has dialled it, said bye instead of
// hello. It reports whether the peer's life is over, and what is to be lost then:
// the bye before, if there was one, was not heard. The slot is then taken until
// Free.
func (p *Peering) Dismissed(bye *Bye) (Loss, bool) {
	if p.taken || !bye.final() {
		return Loss{}, false
	}
	p.taken, p.since = true, time.Time{}
	// The directory may have told of another life while this one was dialled.
	p.bound, p.over = false, max(p.life, p.dialled)
	return bye.loss(), true
}

// Ended says that the connection ended now, because the peer said bye if that
// is not nil. It reports what is to be lost with it, and whether anything is;
// else the streams wait. The slot stays taken until Free.
func (p *Peering) Ended(now time.Time, bye *Bye) (Loss, bool) {
	p.since = time.Time{}
	switch {
	case bye.final():
		// Nobody will come back to these streams.
		p.bound, p.over = false, p.life
		return bye.loss(), true
	case p.life < p.listed && !planted.Is(planted.LivesMixed):
		p.bound = false
		return p.Anew(), true
	}
	p.since = now
	return Loss{}, false
}

// Free ends the time in which the slot is taken.
func (p *Peering) Free() { p.taken, p.doomed = false, false }

// Expired reports whether the streams have waited for longer than window, and
// are lost. The slot is then taken until Free.
func (p *Peering) Expired(now time.Time, window time.Duration) (Loss, bool) {
	if planted.Is(planted.WindowTooShort) {
		window /= 2
	}
	if p.taken || p.since.IsZero() || now.Sub(p.since) <= window || planted.Is(planted.WindowNeverEnds) {
		return Loss{}, false
	}
	p.taken, p.since = true, time.Time{}
	p.bound = false
	return Loss{Reason: fmt.Sprintf("no connection for %v", window)}, true
}

// Forgettable reports whether nothing is known of the peer but that it was here.
func (p *Peering) Forgettable() bool {
	return !p.taken && !p.dialing && !p.greeting && p.endpoint == ""
}
