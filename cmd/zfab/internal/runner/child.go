package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric/directory"
)

// What a node's process and its parent say to each other:
//
//	parent                        child
//	{"spec": ...}            ->
//	                         <-   {"ready": true}       or {"failed": "why"}
//	{"start": nanoseconds}   ->
//	                         <-   {"received": n}       now and then
//	{"stop": true}           ->                         if the deadline passed
//	                         <-   {"result": ...}
//	(end of input)           ->

// An order is a line to the child. One of its fields is set.
type order struct {
	Spec  *Spec `json:"spec,omitempty"`
	Start int64 `json:"start,omitempty"` // nanoseconds of the wall clock
	Stop  bool  `json:"stop,omitempty"`
}

// A word is a line from the child. One of its fields is set.
type word struct {
	Ready       bool    `json:"ready,omitempty"`
	Failed      string  `json:"failed,omitempty"`
	Unreachable bool    `json:"unreachable,omitempty"` // the directory is what failed
	Received    *uint64 `json:"received,omitempty"`
	Result      *Result `json:"result,omitempty"`
}

// Child is one node in a process of its own, the other end of a process
// cluster. It returns when its input ends.
func Child(ctx context.Context, in io.Reader, out io.Writer, logger *slog.Logger) error {
	ctx, orders := child.Orders[order](ctx, in)
	s := &nodeServer{orders: orders, out: json.NewEncoder(out), logger: logger}
	err := s.serve(ctx)
	if ctx.Err() != nil {
		return nil // the parent has what it wants, or is gone
	}
	return err
}

// A nodeServer is used by one goroutine.
type nodeServer struct {
	orders <-chan order
	out    *json.Encoder
	logger *slog.Logger
}

func (s *nodeServer) serve(ctx context.Context) error {
	o, err := child.Next(ctx, s.orders)
	if err != nil || o.Spec == nil {
		return errors.Join(err, errors.New("the first order is no spec"))
	}
	dir, err := directory.Dial(ctx, o.Spec.Directory, directory.Options{Logger: s.logger})
	if err != nil {
		return s.fail(ctx, err)
	}
	defer dir.Close()
	m, err := openMember(ctx, *o.Spec, dir, s.logger)
	if err != nil {
		return s.fail(ctx, err)
	}
	defer m.close()
	if err := s.out.Encode(word{Ready: true}); err != nil {
		return err
	}
	o, err = child.Next(ctx, s.orders)
	if err != nil || o.Start == 0 {
		return errors.Join(err, errors.New("the second order is no start"))
	}
	r := s.run(ctx, m, startedAt(o.Start))
	logs.Hush(s.logger)
	if err := s.out.Encode(word{Result: &r}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// run runs the node and tells progress meanwhile. An order to stop ends it.
func (s *nodeServer) run(ctx context.Context, m *member, start clock) Result {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan Result)
	go func() {
		start.until(ctx, 0)
		done <- m.run(ctx, start)
	}()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case r := <-done:
			return r
		case <-ticker.C:
			n := m.received()
			s.out.Encode(word{Received: &n}) // a parent that is gone ends ctx
		case o := <-s.orders:
			if o.Stop {
				stop()
			}
		}
	}
}

// fail tells the parent why, and waits for it to take note.
func (s *nodeServer) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	if err := s.out.Encode(word{Failed: err.Error(), Unreachable: errors.Is(err, directory.ErrUnavailable)}); err != nil {
		return fmt.Errorf("telling the parent: %w", err)
	}
	<-ctx.Done()
	return nil
}
