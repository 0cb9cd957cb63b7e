// Package patterns is what people build with: ways for producers and consumers
// to work together, over the public API of package fabric.
//
// # Exchange
//
// An Exchange is the all-to-all: every producer of every node sends to every
// consumer of every node, by key, by address or to all, and each consumer's
// iteration ends when all producers have finished.
//
//	ex, err := patterns.OpenExchange(ctx, node, patterns.ExchangeConfig{
//		Channel: "scores", Nodes: 8, Producers: 4, Consumers: 4,
//	})
//	err = ex.Producer(0).SendKey(ctx, key, body)
//	err = ex.Producer(0).Finish()
//	for m, err := range ex.Consumer(0).Messages(ctx) {
//		...
//	}
//
// Delivery: what Send accepts arrives once, unless one of the two nodes is lost.
//
// Order: from one producer to one consumer that of the sending; none between
// different producers, nor between what one producer sends to different
// consumers.
//
// What blocks: OpenExchange, until all that were promised are there. Send, while
// the stream to that one consumer is at its high-water mark. Receive, while
// there is nothing. Each ends with its context. A consumer that does not read
// holds up what is sent to it, and nothing else; a program that sends and
// receives in one goroutine can therefore wait for itself.
//
// What a dead peer means: who sent to it gets a *fabric.PeerLostError from Send,
// Finish or Drain. Who received from it gets one from Receive, unless all of its
// producers had finished; it may go on with the others, and ends with an
// *UnfinishedError instead of fabric.ErrEnd. A link that breaks and comes back
// within the resume window is not a loss, and nobody notices.
//
// # Reading the source
//
// exchange.go opens and closes an Exchange; shape.go is who was promised, and
// roll.go who came. exchange_producer.go and exchange_consumer.go are the two
// ends.
package patterns
