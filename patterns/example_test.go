package patterns_test

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/patterns"
)

// Two nodes count words: each word goes to the consumer that owns it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry() // a *directory.Client where nodes are processes
	texts := map[string][]string{
		"n1": {"to", "be", "or", "not"},
		"n2": {"to", "be"},
	}
	var nodes sync.WaitGroup
	var mu sync.Mutex
	counts := make(map[string]int)
	for name, words := range texts {
		node, err := fabric.Open(ctx, fabric.Config{Name: name, Directory: dir})
		if err != nil {
			log.Fatal(err)
		}
		defer node.Close()
		nodes.Go(func() {
			ex, err := patterns.OpenExchange(ctx, node, patterns.ExchangeConfig{
				Channel: "words", Nodes: len(texts), Producers: 1, Consumers: 1,
			})
			if err != nil {
				log.Fatal(err)
			}
			defer ex.Close()
			var sending sync.WaitGroup
			sending.Go(func() {
				for _, word := range words {
					if err := ex.Producer(0).SendKey(ctx, []byte(word), []byte(word)); err != nil {
						log.Fatal(err)
					}
				}
				if err := ex.Producer(0).Finish(); err != nil {
					log.Fatal(err)
				}
			})
			for m, err := range ex.Consumer(0).Messages(ctx) {
				if err != nil {
					log.Fatal(err) // some of the input is missing
				}
				mu.Lock()
				counts[string(m.Body)]++
				mu.Unlock()
			}
			sending.Wait()
		})
	}
	nodes.Wait()
	fmt.Println(counts)
	// Output:
	// map[be:2 not:1 or:1 to:2]
}

// The inner loop of a producer that sends to every consumer in turn.
func ExampleExchangeProducer_Targets() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := fabric.Open(ctx, fabric.Config{Name: "n1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	ex, err := patterns.OpenExchange(ctx, node, patterns.ExchangeConfig{
		Channel: "scores", Nodes: 1, Producers: 1, Consumers: 2,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ex.Close()

	p := ex.Producer(0)
	var body []byte
	for i, target := range p.Targets() {
		body = fmt.Appendf(body[:0], "for %s", ex.Addresses()[i])
		if err := target.Send(ctx, body); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Finish(); err != nil {
		log.Fatal(err)
	}
	for _, c := range ex.Consumers() {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("%s has %q of %s\n", c.Address(), m.Body, m.Source())
		}
	}
	// Output:
	// n1/0 has "for n1/0" of n1/0
	// n1/1 has "for n1/1" of n1/0
}
