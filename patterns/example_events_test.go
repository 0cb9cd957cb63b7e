package patterns_test

import (
	"context"
	"fmt"
	"log"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// Change is an event: what happened to an account.
type Change struct{ Amount int }

// Two members keep the balances of accounts: the changes of one account come to one of
// them at a time, in order.
func ExampleEventPublisher() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := fabric.Open(ctx, fabric.Config{Name: "n1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	var mu sync.Mutex
	history := make(map[string][]int)
	var handling sync.WaitGroup
	for range 2 {
		member, err := patterns.OpenEventMember(ctx, node, patterns.EventMemberConfig[Change]{Channel: "accounts", Publishers: 1})
		if err != nil {
			log.Fatal(err)
		}
		defer member.Close()
		handling.Go(func() {
			err := member.Handle(ctx, 4, func(_ context.Context, e patterns.Event[Change]) error {
				mu.Lock()
				defer mu.Unlock()
				history[string(e.Key)] = append(history[string(e.Key)], e.Value.Amount)
				return nil // which acknowledges it
			})
			if err != nil {
				log.Fatal(err)
			}
		})
	}
	publisher, err := patterns.OpenEventPublisher(ctx, node, patterns.EventPublisherConfig[Change]{Channel: "accounts"})
	if err != nil {
		log.Fatal(err)
	}
	if err := publisher.WaitMembers(ctx, 2); err != nil {
		log.Fatal(err)
	}
	for _, amount := range []int{100, -20, 5} {
		for _, account := range []string{"alice", "bob", "carol"} {
			if err := publisher.Publish(ctx, []byte(account), Change{amount}); err != nil {
				log.Fatal(err)
			}
		}
	}
	if err := publisher.Drain(ctx); err != nil { // all handled
		log.Fatal(err)
	}
	handling.Wait()
	for _, account := range slices.Sorted(maps.Keys(history)) {
		fmt.Println(account, history[account])
	}
	// Output:
	// alice [100 -20 5]
	// bob [100 -20 5]
	// carol [100 -20 5]
}
