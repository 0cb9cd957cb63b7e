package fabric

import (
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// dialled is a node with a consumer that has dialled a peer and said hello to it,
// and that peer, which has not answered.
func dialled(t *testing.T) (*Node, *intruder) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	ln, err := transport.Listen("tcp://127.0.0.1:0", transport.Config{SocketType: transport.Dealer, Identity: "peer"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	incarnation, err := dir.Join(ctx, directory.NodeInfo{Name: "peer", Endpoint: ln.Addr()})
	if err == nil {
		err = dir.Add(ctx, incarnation, directory.Member{Channel: "x", Role: directory.Producer, Node: "peer"})
	}
	if err != nil {
		t.Fatal(err)
	}
	n := openNode(t, dir, "n")
	newConsumer(t, n, "x", ConsumerConfig{})
	conn, err := ln.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e := &intruder{t, "peer", conn}
	t.Cleanup(func() { conn.Close() })
	e.SetReadDeadline(time.Now().Add(30 * time.Second))
	if rec := e.read(); rec.Kind != wire.KindHello {
		t.Fatalf("%s instead of a hello", rec.Kind)
	}
	return n, e
}

// A node closes when it has said hello and has no answer yet. Its peer may have
// answered, and have a link already, on which it would wait for the node to come
// back.
func TestANodeThatClosesBeforeItIsAnsweredSaysGoodbye(t *testing.T) {
	n, e := dialled(t)
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	if rec := e.read(); rec.Kind != wire.KindBye || rec.Code != wire.CodeDone {
		t.Errorf("%s, code %d", rec.Kind, rec.Code)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// The same with something that it has accepted, and not delivered: that much is said.
func TestANodeThatClosesBeforeItIsAnsweredSaysWhatIsMissing(t *testing.T) {
	n, e := dialled(t)
	p := newProducer(t, n, "x", ProducerConfig{})
	if err := p.Close(); err != nil { // it has finished, and the word goes nowhere
		t.Fatal(err)
	}
	newProducer(t, n, "x", ProducerConfig{}) // and this one has not finished
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	if rec := e.read(); rec.Kind != wire.KindBye || rec.Code != wire.CodeLost {
		t.Errorf("%s, code %d", rec.Kind, rec.Code)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// Who has accepted for a consumer whose node closes while the link between them
// comes up hears of it, and does not wait for the end of the resume window.
func TestFlushToANodeThatClosesAsItsLinkComesUp(t *testing.T) {
	ctx := testContext(t)
	for range 30 {
		reg := directory.NewRegistry()
		a, b := openNode(t, reg, "a"), openNode(t, reg, "b")
		p, c := newProducer(t, a, "x", ProducerConfig{}), newConsumer(t, b, "x", ConsumerConfig{})
		to := waitTarget(t, ctx, p, c.Address())
		await(t, ctx, "a link", func() bool { return a.Connected("b") })
		if err := to.Send(ctx, []byte("in doubt")); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := to.Flush(ctx); ctx.Err() != nil {
			t.Fatal(err)
		}
		a.Close()
	}
}
