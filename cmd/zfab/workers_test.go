package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/zfab/zfab/fabric"
)

// An order is what a worker's process is started with.
type order struct {
	Role     string // producer or consumer
	Name     string
	Attach   string
	Channel  string
	Others   int // of the other role
	Messages int // from each producer to each consumer
}

// workerMain is a worker's process. It says how far it is in lines; a producer
// waits for a line at half of its messages, a consumer when it has all.
func workerMain() {
	var o order
	if err := json.Unmarshal([]byte(os.Args[1]), &o); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	err := func() error {
		node, err := fabric.Attach(ctx, o.Attach, fabric.AttachConfig{Name: o.Name, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer node.Close()
		work := o.consume
		if o.Role == "producer" {
			work = o.produce
		}
		if err := work(ctx, node); err != nil {
			return err
		}
		if err := node.Drain(ctx); err != nil {
			return err
		}
		fmt.Println("done")
		return nil
	}()
	if err != nil {
		fmt.Printf("%s: %v\n", o.Name, err)
		os.Exit(1)
	}
}

func (o *order) produce(ctx context.Context, node *fabric.Node) error {
	p, err := node.Producer(ctx, o.Channel, fabric.ProducerConfig{})
	if err != nil {
		return err
	}
	if err := p.WaitConsumers(ctx, o.Others); err != nil {
		return err
	}
	for i := range o.Messages {
		if i == o.Messages/2 {
			if err := p.Flush(ctx); err != nil {
				return err
			}
			fmt.Println("half")
			if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
				return err
			}
		}
		for _, a := range p.Consumers() {
			if err := p.Send(ctx, a, fmt.Appendf(nil, "%s>%s#%-40d", o.Name, a.Node, i)); err != nil {
				return err
			}
		}
	}
	return p.Drain(ctx)
}

func (o *order) consume(ctx context.Context, node *fabric.Node) error {
	c, err := node.Consumer(ctx, o.Channel, fabric.ConsumerConfig{Producers: o.Others})
	if err != nil {
		return err
	}
	next := make(map[string]int)
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return err
		}
		source := m.Source().Node
		if want := fmt.Sprintf("%s>%s#%-40d", source, o.Name, next[source]); string(m.Body) != want {
			return fmt.Errorf("got %q, want %q", m.Body, want)
		}
		next[source]++
	}
	for source, n := range next {
		if n != o.Messages {
			return fmt.Errorf("%d of %d messages from %s", n, o.Messages, source)
		}
	}
	if len(next) != o.Others {
		return fmt.Errorf("messages of %d producers, want %d", len(next), o.Others)
	}
	// The producers are to hear that everything is stored, also those whose link is
	// down just now.
	fmt.Println("all")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}
