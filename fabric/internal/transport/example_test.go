package transport_test

import (
	"context"
	"fmt"

	"github.com/zfab/zfab/fabric/internal/transport"
)

// Two nodes meet: the producer's listens as a DEALER, the consumer's connects as a ROUTER, and packets go both ways.
func Example() {
	ctx := context.Background()
	l, err := transport.Listen("mem://n1", transport.Config{SocketType: transport.Dealer, Identity: "n1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	consumer, err := transport.Dial(ctx, l.Addr(), transport.Config{SocketType: transport.Router, Identity: "n2"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer consumer.Close()
	producer, err := l.Accept(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer producer.Close()

	packet := []byte("results")
	header := transport.AppendFrameHeader(nil, len(packet), false)
	if err := producer.WriteBuffers([][]byte{header, packet}); err != nil {
		fmt.Println(err)
		return
	}
	p, _, err := consumer.ReadPacket() // p is valid until the next read
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %s: %s\n", consumer.PeerType(), consumer.PeerIdentity(), p)
	// Output: DEALER n1: results
}
