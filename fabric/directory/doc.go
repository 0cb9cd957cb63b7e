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
// What another process registers lives for a lease, and is renewed by its Client: a process that is killed, stopped or
// cut off is gone after 15 seconds at the latest, whatever its connections look like. What this process registers needs
// no renewal, as it cannot outlive its Registry.
//
// # Several directories
//
// A table is kept over restarts by a Store, or shared by several directories with a Shared store, of which any may die.
// The store decides, by transactions under the condition that all is as it was looked at: so incarnations of a name only
// grow, through whichever directory it is claimed, and no name is given twice. A directory answers once its replica has
// all that was decided before it was asked. Leases are the store's: whoever is connected to whichever directory renews
// the same one, and all directories see it end. What the directories count as revisions is the store's, so that a watch
// goes on at another directory; what one cannot tell change by change is told as a snapshot.
//
// While the store does not answer, a directory refuses what it is asked, at once, and its clients ask the next one or
// answer from memory, marked stale. Watches stay, and links never knew.
//
// # Reading the source
//
// table.go is what a directory knows, look.go what it tells of that, lease.go how registrations end. channel.go keeps
// each channel's recent changes, feed.go reads them at a watcher's pace, view.go turns them into differences against
// what a watcher told before, holder.go is what a connection's beginning and end mean. choose.go chooses one of several
// by a policy, pool.go keeps what a channel has to choose from. None of these knows a clock, a lock or a socket:
// registry.go has the lock and tells the time. saved.go is what a table looks like in a Store, store.go how changes get
// there.
//
// Several directories can have one table: shared.go is the store that they share, sharedkeys.go what a table looks like
// there, replica.go a table that follows it, replicaplan.go the transactions by which it is changed, without clock or
// lock either; sharing.go keeps the replica and tells a change's way, shareddeeds.go is what clients have done.
//
// protocol.go is requests and replies, codec.go and wireerrors.go their bytes. server.go accepts, session.go serves one
// connection, or a part of a relay's (lane.go), serve.go answers one request, served.go is what they do with a Registry.
// client.go is the Client, clientask.go and clientchange.go its calls, clientcall.go how they find a connection, call.go
// one request's way over it, clientloop.go how there is always one again and how leases are renewed, clientwatch.go a
// watch that outlives connections.
package directory
