package patterns_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/patterns"
)

// Query and Answer are what is asked and answered: any types that MessagePack
// takes.
type Query struct{ City string }

type Answer struct{ People int }

const codeUnknown = patterns.CodeApplication + 1

// A server answers calls; what it does not know is an error with a code.
func ExampleRequester() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := fabric.Open(ctx, fabric.Config{Name: "n1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	people := map[string]int{"Lima": 10_000_000, "Oslo": 700_000}
	server, err := patterns.OpenReplier(ctx, node, patterns.ReplierConfig[Query, Answer]{Channel: "cities"},
		func(_ context.Context, q Query) (Answer, error) {
			n, ok := people[q.City]
			if !ok {
				return Answer{}, &patterns.ReplyError{Code: codeUnknown, Text: "never heard of " + q.City}
			}
			return Answer{n}, nil
		})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	cities, err := patterns.OpenRequester(ctx, node, patterns.RequesterConfig[Query, Answer]{Channel: "cities"})
	if err != nil {
		log.Fatal(err)
	}
	defer cities.Close()
	if err := cities.WaitServers(ctx, 1); err != nil {
		log.Fatal(err)
	}
	a, err := cities.Call(ctx, Query{"Lima"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("Lima:", a.People)

	var e *patterns.ReplyError
	if _, err := cities.Call(ctx, Query{"Atlantis"}); errors.As(err, &e) && e.Code == codeUnknown {
		fmt.Println(e.Text)
	}

	// Two calls at a time. They may move to another server if theirs is lost.
	oslo := cities.Start(ctx, Query{"Oslo"}, patterns.CallOptions{Idempotent: true})
	lima := cities.Start(ctx, Query{"Lima"}, patterns.CallOptions{Idempotent: true})
	sum := 0
	for _, pending := range []*patterns.Pending[Answer]{oslo, lima} {
		a, err := pending.Wait(ctx)
		if err != nil {
			log.Fatal(err)
		}
		sum += a.People
	}
	fmt.Println("together:", sum)
	// Output:
	// Lima: 10000000
	// never heard of Atlantis
	// together: 10700000
}

// A server answers with a stream, of which the caller takes as much as it wants.
func ExampleRequester_Stream() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := fabric.Open(ctx, fabric.Config{Name: "n1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	server, err := patterns.OpenStreamReplier(ctx, node, patterns.ReplierConfig[int, int]{Channel: "squares"},
		func(_ context.Context, from int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := from; yield(i*i, nil); i++ { // until nobody wants more
				}
			}
		})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	squares, err := patterns.OpenRequester(ctx, node, patterns.RequesterConfig[int, int]{Channel: "squares"})
	if err != nil {
		log.Fatal(err)
	}
	defer squares.Close()
	if err := squares.WaitServers(ctx, 1); err != nil {
		log.Fatal(err)
	}
	for n, err := range squares.Stream(ctx, 3, patterns.CallOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n)
		if n > 20 {
			break
		}
	}
	// Output:
	// 9
	// 16
	// 25
}
