package directory

import (
	"errors"
	"fmt"
)

// Errors as replies, and back.

// errMalformed wraps what is wrong with a body.
var errMalformed = errors.New("malformed")

var errNoWatch = errors.New("directory: no such watch on this connection")

// errorReply makes the reply that tells a client err.
func errorReply(id uint64, err error) *reply {
	r := &reply{ID: id, Text: err.Error()}
	var (
		taken   *NameTakenError
		stale   *StaleError
		joined  *NotJoinedError
		unknown *UnknownNodeError
		warming *WarmingError
		nobody  *NobodyError
		live    *LiveError
		limit   *LimitError
	)
	switch {
	case errors.As(err, &taken):
		r.Error, r.Node, r.Endpoint = codeNameTaken, taken.Name, taken.Endpoint
	case errors.As(err, &stale):
		r.Error, r.Node, r.Incarnation = codeStale, stale.Node, stale.Current
	case errors.As(err, &joined):
		r.Error, r.Node = codeNotJoined, joined.Node
	case errors.As(err, &unknown):
		r.Error, r.Node = codeUnknownNode, unknown.Name
	case errors.As(err, &warming):
		r.Error, r.What, r.Warming = codeWarming, warming.What, inMilliseconds(warming.Remaining)
	case errors.As(err, &nobody):
		r.Error = codeNobody
	case errors.As(err, &live):
		r.Error, r.Node, r.Endpoint = codeLive, live.Name, live.Endpoint
	case errors.As(err, &limit):
		r.Error, r.What, r.Max = codeLimit, limit.What, limit.Max
	case errors.Is(err, ErrInvalid):
		r.Error = codeInvalid
	case errors.Is(err, ErrUnavailable):
		r.Error = codeUnavailable
	case errors.Is(err, errMalformed):
		r.Error = codeMalformed
	case errors.Is(err, errNoWatch):
		r.Error = codeWatch
	default: // the registry is closed
		r.Error = codeClosed
	}
	return r
}

// err turns a reply's error, if any, back into what the registry said of the request.
func (r *reply) err(asked *request) error {
	switch r.Error {
	case "":
		return nil
	case codeNameTaken:
		return &NameTakenError{Name: r.Node, Endpoint: r.Endpoint}
	case codeStale:
		return &StaleError{Node: r.Node, Incarnation: asked.Incarnation, Current: r.Incarnation}
	case codeNotJoined:
		return &NotJoinedError{Node: r.Node}
	case codeUnknownNode:
		return &UnknownNodeError{Name: r.Node}
	case codeWarming:
		return &WarmingError{What: r.What, Remaining: r.Warming.duration()}
	case codeNobody:
		return &NobodyError{Channel: asked.Channel, Role: asked.role()}
	case codeLive:
		return &LiveError{Name: r.Node, Endpoint: r.Endpoint}
	case codeLimit:
		return &LimitError{What: r.What, Max: r.Max}
	case codeWatch:
		return errNoWatch
	case codeInvalid:
		return fmt.Errorf("%w: %s", ErrInvalid, r.Text)
	}
	return fmt.Errorf("directory: %s: %s", r.Error, r.Text)
}
