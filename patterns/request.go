package patterns

import (
	"errors"
	"fmt"

	"github.com/zfab/zfab/fabric"
)

// How a call is answered. The requester has a producer on the channel, and beside
// the channel a consumer for replies; a replier has the other ends.
//
//  1. A replier says hello to each requester. (greeter.go)
//  2. A call encodes its request, chooses a server, the one with the least
//     outstanding or the owner of its key, and sends it with the time that is left
//     until its deadline. (request_call.go)
//  3. The server hands it to a handler, if one is free; else it waits, in a queue
//     that serves requesters in turn. What the queue has no room for is refused:
//     it was not started. (request_serve.go)
//  4. The handler's reply, stream of replies or error goes back, and ends the call.
//     (request_replies.go)
//  5. A call that ends before it has its answer tells the server so, and the
//     handler's context ends.
//
// Every request gets an answer (a reply, an error, a refusal) unless its server
// is lost; then the call ends when that is noticed. A request was provably not
// started if it could not be sent, or was refused: such a call moves to another
// server by itself. One that may have been started moves only if it is idempotent.
//
// What was accepted for a server that has closed since may reach the next one of its
// address. So a requester answers each hello, and a server refuses what comes before
// that: it was for another one.

// The kinds of records of requests.
const (
	// requester to replier
	kindRequest = 16 // [replies, call, microseconds left or 0, window or 0] + body
	kindCancel  = 17 // [replies, call]
	kindCredit  = 18 // [replies, call, items in all]
	kindLeave   = 19 // [replies]: the requester closes
	kindMeet    = 27 // [replies, session]: what follows is for the server of that session
	// replier to requester
	kindServe   = 20 // [session, consumer, room]: hello
	kindReply   = 21 // [call] + body
	kindItem    = 22 // [call] + body
	kindEnd     = 23 // [call]: of a stream
	kindFailure = 24 // [call, code, text]
	kindRefused = 25 // [call, code]: not started
	kindGone    = 26 // [session]: bye
)

// replyChannel is where repliers answer requesters.
func replyChannel(channel string) string { return channel + ".replies" }

// Code says what kind of error a server answers with. Those below 100 are the
// pattern's; a program's own begin there.
type Code uint32

// The pattern's codes.
const (
	// CodeError: the handler returned an error that has no code.
	CodeError Code = 1
	// CodePanic: the handler panicked.
	CodePanic Code = 2
	// CodeBadRequest: the server could not decode the request.
	CodeBadRequest Code = 3
	// CodeBadReply: the server could not encode the reply, or it was too large.
	CodeBadReply Code = 4
	// CodeBusy: the server's queue is full. The request was not started.
	CodeBusy Code = 5
	// CodeClosing: the server is closing. The handler's context ended, or the request
	// was not started.
	CodeClosing Code = 6
	// CodeExpired: the deadline passed at the server first, before the request was
	// started or while its handler ran. The call's error matches
	// context.DeadlineExceeded.
	CodeExpired Code = 7
	// CodeStream: the server answers with a stream, and Call was used.
	CodeStream Code = 8
	// CodeApplication is the first code of a program's own.
	CodeApplication Code = 100
)

var codeNames = map[Code]string{
	CodeError: "error", CodePanic: "panic", CodeBadRequest: "bad request", CodeBadReply: "bad reply", CodeBusy: "busy",
	CodeClosing: "closing", CodeExpired: "expired", CodeStream: "stream",
}

func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// ReplyError is a server's answer that is an error. A handler returns one to
// choose its code; any other error has CodeError.
type ReplyError struct {
	Code   Code
	Text   string         // at most 255 bytes
	Server fabric.Address // who said it; set by the requester
}

func (e *ReplyError) Error() string {
	if e.Server == (fabric.Address{}) {
		return fmt.Sprintf("%s: %s", e.Code, e.Text)
	}
	return fmt.Sprintf("server %s: %s: %s", e.Server, e.Code, e.Text)
}

// ServerLostError: the server of a call is gone, or away for longer than the
// requester's patience, before it answered. The request may have been done.
type ServerLostError struct {
	Channel string
	Server  fabric.Address
	Reason  string
}

func (e *ServerLostError) Error() string {
	return fmt.Sprintf("channel %s: server %s was lost before it answered: %s", e.Channel, e.Server, e.Reason)
}

// ErrNoServer: the channel has no server, or none that has not refused the call.
var ErrNoServer = errors.New("no server")
