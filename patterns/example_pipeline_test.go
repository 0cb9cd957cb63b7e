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

// Image is a job: any type that MessagePack takes.
type Image struct {
	Name  string
	Width int
}

// A pusher gives jobs to two workers, who share them as they have time.
func ExamplePusher() {
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
	var workers sync.WaitGroup
	var mu sync.Mutex
	pixels := 0
	for _, name := range []string{"worker-1", "worker-2"} {
		node := open(name)
		defer node.Close()
		puller, err := patterns.OpenPuller(ctx, node, patterns.PullerConfig[Image]{Channel: "images", Pushers: 1})
		if err != nil {
			log.Fatal(err)
		}
		defer puller.Close()
		workers.Go(func() {
			for job, err := range puller.Jobs(ctx) {
				if err != nil {
					log.Print(err) // a pusher is lost, or a job cannot be decoded
					continue
				}
				mu.Lock()
				pixels += job.Value.Width
				mu.Unlock()
				if err := job.Ack(); err != nil { // done: if this worker dies before, another one gets it
					log.Print(err)
				}
			}
		})
	}
	node := open("pusher")
	defer node.Close()
	pusher, err := patterns.OpenPusher(ctx, node, patterns.PusherConfig[Image]{Channel: "images"})
	if err != nil {
		log.Fatal(err)
	}
	if err := pusher.WaitWorkers(ctx, 2); err != nil {
		log.Fatal(err)
	}
	for i := range 100 {
		if err := pusher.Push(ctx, Image{Name: fmt.Sprint(i, ".png"), Width: i}); err != nil {
			log.Fatal(err)
		}
	}
	if err := pusher.Drain(ctx); err != nil { // all are acknowledged
		log.Fatal(err)
	}
	workers.Wait()
	fmt.Println(pusher.Stats().Settled, "images,", pixels, "pixels")
	// Output:
	// 100 images, 4950 pixels
}

// Four handlers at a time; what one fails at comes again, and after three times
// goes to a channel of its own.
func ExamplePuller_Work() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := fabric.Open(ctx, fabric.Config{Name: "n1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	puller, err := patterns.OpenPuller(ctx, node, patterns.PullerConfig[string]{Channel: "mails", InFlight: 8, Pushers: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer puller.Close()
	failed, err := patterns.OpenPuller(ctx, node, patterns.PullerConfig[string]{Channel: "mails-failed", Pushers: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer failed.Close()
	pusher, err := patterns.OpenPusher(ctx, node, patterns.PusherConfig[string]{
		Channel: "mails", MaxDeliveries: 3, DeadLetters: "mails-failed",
	})
	if err != nil {
		log.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		err := puller.Work(ctx, 4, func(_ context.Context, job patterns.Job[string]) error {
			if job.Value == "nobody@nowhere" {
				return fmt.Errorf("no such address")
			}
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	})
	running.Go(func() {
		for job, err := range failed.Jobs(ctx) {
			if err != nil {
				log.Fatal(err)
			}
			reason, deliveries := job.DeadLetter()
			fmt.Printf("%s: %s (%d times)\n", job.Value, reason, deliveries)
			if err := job.Ack(); err != nil {
				log.Fatal(err)
			}
		}
	})
	for _, address := range []string{"a@x", "nobody@nowhere", "b@x"} {
		if err := pusher.Push(ctx, address); err != nil {
			log.Fatal(err)
		}
	}
	if err := pusher.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	running.Wait()
	// Output:
	// nobody@nowhere: no such address (3 times)
}
