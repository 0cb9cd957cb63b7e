package runner

import (
	"context"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// A way is how the producers of a pattern send.
type way interface {
	// send sends the sender's whole load. When it returns, the pattern has accepted
	// all of it.
	send(ctx context.Context, s *sender) error
	// finish says that the producer is done, and waits until what it sent is where
	// the pattern has to bring it.
	finish(ctx context.Context, s *sender) error
	// tell puts into the result what was sent.
	tell(s *sender, r *ProducerResult)
}

// openers make a node's part in a channel, by its pattern. They return when all nodes
// have theirs.
var openers = map[topology.Pattern]func(*member, context.Context, topology.Channel) error{
	topology.Exchange:     (*member).openExchange,
	topology.OpenExchange: (*member).openOpen,
	topology.PubSub:       (*member).openPubSub,
	topology.Pipeline:     (*member).openPipeline,
	topology.Request:      (*member).openRequest,
	topology.Survey:       (*member).openSurvey,
	topology.Events:       (*member).openEvents,
	topology.Broadcast:    (*member).openBroadcast,
	topology.Gather:       (*member).openGather,
	topology.Rounds:       (*member).openRounds,
}

// A straight way gives every message to the same call, and the pattern brings it to
// all consumers that there are.
type straight struct {
	accept func(ctx context.Context, body []byte) error
	drain  func(ctx context.Context) error
}

func (w straight) send(ctx context.Context, s *sender) error { return s.toAll(ctx, w.accept) }

func (w straight) finish(ctx context.Context, _ *sender) error { return w.drain(ctx) }

func (w straight) tell(s *sender, r *ProducerResult) { r.Sent = s.sent() }
