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
// A message is acknowledged when the consumer's node has stored it, and settled
// when the consumer has asked for the next one. Flush waits for the former.
//
// # Bounds
//
// A stream holds at most its high-water mark, or one message if that is larger,
// counting both nodes and the way between them. Consumers' room is lent on
// demand from Config.MemoryBudget.
//
// # Reading the source
//
// node.go opens and closes; peers.go keeps one link to each other node;
// channel.go turns what the directory tells into streams. producer.go and
// consumer.go are the two ends that applications hold. Below lie internal/link
// (all streams of one link), internal/flow (credit), internal/wire (records) and
// internal/transport (ZMTP).
package fabric
