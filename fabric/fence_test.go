package fabric

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// claim says hello under a name, and returns the answer.
func claim(t testing.TB, n *Node, name string, incarnation uint64) wire.Record {
	t.Helper()
	e := newIntruder(t, n, name)
	e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: name, Incarnation: incarnation, MaxMessage: 1 << 20}))
	return e.read()
}

// Whoever knows the name of a node can claim to be a later life of it. While the
// directory knows better that shuts nobody out, whether the node is connected
// or not, and costs it nothing.
func TestHugeIncarnationShutsNobodyOut(t *testing.T) {
	ctx := testContext(t)
	dir, book := directory.NewRegistry(), newLogBook()
	victim := openWith(t, Config{Name: "victim", Directory: dir, Logger: book.logger()})
	good := openWith(t, Config{Name: "good", Directory: dir})
	pretend := func(when string) {
		t.Helper()
		for _, incarnation := range []uint64{good.Incarnation() + 1, directory.MaxIncarnation} {
			if rec := claim(t, victim, "good", incarnation); rec.Kind != wire.KindBye || rec.Code != wire.CodeRefused {
				t.Errorf("%s: %d is answered with %s, code %d: %s", when, incarnation, rec.Kind, rec.Code, rec.Text)
			}
		}
	}
	pretend("before it is connected")
	traffic := startTraffic(t, good, victim, "x")
	traffic.goesOn(t, ctx, 100)
	pretend("while it is connected")
	traffic.goesOn(t, ctx, 100)
	if l := victim.Stats().Links; len(l) != 1 || l[0].Connections != 1 {
		t.Errorf("its link has suffered: %+v", l)
	}
	book.await(t, ctx, 4, "WARN", "connection refused", "peer=good", "two nodes claim the name")
}

// One that took a name before its node came has to yield to the registered node,
// though it claims the greater incarnation: whoever of the two dials.
func TestPretenderYieldsToTheRegisteredNode(t *testing.T) {
	for _, dials := range []bool{true, false} {
		t.Run(fmt.Sprintf("the node dials %v", dials), func(t *testing.T) {
			ctx := testContext(t)
			dir := directory.NewRegistry()
			victim := openWith(t, Config{Name: "victim", Directory: dir})
			pretender := newIntruder(t, victim, "good")
			pretender.greet(directory.MaxIncarnation)
			good := openWith(t, Config{Name: "good", Directory: dir})
			from, to := good, victim
			if dials {
				from, to = victim, good
			}
			c := newConsumer(t, to, "x", ConsumerConfig{})
			p := newProducer(t, from, "x", ProducerConfig{})
			if err := waitTarget(t, ctx, p, c.Address()).Send(ctx, []byte("true")); err != nil {
				t.Fatal(err)
			}
			m, err := c.Receive(ctx)
			for errors.As(err, new(*PeerLostError)) {
				m, err = c.Receive(ctx) // the pretender is lost, if a stream was open with it
			}
			if err != nil || string(m.Body) != "true" {
				t.Fatalf("%q, %v", m.Body, err)
			}
			pretender.refused()
			if rec := claim(t, victim, "good", directory.MaxIncarnation); rec.Kind != wire.KindBye {
				t.Errorf("the pretender is answered with %s when it comes again", rec.Kind)
			}
		})
	}
}

// Two nodes claim one name. In one directory the second one cannot open; if they
// are in different ones their peer refuses the one that its directory does not
// name, and the log says so at both ends.
func TestTwoNodesClaimOneName(t *testing.T) {
	ctx := testContext(t)
	ours, theirs := directory.NewRegistry(), directory.NewRegistry()
	first := openWith(t, Config{Name: "twin", Directory: ours})
	_, err := Open(ctx, Config{Name: "twin", Directory: ours})
	var taken *directory.NameTakenError
	if !errors.Is(err, directory.ErrNameTaken) || !errors.As(err, &taken) || taken.Endpoint != first.Endpoint() {
		t.Errorf("Open: %v", err)
	}

	peerBook, twinBook := newLogBook(), newLogBook()
	peer := openWith(t, Config{Name: "peer", Directory: ours, Logger: peerBook.logger()})
	traffic := startTraffic(t, peer, first, "x")
	traffic.goesOn(t, ctx, 100)
	incarnation, err := theirs.Join(ctx, directory.NodeInfo{Name: "peer", Endpoint: peer.Endpoint()})
	if err == nil {
		err = theirs.Add(ctx, incarnation, directory.Member{Channel: "x", Role: directory.Producer, Node: "peer"})
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one's incarnation is less than the first one's, or greater, as the clock has it
		second := openWith(t, Config{Name: "twin", Directory: theirs, Logger: twinBook.logger()})
		newConsumer(t, second, "x", ConsumerConfig{})
		twinBook.await(t, ctx, 1, "ERROR", "peer refuses this node", "peer=peer", "of twin is")
		peerBook.await(t, ctx, 1, "WARN", "connection refused", "peer=twin", "of twin is")
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
	}
	traffic.goesOn(t, ctx, 100)
	if l := peer.Stats().Links; len(l) != 1 || l[0].Connections != 1 {
		t.Errorf("the first one's link has suffered: %+v", l)
	}
}

// What an old life still sends when its successor is there is dropped.
func TestLateRecordsOfAnOldLife(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	victim := openWith(t, Config{Name: "victim", Directory: dir})
	c := newConsumer(t, victim, "x", ConsumerConfig{})
	rise := func() (*intruder, uint64, uint32) {
		t.Helper()
		life := offer(t, dir, "risen", "x")
		e := newIntruder(t, victim, "risen")
		e.greet(life)
		label := e.stream()
		e.send(wire.AppendBacklog(nil, &wire.Backlog{Stream: label, NextSize: 3, EndMessages: 2, EndBytes: 6, Flags: wire.BacklogBlocked}))
		for {
			if rec := e.read(); rec.Kind == wire.KindState && rec.State.LimitMessages > 1 {
				return e, life, label
			}
		}
	}
	old, life, label := rise()
	old.send(data(label, 0, []byte("one")))
	if m, err := c.Receive(ctx); err != nil || string(m.Body) != "one" {
		t.Fatalf("%q, %v", m.Body, err)
	}
	if err := dir.Leave(ctx, "risen", life); err != nil {
		t.Fatal(err)
	}
	next, _, label := rise()
	// It may be written before the end of the connection is noticed, or not.
	_ = old.WriteMessage(data(label, 1, []byte("old")))
	next.send(data(label, 0, []byte("new")))
	_, err := c.Receive(ctx)
	wantLost(t, err, PeerLostError{Node: "risen", Channel: "x", Acknowledged: 1, InDoubtTo: 1, Receiving: true})
	if m, err := c.Receive(ctx); err != nil || string(m.Body) != "new" {
		t.Fatalf("%q, %v", m.Body, err)
	}
	old.refused()
	if rec := claim(t, victim, "risen", life); rec.Kind != wire.KindBye || rec.Code != wire.CodeFenced {
		t.Errorf("the old life is answered with %s, code %d", rec.Kind, rec.Code)
	}
}

// deaf is a directory that answers no look-ups.
type deaf struct{ directory.Service }

func (deaf) Node(context.Context, string) (directory.NodeInfo, error) {
	return directory.NodeInfo{}, directory.ErrUnavailable
}

// While the directory is silent nobody takes a known node's place, and those
// that were here before go on.
func TestIncarnationsWhileTheDirectoryIsSilent(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	victim := openWith(t, Config{Name: "victim", Directory: deaf{dir}})
	px := newProxy(t, dir, forever)
	good := openWith(t, Config{Name: "good", Directory: px})
	traffic := startTraffic(t, good, victim, "x")
	traffic.goesOn(t, ctx, 100)
	if rec := claim(t, victim, "good", good.Incarnation()+1); rec.Kind != wire.KindBye || rec.Code != wire.CodeBusy {
		t.Errorf("a pretender is answered with %s, code %d", rec.Kind, rec.Code)
	}
	px.cut()
	traffic.goesOn(t, ctx, 100)
	newIntruder(t, victim, "stranger").greet(1)
}
