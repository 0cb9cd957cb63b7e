// Package peering decides which connection between two nodes is their link,
// and whose life the link's streams belong to.
//
// A Peering is what one node knows of one other, its peer. It is told what
// happened and answers what is to be done; the node around it has the locks,
// sockets, goroutines and the log. Time and chance are arguments, so the
// decisions can be replayed.
//
// # One connection
//
// A link has a slot for one connection:
//
//	        Accept, Answered: Admit                  Ended
//	free ----------------------------> taken -----------------> emptying
//	 ^                                   |                         |
//	 |<---- Free: it came to nothing ----+                         |
//	 |<---- Free: losses are told ---------------------------------+
//	 |                                                             |
//	 +---- Expired, Listed: Lose, as its streams are lost ---------+
//
// No other connection is admitted until the slot is free, so nothing that is
// still on its way from the connection before can reach the streams of the
// next one. Streams wait from Ended on for another connection, for as long as
// the resume window; Expired says when it is over.
//
//  1. A consumer's node dials each producer's node, while the slot is free:
//     StartDialing, NextDial, DialFailed.
//  2. The one that accepts decides. It refuses a second connection (duplicate)
//     unless the dialler knows of the first one, by its number, and therefore
//     has lost it; then the first one is ended and the second takes its place.
//  3. Where both want one, the one with the greater name gives the other a
//     moment to dial. If both dial at once all the same, the one with the lesser
//     name refuses the other's connection while its own says hello.
//  4. A link that breaks is dialled again, after a random wait that grows with
//     each failure from 50 ms to 5 s (full jitter).
//
// # One life
//
// An incarnation is one life of a node, and a later life has a greater one.
// Streams belong to the life they began with; they are lost once another one
// takes its place, and what the former still sends is refused (fenced).
//
// A hello proves nothing: whoever knows a name could claim a huge incarnation
// and so shut the true node out. So the directory, which gives names and
// incarnations away, is believed, and a hello only as far as the directory
// bears it out:
//
//  1. The incarnation that the directory has told is admitted, whatever was here.
//  2. A lesser one is an older life: fenced.
//  3. A greater one may be a new life that the directory's watch has not told yet.
//     The directory is asked (Confirm). If it knows another incarnation, another
//     node claims the name: refused.
//  4. A name that the directory has never told of belongs to who came first. A later
//     life gets it when the connection of the one before has ended; while the
//     directory is silent nobody does who was not here before.
//
// Who knows a node's name and its incarnation passes for it: telling the two
// apart takes authentication, below this package.
package peering
