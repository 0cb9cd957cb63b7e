package patterns

import (
	"errors"
	"fmt"
	"slices"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// ExchangeConfig says how a node takes part in an Exchange. All nodes must mean
// the same shape: either Nodes, each with as many producers and consumers as
// this one, or the totals.
type ExchangeConfig struct {
	// Channel is the exchange's, and carries nothing else: a second exchange,
	// also a later one, takes another name.
	Channel string
	// Producers and Consumers are how many this node has. With totals, either
	// may be 0.
	Producers, Consumers int
	// Nodes is how many nodes take part. Default: as many as Names.
	Nodes int
	// TotalProducers and TotalConsumers are how many there are on all nodes
	// together, where nodes differ. Default: Nodes times this node's.
	TotalProducers, TotalConsumers int
	// Names are the nodes that take part. Others are refused then, and a node of
	// which nothing is heard can be named. Default: whoever comes.
	Names []string
	// HighWaterMark bounds each stream: there is one from every node to every
	// consumer, which the node's producers share. Default: fabric's.
	HighWaterMark fabric.HighWaterMark
}

// shape is what a config promises.
type shape struct {
	channel       string
	node          string // this one
	even          bool   // every node has as many as this one
	perNode       [2]int
	total         [2]int
	nodes         int // 0: not known
	names         map[string]bool
	needProducers bool // opening waits for producers, too
}

// Members' kinds as indices.
const (
	producers = iota
	consumers
)

func kindOf(r directory.Role) int {
	if r == directory.Consumer {
		return consumers
	}
	return producers
}

func newShape(node string, cfg ExchangeConfig) (*shape, error) {
	s := &shape{channel: cfg.Channel, node: node, perNode: [2]int{cfg.Producers, cfg.Consumers}, nodes: cfg.Nodes}
	if min(cfg.Producers, cfg.Consumers, cfg.Nodes, cfg.TotalProducers, cfg.TotalConsumers) < 0 {
		return nil, errors.New("a count is negative")
	}
	if len(cfg.Names) > 0 {
		s.names = make(map[string]bool)
		for _, name := range cfg.Names {
			if s.names[name] {
				return nil, fmt.Errorf("node %s is named twice", name)
			}
			s.names[name] = true
		}
		if !s.names[node] {
			return nil, fmt.Errorf("this node, %s, is not among the names", node)
		}
		if s.nodes == 0 {
			s.nodes = len(s.names)
		}
		if s.nodes != len(s.names) {
			return nil, fmt.Errorf("%d nodes are promised and %d named", s.nodes, len(s.names))
		}
	}
	s.even = cfg.TotalProducers == 0 && cfg.TotalConsumers == 0
	if s.even {
		switch {
		case s.nodes == 0:
			return nil, errors.New("neither Nodes nor totals are given")
		case cfg.Producers == 0 || cfg.Consumers == 0:
			return nil, errors.New("a node without producers or without consumers needs totals")
		}
		s.total = [2]int{s.nodes * cfg.Producers, s.nodes * cfg.Consumers}
		return s, nil
	}
	switch {
	case cfg.TotalProducers == 0 || cfg.TotalConsumers == 0:
		return nil, errors.New("only one of the totals is given")
	case cfg.TotalProducers < cfg.Producers || cfg.TotalConsumers < cfg.Consumers:
		return nil, errors.New("this node alone has more than the totals")
	case cfg.Nodes > 0 && len(cfg.Names) == 0:
		return nil, errors.New("totals and Nodes are given: with totals, give Names or neither")
	}
	s.total = [2]int{cfg.TotalProducers, cfg.TotalConsumers}
	s.needProducers = cfg.Consumers > 0
	return s, nil
}

// fits reports whether the shape has a place for the member.
func (s *shape) fits(m directory.Member) bool {
	return (s.names == nil || s.names[m.Node]) && (!s.even || m.Index < s.perNode[kindOf(m.Role)])
}

// of is the addresses of one kind at nodes that have as many as this one.
func (s *shape) of(kind int, nodes []string) []fabric.Address {
	var list []fabric.Address
	for _, node := range slices.Sorted(slices.Values(nodes)) {
		for i := range s.perNode[kind] {
			list = append(list, fabric.Address{Node: node, Index: i})
		}
	}
	return list
}
