package fabric

import (
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// What is read right to its place, as the fragments of a large message are,
// counts as any other bytes.
func TestLinksCountTheBytesOfLargeMessages(t *testing.T) {
	dir := directory.NewRegistry()
	a, b := openNode(t, dir, "a"), openNode(t, dir, "b")
	c := newConsumer(t, b, "x", ConsumerConfig{})
	p := newProducer(t, a, "x", ProducerConfig{})
	ctx := testContext(t)
	const size = 3 << 20
	if err := p.Send(ctx, Address{"b", 0}, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	out, in := a.Stats().Links[0].BytesOut, b.Stats().Links[0].BytesIn
	if out < size || in < size || in > out {
		t.Errorf("%d bytes out, %d bytes in for a message of %d", out, in, size)
	}
}
