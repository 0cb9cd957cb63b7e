package patterns_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// Words are counted text by text: each text is a round, and the counts of a word are
// added up before they are sent.
func ExampleRounds() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := fabric.Open(ctx, fabric.Config{Name: "n1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	words, err := patterns.OpenRounds(ctx, node, patterns.RoundsConfig[int]{
		ExchangeConfig: patterns.ExchangeConfig{Channel: "words", Nodes: 1, Producers: 1, Consumers: 1},
		Combine:        func(a, b int) int { return a + b },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer words.Close()

	p := words.Producer(0)
	for _, text := range [][]string{{"to", "be", "or", "not", "to", "be"}, {"what", "to", "do"}} {
		for _, word := range text {
			if err := p.SendKey(ctx, []byte(word), 1); err != nil {
				log.Fatal(err)
			}
		}
		if err := p.EndRound(ctx); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Finish(ctx); err != nil {
		log.Fatal(err)
	}
	c := words.Consumer(0)
	for {
		round, err := c.Next(ctx)
		if err == fabric.ErrEnd {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		counts := make(map[string]int)
		for v, err := range c.Values(ctx) {
			if err != nil {
				log.Fatal(err) // the round lacks something
			}
			counts[string(v.Key)] += v.Value
		}
		fmt.Println(round, counts)
	}
	// Output:
	// 0 map[be:2 not:1 or:1 to:2]
	// 1 map[do:1 to:1 what:1]
}
