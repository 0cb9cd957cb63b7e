package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/patterns"
)

// A member is one node of a run with its workers.
type member struct {
	spec      Spec
	node      *fabric.Node
	receivers []*receiver
	senders   []*sender
	idle      []*patterns.ExchangeProducer // of channels without a load
	usage     usage
	clock     clock         // set when the run starts
	over      chan struct{} // closed when the parent ends the load; nil where the load ends by itself

	mu       sync.Mutex
	problems []string
}

// openMember opens the node and its part in every channel. It returns when all
// nodes have theirs.
func openMember(ctx context.Context, spec Spec, at where, dir directory.Service, logger *slog.Logger) (*member, error) {
	name := topology.NodeName(spec.Node)
	node, err := openNode(ctx, name, spec, at, dir, logger)
	if err != nil {
		return nil, err
	}
	m := &member{spec: spec, node: node}
	if spec.kills() {
		m.over = make(chan struct{})
	}
	for _, c := range spec.Channels {
		if err := m.openChannel(ctx, c); err != nil {
			m.close()
			return nil, fmt.Errorf("node %s: %w", name, err)
		}
	}
	return m, nil
}

func openNode(ctx context.Context, name string, spec Spec, at where, dir directory.Service, logger *slog.Logger) (*fabric.Node, error) {
	if at.attach == "" {
		return fabric.Open(ctx, fabric.Config{
			Name: name, Listen: at.listen, Directory: reroute(dir, spec.Via), MaxMessage: int(topology.MaxMessage), Logger: logger,
			HeartbeatInterval: spec.Heartbeat.Interval, HeartbeatTimeout: spec.Heartbeat.Timeout,
		})
	}
	if len(spec.Via) > 0 {
		return nil, fmt.Errorf("node %s: its links cannot go through proxies, as it attaches to %s: take the faults of links out", name, at.attach)
	}
	return fabric.Attach(ctx, at.attach, fabric.AttachConfig{
		Name: name, MaxMessage: int(topology.MaxMessage), Logger: logger,
		HeartbeatInterval: spec.Heartbeat.Interval, HeartbeatTimeout: spec.Heartbeat.Timeout,
	})
}

func (m *member) openChannel(ctx context.Context, c topology.Channel) error {
	if c.Pattern == topology.OpenExchange {
		return m.openOpen(ctx, c)
	}
	if c.Pattern == topology.PubSub {
		return m.openPubSub(ctx, c)
	}
	exchange, err := patterns.OpenExchange(ctx, m.node, patterns.ExchangeConfig{
		Channel: c.Name, Nodes: m.spec.Nodes, Producers: c.Producers, Consumers: c.Consumers,
		HighWaterMark: fabric.HighWaterMark{Bytes: int64(c.HighWaterMark), Messages: c.HighWaterMarkMessages},
	})
	if err != nil {
		return err
	}
	sources := numbers(m.spec.Nodes, c.Producers)
	for i, consumer := range exchange.Consumers() {
		n := number(m.spec.Node, i, c.Consumers)
		m.receivers = append(m.receivers, &receiver{
			receive: messagesOf(consumer), node: m.node.Name(), channel: c.Name, number: n, sources: sources,
			checker: check.NewChecker(uint32(n), len(sources)), latency: newLatency(),
		})
	}
	load, loaded := (&topology.Topology{Loads: m.spec.Loads}).Load(c.Name)
	for i, p := range exchange.Producers() {
		if !loaded {
			m.idle = append(m.idle, p)
			continue
		}
		s := &sender{exchange: exchange, producer: p, number: number(m.spec.Node, i, c.Producers), load: load, plant: m.spec.Plant}
		m.setTargets(s, c)
		m.senders = append(m.senders, s)
	}
	return nil
}

// numbers are those of a channel's producers, or consumers, by address.
func numbers(nodes, perNode int) map[fabric.Address]int {
	all := make(map[fabric.Address]int, nodes*perNode)
	for node := 1; node <= nodes; node++ {
		for i := range perNode {
			all[fabric.Address{Node: topology.NodeName(node), Index: i}] = number(node, i, perNode)
		}
	}
	return all
}

// setTargets puts the exchange's targets into the order of our numbers.
func (m *member) setTargets(s *sender, c topology.Channel) {
	consumers := numbers(m.spec.Nodes, c.Consumers)
	s.targets = make([]*target, len(consumers))
	for i, at := range s.exchange.Addresses() {
		n := consumers[at]
		t := &target{to: s.producer.Targets()[i], consumer: uint32(n)}
		t.stalls = m.stalls(topology.Consumer{Channel: c.Name, Node: n/c.Consumers + 1, Index: n % c.Consumers})
		t.planted = m.plants(s, n, c)
		s.targets[n] = t
		s.owners = append(s.owners, t)
	}
}

// plants reports whether a message to that consumer is to be broken: one from the
// first producer to the first consumer of the last node.
func (m *member) plants(s *sender, consumer int, c topology.Channel) bool {
	return s.plant != PlantNothing && s.number == 0 && consumer == (m.spec.Nodes-1)*c.Consumers
}

func (m *member) stalls(c topology.Consumer) bool {
	for _, f := range m.spec.Faults {
		if f.Kind == topology.Stall && f.Consumer == c {
			return true
		}
	}
	return false
}

// run is the run of this node, from the start that m.clock tells until all of
// its workers ended, or ctx did.
func (m *member) run(ctx context.Context) Result {
	c := m.clock
	var workers, attendants sync.WaitGroup
	until, stop := context.WithCancel(ctx)
	line := newTimeline(m.spec.Faults, m.receivers, m.local, c)
	attendants.Go(func() { line.run(until) })
	attendants.Go(func() { m.usage.watch(until, m.node) })
	for _, r := range m.receivers {
		r.clock = c
		workers.Go(func() { m.note(m.name("consumer", r.channel, r.number), r.run(ctx)) })
	}
	for _, s := range m.senders {
		s.clock = c
		workers.Go(func() { m.note(m.name("producer", s.load.Channel, s.number), s.work(ctx)) })
	}
	for _, p := range m.idle {
		workers.Go(func() { m.note("a producer without a load", finish(ctx, p, nil)) })
	}
	workers.Wait()
	stop()
	attendants.Wait()
	return m.result(line)
}

// work sends the load and sees it delivered.
func (s *sender) work(ctx context.Context) error {
	err := s.run(ctx)
	switch {
	case s.open != nil:
		return errors.Join(err, s.finish(ctx))
	case s.publisher != nil:
		return errors.Join(err, s.publisher.Drain(ctx))
	}
	return finish(ctx, s.producer, err)
}

// finish tells the consumers that the producer is done and waits until they
// hold all it sent.
func finish(ctx context.Context, p *patterns.ExchangeProducer, err error) error {
	return errors.Join(err, p.Drain(ctx))
}

func (m *member) name(role, channel string, n int) string {
	c, _ := (&topology.Topology{Channels: m.spec.Channels}).Channel(channel)
	perNode := c.Consumers
	if role == "producer" {
		perNode = c.Producers
	}
	return role + " " + workerName(channel, n, perNode)
}

func (m *member) note(who string, err error) {
	if err == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problems = append(m.problems, fmt.Sprintf("%s: %s", who, strings.ReplaceAll(err.Error(), "\n", "; ")))
}

// local is the receiver of a consumer of this node.
func (m *member) local(c topology.Consumer) *receiver {
	channel, _ := (&topology.Topology{Channels: m.spec.Channels}).Channel(c.Channel)
	for _, r := range m.receivers {
		if !m.spec.Harmless && c.Node == m.spec.Node && r.channel == c.Channel && r.number == number(c.Node, c.Index, channel.Consumers) {
			return r
		}
	}
	return nil
}

func (m *member) result(line *timeline) Result {
	r := Result{Node: m.spec.Node, Life: m.spec.Life, Peers: linkedPeers(m.node), Memory: m.usage.memory, Stream: m.usage.stream, Problems: m.problems}
	for _, s := range m.senders {
		r.Producers = append(r.Producers, s.result())
	}
	for i, v := range m.receivers {
		r.Consumers = append(r.Consumers, v.result(line.windows[i]))
	}
	r.Errors = m.losses()
	return r
}

// received is what the node's consumers have so far; any goroutine may ask.
func (m *member) received() uint64 {
	n := uint64(0)
	for _, r := range m.receivers {
		n += r.received.Load()
	}
	return n
}

// close ends the node, and its part in the exchanges with it.
func (m *member) close() { m.node.Close() }
