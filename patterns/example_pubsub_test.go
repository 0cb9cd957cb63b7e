package patterns_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/patterns"
)

// Wind is a message: any type that MessagePack takes.
type Wind struct {
	Knots int
}

// A weather station publishes, and a subscriber gets the wind of all places: first
// what was last known of each, then what is new.
func ExamplePublisher() {
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
	station := open("station")
	defer station.Close()
	publisher, err := patterns.OpenPublisher(ctx, station, patterns.PublisherConfig[Wind]{Channel: "weather", Retain: 1000})
	if err != nil {
		log.Fatal(err)
	}
	publish := func(topic string, knots int) {
		if err := publisher.Publish(ctx, topic, Wind{knots}); err != nil {
			log.Fatal(err)
		}
	}
	publish("oslo.wind", 3)
	publish("oslo.wind", 5)
	publish("oslo.rain", 0)

	reader := open("reader")
	defer reader.Close()
	subscriber, err := patterns.OpenSubscriber(ctx, reader, patterns.SubscriberConfig[Wind]{
		Channel: "weather", Filters: []patterns.Filter{patterns.Pattern("*.wind")}, Retained: true, Publishers: 1,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer subscriber.Close()
	publish("bergen.wind", 12) // the subscription is confirmed: this arrives
	publish("bergen.rain", 9)
	if err := publisher.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	for m, err := range subscriber.Messages(ctx) { // ends as its one publisher has finished
		if err != nil {
			log.Print(err) // some were missed, a publisher is lost, or a message is no Wind
			continue
		}
		fmt.Println(m.Topic, m.Value.Knots, m.Replayed)
	}
	// Output:
	// oslo.wind 5 true
	// bergen.wind 12 false
}

// A subscriber that is behind learns how much it missed, and where.
func ExampleSubscriber() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := fabric.Open(ctx, fabric.Config{Name: "n1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	publisher, err := patterns.OpenPublisher(ctx, node, patterns.PublisherConfig[string]{Channel: "ticks"})
	if err != nil {
		log.Fatal(err)
	}
	subscriber, err := patterns.OpenSubscriber(ctx, node, patterns.SubscriberConfig[string]{
		Channel: "ticks", Filters: []patterns.Filter{patterns.Prefix("")}, Publishers: 1,
		Quality: patterns.BoundedDrop, Queue: fabric.HighWaterMark{Messages: 2},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer subscriber.Close()
	for i := range 5 { // nobody reads meanwhile
		if err := publisher.Publish(ctx, "second", fmt.Sprint("tick ", i)); err != nil {
			log.Fatal(err)
		}
	}
	if err := publisher.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	for subscriber.Stats().Missed < 3 { // it has come as far as the queue
		time.Sleep(time.Millisecond)
	}
	for m, err := range subscriber.Messages(ctx) {
		var missed *patterns.MissedError
		switch {
		case errors.As(err, &missed):
			fmt.Println("missed", missed.Messages)
		case err != nil:
			log.Print(err)
		default:
			fmt.Println(m.Value)
		}
	}
	// Output:
	// tick 0
	// tick 1
	// missed 3
}
