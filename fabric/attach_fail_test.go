package fabric

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// crash ends a node, or a worker, as the end of its process does: nobody hears a
// word, all connections break.
func crash(n *Node) {
	n.mu.Lock()
	n.closed = true
	links := n.allLinks()
	channels := n.allChannels()
	n.owed = make(map[string]uint8)
	for name := range n.peers { // to whom greets just now this is a connection that breaks
		n.owed[name] = wire.CodeBusy
	}
	close(n.parted)
	n.mu.Unlock()
	n.hangUp()
	if n.trunk != nil {
		n.trunk.mu.Lock()
		n.trunk.closed = true
		n.trunk.mu.Unlock()
		n.trunk.cut(errCrash)
	}
	for _, a := range n.workers.all() {
		a.link.Cut(errCrash)
	}
	for _, l := range links {
		l.Cut(errCrash)
	}
	n.dir.Close()
	for _, ch := range channels {
		for _, c := range ch.localConsumers() {
			c.inbox.Close()
		}
	}
	for _, l := range links {
		l.Close(0, false)
	}
	n.wg.Wait()
}

var errCrash = errors.New("crash")

// A node of workers that have streams is killed and started again, several times: its
// workers attach again, and no message is lost or comes twice.
func TestNodeIsKilledUnderItsWorkers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c := newCluster(t)
	h1, h2 := c.host("h1"), c.host("h2")
	var members []*Node
	for i := range 2 {
		members = append(members, c.worker("h1", fmt.Sprintf("a%d", i)), c.worker("h2", fmt.Sprintf("b%d", i)))
	}
	over := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(over)
		return allToAll(t, ctx, members, 30_000)
	})
	kills := 0
	g.Go(func() error {
		flows := func() bool {
			for _, m := range members {
				for _, l := range m.Stats().Links {
					if l.Up && l.BytesIn > 10_000 {
						return true
					}
				}
			}
			return false
		}
		waitFor(t, ctx, "messages flow", flows)
		for {
			select {
			case <-over:
				return nil
			case <-time.After(50*time.Millisecond + rand.N(100*time.Millisecond)):
			}
			victim := &h1
			if kills%2 == 1 {
				victim = &h2
			}
			if kills < 6 {
				name := (*victim).Name()
				crash(*victim)
				n, err := c.openHost(name, "")
				for errors.Is(err, directory.ErrNameTaken) { // its end has not shown at the directory yet
					n, err = c.openHost(name, "")
				}
				if err != nil {
					return err
				}
				*victim = n
				kills++
			}
		}
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if kills < 2 {
		t.Errorf("%d kills while the messages flowed", kills)
	}
	again := 0
	for _, m := range members {
		for _, l := range m.Stats().Links {
			again += int(l.Connections) - 1
		}
	}
	if again < 2 {
		t.Errorf("links between workers were made again %d times", again)
	}
}

// A worker is killed: it is out of the directory at once, who produces for it or
// consumes from it hears so at once, and nobody else notices.
func TestWorkerIsKilled(t *testing.T) {
	ctx := testContext(t)
	c := newCluster(t)
	h1, _ := c.host("h1"), c.host("h2")
	victim := c.worker("h1", "victim")
	a, b := c.worker("h1", "a"), c.worker("h2", "b")
	others := startTraffic(t, a, b, "others")

	newConsumer(t, victim, "in", ConsumerConfig{})
	out := newProducer(t, victim, "out", ProducerConfig{})
	to := newProducer(t, b, "in", ProducerConfig{})
	from := newConsumer(t, b, "out", ConsumerConfig{})
	near := newConsumer(t, a, "out", ConsumerConfig{})
	if err := to.Send(ctx, Address{"victim", 0}, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := to.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := out.WaitConsumers(ctx, 2); err != nil {
		t.Fatal(err)
	}
	for _, consumer := range []*Consumer{from, near} {
		if err := out.Send(ctx, consumer.Address(), []byte("y")); err != nil {
			t.Fatal(err)
		}
		if m, err := consumer.Receive(ctx); err != nil || string(m.Body) != "y" {
			t.Fatal(m, err)
		}
	}
	crash(victim)
	for _, consumer := range []*Consumer{from, near} {
		var lost *PeerLostError
		if _, err := consumer.Receive(ctx); !errors.As(err, &lost) || lost.Node != "victim" || lost.Acknowledged != 1 ||
			!strings.Contains(lost.Reason, "process of worker victim has ended") {
			t.Fatalf("consumer hears %v", err)
		}
	}
	for {
		err := to.Send(ctx, Address{"victim", 0}, []byte("z"))
		if errors.Is(err, ErrNoConsumer) || errors.As(err, new(*PeerLostError)) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, ctx, "the worker is out of the directory", func() bool {
		_, err := h1.Directory().Node(ctx, "victim")
		return errors.Is(err, directory.ErrUnknownNode)
	})
	others.goesOn(t, ctx, 1000)
	if again := c.worker("h1", "victim"); again.Incarnation() <= victim.Incarnation() {
		t.Error("the next life has no greater incarnation")
	}
}

func waitFor(t testing.TB, ctx context.Context, what string, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("not so: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
