// Package link is the one connection between two nodes and all streams on it.
//
// The way of a message:
//
//  1. SendStream.Send copies it into the stream's queue, under the link's
//     mutex, if the high-water mark admits it, and puts the stream into the
//     ring of active ones. It wakes the writer if that sleeps. (send.go)
//  2. The writer takes the mutex, gathers a batch (control records, then the
//     active streams in turn, as far as the limit of each allows) and writes
//     it with one system call, without the mutex. (core.go, batch.go)
//  3. The peer's reader takes the packet, checks each record against the
//     stream's position and limit under its mutex, and puts runs of messages
//     into the inboxes of the consumers, without it. (recv.go)
//  4. Inbox.Next hands out one message after another, and tells the stream
//     what was handled. (inbox.go)
//  5. When a quarter of the window has become free, the stream is due a state
//     record; the peer's writer sends it, and the reader here drops what it
//     acknowledges and raises the limit. (control.go)
//
// core is the bookkeeping of all that: it has no lock, clock, goroutine or
// socket, and outlives connections. Link owns the mutex around it and, while a
// connection is there, two goroutines: the reader and the writer. The reader
// waits for nothing but the network: not for a consumer (what it puts into an
// inbox was lent room before), and not for the writer (what is to be sent is
// noted, and the newest replaces what was not sent yet).
//
// A link also carries circuits, over which other links run: circuits.go, and
// package circuit. A packet's way over a node that passes it on is call.go's, and
// Circuit is what a link has in the place of a connection when it runs over one.
//
// Locks: a link's mu, then a Circuit's mu on it, then nothing; an inbox's mu, then
// nothing.
package link
