package peering

import (
	"fmt"

	"github.com/zfab/zfab/fabric/internal/planted"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Decision is what to do with a connection on which the peer has said hello.
type Decision uint8

const (
	// Refuse it, with the verdict's code and reason.
	Refuse Decision = iota
	// Admit it. The slot is taken: by Up and, some time, Ended; or given back
	// with Free.
	Admit
	// Replace the present connection: end it with the verdict's reason, and ask
	// again once the slot is free.
	Replace
	// Confirm the claimed incarnation: ask the directory, and then again with
	// its word.
	Confirm
)

func (d Decision) String() string {
	return [...]string{"refuse", "admit", "replace", "confirm"}[d]
}

// Verdict is a decision with what belongs to it.
type Verdict struct {
	Do         Decision
	Code       uint8  // with Refuse: of the bye
	Reason     string // with Refuse and Replace
	Connection uint64 // with Admit: the connection's number
	Anew       bool   // with Admit: all streams are of another life, and to be lost before Up
}

// Word is what the directory said when it was asked about the peer.
type Word uint8

const (
	// NotAsked: it was not.
	NotAsked Word = iota
	// Known: it named an incarnation, which Listed was told.
	Known
	// Unknown: it has no node of that name.
	Unknown
	// Silent: it did not answer.
	Silent
)

// Accept decides about a connection that the peer has dialled.
func (p *Peering) Accept(h *wire.Hello, word Word) Verdict {
	if v := p.believe(h, word); v.Do != Admit {
		return v
	}
	switch {
	case p.taken && (h.Incarnation != p.life || h.Connection >= p.connection):
		p.doomed = true
		return Verdict{Do: Replace, Reason: "the peer has dialled anew"}
	case p.taken:
		return refuse(wire.CodeDuplicate, "there is a connection already")
	case p.greeting && p.own < p.peer:
		return refuse(wire.CodeDuplicate, "this node is dialling just now, and has the lesser name")
	}
	return p.admit(h, max(p.connection, h.Connection)+1)
}

// Greet says that own is about to say hello on a connection that it has
// dialled, and what number it is to name. It reports false if there is another
// connection by now. GreetingOver ends it.
func (p *Peering) Greet() (connection uint64, ok bool) {
	if p.taken {
		return 0, false
	}
	p.greeting = true
	return p.connection, true
}

// GreetingOver says that the hello was answered, and Answered called, or that
// no answer came.
func (p *Peering) GreetingOver() { p.greeting = false }

// Answered decides about a connection that own has dialled and the peer has
// admitted: h is the peer's hello. If another connection has come since, the peer
// has ended this one, though own may hear of that late: what is still under way
// on it would take streams back to where they were.
func (p *Peering) Answered(h *wire.Hello, word Word) Verdict {
	if v := p.believe(h, word); v.Do != Admit {
		return v
	}
	switch {
	case p.taken:
		return refuse(wire.CodeDuplicate, "there is a connection already")
	case h.Incarnation == p.life && h.Connection <= p.connection:
		return refuse(wire.CodeDuplicate, "there was another connection since")
	}
	return p.admit(h, max(p.connection, h.Connection))
}

func (p *Peering) admit(h *wire.Hello, connection uint64) Verdict {
	v := Verdict{Do: Admit, Connection: connection, Anew: p.bound && h.Incarnation != p.life && !planted.Is(planted.LivesMixed)}
	p.taken, p.doomed = true, false
	p.life, p.bound, p.connection = h.Incarnation, true, connection
	return v
}

// believe decides whether who says hello is who it says, as far as that can be
// told from incarnations.
func (p *Peering) believe(h *wire.Hello, word Word) Verdict {
	claim := h.Incarnation
	switch {
	case planted.Is(planted.NoFencing) && claim < p.listed:
	case claim < p.listed:
		return refuse(wire.CodeFenced, "incarnation %d of %s is older than %d, which is registered", claim, p.peer, p.listed)
	case claim == p.listed:
	case claim == p.life && p.listed == 0:
	case word == NotAsked:
		return Verdict{Do: Confirm}
	case word == Known:
		return refuse(wire.CodeRefused, "incarnation %d of %s is registered, and not %d: two nodes claim the name", p.listed, p.peer, claim)
	case claim < p.life:
		return refuse(wire.CodeFenced, "incarnation %d of %s is older than %d, which was here before", claim, p.peer, p.life)
	case word == Unknown && p.listed != 0:
		return refuse(wire.CodeRefused, "incarnation %d of %s is not registered", claim, p.peer)
	case word == Unknown && p.taken && claim != p.life:
		return refuse(wire.CodeBusy, "incarnation %d of %s is connected: two nodes claim the name", p.life, p.peer)
	case word == Silent && claim != p.life && (p.listed != 0 || p.life != 0):
		return refuse(wire.CodeBusy, "the directory cannot be asked about incarnation %d of %s", claim, p.peer)
	}
	return Verdict{Do: Admit}
}

func refuse(code uint8, format string, args ...any) Verdict {
	return Verdict{Do: Refuse, Code: code, Reason: fmt.Sprintf(format, args...)}
}
