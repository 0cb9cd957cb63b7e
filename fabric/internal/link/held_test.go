package link

import (
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// A consumer's end that counts bytes as handled which it has not even stored
// must not make the producer's end hold more than its mark.
func TestConsumptionOfBytesThatWereNotStored(t *testing.T) {
	mark := flow.Mark{Messages: 1 << 16, Bytes: 100_000}
	l := New(testConfig(mark), "liar")
	s := l.Stream("c", 0, mark)
	l.core.attach(1 << 20)
	p := wire.AppendOpen(nil, 0, "c", 0, 1)
	if err := l.core.handle(wire.AppendState(p, &wire.State{LimitMessages: 1 << 40, LimitBytes: 1 << 40}), nil); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		for s.TrySend(testSenders[0], make([]byte, 50_000)) == nil {
		}
		b := batchPool.Get().(*batch)
		l.core.gather(b)
		b.reset()
		batchPool.Put(b)
		p := wire.AppendState(nil, &wire.State{ConsumedBytes: s.flow.Sent.Bytes, LimitMessages: 1 << 40, LimitBytes: 1 << 40})
		if err := l.core.handle(p, nil); err != nil {
			t.Log(err)
			return
		}
	}
	held := 0
	for _, c := range s.q.chunks[s.q.head:] {
		held += c.bytes
	}
	t.Errorf("%d bytes are held over a mark of %d", held, mark.Bytes)
}
