package runner

import (
	"context"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// openBroadcast makes the node's broadcasters and listeners, and waits until all nodes
// have listeners.
func (m *member) openBroadcast(ctx context.Context, c topology.Channel) error {
	sources := numbers(m.spec.Nodes, c.Producers)
	listeners, err := patterns.OpenListeners(ctx, m.node, patterns.ListenersConfig[[]byte]{
		Channel: c.Name, Listeners: c.Consumers, Broadcasters: len(sources), Queue: markOf(c), HighWaterMark: markOf(c),
	})
	if err != nil {
		return err
	}
	m.closers = append(m.closers, listeners.Close)
	for i, l := range listeners.All() {
		r := m.newReceiver(c, i, sources)
		r.receive = heardBy(l)
		r.checker = check.NewChecker(uint32(r.number), len(sources))
		m.receivers = append(m.receivers, r)
	}
	for i := range c.Producers {
		b, err := patterns.OpenBroadcaster(ctx, m.node, patterns.BroadcasterConfig[[]byte]{Channel: c.Name, HighWaterMark: markOf(c)})
		if err != nil {
			return err
		}
		m.closers = append(m.closers, b.Close)
		if err := checkIndex(c, "broadcaster", i, b.Address()); err != nil {
			return err
		}
		if err := b.WaitNodes(ctx, m.spec.Nodes); err != nil {
			return err
		}
		s, _ := m.newSender(c, i)
		m.setAllTargets(s, c)
		s.way = straight{b.Send, b.Drain}
		m.senders = append(m.senders, s)
	}
	return nil
}

// heardBy receives from a listener.
func heardBy(l *patterns.Listener[[]byte]) func(context.Context) (fabric.Address, []byte, error) {
	return func(ctx context.Context) (fabric.Address, []byte, error) {
		h, err := l.Receive(ctx)
		return h.Source, h.Value, err
	}
}
