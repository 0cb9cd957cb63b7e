package patterns

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func TestExchangeNamesWhoIsMissing(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   ExchangeConfig // n1's; n2 comes with one producer and one consumer
		nodes []string
		want  string
	}{
		{"named node", ExchangeConfig{Producers: 1, Consumers: 1, Names: []string{"n1", "n2", "n3"}},
			[]string{"n3"}, "2 of 3 consumers are there; nothing came of node n3: "},
		{"some node", ExchangeConfig{Producers: 1, Consumers: 1, Nodes: 3}, nil, "only nodes n1, n2 came: "},
		{"part of a node", ExchangeConfig{Producers: 1, Consumers: 2, Nodes: 2}, nil, "missing consumer n2/1: "},
		{"of a total", ExchangeConfig{Producers: 1, Consumers: 1, TotalProducers: 3, TotalConsumers: 2}, nil,
			"2 of 3 producers and 2 of 2 consumers are there; only nodes n1, n2 came: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, dir := testContext(t), directory.NewRegistry()
			n1, n2 := openNode(t, dir, "n1"), openNode(t, dir, "n2")
			if _, err := n2.Producer(ctx, "x", fabric.ProducerConfig{}); err != nil {
				t.Fatal(err)
			}
			if _, err := n2.Consumer(ctx, "x", fabric.ConsumerConfig{}); err != nil {
				t.Fatal(err)
			}
			c.cfg.Channel = "x"
			_, err := OpenExchange(shortContext(t), n1, c.cfg)
			var missing *MissingError
			if !errors.As(err, &missing) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if !slices.Equal(missing.Nodes, c.nodes) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q\nwant nodes %q and %q", err, c.nodes, c.want)
			}
			// What could not open has left nothing behind.
			members, err := dir.Members(ctx, "x")
			if err != nil || len(members) != 2 {
				t.Errorf("%v, %v are there still", members, err)
			}
		})
	}
}

func TestExchangeRefusesWhoWasNotPromised(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	n1, n2 := openNode(t, dir, "n1"), openNode(t, dir, "n2")
	if _, err := n2.Consumer(ctx, "x", fabric.ConsumerConfig{Index: 3}); err != nil {
		t.Fatal(err)
	}
	want := directory.Member{Channel: "x", Role: directory.Consumer, Node: "n2", Index: 3}
	for name, cfg := range map[string]ExchangeConfig{
		"index":  {Nodes: 2, Producers: 1, Consumers: 1},
		"name":   {Names: []string{"n1"}, Producers: 1, Consumers: 9},
		"number": {TotalProducers: 1, TotalConsumers: 1, Producers: 1, Consumers: 1},
	} {
		cfg.Channel = "x"
		_, err := OpenExchange(ctx, n1, cfg)
		var shape *ShapeError
		if !errors.As(err, &shape) || name != "number" && shape.Member != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExchangeRefusesBadConfig(t *testing.T) {
	n := openNode(t, directory.NewRegistry(), "n1")
	for want, cfg := range map[string]ExchangeConfig{
		"a count is negative":              {Nodes: 1, Producers: -1, Consumers: 1},
		"neither Nodes nor totals":         {Producers: 1, Consumers: 1},
		"without consumers needs totals":   {Nodes: 1, Producers: 1},
		"only one of the totals":           {Producers: 1, TotalProducers: 1},
		"more than the totals":             {Producers: 2, TotalProducers: 1, TotalConsumers: 1},
		"totals and Nodes":                 {Nodes: 1, TotalProducers: 1, TotalConsumers: 1},
		"n1, is not among the names":       {Names: []string{"n2"}, Producers: 1, Consumers: 1},
		"named twice":                      {Names: []string{"n1", "n1"}, Producers: 1, Consumers: 1},
		"3 nodes are promised and 1 named": {Names: []string{"n1"}, Nodes: 3, Producers: 1, Consumers: 1},
		"-1":                               {Nodes: 1, Producers: 1, Consumers: 1, HighWaterMark: fabric.HighWaterMark{Bytes: -1}},
	} {
		cfg.Channel = "x"
		if _, err := OpenExchange(shortContext(t), n, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
	if _, err := OpenExchange(shortContext(t), n, ExchangeConfig{Channel: "a/b", Nodes: 1, Producers: 1, Consumers: 1}); !errors.Is(err, directory.ErrInvalid) {
		t.Error(err)
	}
}

// A second exchange on the channel of the first one finds its place taken.
func TestExchangeOnTakenChannel(t *testing.T) {
	x := openAll(t, even(1, 1, 1)...)[0]
	_, err := OpenExchange(testContext(t), x.node, even(1, 1, 1)[0])
	if !errors.Is(err, fabric.ErrIndexTaken) {
		t.Error(err)
	}
	check(t, x.Producer(0).Finish())
	if _, err := gather(testContext(t), x.Consumer(0)); err != nil {
		t.Error("the first one has suffered:", err)
	}
}

// A node is lost before one of its producers has finished: the consumer is told,
// gets the rest of the others, and does not end as if it had all.
func TestExchangeNodeLost(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, even(3, 2, 1)...)
	c := all[0].Consumer(0)
	dying := all[2]
	check(t, dying.Producer(0).SendAll(ctx, []byte("all of it")))
	check(t, dying.Producer(0).Drain(ctx))
	check(t, dying.Producer(1).SendAll(ctx, []byte("a part")))
	for _, x := range all[:2] {
		for range 2 {
			if _, err := x.Consumer(0).Receive(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	check(t, dying.node.Close())
	var lost *fabric.PeerLostError
	for _, x := range all[:2] {
		_, err := x.Consumer(0).Receive(ctx)
		if !errors.As(err, &lost) || lost.Node != "n3" || !lost.Receiving {
			t.Fatalf("after the node was closed: %v", err)
		}
	}
	for _, x := range all[:2] {
		for _, p := range x.Producers() {
			// The lost node's consumer is named, and all others are served.
			err := p.SendAll(ctx, []byte("rest"))
			if !errors.As(err, &lost) || lost.Node != "n3" || lost.Receiving {
				t.Errorf("SendAll: %v", err)
			}
			if err := p.Finish(); !errors.As(err, &lost) {
				t.Errorf("Finish: %v", err)
			}
		}
	}
	got, err := gather(ctx, c)
	var unfinished *UnfinishedError
	if !errors.As(err, &unfinished) || !errors.As(err, &lost) {
		t.Fatalf("at the end: %v", err)
	}
	if want := dying.Producer(1).Address(); !slices.Equal(unfinished.Unfinished, []fabric.Address{want}) || unfinished.Finished != 5 {
		t.Errorf("%v, want only %s unfinished", unfinished, want)
	}
	if len(got) != 4 {
		t.Errorf("the rest came of %d producers, want 4", len(got))
	}
	if _, again := c.Receive(ctx); again != err {
		t.Errorf("after the end: %v", again)
	}
}

// A node whose producers have all finished may go: nobody misses it, and a
// later life of it does not count.
func TestExchangeNodeGoneAfterFinish(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	n1, n2 := openNode(t, dir, "n1"), openNode(t, dir, "n2")
	mapper := ExchangeConfig{Channel: "x", Producers: 1, TotalProducers: 2, TotalConsumers: 1}
	reducer := mapper
	reducer.Consumers = 1
	var first, second *Exchange
	var opening sync.WaitGroup
	opening.Go(func() {
		var err error
		first, err = OpenExchange(ctx, n2, mapper)
		check(t, err)
	})
	second, err := OpenExchange(ctx, n1, reducer)
	check(t, err)
	opening.Wait()
	if t.Failed() {
		t.FailNow()
	}
	check(t, first.Producer(0).SendAll(ctx, []byte("1")))
	check(t, first.Producer(0).Drain(ctx))
	check(t, n2.Close())

	n2 = openNode(t, dir, "n2")
	p, err := n2.Producer(ctx, "x", fabric.ProducerConfig{})
	check(t, err)
	check(t, p.WaitConsumers(ctx, 1))
	check(t, p.Send(ctx, fabric.Address{Node: "n1"}, []byte("again")))
	check(t, p.Drain(ctx))

	check(t, second.Producer(0).SendAll(ctx, []byte("2")))
	check(t, second.Producer(0).Finish())
	got, err := gather(ctx, second.Consumer(0))
	check(t, err)
	one, two := got[fabric.Address{Node: "n2"}], got[fabric.Address{Node: "n1"}]
	if !slices.Equal(one, []string{"1"}) || !slices.Equal(two, []string{"2"}) {
		t.Errorf("got %q", got)
	}
}

// An exchange is closed in the middle: its own consumers end with ErrClosed,
// others do not take its producers for finished.
func TestExchangeCloseInTheMiddle(t *testing.T) {
	ctx := testContext(t)
	all := openAll(t, even(2, 1, 1)...)
	check(t, all[0].Producer(0).SendAll(ctx, []byte("first")))
	for _, x := range all {
		if _, err := x.Consumer(0).Receive(ctx); err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan error)
	go func() {
		_, err := all[1].Consumer(0).Receive(ctx)
		closed <- err
	}()
	check(t, all[1].Exchange.Close())
	if err := <-closed; err != fabric.ErrClosed {
		t.Errorf("its own consumer: %v", err)
	}
	if err := all[1].Producer(0).SendAll(ctx, nil); !errors.Is(err, fabric.ErrClosed) {
		t.Errorf("its own producer: %v", err)
	}
	if err := all[0].Producer(0).Send(ctx, all[0].Addresses()[0], []byte("mine")); err != nil {
		t.Error(err)
	}
	var lost *fabric.PeerLostError
	if err := all[0].Producer(0).Drain(ctx); !errors.As(err, &lost) || lost.Node != "n2" {
		t.Errorf("Drain with a consumer gone: %v", err)
	}
	got, err := gather(shortContext(t), all[0].Consumer(0))
	var unfinished *UnfinishedError
	if !errors.As(err, &unfinished) || len(unfinished.Unfinished) != 1 || len(got) != 1 {
		t.Errorf("while its node is there: %v, %v", got, err)
	}
	check(t, all[1].node.Close())
	if _, err = all[0].Consumer(0).Receive(ctx); !errors.As(err, &lost) {
		t.Errorf("when its node is closed: %v", err)
	}
	if _, err = gather(ctx, all[0].Consumer(0)); !errors.As(err, &unfinished) {
		t.Errorf("at the end: %v", err)
	}
}
