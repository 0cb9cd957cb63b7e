package fabric_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// open opens a node that logs nothing.
func open(ctx context.Context, dir directory.Service, name string) *fabric.Node {
	node, err := fabric.Open(ctx, fabric.Config{Name: name, Directory: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	return node
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Two nodes of one process share a directory. Those of different processes have
// a directory.Client each.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry()
	defer dir.Close()
	first, err := fabric.Open(ctx, fabric.Config{Name: "n1", Directory: dir, Logger: slog.New(slog.DiscardHandler)})
	check(err)
	defer first.Close()
	fmt.Println(first.Name())

	_, err = fabric.Open(ctx, fabric.Config{Name: "n1", Directory: dir})
	fmt.Println(errors.Is(err, directory.ErrNameTaken))
	// Output:
	// n1
	// true
}

// The processes of a host share its node. Here they are in one process; the node
// is the command zfab node otherwise.
func ExampleAttach() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "zfab")
	check(err)
	defer os.RemoveAll(dir)
	socket := "ipc://" + filepath.Join(dir, "h1.sock")
	quiet := slog.New(slog.DiscardHandler)
	host, err := fabric.Open(ctx, fabric.Config{Name: "h1", Workers: fabric.Workers{Listen: socket}, Logger: quiet})
	check(err)
	defer host.Close()

	worker, err := fabric.Attach(ctx, socket, fabric.AttachConfig{Name: "w1", Logger: quiet})
	check(err)
	defer worker.Close()
	consumer, err := worker.Consumer(ctx, "scores", fabric.ConsumerConfig{})
	check(err)

	other, err := fabric.Attach(ctx, socket, fabric.AttachConfig{Name: "w2", Logger: quiet})
	check(err)
	defer other.Close()
	producer, err := other.Producer(ctx, "scores", fabric.ProducerConfig{})
	check(err)
	check(producer.Send(ctx, fabric.Address{Node: "w1", Index: 0}, []byte("42")))
	message, err := consumer.Receive(ctx)
	check(err)
	fmt.Printf("%s from %s, by way of %s\n", message.Body, message.Source(), other.Endpoint())
	// Output:
	// 42 from w2/0, by way of via:h1
}

func ExampleProducer_Send() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry()
	defer dir.Close()
	n1, n2 := open(ctx, dir, "n1"), open(ctx, dir, "n2")
	defer n1.Close()
	defer n2.Close()
	consumer, err := n2.Consumer(ctx, "scores", fabric.ConsumerConfig{})
	check(err)
	producer, err := n1.Producer(ctx, "scores", fabric.ProducerConfig{})
	check(err)

	// It waits while the stream is at its high-water mark, until ctx ends.
	check(producer.Send(ctx, consumer.Address(), []byte("42")))
	// Stored by the consumer's end; it need not have been received.
	check(producer.Flush(ctx))

	err = producer.Send(ctx, fabric.Address{Node: "n3"}, nil)
	fmt.Println(errors.Is(err, fabric.ErrNoConsumer), err)
	// Output: true channel scores has no consumer n3/0
}

func ExampleConsumer_Messages() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry()
	defer dir.Close()
	n1, n2 := open(ctx, dir, "n1"), open(ctx, dir, "n2")
	defer n1.Close()
	defer n2.Close()
	consumer, err := n2.Consumer(ctx, "scores", fabric.ConsumerConfig{Producers: 1})
	check(err)
	producer, err := n1.Producer(ctx, "scores", fabric.ProducerConfig{})
	check(err)
	for i := range 3 {
		check(producer.Send(ctx, consumer.Address(), fmt.Appendf(nil, "score %d", i)))
	}
	check(producer.Drain(ctx)) // the promised producer has finished

	for message, err := range consumer.Messages(ctx) {
		var lost *fabric.PeerLostError
		switch {
		case errors.As(err, &lost):
			fmt.Println("nothing more will come from", lost.Node) // others may go on
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Printf("%s from %s\n", message.Body, message.Source()) // Keep it to have it longer
		}
	}
	// Output:
	// score 0 from n1/0
	// score 1 from n1/0
	// score 2 from n1/0
}

// A consumer leaves while its producers go on: it gets what they have sent, and
// what comes later goes to the others.
func ExampleConsumer_Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry()
	defer dir.Close()
	n1, n2, n3 := open(ctx, dir, "n1"), open(ctx, dir, "n2"), open(ctx, dir, "n3")
	defer n1.Close()
	defer n2.Close()
	defer n3.Close()
	leaves, err := n2.Consumer(ctx, "scores", fabric.ConsumerConfig{})
	check(err)
	stays, err := n3.Consumer(ctx, "scores", fabric.ConsumerConfig{})
	check(err)
	producer, err := n1.Producer(ctx, "scores", fabric.ProducerConfig{})
	check(err)
	check(producer.WaitConsumers(ctx, 2))
	check(producer.SendAll(ctx, []byte("to both")))

	drained := make(chan error, 1)
	go func() { drained <- leaves.Drain(ctx) }()
	for message, err := range leaves.Messages(ctx) { // ends by itself
		check(err)
		fmt.Printf("%s: %s\n", leaves.Address(), message.Body)
	}
	check(<-drained)

	check(producer.SendAll(ctx, []byte("to who is there")))
	for range 2 {
		message, err := stays.Receive(ctx)
		check(err)
		fmt.Printf("%s: %s\n", stays.Address(), message.Body)
	}
	// Output:
	// n2/0: to both
	// n3/0: to both
	// n3/0: to who is there
}

// A node is restarted without loss: everything accepted for its consumers is
// received, and everything that its producers sent is stored, before it closes.
func ExampleNode_Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry()
	defer dir.Close()
	n1, n2 := open(ctx, dir, "n1"), open(ctx, dir, "n2")
	defer n1.Close()
	in, err := n2.Consumer(ctx, "in", fabric.ConsumerConfig{})
	check(err)
	out, err := n2.Producer(ctx, "out", fabric.ProducerConfig{})
	check(err)
	results, err := n1.Consumer(ctx, "out", fabric.ConsumerConfig{Producers: 1})
	check(err)
	work, err := n1.Producer(ctx, "in", fabric.ProducerConfig{})
	check(err)
	check(out.WaitConsumers(ctx, 1))
	for i := range 3 {
		check(work.Send(ctx, in.Address(), []byte{byte('0' + i)}))
	}

	drained := make(chan error, 1)
	go func() { drained <- n2.Drain(ctx) }()
	for message, err := range in.Messages(ctx) { // goes on until all of it is done
		check(err)
		check(out.SendAll(ctx, append([]byte("done "), message.Body...)))
	}
	check(<-drained)

	for message, err := range results.Messages(ctx) {
		check(err)
		fmt.Printf("%s\n", message.Body)
	}
	// Output:
	// done 0
	// done 1
	// done 2
}
