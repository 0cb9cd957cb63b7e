package fabric

import (
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// A process that does not get to run hears nothing of itself for many heartbeats:
// its link to itself goes on all the same, as nobody would make another one.
func TestTheLinkToItselfOutlivesSilence(t *testing.T) {
	ctx := testContext(t)
	n := openNode(t, directory.NewRegistry(), "n")
	p, c := newProducer(t, n, "x", ProducerConfig{}), newConsumer(t, n, "x", ConsumerConfig{})
	to := waitTarget(t, ctx, p, c.Address())
	for i := range 20 {
		for range 1000 { // heartbeats, quicker than anybody answers
			n.self.Tick()
			n.selfIn.Tick()
		}
		if err := to.Send(ctx, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, ctx, c, byte(i), byte(i)+1)
	}
}
