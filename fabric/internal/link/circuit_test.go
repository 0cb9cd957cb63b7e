package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/internal/circuit"
	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// road is a worker w1 at a node h1, a worker w2 at a node h2, and the link
// between the nodes: six ends of three links.
type road struct {
	t          *testing.T
	w1, h1w1   *Link // w1's link with its node, and the node's
	h1h2, h2h1 *Link
	h2w2, w2   *Link
	taken      chan *Circuit // what w2 has taken
	refuse     atomic.Bool   // w2 takes nothing
	died       atomic.Bool   // a worker's link that ends says that the worker is dead
	down       chan error    // links that have ended, of h2 with w2
	raw2       *transport.Conn
}

// bothEnds returns the two ends of a connection.
func bothEnds(t testing.TB) (a, b *transport.Conn) {
	t.Helper()
	addr := fmt.Sprintf("mem://circuit-%s-%d", t.Name(), connections.Add(1))
	ln, err := transport.Listen(addr, transport.Config{SocketType: transport.Dealer, MaxFrame: wire.MaxPacket})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = transport.Dial(t.Context(), addr, transport.Config{SocketType: transport.Router, MaxFrame: wire.MaxPacket}); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, b
}

var connections atomic.Int64

// newRoad connects all, but for w2 if raw: then raw2 is the connection that its link would have.
func newRoad(t *testing.T, raw bool) *road {
	r := &road{t: t, taken: make(chan *Circuit, 100), down: make(chan error, 10)}
	config := func(node string, called func(*Link, *Call), down func(*Link, error)) *Config {
		c := testConfig(flow.Mark{Messages: 1000, Bytes: 1 << 20})
		c.Node, c.MaxStreams, c.PingTicks, c.DeadTicks = node, 0, 1<<30, 1<<30
		c.Hooks.Called = called
		if called == nil {
			c.Hooks.Called = func(_ *Link, k *Call) { k.Refuse(wire.CodeUnknown, "nobody is called here") }
		}
		c.Hooks.Cut = func(*Link, error) (uint8, string) {
			if r.died.Load() {
				return wire.CodeGone, "the worker is dead"
			}
			return wire.CodeBusy, "the way has broken"
		}
		if down != nil {
			c.Hooks.Down = down
		}
		return c
	}
	pass := func(to **Link) func(*Link, *Call) {
		return func(_ *Link, k *Call) {
			if err := k.Pass(*to); err != nil {
				k.Refuse(wire.CodeBusy, err.Error())
			}
		}
	}
	r.w1 = New(config("w1", nil, nil), "h1")
	r.h1w1 = New(config("h1", pass(&r.h1h2), nil), "w1")
	r.h1h2 = New(config("h1", nil, nil), "h2")
	r.h2h1 = New(config("h2", pass(&r.h2w2), nil), "h1")
	r.h2w2 = New(config("h2", pass(&r.h2h1), func(_ *Link, cause error) { r.down <- cause }), "w2")
	r.w2 = New(config("w2", func(_ *Link, k *Call) {
		if r.refuse.Load() {
			k.Refuse(wire.CodeRefused, "not now")
		} else if c := k.Take(); c != nil {
			r.taken <- c
		}
	}, nil), "h2")
	for _, two := range [][2]*Link{{r.w1, r.h1w1}, {r.h1h2, r.h2h1}, {r.w2, r.h2w2}} {
		a, b := bothEnds(t)
		two[1].Attach(b, 1<<20)
		if raw && two[0] == r.w2 {
			r.raw2 = a
			t.Cleanup(func() { a.Close() })
			continue
		}
		two[0].Attach(a, 1<<20)
	}
	t.Cleanup(func() {
		var all sync.WaitGroup
		for _, l := range r.all() {
			all.Go(func() { l.Close(100*time.Millisecond, true) })
		}
		all.Wait()
	})
	return r
}

func (r *road) all() []*Link { return []*Link{r.w1, r.h1w1, r.h1h2, r.h2h1, r.h2w2, r.w2} }

// dial calls w2 from w1, and returns both ends.
func (r *road) dial() (near, far *Circuit) {
	r.t.Helper()
	near, err := r.w1.Dial("w1", "w2", "h2")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := near.Accepted(patient(r.t)); err != nil {
		r.t.Fatal(err)
	}
	return near, <-r.taken
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// framed is packets, framed for WriteBuffers, and each in so many pieces.
func framed(pieces int, packets ...[]byte) (bufs [][]byte) {
	for _, p := range packets {
		bufs = append(bufs, transport.AppendFrameHeader(nil, len(p), false))
		for ; pieces > 1; pieces-- {
			n := len(p) / pieces
			bufs = append(bufs, p[:n])
			p = p[n:]
		}
		bufs = append(bufs, p)
	}
	return bufs
}

func numbered(number, size int) []byte {
	p := make([]byte, max(8, size))
	binary.BigEndian.PutUint64(p, uint64(number))
	p[len(p)-1] = byte(number)
	return p
}

// What is written at one end is read at the other, whatever its size and pieces,
// both ways at once.
func TestCircuitCarriesPackets(t *testing.T) {
	r := newRoad(t, false)
	near, far := r.dial()
	sizes := []int{8, 9, 255, 256, 300, copyMax, copyMax + 1, 5000, 64 << 10, wire.MaxCarried}
	var wg sync.WaitGroup
	for _, way := range [][2]*Circuit{{near, far}, {far, near}} {
		wg.Go(func() {
			for i := range 200 {
				p := numbered(i, sizes[i%len(sizes)])
				if err := way[0].WriteBuffers(framed(1+i%2, p)); err != nil {
					t.Error(err)
					return
				}
				clear(p) // it is written: the memory is the writer's again
			}
		})
		wg.Go(func() {
			for i := range 200 {
				p, _, err := way[1].ReadPacket()
				if err != nil || !bytes.Equal(p, numbered(i, sizes[i%len(sizes)])) {
					t.Errorf("packet %d: %d bytes, %v", i, len(p), err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n, err := near.WriteNow(append(transport.AppendFrameHeader(nil, 3, false), "now"...)); n != 5 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if p, _, err := far.ReadPacket(); err != nil || string(p) != "now" {
		t.Errorf("%q, %v", p, err)
	}
	if err := near.WriteBuffers([][]byte{transport.AppendFrameHeader(nil, wire.MaxCarried+1, false), make([]byte, wire.MaxCarried+1)}); err == nil {
		t.Error("a packet was taken that is too large")
	}
	if err := near.WriteBuffers([][]byte{transport.AppendFrameHeader(nil, 10, false)}); err == nil {
		t.Error("a packet was taken that is not there")
	}
	near.Close()
	var ended *CircuitError
	if _, _, err := far.ReadPacket(); !errors.As(err, &ended) || ended.Code != wire.CodeDone {
		t.Error(err)
	}
	far.Close()
	r.empty()
}

// empty waits until no link carries a circuit any more.
func (r *road) empty() {
	r.t.Helper()
	ctx := patient(r.t)
	for _, l := range r.all() {
		for len(l.CircuitViews()) > 0 {
			if ctx.Err() != nil {
				r.t.Fatalf("a circuit is left: %+v", l.CircuitViews())
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// One end does not read: its circuit holds a window at each step of the way, and
// the others go on.
func TestCircuitThatNobodyReadsHoldsUpItselfOnly(t *testing.T) {
	r := newRoad(t, false)
	stalled, unread := r.dial()
	near, far := r.dial()
	stuck := make(chan error, 1)
	go func() {
		for {
			if err := stalled.WriteBuffers(framed(1, numbered(1, 60_000), numbered(2, 60_000))); err != nil {
				stuck <- err
				return
			}
		}
	}()
	flowing := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 3000 && err == nil; i++ {
			err = near.WriteBuffers(framed(1, numbered(i, 10_000)))
		}
		flowing <- err
	}()
	for range 3000 {
		if _, _, err := far.ReadPacket(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-flowing; err != nil {
		t.Fatal(err)
	}
	for _, l := range []*Link{r.h1h2, r.h2w2} {
		for _, v := range l.CircuitViews() {
			if v.Queued > circuit.Window {
				t.Errorf("%d bytes of a circuit wait at one place", v.Queued)
			}
		}
	}
	select {
	case err := <-stuck:
		t.Fatal(err)
	default:
	}
	// The write that waits ends with the circuit.
	unread.Close()
	var ended *CircuitError
	if err := <-stuck; !errors.As(err, &ended) {
		t.Error(err)
	}
	stalled.Close()
	near.Close()
	far.Close()
	r.empty()
}

// lentBuffer is received memory of which somebody counts who holds it.
type lentBuffer struct{ refs int }

func (b *lentBuffer) Retain()  { b.refs++ }
func (b *lentBuffer) Release() { b.refs-- }
func (b *lentBuffer) Cap() int { return 256 << 10 }

// Packets wait in the memory into which they were read, but small ones in large
// memory do not keep more of it than a window; and it is given back.
func TestCircuitThatWaitsKeepsBoundedMemory(t *testing.T) {
	r := newRoad(t, true)
	r.h1h2.mu.Lock()
	end, err := r.h1h2.core.circuits.Call("w1", "w2", "h2", nil) // nobody accepts it
	r.h1h2.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	p := &pass{link: r.h1h2, end: end}
	kept := func(buffers []*lentBuffer) (n int) {
		r.h1h2.mu.Lock()
		defer r.h1h2.mu.Unlock()
		for _, b := range buffers {
			n += min(b.refs, 1)
		}
		return n
	}
	body := make([]byte, copyMax+1)
	var buffers []*lentBuffer
	for range 100 {
		b := &lentBuffer{}
		buffers = append(buffers, b)
		for range 4 { // they lie side by side
			p.packet(body, b)
		}
	}
	if n := kept(buffers); n != circuit.Window/(256<<10) {
		t.Errorf("%d buffers of 256 KiB are kept, with a window of %d bytes", n, circuit.Window)
	}
	dense := &lentBuffer{}
	p.packet(body, dense)
	if n := kept([]*lentBuffer{dense}); n != 0 {
		t.Error("one more is kept")
	}
	r.h1h2.mu.Lock()
	r.h1h2.core.circuits.Close(end, wire.CodeDone, "")
	left := end.Kept()
	r.h1h2.mu.Unlock()
	if n := kept(buffers); n != 0 || left != 0 {
		t.Errorf("%d buffers are held, and %d bytes counted, for a circuit that is gone", n, left)
	}
}

func TestDeadlinesOfCircuits(t *testing.T) {
	r := newRoad(t, false)
	near, far := r.dial()
	near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, _, err := near.ReadPacket(); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	near.SetReadDeadline(time.Time{})
	near.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	var err error
	for err == nil {
		err = near.WriteBuffers(framed(1, numbered(1, 60_000)))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := near.WriteBuffers(framed(1, numbered(1, 8))); err == nil {
		t.Error("something was written after a write that failed")
	}
	far.Close()
	// A deadline that is set while a write waits counts too.
	r.empty()
	near, far = r.dial()
	done := make(chan error)
	go func() {
		var err error
		for err == nil {
			err = near.WriteBuffers(framed(1, numbered(1, 60_000)))
		}
		done <- err
	}()
	for r.w1.CircuitViews()[0].Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	near.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	near.Close()
	far.Close()
	r.empty()
}

// cut breaks a link, and waits until both its ends know.
func (r *road) cut(a, b *Link) {
	r.t.Helper()
	a.Cut(errors.New("cut"))
	for ctx := patient(r.t); a.Up() || b.Up(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			r.t.Fatal("the link does not end")
		}
	}
}

// Whatever breaks on the way, both ends of a circuit hear so, a write that waits
// too; and if it was the other's process, that it is gone.
func TestCircuitEndsWithWhatItRunsOver(t *testing.T) {
	for name, c := range map[string]struct {
		cut  func(*road) (a, b *Link)
		dead bool
		near uint8 // the code that w1 hears
	}{
		"the caller's link":   {func(r *road) (a, b *Link) { return r.w1, r.h1w1 }, false, wire.CodeBusy},
		"the nodes' link":     {func(r *road) (a, b *Link) { return r.h2h1, r.h1h2 }, false, wire.CodeBusy},
		"the other's link":    {func(r *road) (a, b *Link) { return r.w2, r.h2w2 }, false, wire.CodeBusy},
		"the other's process": {func(r *road) (a, b *Link) { return r.w2, r.h2w2 }, true, wire.CodeGone},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(t, false)
			r.died.Store(c.dead)
			near, far := r.dial()
			written := make(chan error)
			go func() {
				for {
					if err := near.WriteBuffers(framed(1, numbered(1, 60_000))); err != nil {
						written <- err
						return
					}
				}
			}()
			a, b := c.cut(r)
			r.cut(a, b)
			var err error
			for err == nil {
				_, _, err = far.ReadPacket()
			}
			if <-written == nil {
				t.Error("the write goes on")
			}
			_, _, err = near.ReadPacket()
			var ended *CircuitError
			if !errors.As(err, &ended) || ended.Code != c.near {
				t.Errorf("the caller hears %v", err)
			}
			near.Close()
			far.Close()
			r.empty()
		})
	}
}

// Streams of a link and circuits that it carries have the same share of it.
func TestStreamsAndCircuitsTakeTurns(t *testing.T) {
	mark := flow.Mark{Messages: 1 << 16, Bytes: 8 << 20}
	l := New(testConfig(mark), "peer")
	c := &l.core
	c.attach(1 << 20)
	streams := make([]*SendStream, 3)
	for i := range streams {
		streams[i] = l.Stream("x", i, mark)
		for range 2000 {
			if err := streams[i].TrySend(&Sender{}, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		open := wire.Record{Kind: wire.KindOpen, Stream: uint32(i), Text: []byte("x"), Index: uint32(i), Instance: 1}
		state := wire.Record{Kind: wire.KindState, Stream: uint32(i), State: wire.State{Stream: uint32(i), LimitMessages: 1 << 20, LimitBytes: 1 << 30}}
		if err := errors.Join(c.record(&open, nil), c.record(&state, nil)); err != nil {
			t.Fatal(err)
		}
	}
	circuits := make([]*circuit.End, 5)
	for i := range circuits {
		e, err := c.circuits.Call("a", "b", "c", nil)
		if err != nil {
			t.Fatal(err)
		}
		circuits[i] = e
		accept := wire.Record{Kind: wire.KindAccept, Stream: uint32(2*i + 1)}
		if c.cfg.Node <= c.peer {
			accept.Stream = uint32(2 * i)
		}
		accept.Limit = 1 << 40
		if err := c.record(&accept, nil); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			c.circuits.Send(e, circuit.Parcel{Body: make([]byte, 30_000), Size: 30_000})
		}
	}
	for range 20 {
		b := batchPool.Get().(*batch)
		c.gather(b)
		b.seal()
		b.reset()
		batchPool.Put(b)
	}
	var least, most uint64 = 1 << 60, 0
	count := func(n uint64) { least, most = min(least, n), max(most, n) }
	for _, s := range streams {
		count(s.View().Sent.Bytes)
	}
	for _, v := range l.CircuitViews() {
		count(v.Sent)
	}
	if least == 0 || most > least+3*quantum {
		t.Errorf("the least that one has sent is %d bytes, the most %d", least, most)
	}
}
