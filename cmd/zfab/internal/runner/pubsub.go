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
	mark := fabric.HighWaterMark{Bytes: int64(c.HighWaterMark), Messages: c.HighWaterMarkMessages}
	load, loaded := (&topology.Topology{Loads: m.spec.Loads}).Load(c.Name)
	if !loaded {
		load.Channel = c.Name
	}
	for i := range c.Producers {
		p, err := patterns.OpenPublisher(ctx, m.node, patterns.PublisherConfig[[]byte]{Channel: c.Name, HighWaterMark: mark})
		if err != nil {
			return err
		}
		if p.Address().Index != i {
			return fmt.Errorf("publisher %d of %s: %w", i, c.Name, fabric.ErrIndexTaken)
		}
		s := &sender{publisher: p, number: number(m.spec.Node, i, c.Producers), load: load, plant: m.spec.Plant}
		for topic := range topicsEach {
			s.topics = append(s.topics, fmt.Sprintf("p%d.%d", s.number, topic))
		}
		for n := range m.spec.Nodes * c.Consumers {
			t := &target{consumer: uint32(n)}
			t.stalls = m.stalls(topology.Consumer{Channel: c.Name, Node: n/c.Consumers + 1, Index: n % c.Consumers})
			s.targets = append(s.targets, t)
		}
		m.senders = append(m.senders, s)
	}
	sources := numbers(m.spec.Nodes, c.Producers)
	for i := range c.Consumers {
		s, err := patterns.OpenSubscriber(ctx, m.node, patterns.SubscriberConfig[[]byte]{
			Channel: c.Name, Filters: allTopics[i%len(allTopics)], Quality: patterns.Reliable, Queue: mark, Publishers: len(sources),
		})
		if err != nil {
			return err
		}
		n := number(m.spec.Node, i, c.Consumers)
		m.receivers = append(m.receivers, &receiver{
			receive: publicationsOf(s), node: m.node.Name(), channel: c.Name, number: n, sources: sources,
			checker: check.NewChecker(uint32(n), len(sources)), latency: newLatency(),
		})
	}
	for _, s := range m.senders {
		if s.publisher == nil || s.load.Channel != c.Name {
			continue
		}
		if err := s.publisher.WaitSubscribers(ctx, m.spec.Nodes*c.Consumers); err != nil {
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

// publish sends a message to all, under the next topic.
func (s *sender) publish(ctx context.Context, body []byte) error {
	s.turn = (s.turn + 1) % len(s.topics)
	return s.publisher.Publish(ctx, s.topics[s.turn], body)
}
