package patterns

import (
	"errors"
	"fmt"
	"strings"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// MissingError: an exchange could not open, because not all that were promised
// came before the context ended.
type MissingError struct {
	Channel                string
	Producers, OfProducers int // that are there, and were promised
	Consumers, OfConsumers int
	// Came is the nodes that are there, wholly or in part; OfNodes how many were
	// promised, 0 if that was not said.
	Came    []string
	OfNodes int
	// Nodes is the nodes of which nothing came, if ExchangeConfig.Names told
	// them; Members is what nodes that came lack, if all are to have as many.
	Nodes   []string
	Members []directory.Member
	Err     error // the context's
}

func (e *MissingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "exchange %s: %d of %d producers and %d of %d consumers are there",
		e.Channel, e.Producers, e.OfProducers, e.Consumers, e.OfConsumers)
	if len(e.Nodes) > 0 {
		fmt.Fprintf(&b, "; nothing came of %s", list("node", e.Nodes))
	}
	var members []string
	for _, m := range e.Members {
		members = append(members, fmt.Sprintf("%s %s/%d", m.Role, m.Node, m.Index))
	}
	if len(members) > 0 {
		fmt.Fprintf(&b, "; missing %s", list("", members))
	}
	if len(e.Nodes)+len(members) == 0 || e.OfNodes > len(e.Came)+len(e.Nodes) {
		fmt.Fprintf(&b, "; only %s came", list("node", e.Came))
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

func (e *MissingError) Unwrap() error { return e.Err }

// ShapeError: a member came to an exchange that it was not promised, so that
// nodes do not mean the same shape, or something else uses the channel.
type ShapeError struct {
	Channel              string
	Member               directory.Member
	Producers, Consumers int // promised in all
}

func (e *ShapeError) Error() string {
	return fmt.Sprintf("exchange %s: %s %s/%d is there but was not promised (%d producers and %d consumers were)",
		e.Channel, e.Member.Role, e.Member.Node, e.Member.Index, e.Producers, e.Consumers)
}

// UnfinishedError: a consumer's iteration has ended, or its context has, before
// all promised producers had finished. What it got is not complete.
type UnfinishedError struct {
	Channel    string
	Consumer   fabric.Address
	Finished   int // producers
	Promised   int
	Unfinished []fabric.Address // by node and index
	Err        error            // the context's, or the *fabric.PeerLostError of every node that was lost
}

func (e *UnfinishedError) Error() string {
	var names []string
	for _, a := range e.Unfinished {
		names = append(names, a.String())
	}
	return fmt.Sprintf("exchange %s, consumer %s: %d of %d producers have finished, not %s: %v",
		e.Channel, e.Consumer, e.Finished, e.Promised, list("", names), e.Err)
}

func (e *UnfinishedError) Unwrap() error { return e.Err }

// lostPeer is err as the loss of a peer, nil if it is none.
func lostPeer(err error) *fabric.PeerLostError {
	if err == nil {
		return nil
	}
	var lost *fabric.PeerLostError
	errors.As(err, &lost)
	return lost
}

// listed is how many names an error's text holds; its fields hold all.
const listed = 8

func list(what string, names []string) string {
	if what != "" {
		if len(names) != 1 {
			what += "s"
		}
		what += " "
	}
	if len(names) <= listed {
		return what + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s%s and %d more", what, strings.Join(names[:listed], ", "), len(names)-listed)
}
