// Package fabric carries messages between the producers and consumers of many
// nodes, over one link per pair of nodes.
//
// A Node is one host's member of the fabric. Its producers and consumers meet
// those of other nodes on channels. Between each producing node and each
// consumer runs a stream: ordered, bounded by a high-water mark from end to end,
// and independent of all others although they share links. A consumer that
// stops reading holds up its own streams only.
//
//	node, err := fabric.Open(ctx, fabric.Config{Directory: dir})
//	producer, err := node.Producer(ctx, "scores", fabric.ProducerConfig{})
//	err = producer.Send(ctx, fabric.Address{Node: "n2"}, body)
//
// # Delivery
//
// Messages of one stream arrive in the order in which Send accepted them, each
// once. That holds across a link's loss: streams go on where they were when
// the nodes find each other again within Config.ResumeWindow; after that both
// ends get a *PeerLostError that says how far it came. Between streams there is
// no order.
//
// A message is acknowledged when the consumer's end has stored it: in the memory
// of the consumer's process, which survives the loss of any link, and not that
// of the process. It is settled when the consumer has handled it, that is when
// it has asked for the next one. Flush and Drain wait for acknowledgements; room
// at the high-water mark comes back with settlements, and Stats tells both.
//
// # Coming and going
//
// Nodes, producers and consumers come and go while others work. Each of the three
// has two ways to leave. Close is at once: what was under way is in doubt, and
// who is concerned gets a *PeerLostError with the exact positions. Drain takes
// its time and loses nothing: a consumer gets what was accepted for it, and a
// producer's messages are acknowledged. Whoever sends to a consumer that has left
// gets an *UnknownConsumerError; SendKey and SendAll go to those that are there.
// So all nodes can be restarted one after another, each with Node.Drain, while
// the others go on.
//
// A node that is started again is a new incarnation: the directory gives it a
// greater number. What its former life still sends is refused from then on, and
// so is whoever claims a name or an incarnation that the directory does not name.
//
// # Many processes on one host
//
// A node that takes workers (Config.Workers, or the command zfab node) shares its
// links with other processes of its host. Each of them is a worker: Attach gives it
// a Node with a name and streams of its own. Its streams end in it, and not in the
// node, which only passes packets on, by label and within what each way was lent. So
// the end of the node is for them what the loss of a link is: they go on as soon
// as it is back. The end of a worker is known at once, as its connection ends with
// it: it is out of the directory, and its peers get a *PeerLostError. A worker that
// stops, or stops reading, holds up its own streams only.
//
// # Bounds
//
// A stream holds at most its high-water mark, or one message if that is larger,
// counting both nodes and the way between them. Consumers' room is lent on
// demand from Config.MemoryBudget.
//
// # Reading the source
//
// node.go opens, attach.go attaches, and close.go ends. peers.go keeps one link to each other node,
// which admit.go takes and dial.go looks for; channel.go turns what the directory
// tells into streams. workers.go takes workers, circuits.go finds the ways of their
// circuits, relay.go passes on what they ask the directory. producer.go and consumer.go are the two ends that
// applications hold. Below lie internal/peering (which connection is the link),
// internal/link (all streams of one link), internal/flow (credit), internal/wire
// (records) and internal/transport (ZMTP).
package fabric
