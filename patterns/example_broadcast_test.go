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

// Weights go to all workers of a node in one copy, and what each makes of them comes
// back to one place.
func Example_broadcastAndGather() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry() // a *directory.Client where nodes are processes
	open := func(name string) *fabric.Node {
		node, err := fabric.Open(ctx, fabric.Config{Name: name, Directory: dir})
		if err != nil {
			log.Fatal(err)
		}
		return node
	}
	master := open("master")
	defer master.Close()
	sums, err := patterns.OpenGatherer(ctx, master, patterns.GathererConfig[int]{Channel: "sums", Contributors: 3})
	if err != nil {
		log.Fatal(err)
	}
	defer sums.Close()

	host := open("host")
	defer host.Close()
	workers, err := patterns.OpenListeners(ctx, host, patterns.ListenersConfig[[]int]{Channel: "weights", Listeners: 3, Broadcasters: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer workers.Close()
	var work sync.WaitGroup
	for i, weights := range workers.All() {
		sum, err := patterns.OpenContributor(ctx, host, patterns.ContributorConfig[int]{Channel: "sums"})
		if err != nil {
			log.Fatal(err)
		}
		work.Go(func() {
			for w, err := range weights.Values(ctx) {
				if err != nil {
					log.Fatal(err)
				}
				if err := sum.Send(ctx, w.Value[i]*10); err != nil {
					log.Fatal(err)
				}
			}
			if err := sum.Drain(ctx); err != nil {
				log.Fatal(err)
			}
		})
	}

	weights, err := patterns.OpenBroadcaster(ctx, master, patterns.BroadcasterConfig[[]int]{Channel: "weights"})
	if err != nil {
		log.Fatal(err)
	}
	if err := weights.WaitNodes(ctx, 1); err != nil {
		log.Fatal(err)
	}
	for _, w := range [][]int{{1, 2, 3}, {4, 5, 6}} {
		if err := weights.Send(ctx, w); err != nil {
			log.Fatal(err)
		}
	}
	if err := weights.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	total := 0
	for v, err := range sums.Values(ctx) {
		if err != nil {
			log.Fatal(err) // somebody's part is missing
		}
		total += v.Value
	}
	work.Wait()
	fmt.Println(total)
	// Output:
	// 210
}
