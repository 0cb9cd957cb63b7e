// Package patterns is what people build with: ways for producers and consumers
// to work together, over the public API of package fabric.
//
//	Exchange               all to all, by key or addressed, with an agreed end
//	Pusher, Puller         a pipeline: jobs for whichever worker has room
//
// # Values
//
// A pattern of type T carries values of that type. []byte goes as it is; all else
// is MessagePack, unless the config names another Codec. What is common to all:
//
//   - A value is encoded before the call that sends it returns, and belongs to the
//     program again then.
//   - What comes from a peer is checked before it is decoded. A message of another
//     type is a *CodecError at the receiving end, and no harm to the messages
//     behind it.
//   - A []byte that was received is the message itself, valid for as long as the
//     pattern says; Keep copies it. Values from MessagePack refer to nothing.
//
// A pattern's channel carries nothing else. What somebody else sends there is
// dropped and counted, and a *RecordError where somebody receives.
//
// # Pipeline
//
// A Pusher gives jobs to workers, its Pullers, each to one that has room; more to
// those who are faster.
//
//	pusher, err := patterns.OpenPusher(ctx, node, patterns.PusherConfig[Image]{Channel: "images"})
//	err = pusher.Push(ctx, Image{...})
//	err = pusher.Drain(ctx) // all done
//
//	puller, err := patterns.OpenPuller(ctx, node, patterns.PullerConfig[Image]{Channel: "images", Pushers: 1})
//	for job, err := range puller.Jobs(ctx) {
//		...
//		err = job.Ack()
//	}
//
// Delivery: at least once, until a worker acknowledges; or at most once, if the
// pusher is so configured. Order: none. What blocks: Push, while no worker has
// room or too much is unsettled. What a dead peer means: a worker's unsettled jobs
// go to others, marked as redelivered; with a pusher its unsettled jobs are lost.
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
// codec.go is values and messages, record.go what patterns say beside them
// (PROTOCOL.md has the bytes), slots.go the numbers by which they refer to things.
// balance.go, distribute.go and fairqueue.go are the strategies below all
// patterns.
//
// exchange.go opens and closes an Exchange; shape.go is who was promised, and
// roll.go who came. exchange_producer.go and exchange_consumer.go are the two
// ends.
//
// pipeline.go tells a job's way. pipeline_pusher.go and pipeline_puller.go are the
// two ends; pipeline_push.go chooses a worker, pipeline_lane.go follows the
// workers, pipeline_hand.go is what a worker's program has, pipeline_work.go runs
// handlers.
package patterns
