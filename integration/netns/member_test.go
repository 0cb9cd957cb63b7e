package netns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// memberVariable in the environment makes the test's program a member.
const memberVariable = "ZFAB_NETNS_MEMBER"

func TestMain(m *testing.M) {
	if os.Getenv(memberVariable) != "" {
		if err := member(os.Args[1:]); err != nil {
			fmt.Printf("fault %v\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	removeStale()
	os.Exit(m.Run())
}

const (
	producers   = 2                     // of each node
	pace        = 10 * time.Millisecond // of each producer,
	perPace     = 20                    // so many messages
	bodySize    = 512
	progressive = 200 // messages after which a consumer says so
	endPatience = time.Minute
)

// member is a process of the fabric:
//
//	directory LISTEN
//	node NAME PEER LISTEN DIRECTORY
//
// It says "ready", and a node then "up" and "down" for the link to its peer. Told
// to go, its producers send, and told to stop they drain, and it says how much they
// have sent. It says "progress" as it receives, and how much that was in all when
// the peer's producers have finished, and "done". It ends with its standard input.
func member(args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told := orders{make(chan struct{}), make(chan struct{})}
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			switch in.Text() {
			case "go":
				close(told.begin)
			case "stop":
				close(told.stop)
			}
		}
		cancel()
	}()
	switch {
	case len(args) == 2 && args[0] == "directory":
		return serve(ctx, args[1])
	case len(args) == 5 && args[0] == "node":
		return node(ctx, told, args[1], args[2], args[3], args[4])
	default:
		return fmt.Errorf("no such member: %q", args)
	}
}

// orders are closed as they come.
type orders struct{ begin, stop chan struct{} }

func serve(ctx context.Context, listen string) error {
	s, err := directory.Serve(ctx, directory.NewRegistry(), listen, nil)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return s.Close()
}

// node runs a node whose producers send on the channel of its name, and whose
// consumer takes all that comes on its peer's.
func node(ctx context.Context, told orders, name, peer, listen, dir string) error {
	client, err := directory.Dial(ctx, dir, directory.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n, err := fabric.Open(ctx, fabric.Config{Name: name, Listen: listen, Directory: client, Logger: logger})
	if err != nil {
		return err
	}
	defer n.Close()
	consumer, err := n.Consumer(ctx, peer, fabric.ConsumerConfig{Producers: producers})
	if err != nil {
		return err
	}
	errs := make(chan error, producers+1)
	var running sync.WaitGroup
	for i := range producers {
		p, err := n.Producer(ctx, name, fabric.ProducerConfig{Index: i})
		if err != nil {
			return err
		}
		running.Go(func() { errs <- produce(ctx, told, p, fabric.Address{Node: peer}) })
	}
	running.Go(func() { errs <- consume(ctx, consumer) })
	watching, watched := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { watchLink(watching, n, peer) })
	fmt.Println("ready")
	running.Wait()
	watched()
	watch.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	for _, l := range n.Stats().Links {
		fmt.Println("connections", l.Connections)
		fmt.Println("resent", l.Resent)
	}
	fmt.Println("done")
	<-ctx.Done()
	return nil
}

// produce sends numbered messages while it is told to, and says how many.
func produce(ctx context.Context, told orders, p *fabric.Producer, to fabric.Address) error {
	if err := p.WaitConsumers(ctx, 1); err != nil {
		return err
	}
	select {
	case <-told.begin:
	case <-ctx.Done():
		return ctx.Err()
	}
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	body := make([]byte, bodySize)
	for sent := uint64(0); ; {
		select {
		case <-told.stop:
			ctx, cancel := context.WithTimeout(ctx, endPatience)
			defer cancel()
			if err := p.Drain(ctx); err != nil {
				return fmt.Errorf("after %d messages: %w", sent, err)
			}
			fmt.Println("sent", p.Address().Index, sent)
			return nil
		case <-ticker.C:
		}
		for range perPace {
			binary.BigEndian.PutUint64(body, sent)
			if err := p.Send(ctx, to, body); err != nil {
				return fmt.Errorf("message %d: %w", sent, err)
			}
			sent++
		}
	}
}

// consume takes messages until all producers have finished: those of each must
// come once and in order.
func consume(ctx context.Context, c *fabric.Consumer) error {
	var next [producers]uint64
	total := 0
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return fmt.Errorf("after %d messages: %w", total, err)
		}
		i := m.Source().Index
		if got := binary.BigEndian.Uint64(m.Body); len(m.Body) != bodySize || got != next[i] {
			return fmt.Errorf("message %d of producer %d where %d was due", got, i, next[i])
		}
		next[i]++
		if total++; total%progressive == 0 {
			fmt.Println("progress", total)
		}
	}
	for i, n := range next {
		fmt.Println("received", i, n)
	}
	return nil
}

// watchLink says when the link comes up and goes down.
func watchLink(ctx context.Context, n *fabric.Node, peer string) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for up := false; ; {
		if now := n.Connected(peer); now != up {
			up = now
			fmt.Println(map[bool]string{true: "up", false: "down"}[up])
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
