package runner

import (
	"context"
	"runtime/metrics"
	"time"

	"github.com/zfab/zfab/fabric"
)

// usage is the most that a node and its process held, as samples saw it.
type usage struct {
	memory uint64 // bytes that the Go runtime has from the system and in use
	stream int64  // bytes held by one stream at its producer's end
}

const sampleInterval = 200 * time.Millisecond

// watch samples until ctx ends, and once more then.
func (u *usage) watch(ctx context.Context, node *fabric.Node) {
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		u.sample(node)
		select {
		case <-ctx.Done():
			u.sample(node)
			return
		case <-ticker.C:
		}
	}
}

func (u *usage) sample(node *fabric.Node) {
	u.memory = max(u.memory, memoryInUse())
	for _, s := range node.Stats().Streams {
		if !s.Receiving {
			u.stream = max(u.stream, int64(s.DepthBytes))
		}
	}
}

func memoryInUse() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// linkedPeers are the nodes that this one is linked with.
func linkedPeers(node *fabric.Node) []string {
	var peers []string
	for _, l := range node.Stats().Links {
		if l.Up {
			peers = append(peers, l.Peer)
		}
	}
	return peers
}
