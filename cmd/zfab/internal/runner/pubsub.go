package runner

import (
	"context"
	"fmt"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// topicsEach is how many topics a publisher uses in turn.
const topicsEach = 16

// allTopics are the filters that subscribers have in turn: each takes every topic,
// by another way.
var allTopics = [][]patterns.Filter{
	{patterns.Prefix("")}, {patterns.Pattern(">")}, {patterns.Pattern("*.*")}, {patterns.Prefix("p"), patterns.Pattern("*.>")},
}

// openPubSub makes the node's publishers and subscribers, and waits until all of the
// others are there.
func (m *member) openPubSub(ctx context.Context, c topology.Channel) error {
	var publishers []*patterns.Publisher[[]byte]
	for i := range c.Producers {
		p, err := patterns.OpenPublisher(ctx, m.node, patterns.PublisherConfig[[]byte]{Channel: c.Name, HighWaterMark: markOf(c)})
		if err != nil {
			return err
		}
		if err := checkIndex(c, "publisher", i, p.Address()); err != nil {
			return err
		}
		publishers = append(publishers, p)
		s, _ := m.newSender(c, i)
		m.setAllTargets(s, c)
		s.way = straight{publishing(p, s.number), p.Drain}
		m.senders = append(m.senders, s)
	}
	sources := numbers(m.spec.Nodes, c.Producers)
	for i := range c.Consumers {
		r := m.newReceiver(c, i, sources)
		s, err := patterns.OpenSubscriber(ctx, m.node, patterns.SubscriberConfig[[]byte]{
			Channel: c.Name, Filters: allTopics[i%len(allTopics)], Quality: patterns.Reliable, Queue: markOf(c), Publishers: len(sources),
		})
		if err != nil {
			return err
		}
		r.receive = publicationsOf(s)
		r.checker = check.NewChecker(uint32(r.number), len(sources))
		m.receivers = append(m.receivers, r)
	}
	for _, p := range publishers {
		if err := p.WaitSubscribers(ctx, m.spec.Nodes*c.Consumers); err != nil {
			return err
		}
	}
	return nil
}

// publicationsOf receives from a subscriber.
func publicationsOf(s *patterns.Subscriber[[]byte]) func(context.Context) (fabric.Address, []byte, error) {
	return func(ctx context.Context) (fabric.Address, []byte, error) {
		p, err := s.Receive(ctx)
		return p.Publisher, p.Value, err
	}
}

// publishing publishes each message under the next of the producer's topics.
func publishing(p *patterns.Publisher[[]byte], number int) func(context.Context, []byte) error {
	topics := make([]string, topicsEach)
	for i := range topics {
		topics[i] = fmt.Sprintf("p%d.%d", number, i)
	}
	turn := 0
	return func(ctx context.Context, body []byte) error {
		turn = (turn + 1) % len(topics)
		return p.Publish(ctx, topics[turn], body)
	}
}
