package fabric

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/zfab/zfab/fabric/directory"
)

// cluster is hosts that take workers, and one directory that all of them ask.
type cluster struct {
	t         testing.TB
	directory string
	sockets   string
	close     []func() // of hosts: after those of the workers
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	registry := directory.NewRegistry()
	server, err := directory.Serve(testContext(t), registry, "tcp://127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("", "zfab") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, directory: server.Addr(), sockets: sockets}
	t.Cleanup(func() {
		for _, close := range c.close {
			close()
		}
		server.Close()
		registry.Close()
		os.RemoveAll(sockets)
	})
	return c
}

func (c *cluster) socket(host string) string {
	return "ipc://" + filepath.Join(c.sockets, host+".sock")
}

// host opens a node that takes workers.
func (c *cluster) host(name string) *Node {
	c.t.Helper()
	n, err := c.openHost(name, "")
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *cluster) openHost(name, listen string) (*Node, error) {
	logger := slog.New(slog.DiscardHandler)
	dir, err := directory.Dial(testContext(c.t), c.directory, directory.Options{Logger: logger})
	if err != nil {
		return nil, err
	}
	n, err := Open(testContext(c.t), Config{
		Name: name, Listen: listen, Directory: dir, Logger: logger, Workers: Workers{Listen: c.socket(name)},
	})
	if err != nil {
		dir.Close()
		return nil, err
	}
	c.close = append(c.close, func() { n.Close(); dir.Close() })
	return n, nil
}

// worker attaches a worker to a host.
func (c *cluster) worker(host, name string) *Node {
	c.t.Helper()
	n, err := Attach(testContext(c.t), c.socket(host), AttachConfig{Name: name, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := n.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return n
}

// allToAll has one producer and one consumer at each member, and every producer
// send so many messages to every consumer, which checks each.
func allToAll(t testing.TB, ctx context.Context, members []*Node, messages int) error {
	t.Helper()
	var g errgroup.Group
	var consumers []*Consumer
	for _, n := range members {
		consumers = append(consumers, newConsumer(t, n, "all", ConsumerConfig{Producers: len(members)}))
	}
	for _, n := range members {
		p := newProducer(t, n, "all", ProducerConfig{})
		g.Go(func() error {
			if err := p.WaitConsumers(ctx, len(members)); err != nil {
				return err
			}
			for i := range messages {
				for _, a := range p.Consumers() {
					if err := p.Send(ctx, a, fmt.Appendf(nil, "%s>%s#%d", p.Address(), a, i)); err != nil {
						return err
					}
				}
			}
			return p.Drain(ctx)
		})
	}
	for _, c := range consumers {
		g.Go(func() error {
			next := make(map[Address]int)
			for m, err := range c.Messages(ctx) {
				if err != nil {
					return err
				}
				want := fmt.Sprintf("%s>%s#%d", m.Source(), c.Address(), next[m.Source()])
				if string(m.Body) != want {
					return fmt.Errorf("got %q, want %q", m.Body, want)
				}
				next[m.Source()]++
			}
			for source, n := range next {
				if n != messages {
					return fmt.Errorf("%d of %d messages from %s", n, messages, source)
				}
			}
			if len(next) != len(members) {
				return fmt.Errorf("messages of %d producers, want %d", len(next), len(members))
			}
			return nil
		})
	}
	return g.Wait()
}

func TestOneMessageBetweenTwoWorkers(t *testing.T) {
	c := newCluster(t)
	h1, h2 := c.host("h1"), c.host("h2")
	a, b := c.worker("h1", "w1"), c.worker("h2", "w2")
	if err := allToAll(t, testContext(t), []*Node{a, b}, 1); err != nil {
		t.Fatal(err)
	}
	if a.Endpoint() != "via:h1" || b.Endpoint() != "via:h2" {
		t.Errorf("endpoints %s and %s", a.Endpoint(), b.Endpoint())
	}
	// One circuit, on both links of each node.
	for n, links := range map[*Node][]string{a: {"h1"}, h1: {"w1", "h2"}, h2: {"w2", "h1"}, b: {"h2"}} {
		var st []CircuitStats
		waitFor(t, testContext(t), "one circuit is left of two that were dialled at once", func() bool {
			st = n.Stats().Circuits
			return len(st) == len(links)
		})
		for i, c := range st {
			if c.Link != links[i] || !c.Open || c.Sent == 0 || c.Received == 0 || c.Queued != 0 {
				t.Errorf("circuit at %s: %+v", n.Name(), c)
			}
		}
	}
}

// Nodes of one process share a directory that is in it, and their workers ask it by
// way of them.
func TestWorkersOfNodesWithTheDirectoryInTheirProcess(t *testing.T) {
	registry := directory.NewRegistry()
	t.Cleanup(func() { registry.Close() })
	var members []*Node
	for _, host := range []string{"h1", "h2"} {
		socket := "mem://" + t.Name() + "-" + host
		members = append(members, openWith(t, Config{Name: host, Directory: registry, Workers: Workers{Listen: socket}}))
		w, err := Attach(testContext(t), socket, AttachConfig{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		members = append(members, w)
	}
	if err := allToAll(t, testContext(t), members, 10); err != nil {
		t.Fatal(err)
	}
}

// Workers, the nodes that they are attached to, and a node without workers: all
// are members alike, and between two hosts is one link.
func TestWorkersAndNodesAllToAll(t *testing.T) {
	c := newCluster(t)
	var members, hosts []*Node
	for h := range 3 {
		host := fmt.Sprintf("h%d", h)
		hosts = append(hosts, c.host(host))
		for w := range 3 {
			members = append(members, c.worker(host, fmt.Sprintf("%s-w%d", host, w)))
		}
	}
	dir, err := directory.Dial(testContext(t), c.directory, directory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	hosts = append(hosts, openNode(t, dir, "alone"))
	members = append(members, hosts...)
	if err := allToAll(t, testContext(t), members, 100); err != nil {
		t.Fatal(err)
	}
	for _, n := range hosts[:3] {
		st := n.Stats()
		if len(st.Workers) != 3 || st.Workers[0].Name != n.Name()+"-w0" || st.Workers[0].Circuits == 0 || st.Workers[0].BytesIn == 0 {
			t.Errorf("workers of %s: %+v", n.Name(), st.Workers)
		}
		peers := map[string]bool{}
		for _, l := range n.Stats().Links {
			if l.Up {
				peers[l.Peer] = true
			}
		}
		for _, other := range hosts {
			if other != n && !peers[other.Name()] {
				t.Errorf("%s has no link to %s", n.Name(), other.Name())
			}
		}
	}
}
