package directory_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// A directory for other processes, one of them this one, and a watch of who is in a channel.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	registry := directory.NewRegistry()
	defer registry.Close()
	server, err := directory.Serve(ctx, registry, "tcp://127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	client, err := directory.Dial(ctx, server.Addr(), directory.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	watcher, err := client.Watch(ctx, "scores")
	if err != nil {
		log.Fatal(err)
	}
	defer watcher.Close()

	incarnation, err := client.Join(ctx, directory.NodeInfo{Name: "n3", Endpoint: "tcp://10.0.0.3:4000"})
	if err != nil {
		log.Fatal(err)
	}
	member := directory.Member{Channel: "scores", Role: directory.Consumer, Node: "n3", Index: 1}
	if err := client.Add(ctx, incarnation, member); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		event, err := watcher.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if event.Kind == directory.Synced {
			fmt.Println(event.Kind)
			continue
		}
		fmt.Println(event.Kind, event.Member.Role, event.Member, event.Node.Endpoint)
	}
	// Output:
	// synced
	// added consumer scores/n3/1 tcp://10.0.0.3:4000
}
