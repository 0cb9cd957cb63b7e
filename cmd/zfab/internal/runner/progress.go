package runner

import (
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/fabric"
)

// accountInterval is how often a node tells its results so far in a run with
// kills.
const accountInterval = 20 * time.Millisecond

// A streamKey names a stream that a node sends.
type streamKey struct {
	peer, channel string
	consumer      int
}

// account is the node's result so far, without what only the end can tell. Any
// goroutine may call it while the node runs.
//
// How much of a present stream is accepted and acknowledged is the fabric's own
// word, and which stream that is the sender's: so the epochs are read before and
// after, and a stream whose epoch changed meanwhile is left out.
func (m *member) account() Result {
	r := Result{Node: m.spec.Node, Life: m.spec.Life}
	epochs := make([][]check.Epoch, len(m.senders))
	for i, s := range m.senders {
		for _, t := range s.targets {
			epochs[i] = append(epochs[i], t.epoch(s.life))
		}
	}
	stats := make(map[streamKey]fabric.StreamStats)
	for _, st := range m.node.Stats().Streams {
		if !st.Receiving {
			stats[streamKey{st.Peer, st.Channel, st.Consumer}] = st
		}
	}
	for i, s := range m.senders {
		p := ProducerResult{Channel: s.load.Channel, Number: s.number}
		if o, ok := s.way.(*openProducer); ok {
			p.Streams = o.streams(s, stats, epochs[i])
		}
		r.Producers = append(r.Producers, p)
	}
	for _, v := range m.receivers {
		r.Consumers = append(r.Consumers, v.account())
	}
	r.Errors = m.losses()
	return r
}

// losses is how many errors the workers got that are no problems: in open exchanges
// because a peer is gone, and in the place of answers.
func (m *member) losses() int {
	n := 0
	for _, v := range m.receivers {
		n += int(v.lost.Load())
	}
	for _, s := range m.senders {
		switch w := s.way.(type) {
		case *openProducer:
			n += w.losses()
		case *callerWay:
			n += w.failures()
		case *surveyorWay:
			n += w.failures()
		}
	}
	return n
}
