package child

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"time"
)

// maxUnread is how many orders may wait. A child that has stopped asking for
// orders must still see the end of its input behind them: until it asks, no
// parent gives more than a setup, a start and a stop.
const maxUnread = 4

// closeGrace is how long a child may take to close what it has open when its
// input has ended. If its parent is gone, so is the directory that it would sign
// off from; it ends all the same.
const closeGrace = 2 * time.Second

// Orders are what the parent tells, at the child's end. The context ends when
// the parent closes the input or is gone, or when ctx does; the process ends
// closeGrace later at the latest.
func Orders[T any](ctx context.Context, in io.Reader) (context.Context, <-chan T) {
	ctx, cancel := context.WithCancel(ctx)
	orders := make(chan T, maxUnread)
	// It cannot be waited for, since a read of the standard input cannot be
	// interrupted; the end of the process ends it.
	go read(ctx, cancel, in, orders)
	return ctx, orders
}

func read[T any](ctx context.Context, cancel context.CancelFunc, in io.Reader, orders chan<- T) {
	defer end(cancel)
	d := json.NewDecoder(bufio.NewReader(in))
	for {
		var order T
		if d.Decode(&order) != nil {
			return
		}
		select {
		case orders <- order:
		case <-ctx.Done():
			return
		}
	}
}

// end ends the child's work, and the child if that takes too long.
func end(cancel context.CancelFunc) {
	cancel()
	time.AfterFunc(closeGrace, func() { os.Exit(1) })
}

// Next is the next order; the context's error if there will be none.
func Next[T any](ctx context.Context, orders <-chan T) (T, error) {
	select {
	case order := <-orders:
		return order, nil
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
