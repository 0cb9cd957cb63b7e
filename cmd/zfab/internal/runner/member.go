package runner

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

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
	clock     clock          // set when the run starts
	over      chan struct{}  // closed when the parent ends the load; nil where the load ends by itself
	closers   []func() error // of workers that do not end with their node

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
		if err := openers[c.Pattern](m, ctx, c); err != nil {
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

// newReceiver is the node's consumer of that index, without what its pattern adds.
// sources are the channel's producers.
func (m *member) newReceiver(c topology.Channel, index int, sources map[fabric.Address]int) *receiver {
	return &receiver{
		node: m.node.Name(), channel: c.Name, number: number(m.spec.Node, index, c.Consumers),
		sources: sources, latency: newLatency(),
	}
}

// newSender is the node's producer of that index, without what its pattern adds; false
// if the channel has no load.
func (m *member) newSender(c topology.Channel, index int) (s *sender, loaded bool) {
	load, loaded := (&topology.Topology{Loads: m.spec.Loads}).Load(c.Name)
	load.Channel = c.Name
	return &sender{number: number(m.spec.Node, index, c.Producers), load: load, plant: m.spec.Plant}, loaded
}

// checkIndex is an error if the fabric has given a worker another index than ours, by
// which the others know it.
func checkIndex(c topology.Channel, what string, index int, at fabric.Address) error {
	if at.Index == index {
		return nil
	}
	return fmt.Errorf("%s %d of %s: %w", what, index, c.Name, fabric.ErrIndexTaken)
}

func (m *member) newTarget(s *sender, consumer int, c topology.Channel) *target {
	return &target{
		consumer: uint32(consumer),
		stalls:   m.stalls(topology.Consumer{Channel: c.Name, Node: consumer/c.Consumers + 1, Index: consumer % c.Consumers}),
		planted:  m.plants(s, consumer, c),
	}
}

// setAllTargets gives a sender whose messages go to all consumers a target for each.
func (m *member) setAllTargets(s *sender, c topology.Channel) {
	for n := range c.AllConsumers(m.spec.Nodes) {
		s.targets = append(s.targets, m.newTarget(s, n, c))
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
		workers.Go(func() { m.note("a producer without a load", p.Drain(ctx)) })
	}
	workers.Wait()
	stop()
	attendants.Wait()
	return m.result(line)
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

// close ends the workers that want it, all at once, and the node with all others.
func (m *member) close() {
	var all sync.WaitGroup
	for _, c := range m.closers {
		all.Go(func() { c() }) // what it could say does not matter any more
	}
	all.Wait()
	m.node.Close()
}
