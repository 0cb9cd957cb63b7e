package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// claims are clients who claim, use and give up names, all of them the same few,
// at all directories; and who try old incarnations all the time.
type claims struct {
	stop    chan struct{}
	running sync.WaitGroup

	given   atomic.Int64
	refused atomic.Int64 // old incarnations
	failed  atomic.Int64 // calls to which no directory had an answer

	mu     sync.Mutex
	latest map[string]uint64 // by name
	errors []error
}

const (
	claimants = 4
	names     = 2
)

func startClaims(t *testing.T, addresses []string) *claims {
	c := &claims{stop: make(chan struct{}), latest: map[string]uint64{}}
	for i := range claimants {
		client := dial(t, addresses, i)
		c.running.Go(func() { c.claim(t.Context(), client, i) })
	}
	watching := dial(t, addresses, 1)
	w, err := watching.WatchNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.running.Go(func() {
		<-c.stop
		cancel()
	})
	c.running.Go(func() { c.watch(ctx, w) })
	return c
}

func (c *claims) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors = append(c.errors, fmt.Errorf(format, args...))
}

// watch checks that nobody is told of an incarnation after a greater one.
func (c *claims) watch(ctx context.Context, w directory.Watcher) {
	last := map[string]uint64{}
	for {
		e, err := w.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.note("watch: %w", err)
			return
		}
		if e.Kind == directory.Added {
			if e.Node.Incarnation < last[e.Node.Name] {
				c.note("told of %s with incarnation %d after %d", e.Node.Name, e.Node.Incarnation, last[e.Node.Name])
			}
			last[e.Node.Name] = e.Node.Incarnation
		}
	}
}

func (c *claims) claim(ctx context.Context, client *directory.Client, number int) {
	rng := rand.New(rand.NewPCG(uint64(number), 11))
	for {
		select {
		case <-c.stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond): // a pace
		}
		name := fmt.Sprintf("claimed%d", rng.IntN(names))
		info := directory.NodeInfo{Name: name, Endpoint: fmt.Sprintf("tcp://claimant:%d", number)}
		before := c.known(name)
		if rng.IntN(3) == 0 && before > 0 {
			c.old(ctx, client, info, before-uint64(rng.IntN(2)))
			continue
		}
		incarnation, err := client.Join(ctx, info)
		switch {
		case errors.Is(err, directory.ErrNameTaken):
			continue
		case errors.Is(err, directory.ErrUnavailable):
			c.failed.Add(1)
			continue
		case err != nil:
			if ctx.Err() == nil {
				c.note("join %s: %w", name, err)
			}
			return
		}
		if incarnation <= before {
			c.note("%s was given incarnation %d, %d was given before", name, incarnation, before)
		}
		c.learn(name, incarnation)
		c.given.Add(1)
		err = client.Add(ctx, incarnation, directory.Member{Channel: "claims", Role: directory.Producer, Node: name, Index: number})
		if err == nil || errors.Is(err, directory.ErrUnavailable) {
			err = client.Leave(ctx, name, incarnation)
		}
		if errors.Is(err, directory.ErrUnavailable) || errors.Is(err, directory.ErrStale) {
			c.failed.Add(1) // the client makes it good; stale: it was away for a lease, or lost
		} else if err != nil && ctx.Err() == nil {
			c.note("use of %s: %w", name, err)
		}
	}
}

// old claims a name for a life that is over, or is another's.
func (c *claims) old(ctx context.Context, client *directory.Client, info directory.NodeInfo, incarnation uint64) {
	info.Incarnation = incarnation
	info.Endpoint += "/old"
	_, err := client.Join(ctx, info)
	switch {
	case errors.Is(err, directory.ErrStale), errors.Is(err, directory.ErrNameTaken):
		c.refused.Add(1)
	case errors.Is(err, directory.ErrUnavailable):
		c.failed.Add(1)
	case err == nil:
		c.note("%s was given incarnation %d a second time", info.Name, incarnation)
	case ctx.Err() == nil:
		c.note("old %s: %w", info.Name, err)
	}
}

func (c *claims) known(name string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest[name]
}

func (c *claims) learn(name string, incarnation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest[name] = max(c.latest[name], incarnation)
}

func (c *claims) finish(t *testing.T) {
	t.Helper()
	close(c.stop)
	c.running.Wait()
	for _, err := range c.errors {
		t.Error(err)
	}
	if c.given.Load() == 0 || c.refused.Load() == 0 {
		t.Errorf("%d incarnations given, %d old ones refused: nothing was tried", c.given.Load(), c.refused.Load())
	}
	t.Logf("%d incarnations given, %d old ones refused, %d calls without an answer", c.given.Load(), c.refused.Load(), c.failed.Load())
}
