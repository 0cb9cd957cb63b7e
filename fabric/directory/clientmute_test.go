package directory

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/transport"
)

func TestWithoutADirectoryCallsEndWithUnavailable(t *testing.T) {
	addr := memAddr()
	opts := testOptions()
	opts.Timeout = 50 * time.Millisecond
	if _, err := Dial(testContext(t), addr, opts); !errors.Is(err, ErrUnavailable) {
		t.Errorf("dial: %v", err)
	} else if e := new(UnavailableError); !errors.As(err, &e) || e.Addr != addr {
		t.Errorf("dial: %#v", err)
	}
	s := mustServe(t, NewRegistry(), addr)
	c := mustDial(t, addr, opts)
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	w := mustWatch(t, c, "c")
	expect(t, w, "+c/n/0", "synced")
	s.Close()
	awaitGone(t, c)
	ctx := testContext(t)

	for name, call := range map[string]func() error{
		"join":     func() error { _, err := c.Join(ctx, NodeInfo{Name: "m"}); return err },
		"leave":    func() error { return c.Leave(ctx, "m", 1) },
		"add":      func() error { return c.Add(ctx, incarnation, consumer("c", "n", 1)) },
		"remove":   func() error { return c.Remove(ctx, incarnation, consumer("c", "n", 1)) },
		"members":  func() error { _, err := c.Members(ctx, "c"); return err },
		"channels": func() error { _, err := c.Channels(ctx); return err },
		"nodes":    func() error { _, err := c.Nodes(ctx); return err },
		"entries":  func() error { _, err := c.Entries(ctx); return err },
		"node":     func() error { _, err := c.Node(ctx, "n"); return err },
		"lookup":   func() error { _, err := c.Lookup(ctx, "other"); return err },
		"roster":   func() error { _, err := c.Roster(ctx, "other", 0); return err },
		"choose":   func() error { _, err := c.Choose(ctx, Query{Channel: "c", Role: Producer}); return err },
		"evict":    func() error { return c.Evict(ctx, "n", 0, true) },
		"status":   func() error { _, err := c.Status(ctx); return err },
		"watch":    func() error { _, err := c.Watch(ctx, "other"); return err },
	} {
		if err := call(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.Next(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("next: %v", err)
	}

	// The watch that failed must not be there, nor the member whose Add failed.
	r := NewRegistry()
	mustServe(t, r, addr)
	await(t, r, "c", "c/n/0")
	mustAdd(t, c, incarnation, consumer("c", "n", 2))
	await(t, r, "c", "c/n/0", "c/n/2")
	expect(t, w, "+c/n/2")
	if _, ok := r.table.channels["other"]; ok {
		t.Error("a failed watch is at the directory")
	}
}

// mute is something that accepts connections as a directory does and answers only what it is told to; connection
// counts from 1.
func mute(t *testing.T, answer func(connection int, q *request) *reply) string {
	t.Helper()
	l, err := transport.Listen(memAddr(), transport.Config{SocketType: transport.Router, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for connection := 1; ; connection++ {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			for {
				frames, err := conn.ReadMessage()
				if err != nil {
					break
				}
				var q request
				if err := decode(frames[0], &q); err != nil {
					t.Error(err)
				}
				if r := answer(connection, &q); r != nil {
					r.ID = q.ID
					_ = conn.WriteMessage(encode(r))
				}
			}
			stop()
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		cancel()
		l.Close()
		<-ended
	})
	return l.Addr()
}

func TestDirectoryThatDoesNotAnswerIsGivenUp(t *testing.T) {
	opts := testOptions()
	opts.Timeout = 50 * time.Millisecond
	opts.Heartbeat = time.Hour
	never := mute(t, func(int, *request) *reply { return nil })
	if _, err := Dial(testContext(t), never, opts); !errors.Is(err, ErrUnavailable) {
		t.Errorf("dial to a mute directory: %v", err)
	}
	for what, call := range map[string]func(c *Client) error{
		"nodes": func(c *Client) error { _, err := c.Nodes(testContext(t)); return err },
		"add":   func(c *Client) error { return c.Add(testContext(t), 1, consumer("c", "n", 0)) },
		"watch": func(c *Client) error { _, err := c.Watch(testContext(t), "c"); return err },
	} {
		addr := mute(t, func(connection int, q *request) *reply {
			switch {
			case q.Op == opRestate, q.Op == opSettle:
				return &reply{}
			case q.Op == opNode && connection > 1:
				return &reply{Nodes: wireNodes{{Node: infoOf("n", 1, "")}}}
			}
			return nil
		})
		c := mustDial(t, addr, opts)
		if err := call(c); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
		if info, err := c.Node(testContext(t), "n"); err != nil || info.Incarnation != 1 {
			t.Errorf("%s: over the next connection: %v, %v", what, info, err)
		}
	}
}

func TestHeartbeatFindsADirectoryThatHangs(t *testing.T) {
	opts := testOptions()
	opts.Timeout = 50 * time.Millisecond
	again := make(chan struct{}, 100)
	c := mustDial(t, mute(t, func(_ int, q *request) *reply {
		if q.Op == opPing {
			return nil
		}
		if q.Op == opRestate {
			again <- struct{}{}
		}
		return &reply{}
	}), opts)
	for range 3 {
		select {
		case <-again:
		case <-testContext(t).Done():
			t.Fatal("no new connection")
		}
	}
	c.Close()
}

// A call whose context ends while it is under way leaves nothing at the directory.
func TestCancelledCallsLeaveNothing(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	c := mustDial(t, s.Addr(), testOptions())
	incarnation := mustJoin(t, c, "n")
	mustAdd(t, c, incarnation, consumer("c", "n", 0))
	for range 20 {
		for what, call := range map[string]func(context.Context) error{
			"add":  func(ctx context.Context) error { return c.Add(ctx, incarnation, consumer("c", "n", 1)) },
			"join": func(ctx context.Context) error { _, err := c.Join(ctx, NodeInfo{Name: "m"}); return err },
		} {
			ctx, cancel := context.WithCancel(testContext(t))
			ended := make(chan error, 1)
			r.mu.Lock() // the directory is slow
			go func() { ended <- call(ctx) }()
			for c.underWay() == 0 && ctx.Err() == nil {
				runtime.Gosched()
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
			r.mu.Unlock() // now it does what was asked
		}
		if err := c.Leave(testContext(t), "m", mustJoin(t, c, "m")); err != nil { // a second try finds the name free
			t.Fatal(err)
		}
		mustAdd(t, c, incarnation, consumer("c", "n", 2))
		mustRemove(t, c, incarnation, consumer("c", "n", 2))
		await(t, r, "c", "c/n/0")
	}
	m := mustJoin(t, c, "m") // is free
	mustAdd(t, c, m, consumer("c", "m", 0))
	await(t, r, "c", "c/n/0", "c/m/0")
}

// underWay counts the changes that wait for their reply, their request being written.
func (c *Client) underWay() int {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil || len(c.changing) == 0 || len(conn.writing) > 0 {
		return 0
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	return len(conn.pending)
}

// Many callers at once, while connections break: in the end the directory has what the client holds.
func TestConcurrentChangesOverBreakingConnections(t *testing.T) {
	r := NewRegistry()
	s := mustServe(t, r, memAddr())
	c := mustDial(t, s.Addr(), testOptions())
	incarnation := mustJoin(t, c, "n")
	w := mustWatch(t, c, "c")
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for round := range 60 {
				m := consumer("c", "n", i%4) // each by two of them
				call := c.Add
				if (round+i)%3 == 0 {
					call = c.Remove
				}
				if err := call(testContext(t), incarnation, m); err != nil {
					t.Errorf("%v: %v", m, err)
				}
			}
		}()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		callers.Wait()
	}()
	for breaking := true; breaking; {
		select {
		case <-done:
			breaking = false
		case <-time.After(10 * time.Millisecond): // the rate of the breaks
			s.mu.Lock()
			for session := range s.sessions {
				session.conn.Close()
			}
			s.mu.Unlock()
		}
	}
	last := consumer("c", "n", 99)
	mustAdd(t, c, incarnation, last)
	there, err := r.Members(testContext(t), "c")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	held := slices.SortedFunc(maps.Keys(c.held["n"].members), Member.Compare)
	c.mu.Unlock()
	if !slices.Equal(held, there) {
		t.Errorf("held %v, at the directory %v", held, there)
	}
	state := map[Member]bool{}
	for !state[last] {
		e, err := w.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == Synced {
			continue
		}
		if state[e.Member] == (e.Kind == Added) {
			t.Fatalf("%s told twice", told(e))
		}
		state[e.Member] = e.Kind == Added
	}
	for i := range 4 {
		m := consumer("c", "n", i)
		if state[m] != slices.Contains(there, m) {
			t.Errorf("%v told %v, is not so", m, state[m])
		}
	}
}
