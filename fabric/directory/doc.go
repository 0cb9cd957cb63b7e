// Package directory tells nodes where the others are: a small registry of nodes and of the channels' members, which
// is in nobody's data path.
//
// A node joins under its name and gets an incarnation, a number that tells its lives apart. It then adds the producers
// and consumers that it hosts. Everybody watches the channels that concern it, and dials the endpoints that come with
// the events. When the directory dies nothing else stops: the nodes know each other, and register again when it is back.
//
// Registry is the table itself, without I/O; Serve offers it to other processes; Client is another process's view of
// it. Registry and Client are both a Service. PROTOCOL.md, beside this file, is what passes between Client and
// Server, for those who speak to a directory from another language: a plain REQ socket is enough.
//
// # Reading the source
//
// registry.go is the table. channel.go keeps each channel's recent changes, feed.go reads them at a watcher's pace,
// view.go turns them into differences against what a watcher told before. protocol.go is requests and replies as
// bytes. server.go accepts, session.go serves one connection, holder.go is what a connection's beginning and end mean
// for the table. client.go is the Client's calls, clientcall.go how they find a connection, call.go one request's way
// over it, clientloop.go how there is always one again, clientwatch.go a watch that outlives connections.
package directory
