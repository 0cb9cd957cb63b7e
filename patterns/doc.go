// Package patterns is what people build with: ways for producers and consumers
// to work together, over the public API of package fabric.
//
//	Exchange               all to all, by key or addressed, with an agreed end
//	Rounds                 the same in rounds with a barrier, and combined before sending
//	Pusher, Puller         a pipeline: jobs for whichever worker has room
//	Requester, Replier     calls with an answer, or with a stream of them
//	Publisher, Subscriber  messages for whoever wants their topic
//	Broadcaster, Listeners one copy for each node, however many listen there
//	Gatherer, Contributor  very many streams to one consumer, each with its share
//	EventPublisher and
//	EventMember            events by key, in order, to the members of a group
//	Surveyor, Respondent   one question to all, and who has not answered
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
// # Request and reply
//
// A Requester calls the servers of a channel, its Repliers.
//
//	server, err := patterns.OpenReplier(ctx, node, patterns.ReplierConfig[Query, Answer]{Channel: "cities"},
//		func(ctx context.Context, q Query) (Answer, error) { ... })
//
//	requester, err := patterns.OpenRequester(ctx, node, patterns.RequesterConfig[Query, Answer]{Channel: "cities"})
//	answer, err := requester.Call(ctx, Query{...})
//
// Delivery: a request is done at most once; at least once, if it is answered and
// the call is marked idempotent or hedged. Order: none between calls, and that of
// the server within a stream. What blocks: a call, until it is answered. What a
// dead peer means: a dead server's calls fail at once, or move if they are
// idempotent; a dead caller's handlers' contexts end.
//
// # Publish and subscribe
//
// A Publisher publishes under topics, and each Subscriber of the channel gets what
// its filters take: prefixes as ZeroMQ has them, patterns as NATS does.
//
//	publisher, err := patterns.OpenPublisher(ctx, node, patterns.PublisherConfig[Wind]{Channel: "weather", Retain: 1000})
//	err = publisher.Publish(ctx, "oslo.wind", Wind{...})
//
//	subscriber, err := patterns.OpenSubscriber(ctx, node, patterns.SubscriberConfig[Wind]{
//		Channel: "weather", Filters: []patterns.Filter{patterns.Pattern("*.wind")}, Retained: true,
//	})
//	for m, err := range subscriber.Messages(ctx) {
//		...
//	}
//
// Publishers filter: a node gets what some subscriber there wants, in one copy.
// OpenSubscriber returns when all publishers have confirmed, so that nothing that is
// published afterwards is missed, and what was kept of the past comes before it.
//
// A subscriber that does not keep up has a quality. There are two places in which
// messages wait: at the publisher, for a node whose stream is full (Backlog), and at
// the node, for the subscriber to read (Queue).
//
//	               at the publisher                  at the subscriber
//	Latest         beyond Backlog the oldest is      beyond Queue the oldest is dropped; with
//	               dropped; with Conflate one that   Conflate one that waits gives way to a
//	               waits gives way to a newer one    newer one of its topic
//	BoundedDrop    beyond Backlog the oldest is      what finds no room in Queue is dropped
//	               dropped
//	Reliable       nothing is dropped: Publish waits until there is room in Queue, or
//	               evicts the subscriber after EvictAfter
//
// A copy for several subscribers of a node has the strongest quality of them at the
// publisher: it is not dropped if one of them is reliable, and gives way to a newer
// one only if all of them conflate. What is dropped at the publisher is counted there for each
// subscriber that wanted it, and told to it in its place; so SubscriberStats.Missed
// has all that was dropped on either side. With BoundedDrop, a *MissedError stands
// in the place of what is missing. Conflated messages are counted where they gave
// way.
//
// Delivery: once, to who is subscribed when it is published, unless its quality drops
// it; publishers keep the past in memory, for who asks. Order: that of each publisher.
// What blocks: Publish, for reliable subscribers only. What a dead peer means: a
// publisher forgets the subscribers of a lost node at once; a subscriber is told that
// a publisher's node is lost, and goes on with the others. A node that has had no
// connection for a while and whose lease has ended counts as lost.
//
// # Survey
//
// A Surveyor asks all Respondents of a channel that the directory knows, until a
// deadline, a quorum, or everyone has answered. A Replier is a Respondent.
//
//	surveyor, err := patterns.OpenSurveyor(ctx, node, patterns.SurveyorConfig[Query, Answer]{Channel: "cities"})
//	survey := surveyor.Ask(ctx, Query{...}, patterns.SurveyOptions{Quorum: 3})
//	for answer, err := range survey.Answers() {
//		...
//	}
//	result := survey.Result() // who has answered, failed, is missing or lost
//
// Delivery: a question reaches each respondent once at most, and an answer that
// comes too late is dropped and counted. Order: none. What blocks: the iteration,
// until the next answer. What a dead peer means: a dead respondent is told as lost
// at once, and not waited for.
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
// Finish or Drain, or a *fabric.UnknownConsumerError if it has left in the middle.
// Who received from it gets one from Receive, unless all of its producers had
// finished; it may go on with the others, and ends with an *UnfinishedError
// instead of fabric.ErrEnd. A link that breaks and comes back within the resume
// window is not a loss, and nobody notices.
//
// # Rounds
//
// Rounds are an all-to-all that is done again and again, with a barrier between: a
// consumer's iteration of a round ends when every producer has ended it, and no
// producer is further ahead of any consumer than so many rounds as may be open.
// Values by the same key can be combined in the producer's memory, so that fewer
// are sent.
//
//	words, err := patterns.OpenRounds(ctx, node, patterns.RoundsConfig[int]{
//		ExchangeConfig: patterns.ExchangeConfig{Channel: "words", Nodes: 8, Producers: 4, Consumers: 4},
//		Combine:        func(a, b int) int { return a + b },
//	})
//	err = words.Producer(0).SendKey(ctx, word, 1)
//	err = words.Producer(0).EndRound(ctx)
//
//	round, err := words.Consumer(0).Next(ctx)
//	for v, err := range words.Consumer(0).Values(ctx) {
//		...
//	}
//
// Delivery: as with an Exchange. Order: that of the sending, from one producer to
// one consumer, and rounds one after another; combined values have none. What
// blocks: sending, while the stream to that consumer is at its high-water mark, and
// the begin of a round, while too many are open. What a dead peer means: rounds that
// lack a lost producer's part end with an *UnfinishedError; nobody waits for it.
//
// # Broadcast and gathering
//
// A Broadcaster sends to all Listeners of all nodes; a link carries one copy of each
// value, which the node keeps until all of its listeners have it. A Gatherer is the
// other way: one consumer of what all Contributors send.
//
//	listeners, err := patterns.OpenListeners(ctx, node, patterns.ListenersConfig[Weights]{Channel: "weights", Listeners: 16})
//	for w, err := range listeners.Listener(0).Values(ctx) {
//		...
//	}
//	broadcaster, err := patterns.OpenBroadcaster(ctx, node, patterns.BroadcasterConfig[Weights]{Channel: "weights"})
//	err = broadcaster.Send(ctx, weights)
//
//	gatherer, err := patterns.OpenGatherer(ctx, node, patterns.GathererConfig[Sum]{Channel: "sums", Contributors: 1000})
//	contributor, err := patterns.OpenContributor(ctx, node, patterns.ContributorConfig[Sum]{Channel: "sums"})
//	err = contributor.Send(ctx, sum)
//	for s, err := range gatherer.Values(ctx) {
//		...
//	}
//
// Delivery: once, unless one of the two nodes is lost. Order: that of each sender.
// What blocks: a broadcaster, while the slowest listener of a node is behind by what
// node and stream may hold; a contributor, while its stream is at its high-water mark.
// What a dead peer means: a *fabric.PeerLostError at the other end, which goes on with
// all others.
//
// # Events
//
// An EventPublisher sends events to a group of EventMembers. Keys are divided into
// partitions, each of which one member owns; partitions move when members come or go.
//
//	publisher, err := patterns.OpenEventPublisher(ctx, node, patterns.EventPublisherConfig[Change]{Channel: "accounts"})
//	err = publisher.Publish(ctx, account, Change{...})
//
//	member, err := patterns.OpenEventMember(ctx, node, patterns.EventMemberConfig[Change]{Channel: "accounts"})
//	err = member.Handle(ctx, 8, func(ctx context.Context, e patterns.Event[Change]) error { ... })
//
// Delivery: at least once, until a member acknowledges. Order: that of the publishing
// for the events of a key, whichever members handle them. What blocks: Publish, while
// too much of the key's partition is not acknowledged. What a dead peer means: a
// member's partitions move when its lease has ended and its node has no connection, and
// what it has not acknowledged is delivered again, marked; with a publisher its
// unacknowledged events are lost.
//
// # Reading the source
//
// codec.go is values and messages, record.go what patterns say beside them
// (PROTOCOL.md has the bytes), slots.go the numbers by which they refer to things.
// balance.go, distribute.go and fairqueue.go are the strategies below all
// patterns; bell.go wakes those who wait.
//
// exchange.go opens and closes an Exchange; shape.go is who was promised, and
// roll.go who came. exchange_producer.go and exchange_consumer.go are the two
// ends.
//
// rounds.go tells how rounds go, over several exchanges. rounds_producer.go and
// rounds_consumer.go are the two ends, rounds_barrier.go is what a producer waits
// at, rounds_combiner.go what it keeps.
//
// events.go tells an event's way. events_publisher.go and events_member.go are the two
// ends; events_partition.go gives partitions to members, events_hand.go is what a
// member's program has, events_handle.go runs handlers, events_touch.go looks whether
// they are a member's still.
//
// broadcast.go tells how a broadcast gets to all and contributions to one:
// broadcast_fan.go is what a node keeps for its listeners, gather_lane.go how a
// gatherer takes from all in turn.
//
// pipeline.go tells a job's way. pipeline_pusher.go and pipeline_puller.go are the
// two ends; pipeline_push.go chooses a worker, pipeline_lane.go follows the
// workers, pipeline_hand.go is what a worker's program has, pipeline_work.go runs
// handlers.
//
// request.go tells a call's way. request_requester.go and request_replier.go are
// the two ends; request_call.go chooses servers and waits, request_replies.go
// takes what they say, request_serve.go runs handlers.
//
// pubsub.go tells a message's way. pubsub_topic.go and pubsub_match.go are topics, and
// who wants them. pubsub_publisher.go and pubsub_subscriber.go are the two ends;
// pubsub_publish.go sends, pubsub_outlet.go has what a node's stream has no room for,
// pubsub_history.go the past, and pubsub_hear.go takes what subscribers' nodes say.
// pubsub_hub.go is what a node's subscribers share, pubsub_read.go takes what
// publishers send to it, and pubsub_queue.go is what each subscriber has.
//
// survey.go tells a survey's way, and survey_poll.go goes it: it is a call to all,
// with request and reply's records.
//
// roster.go is who is at the other end, as a pusher, requester or publisher of events
// knows it; greeter.go is how those come to be known, and meetings.go who has answered
// them. absence.go is for how long somebody was not there.
package patterns
