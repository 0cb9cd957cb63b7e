package runner

import (
	"context"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// openGather makes the node's contributors and, at the first node, the one gatherer, for
// which all contributors wait.
func (m *member) openGather(ctx context.Context, c topology.Channel) error {
	if c.ConsumersAt(m.spec.Node) > 0 {
		sources := numbers(m.spec.Nodes, c.Producers)
		g, err := patterns.OpenGatherer(ctx, m.node, patterns.GathererConfig[[]byte]{
			Channel: c.Name, Contributors: len(sources), HighWaterMark: markOf(c),
		})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, g.Close)
		r := m.newReceiver(c, 0, sources)
		r.receive = gatheredBy(g)
		r.checker = check.NewChecker(uint32(r.number), len(sources))
		m.receivers = append(m.receivers, r)
	}
	for i := range c.Producers {
		p, err := patterns.OpenContributor(ctx, m.node, patterns.ContributorConfig[[]byte]{Channel: c.Name, HighWaterMark: markOf(c)})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, p.Close)
		if err := checkIndex(c, "contributor", i, p.Address()); err != nil {
			return err
		}
		s, _ := m.newSender(c, i)
		m.setAllTargets(s, c)
		s.way = straight{p.Send, p.Drain}
		m.senders = append(m.senders, s)
	}
	return nil
}

// gatheredBy receives from a gatherer.
func gatheredBy(g *patterns.Gatherer[[]byte]) func(context.Context) (fabric.Address, []byte, error) {
	return func(ctx context.Context) (fabric.Address, []byte, error) {
		v, err := g.Receive(ctx)
		return v.Source, v.Value, err
	}
}
