// Package circuit keeps the circuits of one link: virtual connections of worker
// processes, of which one link carries many beside its own streams. SPEC.md of
// package wire, section 12, says what passes between the two sides.
//
// A Table is all circuits of a link as one of its sides sees them, an End one of
// them. Both only compute: package link has the lock, the socket and the memory,
// and asks the Table what to write next. What arrives on an End goes to its Sink:
// another link's End, where a node passes packets on, or a connection that ends
// here.
//
//	a worker's packet, at the node that passes it on:
//
//	link A                                     link B
//	Packet: within what End a has lent? -----> Send: into the queue of End b
//	                                           Turn: b's turn, as far as its limit allows
//	Passed: End a may lend as much again <---- written
//
// # Bounds
//
// An End lends Window bytes at the most, and holds in its queue what its partner
// on the other link has lent, so a circuit holds no more at a node than one
// Window in each direction, whoever stops reading. Packets wait in the memory into
// which they were read; when that comes to another Window, further ones are copied.
//
// A link has at most MaxCalls circuits that were asked for by either side, and of
// those that a node passes on at most MaxShare for one other link. A label can be
// used again when both sides have said close, and a side says it only when what it
// held for the circuit is gone, at the next node as well. So who asks for circuits
// faster than they can be ended waits for labels, and makes nobody hold more than
// MaxCalls of them.
package circuit
