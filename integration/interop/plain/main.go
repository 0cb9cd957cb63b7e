//go:build libzmq

// Command plain takes part in a fabric with plain libzmq sockets and a
// MessagePack library. It knows nothing of the fabric but its protocol pages, and
// imports nothing of it.
//
//	plain consumer ENDPOINT NODE OWN CHANNEL    a ROUTER joins NODE's link as the consumer's node OWN
//	plain producer DIRECTORY OWN CHANNEL COUNT  a DEALER is the producer's node OWN, and sends COUNT messages
//	plain directory ADDRESS CHANNEL             a REQ and a DEALER ask the directory
//
// It says on its standard output what happens, a line each; "fault" is what must
// not. It ends with its standard input.
package main

import (
	"bufio"
	"fmt"
	"os"
)

// patience is how long any answer may take, in milliseconds.
const patience = 20_000

func main() {
	orders := make(chan string, 16)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			orders <- in.Text()
		}
		os.Exit(0)
	}()
	args := os.Args[1:]
	var err error
	switch {
	case len(args) == 5 && args[0] == "consumer":
		err = consumer(args[1], args[2], args[3], args[4], orders)
	case len(args) == 5 && args[0] == "producer":
		err = producer(args[1], args[2], args[3], args[4])
	case len(args) == 3 && args[0] == "directory":
		err = directory(args[1], args[2])
	default:
		err = fmt.Errorf("no such part: %q", args)
	}
	if err != nil {
		fmt.Println("fault", err)
		os.Exit(1)
	}
	fmt.Println("done")
	select {} // until the input ends
}
