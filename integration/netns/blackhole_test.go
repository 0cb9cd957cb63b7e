package netns

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/zfab/zfab/integration/internal/process"
)

const (
	// noticed is fabric's default HeartbeatTimeout, with what two processes need
	// to tell it.
	noticed = 8*time.Second + 500*time.Millisecond
	// holeFor is how long packets are dropped: some dials fail meanwhile.
	holeFor  = 12 * time.Second
	patience = 30 * time.Second
)

// Packets are dropped from one node to the other, in one direction or both. The
// two have nothing to say to each other, or much. Both notice in time, and when
// packets pass again all messages arrive, once and in order.
func TestBlackHolesAreNoticedAndHealWithoutLoss(t *testing.T) {
	for _, c := range []struct {
		name  string
		holes [][2]string
	}{
		{"both ways", [][2]string{{"n1", "n2"}, {"n2", "n1"}}},
		{"from n1 to n2", [][2]string{{"n1", "n2"}}},
		{"from n2 to n1", [][2]string{{"n2", "n1"}}},
	} {
		for _, idle := range []bool{false, true} {
			name := c.name + ", busy"
			if idle {
				name = c.name + ", idle"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				blackHole(t, c.holes, idle)
			})
		}
	}
}

func blackHole(t *testing.T, holes [][2]string, idle bool) {
	network := newNetwork(t)
	nodes := network.startNodes(t)
	if !idle {
		traffic(t, nodes)
	}

	for _, hole := range holes {
		network.drop(t, hole[0], hole[1])
	}
	began := time.Now()
	for _, p := range nodes {
		at, _ := p.Await(t, "down", began, patience)
		took := at.Sub(began)
		t.Logf("%s noticed after %v", p.Name, took.Round(time.Millisecond))
		if took > noticed {
			t.Errorf("%s noticed after %v", p.Name, took)
		}
	}

	time.Sleep(time.Until(began.Add(holeFor)))
	healed := time.Now() // before it is: a dial under way may be quick
	for _, hole := range holes {
		network.heal(t, hole[1])
	}
	for _, p := range nodes {
		up, _ := p.Await(t, "up", healed, patience)
		t.Logf("%s had a link %v after the end of the hole", p.Name, up.Sub(healed).Round(time.Millisecond))
	}
	if idle {
		traffic(t, nodes)
	}
	for _, p := range nodes {
		p.Await(t, "progress", healed, patience)
	}
	allArrived(t, nodes, !idle)
}

// startNodes starts the directory and the two nodes, and waits for their link.
func (n *network) startNodes(t *testing.T) (nodes []*process.Process) {
	t.Helper()
	const port = ":7000"
	n.start(t, "dir", "directory", "tcp://0.0.0.0"+port).Await(t, "ready", time.Time{}, patience)
	for _, pair := range [][2]string{{"n1", "n2"}, {"n2", "n1"}} {
		name, peer := pair[0], pair[1]
		p := n.start(t, name, "node", name, peer, "tcp://"+address(name, peer)+":0", "tcp://"+address("dir", name)+port)
		p.Await(t, "ready", time.Time{}, patience)
		nodes = append(nodes, p)
	}
	for _, p := range nodes {
		p.Await(t, "up", time.Time{}, patience)
	}
	return nodes
}

// traffic has both nodes send, and waits until both receive.
func traffic(t *testing.T, nodes []*process.Process) {
	t.Helper()
	for _, p := range nodes {
		p.Tell(t, "go")
	}
	for _, p := range nodes {
		p.Await(t, "progress", time.Time{}, patience)
	}
}

// allArrived ends the traffic and compares what was sent with what was received.
// Hit says that the hole must have swallowed messages.
func allArrived(t *testing.T, nodes []*process.Process, hit bool) {
	t.Helper()
	for _, p := range nodes {
		p.Tell(t, "stop")
	}
	resent := 0
	for _, p := range nodes {
		p.Await(t, "done", time.Time{}, 2*endPatience)
		if _, n := p.Await(t, "connections", time.Time{}, 0); n == "1" {
			t.Errorf("the link of %s never broke", p.Name)
		}
		_, n := p.Await(t, "resent", time.Time{}, 0)
		again, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		resent += again
	}
	if hit && resent == 0 {
		t.Error("nothing had to be sent again: nothing was under way when the hole began")
	}
	for i, p := range nodes {
		sent, received := p.All("sent"), nodes[1-i].All("received")
		if len(sent) != producers || len(received) != producers {
			t.Errorf("%d producers of %s have said how much they sent, and of %d it was received", len(sent), p.Name, len(received))
		}
		for _, n := range sent {
			if !slices.Contains(received, n) {
				t.Errorf("%s sent (producer, messages) %s, and received was %v", p.Name, n, received)
			}
		}
		t.Logf("%s: producers and messages %v, all received", p.Name, sent)
	}
	t.Logf("%d messages were sent again", resent)
}
