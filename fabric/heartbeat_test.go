package fabric

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// Heartbeats for tests: a peer is given up after 1.6 s, which is long enough for
// a process that has to wait for its turn.
const (
	testHeartbeat        = 200 * time.Millisecond
	testHeartbeatTimeout = 8 * testHeartbeat
)

func openBeating(t testing.TB, dir directory.Service, name string) *Node {
	t.Helper()
	return openWith(t, Config{Name: name, Directory: dir, HeartbeatInterval: testHeartbeat, HeartbeatTimeout: testHeartbeatTimeout})
}

// oneConnection checks that the nodes' links never broke.
func oneConnection(t testing.TB, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		for _, l := range n.Stats().Links {
			if l.Connections != 1 || !l.Up {
				t.Errorf("node %s had %d connections to %s", n.Name(), l.Connections, l.Peer)
			}
		}
	}
}

// A message takes four heartbeat timeouts on a slow path, and what the sockets
// hold of it more than one: whatever its node asks the other comes too late
// behind that. Neither takes the other for dead.
func TestALinkOnASlowPathIsNotDead(t *testing.T) {
	dir := directory.NewRegistry()
	proxy := newProxy(t, dir, forever)
	const size = 8 << 20
	const byteTime = 4 * testHeartbeatTimeout / size
	proxy.pace = func(n int) { time.Sleep(time.Duration(n) * byteTime) }
	a, b := openBeating(t, proxy, "a"), openBeating(t, dir, "b")
	c := newConsumer(t, b, "x", ConsumerConfig{})
	p := newProducer(t, a, "x", ProducerConfig{})
	ctx := testContext(t)
	began := time.Now()
	if err := p.Send(ctx, Address{"b", 0}, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Receive(ctx); err != nil || len(m.Body) != size {
		t.Fatalf("%d bytes, %v", len(m.Body), err)
	}
	if took := time.Since(began); took < 3*testHeartbeatTimeout {
		t.Errorf("it took %v: the path was not slow", took)
	}
	oneConnection(t, a, b)
}

// One consumer stalls, with all that its window holds, and another one takes as
// much as the link carries, for two heartbeat timeouts.
func TestABusyLinkWithAStalledConsumerIsNotDead(t *testing.T) {
	dir := directory.NewRegistry()
	a, b := openBeating(t, dir, "a"), openBeating(t, dir, "b")
	newConsumer(t, b, "x", ConsumerConfig{Index: 1}) // receives nothing
	c := newConsumer(t, b, "x", ConsumerConfig{Index: 2})
	p := newProducer(t, a, "x", ProducerConfig{})
	if err := p.WaitConsumers(testContext(t), 2); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*testHeartbeatTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			body := make([]byte, 32<<10)
			var err error
			for err == nil {
				err = p.Send(ctx, Address{"b", i + 1}, body)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("consumer %d: %v", i+1, err)
			}
		})
	}
	received := 0
	var err error
	for ; err == nil; received++ {
		_, err = c.Receive(ctx)
	}
	wg.Wait()
	if !errors.Is(err, context.DeadlineExceeded) || received < 1000 {
		t.Errorf("%d messages, then %v", received, err)
	}
	oneConnection(t, a, b)
}

// A peer that reads nothing stops the node in the middle of a write, with far
// more to send. It is heard all the same, and the answer to its ping overtakes
// all but what was being written.
func TestThePongOvertakesDataThatWaits(t *testing.T) {
	ctx := testContext(t)
	n := openWith(t, Config{Name: "p1"})
	const total = 64 << 20
	producer := newProducer(t, n, "scores", ProducerConfig{HighWaterMark: HighWaterMark{Bytes: 2 * total}})
	c := dialPlain(t, ctx, n.Endpoint(), "c1", 5, 0)
	c.channel, c.instance = "scores", 1
	c.lend(1<<20, total)
	c.say(c.open(), c.state())
	to := waitTarget(t, ctx, producer, Address{"c1", 0})
	body := make([]byte, 64<<10)
	for range total / len(body) {
		if err := to.Send(ctx, body); err != nil {
			t.Fatal(err)
		}
	}
	c.say(record{specPing, 4711})
	before := 0
	for pong := false; !pong; {
		switch r := c.hear(); r.kind() {
		case specPong:
			pong = true
		case specData:
			before += len(body) * len(r[4].([]any))
		}
	}
	t.Logf("%d of %d bytes came before the pong", before, total)
	if before > total/2 {
		t.Errorf("%d of %d bytes came before the pong", before, total)
	}
}

// A peer that says nothing more is given up within the heartbeat timeout.
func TestASilentPeerIsGivenUpWithinTheTimeout(t *testing.T) {
	n := openBeating(t, directory.NewRegistry(), "p1")
	c := dialPlain(t, testContext(t), n.Endpoint(), "c1", 5, 0)
	silent := time.Now()
	var err error
	pings := 0
	for err == nil {
		var p []byte
		if p, _, err = c.conn.ReadPacket(); bytes.Contains(p, []byte{0x92, specPing}) { // an array of two
			pings++
		}
	}
	took := time.Since(silent)
	t.Logf("given up after %v and %d pings, the timeout is %v", took, pings, testHeartbeatTimeout)
	// The first tick may come at once; the scheduler may be late.
	if earliest, latest := testHeartbeatTimeout-2*testHeartbeat, testHeartbeatTimeout+testHeartbeatTimeout/2; took < earliest || took > latest {
		t.Errorf("given up after %v, not between %v and %v", took, earliest, latest)
	}
	if pings < 2 {
		t.Errorf("it was asked %d times for a sign of life", pings)
	}
}
