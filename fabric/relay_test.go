package fabric

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/lanes"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// turnstile is what clients of a directory dial in its place: it counts them, and can
// cut all, or let nothing through of those that are there, or of those that come, too.
type turnstile struct {
	t  *testing.T
	ln net.Listener
	to string

	mu     sync.Mutex
	open   map[net.Conn]bool
	passed int // connections so far
	frozen int // so many of them: the first ones
}

func newTurnstile(t *testing.T, to string) *turnstile {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &turnstile{t: t, ln: ln, to: strings.TrimPrefix(to, "tcp://"), open: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.serve(near) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		s.cut()
		running.Wait()
	})
	return s
}

func (s *turnstile) addr() string { return "tcp://" + s.ln.Addr().String() }

func (s *turnstile) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", s.to)
	if err != nil {
		return
	}
	defer far.Close()
	s.mu.Lock()
	s.open[near] = true
	s.passed++
	number := s.passed
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.open, near)
		s.mu.Unlock()
	}()
	back := make(chan struct{})
	go func() {
		defer close(back)
		s.copy(near, far, number)
	}()
	s.copy(far, near, number)
	<-back
}

// copy ends both with either. What comes while frozen goes nowhere.
func (s *turnstile) copy(to, from net.Conn, number int) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		s.mu.Lock()
		frozen := number <= s.frozen
		s.mu.Unlock()
		if err == nil && !frozen {
			_, err = to.Write(b[:n])
		}
		if err != nil {
			return
		}
	}
}

func (s *turnstile) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *turnstile) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
	}
}

// freeze lets nothing more through.
func (s *turnstile) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = math.MaxInt
}

// freezeOpen lets nothing more through of the connections that are there.
func (s *turnstile) freezeOpen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = s.passed
}

// However many workers a node has, the directory has two connections of it: the
// node's own, and the one that its workers share.
func TestWorkersShareOneConnectionWithTheDirectory(t *testing.T) {
	ctx := testContext(t)
	c := newCluster(t)
	turnstile := newTurnstile(t, c.directory)
	c.directory = turnstile.addr()
	h1, h2 := c.host("h1"), c.host("h2")
	var all []*Node
	for i := range 12 {
		all = append(all, c.worker([]string{"h1", "h2"}[i%2], fmt.Sprintf("w%02d", i)))
	}
	if n := turnstile.count(); n != 4 {
		t.Errorf("%d connections of two nodes with 12 workers, want 4", n)
	}
	if err := allToAll(t, ctx, append(all[:6:6], h1, h2), 20); err != nil {
		t.Fatal(err)
	}

	// They break: everybody registers again, and there are no more than before.
	turnstile.cut()
	for i, w := range all {
		newConsumer(t, w, fmt.Sprintf("after-%d", i), ConsumerConfig{}) // waits until the worker is connected again
	}
	for i, w := range all {
		if info, err := h1.Directory().Node(ctx, w.Name()); err != nil || info.Incarnation != w.Incarnation() {
			t.Errorf("worker %d is registered as %v, %v", i, info, err)
		}
	}
	waitFor(t, ctx, "the connections are four again", func() bool { return turnstile.count() == 4 })

	// One goes: its node is out of the directory, the others' are not.
	crash(all[0])
	waitFor(t, ctx, "the dead worker is out of the directory", func() bool {
		_, err := h1.Directory().Node(ctx, all[0].Name())
		return err != nil
	})
	if _, err := h1.Directory().Node(ctx, all[2].Name()); err != nil {
		t.Error(err)
	}
}

// dialAsWorker is a connection to a host's attach socket for the directory, of what is no worker.
func (c *cluster) dialAsWorker(host string) *transport.Conn {
	c.t.Helper()
	conn, err := transport.Dial(testContext(c.t), c.socket(host), transport.Config{
		SocketType: transport.Dealer, Accepts: []transport.SocketType{transport.Dealer}, Logger: slog.New(slog.DiscardHandler),
		MaxFrame: maxReplyFrame, MaxMessage: 2 * maxReplyFrame,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// What is more than the directory takes of anybody ends the connection of the worker that asks
// it, and the one that all share goes on. What is just not more is answered.
func TestWorkerThatAsksMoreThanTheDirectoryTakesIsCutOffAlone(t *testing.T) {
	c := newCluster(t)
	host := c.host("h1")
	w := c.worker("h1", "w")
	up := host.workers.directory.current()
	envelope := func(frames, bytes int) (message [][]byte) {
		message = append(message, make([]byte, bytes))
		for len(message) < frames {
			message = append(message, nil)
		}
		return message
	}
	most := lanes.MaxMessage - lanes.MaxFrame
	for name, tt := range map[string]struct {
		request  [][]byte
		answered bool
	}{
		"the most":        {append(envelope(lanes.MaxFrames-1, most), make([]byte, lanes.MaxFrame)), true},
		"a frame":         {[][]byte{make([]byte, lanes.MaxFrame+1)}, false},
		"all frames":      {append(envelope(lanes.MaxFrames-1, most+1), make([]byte, lanes.MaxFrame)), false},
		"count of frames": {append(envelope(lanes.MaxFrames, 1), []byte{0x80}), false},
		"ZMTP's frames":   {append(envelope(1023, 1), []byte{0x80}), false},
	} {
		conn := c.dialAsWorker("h1")
		conn.WriteMessage(tt.request...) // fails if it is cut off at the first frame's header
		reply, err := conn.ReadMessage()
		if tt.answered && (err != nil || len(reply) != len(tt.request)) || !tt.answered && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
			t.Errorf("%s: reply of %d frames, %v", name, len(reply), err)
		}
		conn.Close()
	}
	newConsumer(t, w, "after", ConsumerConfig{})
	if host.workers.directory.current() != up {
		t.Error("the workers' connection with the directory is another one")
	}
}

// A worker that asks and does not read is cut off alone.
func TestWorkerThatReadsNoRepliesIsCutOffAlone(t *testing.T) {
	ctx := testContext(t)
	c := newCluster(t)
	dir := c.host("h1").Directory()
	w := c.worker("h1", "w")
	deaf := c.dialAsWorker("h1")
	// A short request with a reply of 256 KiB: the directory does not cut it off for what it asks.
	node, channel := strings.Repeat("n", 255), strings.Repeat("c", 255)
	incarnation, err := dir.Join(ctx, directory.NodeInfo{Name: node, Endpoint: "mem://n"})
	if err != nil {
		t.Fatal(err)
	}
	var members []directory.Member
	for i := range 500 {
		members = append(members, directory.Member{Channel: channel, Role: directory.Consumer, Node: node, Index: i})
	}
	if err := dir.Add(ctx, incarnation, members...); err != nil {
		t.Fatal(err)
	}
	request, err := msgpack.Marshal(map[string]any{"op": "members", "channel": channel})
	if err != nil {
		t.Fatal(err)
	}
	deaf.SetWriteDeadline(time.Now().Add(time.Minute))
	asked := 0
	for ; err == nil; asked++ {
		err = deaf.WriteMessage(request)
		if asked%10 == 0 {
			newConsumer(t, w, fmt.Sprintf("c%d", asked), ConsumerConfig{})
		}
	}
	if context.Cause(ctx) != nil || asked < maxLaneQueue/(256<<10) {
		t.Errorf("cut off after %d requests: %v", asked, err)
	}
	newConsumer(t, w, "after", ConsumerConfig{})
}

// The directory that the workers share a connection with hangs: they move on to
// another, as their node does.
func TestWorkersLeaveADirectoryThatHangs(t *testing.T) {
	ctx := testContext(t)
	registry := directory.NewRegistry()
	t.Cleanup(func() { registry.Close() })
	var addrs []string
	for range 2 {
		server, err := directory.Serve(ctx, registry, "tcp://127.0.0.1:0", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		addrs = append(addrs, server.Addr())
	}
	c := newCluster(t)
	hangs := newTurnstile(t, addrs[0])
	c.directory = hangs.addr() + "," + addrs[1]
	c.host("h1")
	w := c.worker("h1", "w")
	hangs.freeze()
	for i := 0; ; i++ {
		consumer, err := w.Consumer(ctx, fmt.Sprintf("c%d", i), ConsumerConfig{})
		if err == nil {
			consumer.Close()
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if info, err := registry.Node(ctx, "w"); err != nil || info.Incarnation != w.Incarnation() {
		t.Errorf("the worker is registered as %v, %v", info, err)
	}
}

// Nothing comes through the workers' connection any more, though the directory takes new
// ones: within a bounded time they have another, whose patience is not that of each dial.
func TestWorkersLeaveAConnectionThatHangs(t *testing.T) {
	ctx := testContext(t)
	c := newCluster(t)
	hangs := newTurnstile(t, c.directory)
	c.directory = hangs.addr()
	host := c.host("h1")
	var all []*Node
	for i := range 3 {
		all = append(all, c.worker("h1", fmt.Sprintf("w%d", i)))
	}
	before := host.workers.directory.current()
	frozen := time.Now()
	hangs.freezeOpen()
	all[0].Consumer(ctx, "asked", ConsumerConfig{}) // whether or not it is heard in time
	waitFor(t, ctx, "the workers have another connection", func() bool { return host.workers.directory.current() != before })
	if took := time.Since(frozen); took > 3*uplinkPatience {
		t.Errorf("another connection after %v", took)
	}
	for i, w := range all {
		newConsumer(t, w, fmt.Sprintf("after-%d", i), ConsumerConfig{})
		if info, err := host.Directory().Node(ctx, w.Name()); err != nil || info.Incarnation != w.Incarnation() {
			t.Errorf("%s is registered as %v, %v", w.Name(), info, err)
		}
	}
}

// listenMem listens inside the process, for connections with lanes or for a worker's.
func listenMem(t *testing.T, kind transport.SocketType) *transport.Listener {
	t.Helper()
	ln, err := transport.Listen(fmt.Sprintf("mem://%s-%s", t.Name(), kind), transport.Config{SocketType: kind, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// openUplink is the uplink of a node's workers with the lane of one, whose connection is
// there too, and the directory's end of it.
func openUplink(t *testing.T) (d *directories, up *uplink, l *workerLane, worker, dir *transport.Conn) {
	t.Helper()
	ln := listenMem(t, transport.Router)
	d = &directories{addrs: []string{ln.Addr()}, identity: lanes.Identity, logger: slog.New(slog.DiscardHandler), dialling: make(chan struct{}, 1)}
	t.Cleanup(d.close)
	_, worker = memConn(t)
	up, l, err := d.open(t.Context(), worker)
	if err == nil {
		dir, err = ln.Accept(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return d, up, l, worker, dir
}

// memConn is both ends of a worker's connection with its node.
func memConn(t *testing.T) (worker, node *transport.Conn) {
	t.Helper()
	ln := listenMem(t, transport.Dealer)
	worker, err := transport.Dial(t.Context(), ln.Addr(), transport.Config{SocketType: transport.Dealer})
	if err == nil {
		node, err = ln.Accept(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { worker.Close() })
	return worker, node
}

// An uplink lasts as long as it brings answers, and if nothing is asked.
func TestUplinkLastsAsLongAsItAnswers(t *testing.T) {
	for _, tt := range []struct {
		name        string
		after       time.Duration // the end of a lane is answered by the directory
		asks, tells bool
		lasts       bool
	}{
		{"answers", 0, true, false, true},
		{"answers late", uplinkPatience - time.Second, true, false, true},
		{"answers too late", uplinkPatience + time.Second, true, false, false},
		{"never answers", time.Hour, true, false, false},
		{"tells and does not answer", time.Hour, true, true, false},
		{"is not asked", time.Hour, false, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, up, l, _, dir := openUplink(t)
				var answering sync.WaitGroup
				var after atomic.Int64
				var writing sync.Mutex
				say := func(frames ...[]byte) {
					writing.Lock()
					defer writing.Unlock()
					dir.WriteMessage(frames...)
				}
				answering.Go(func() {
					for {
						frames, err := dir.ReadMessage()
						if err != nil {
							return
						}
						if kind, _, _, _ := lanes.Parse(frames); kind == lanes.End {
							time.Sleep(time.Duration(after.Load()))
							say(frames...)
						}
					}
				})
				defer answering.Wait()
				defer dir.Close()
				time.Sleep(2 * uplinkPatience) // the lane was opened: that was asked, too
				after.Store(int64(tt.after))
				began, message := time.Now(), lanes.Append(nil, lanes.Message, l.number)
				for time.Since(began) < time.Minute {
					if tt.asks {
						up.write(message, []byte("asked"))
					}
					if tt.tells {
						say(message, []byte("told"))
					}
					select {
					case <-up.ended:
						if took := time.Since(began); tt.lasts || took > uplinkPatience+2*uplinkTick {
							t.Errorf("it has ended after %v", took)
						}
						return
					case <-time.After(time.Second):
					}
				}
				if !tt.lasts {
					t.Error("it lasts")
				}
			})
		})
	}
}

// A relay opens no more lanes than the directory takes of one, which are all of which the
// directory has not told the end: one whose worker has gone before is there until then.
func TestLanesOfAnUplinkAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, up, l, worker, dir := openUplink(t)
		var open, ended atomic.Int64 // as the directory has it
		go func() {
			for {
				frames, err := dir.ReadMessage()
				if err != nil {
					return
				}
				switch kind, _, _, _ := lanes.Parse(frames); kind {
				case lanes.Open:
					open.Add(1)
				case lanes.End:
					ended.Add(1)
				}
			}
		}()
		for err := error(nil); err == nil; _, l, err = d.open(t.Context(), worker) {
			up.end(l)
		}
		time.Sleep(2 * uplinkTick) // there is room for a look
		if open, ended := open.Load(), ended.Load(); open != lanes.MaxLanes || ended != lanes.MaxLanes {
			t.Errorf("%d lanes opened, and %d ended, want %d", open, ended, lanes.MaxLanes)
		}
		if up != d.current() {
			t.Fatal("it is another uplink")
		}
		if err := dir.WriteMessage(lanes.Append(nil, lanes.End, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, _, err := d.open(t.Context(), worker); err != nil {
			t.Error(err)
		}
		if _, _, err := d.open(t.Context(), worker); err == nil {
			t.Error("a lane more")
		}
	})
}

// What the directory said before it ended a lane, or before its connection broke, the
// worker has before its own connection ends; unless it does not read.
func TestRepliesBeforeTheEndReachTheWorker(t *testing.T) {
	const replies = 20
	reply := make([]byte, 64<<10) // a few fit between node and worker, the rest waits for it
	for name, end := range map[string]func(dir *transport.Conn, lane uint64){
		"of the lane":                            func(dir *transport.Conn, lane uint64) { dir.WriteMessage(lanes.Append(nil, lanes.End, lane)) },
		"of the uplink":                          func(dir *transport.Conn, lane uint64) { dir.Close() },
		"of the uplink, when something is asked": func(dir *transport.Conn, lane uint64) { dir.Close() },
	} {
		for _, reads := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, worker reads %v", name, reads), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ln := listenMem(t, transport.Router)
					n := &Node{cfg: Config{Logger: slog.New(slog.DiscardHandler)}, ctx: t.Context()}
					n.workers = &workers{directory: &directories{
						addrs: []string{ln.Addr()}, identity: lanes.Identity, logger: n.cfg.Logger, dialling: make(chan struct{}, 1),
					}}
					defer n.workers.directory.close()
					worker, near := memConn(t)
					n.wg.Add(1)
					go n.relay(near)
					dir, err := ln.Accept(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					defer dir.Close()
					opened, err := dir.ReadMessage()
					if err != nil {
						t.Fatal(err)
					}
					_, lane, _, err := lanes.Parse(opened)
					if err != nil {
						t.Fatal(err)
					}
					for range replies {
						if err := dir.WriteMessage(lanes.Append(nil, lanes.Message, lane), reply); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
					end(dir, lane)
					synctest.Wait()
					if strings.HasSuffix(name, "asked") {
						worker.WriteMessage([]byte("asked"))
						synctest.Wait()
					}
					if !reads {
						began := time.Now()
						n.wg.Wait()
						if took := time.Since(began); took > uplinkPatience {
							t.Errorf("the worker's connection ends after %v", took)
						}
						return
					}
					for i := range replies {
						if _, err := worker.ReadMessage(); err != nil {
							t.Fatalf("reply %d of %d: %v", i, replies, err)
						}
					}
					if _, err := worker.ReadMessage(); err != io.EOF {
						t.Error(err)
					}
					n.wg.Wait()
				})
			})
		}
	}
}
