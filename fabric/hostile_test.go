package fabric

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Bytes of ZMTP, written by hand.
var zmtpGreeting = slices.Concat([]byte{0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0}, []byte("NULL"), make([]byte, 48))

func zmtpProperty(name, value string) string {
	return string(rune(len(name))) + name + string(binary.BigEndian.AppendUint32(nil, uint32(len(value)))) + value
}

func zmtpReady(properties string) []byte {
	body := "\x05READY" + properties
	return append([]byte{4, byte(len(body))}, body...)
}

// stranger is a hostile connection of which nothing is known but its address.
type stranger struct {
	t testing.TB
	net.Conn
}

func newStranger(t testing.TB, n *Node) *stranger {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(n.Endpoint(), "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &stranger{t, c}
}

func (s *stranger) remote() string { return "tcp://" + s.LocalAddr().String() }

func (s *stranger) send(parts ...[]byte) {
	s.t.Helper()
	if _, err := s.Write(slices.Concat(parts...)); err != nil {
		s.t.Fatal(err)
	}
}

// closedByPeer waits until the node has ended the connection.
func (s *stranger) closedByPeer() {
	s.t.Helper()
	if _, err := io.Copy(io.Discard, s); err != nil && strings.Contains(err.Error(), "timeout") {
		s.t.Fatal("the node keeps the connection")
	}
}

// intruder is a hostile peer that has finished the ZMTP handshake as a ROUTER.
type intruder struct {
	t    testing.TB
	name string
	*transport.Conn
}

func newIntruder(t testing.TB, n *Node, name string) *intruder {
	t.Helper()
	c, err := transport.Dial(testContext(t), n.Endpoint(), transport.Config{SocketType: transport.Router, Identity: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	return &intruder{t, name, c}
}

func (e *intruder) remote() string { return e.LocalAddr() }

func (e *intruder) send(packet []byte) {
	e.t.Helper()
	if err := e.WriteMessage(packet); err != nil {
		e.t.Fatal(err)
	}
}

// greet says hello and hears the node's.
func (e *intruder) greet(incarnation uint64) {
	e.t.Helper()
	e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: e.name, Incarnation: incarnation, MaxMessage: 1 << 20}))
	if rec := e.read(); rec.Kind != wire.KindHello {
		e.t.Fatalf("%s instead of a hello: %s", rec.Kind, rec.Text)
	}
}

// read returns the first record of the next packet.
func (e *intruder) read() wire.Record {
	e.t.Helper()
	p, _, err := e.ReadPacket()
	if err != nil {
		e.t.Fatal(err)
	}
	var rec wire.Record
	if _, err := wire.Next(p, 0, &rec); err != nil {
		e.t.Fatal(err)
	}
	rec.Text = bytes.Clone(rec.Text)
	return rec
}

// stream waits for the open record of the node's consumer, and returns its
// label.
func (e *intruder) stream() uint32 {
	e.t.Helper()
	for {
		if rec := e.read(); rec.Kind == wire.KindOpen {
			return rec.Stream
		}
	}
}

// refused reads until the node ends the connection. It returns the last bye's
// code, or -1.
func (e *intruder) refused() int {
	e.t.Helper()
	code := -1
	for {
		p, _, err := e.ReadPacket()
		if err != nil {
			if strings.Contains(err.Error(), "timeout") {
				e.t.Fatal("the node keeps the connection")
			}
			return code
		}
		for rec := (wire.Record{}); len(p) > 0; {
			if p, err = wire.Next(p, 0, &rec); err != nil {
				e.t.Fatal(err)
			}
			if rec.Kind == wire.KindBye {
				code = int(rec.Code)
			}
		}
	}
}

// offer registers a producer of the channel at a node that nobody can dial, so
// that the victim's consumer opens a stream to it once it is connected.
func offer(t testing.TB, dir directory.Service, node, channel string) (incarnation uint64) {
	t.Helper()
	ctx := testContext(t)
	incarnation, err := dir.Join(ctx, directory.NodeInfo{Name: node})
	if err == nil {
		err = dir.Add(ctx, incarnation, directory.Member{Channel: channel, Role: directory.Producer, Node: node})
	}
	if err != nil {
		t.Fatal(err)
	}
	return incarnation
}

func data(stream uint32, seq uint64, body []byte) []byte {
	return wire.AppendMessage(wire.AppendDataHeader(nil, stream, 0, seq, 1), body)
}

func fragment(stream uint32, seq uint64, total, offset uint32, body []byte) []byte {
	return append(wire.AppendFragmentHeader(nil, stream, 0, seq, total, offset, len(body)), body...)
}

// attacks are what a hostile peer does at a node's port. Each returns the
// address, or the name, that its line in the log is to show.
var attacks = []struct {
	name   string
	reason string // in the log
	do     func(t testing.TB, n *Node, dir directory.Service, name string) (who string)
}{
	{"frame header bomb instead of READY", "protocol error", func(t testing.TB, n *Node, _ directory.Service, _ string) string {
		s := newStranger(t, n)
		s.send(zmtpGreeting, []byte{6, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		s.closedByPeer()
		return s.remote()
	}},
	{"missing Socket-Type", "Socket-Type", func(t testing.TB, n *Node, _ directory.Service, _ string) string {
		s := newStranger(t, n)
		s.send(zmtpGreeting, zmtpReady(zmtpProperty("Identity", "x")))
		s.closedByPeer()
		return s.remote()
	}},
	{"truncated READY", "protocol error", func(t testing.TB, n *Node, _ directory.Service, _ string) string {
		s := newStranger(t, n)
		s.send(zmtpGreeting, zmtpReady("\x0bSocket-Type\x00\x00\x00\xffROUTER"))
		s.closedByPeer()
		return s.remote()
	}},
	{"garbage", "protocol error", func(t testing.TB, n *Node, _ directory.Service, _ string) string {
		s := newStranger(t, n)
		s.send([]byte("GET / HTTP/1.1\r\nHost: node\r\n\r\n"))
		s.closedByPeer()
		return s.remote()
	}},
	{"wrong socket type", "DEALER", func(t testing.TB, n *Node, _ directory.Service, _ string) string {
		s := newStranger(t, n)
		s.send(zmtpGreeting, zmtpReady(zmtpProperty("Socket-Type", "DEALER")))
		s.closedByPeer()
		return s.remote()
	}},
	{"frame header bomb instead of hello", "frame", func(t testing.TB, n *Node, _ directory.Service, _ string) string {
		s := newStranger(t, n)
		s.send(zmtpGreeting, zmtpReady(zmtpProperty("Socket-Type", "ROUTER")), []byte{2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		s.closedByPeer()
		return s.remote()
	}},
	{"garbage packet instead of hello", "wire:", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.send(bytes.Repeat([]byte{0xc1}, 100))
		e.refused()
		return e.remote()
	}},
	{"ping instead of hello", "ping record", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.send(wire.AppendPing(nil, 1))
		e.refused()
		return e.remote()
	}},
	{"hello of another version", "version 3", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version + 1, Node: name, Incarnation: 1}))
		if code := e.refused(); code != wire.CodeProtocol {
			t.Errorf("refused with code %d", code)
		}
		return e.remote()
	}},
	{"hello with the node's own name", "this node's own", func(t testing.TB, n *Node, _ directory.Service, _ string) string {
		e := newIntruder(t, n, n.Name())
		e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: n.Name(), Incarnation: 1 << 40}))
		if code := e.refused(); code != wire.CodeRefused {
			t.Errorf("refused with code %d", code)
		}
		return e.remote()
	}},
	{"hello with a name that is none", "at byte 4", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: "evil\n", Incarnation: 1}))
		if code := e.refused(); code != wire.CodeRefused {
			t.Errorf("refused with code %d", code)
		}
		return e.remote()
	}},
	{"incarnation that no later life can exceed", "incarnation", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, "good")
		e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: "good", Incarnation: 1<<64 - 1}))
		if code := e.refused(); code != wire.CodeRefused {
			t.Errorf("refused with code %d", code)
		}
		return e.remote()
	}},
	{"older incarnation", "is older than 5", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(5)
		e.Close()
		e = newIntruder(t, n, name)
		e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: name, Incarnation: 4, Connection: 99}))
		if code := e.refused(); code != wire.CodeFenced {
			t.Errorf("refused with code %d", code)
		}
		return e.remote()
	}},
	{"hello on an open link", "hello record", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: name, Incarnation: 2}))
		e.breach()
		return e.remote()
	}},
	{"frame header bomb on an open link", "frame", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		if err := e.WriteBuffers([][]byte{{2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}); err != nil {
			t.Fatal(err)
		}
		e.refused()
		return e.remote()
	}},
	{"oversize packet", "frame", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		if err := e.WriteMessage(make([]byte, wire.MaxPacket+1)); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
		e.refused()
		return e.remote()
	}},
	{"garbage packet on an open link", "wire:", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		e.send([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
		e.breach()
		return e.remote()
	}},
	{"data beyond the limit", "beyond the limit", func(t testing.TB, n *Node, dir directory.Service, name string) string {
		life := offer(t, dir, name, "victim")
		e := newIntruder(t, n, name)
		e.greet(life)
		e.send(data(e.stream(), 0, make([]byte, 100)))
		e.breach()
		return e.remote()
	}},
	{"data that skips positions", "expected 0", func(t testing.TB, n *Node, dir directory.Service, name string) string {
		life := offer(t, dir, name, "victim")
		e := newIntruder(t, n, name)
		e.greet(life)
		e.send(data(e.stream(), 1, nil))
		e.breach()
		return e.remote()
	}},
	{"data on a stream that was never opened", "never opened", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		e.send(data(60_000, 0, make([]byte, 100)))
		e.breach()
		return e.remote()
	}},
	{"label beyond the most streams", "65536", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		e.send(wire.AppendOpen(nil, 1<<16, "victim", 0, 1))
		e.breach()
		return e.remote()
	}},
	{"open on a bad channel", "bad channel", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		e.send(wire.AppendOpen(nil, 0, "no\nchannel", 0, 1))
		e.breach()
		return e.remote()
	}},
	{"state that acknowledges what was never sent", "acknowledge", func(t testing.TB, n *Node, _ directory.Service, name string) string {
		e := newIntruder(t, n, name)
		e.greet(1)
		p := wire.AppendOpen(nil, 0, "victim", 0, 1)
		p = wire.AppendState(p, &wire.State{})
		e.send(wire.AppendState(p, &wire.State{Next: 5}))
		e.breach()
		return e.remote()
	}},
	{"fragment that claims 1 GiB", "1073741824 bytes", func(t testing.TB, n *Node, dir directory.Service, name string) string {
		life := offer(t, dir, name, "victim")
		e := newIntruder(t, n, name)
		e.greet(life)
		e.send(fragment(e.stream(), 0, 1<<30, 0, []byte("x")))
		e.breach()
		return e.remote()
	}},
	{"backlog that claims 1 GiB", "1073741824 bytes", func(t testing.TB, n *Node, dir directory.Service, name string) string {
		life := offer(t, dir, name, "victim")
		e := newIntruder(t, n, name)
		e.greet(life)
		e.send(wire.AppendBacklog(nil, &wire.Backlog{Stream: e.stream(), NextSize: 1 << 30, Flags: wire.BacklogBlocked}))
		e.breach()
		return e.remote()
	}},
}

// breach waits for the node's bye, which must say that the protocol was broken.
func (e *intruder) breach() {
	e.t.Helper()
	if code := e.refused(); code != wire.CodeProtocol {
		e.t.Errorf("the connection ended with code %d", code)
	}
}

// Whatever a hostile peer does: the good peer's traffic goes on, one line in
// the log tells of it, and it costs little memory.
func TestHostilePeers(t *testing.T) {
	ctx := testContext(t)
	dir, book := directory.NewRegistry(), newLogBook()
	victim := openWith(t, Config{Name: "victim", Directory: dir, Logger: book.logger()})
	newConsumer(t, victim, "victim", ConsumerConfig{})
	newProducer(t, victim, "victim", ProducerConfig{})
	good := startTraffic(t, openWith(t, Config{Name: "good", Directory: dir}), victim, "traffic")
	good.goesOn(t, ctx, 100)

	// These two end by their timeout of 5 s, while the others do their worst.
	silent, mute := newStranger(t, victim), newIntruder(t, victim, "mute")
	silent.send(zmtpGreeting[:11])

	before, sysBefore := heapInUse(), heapSys()
	told := make(map[string]string) // who, by attack
	for i, a := range attacks {
		name := fmt.Sprintf("evil-%d.", i)
		who := a.do(t, victim, dir, name)
		line := book.await(t, ctx, 1, who, a.reason)
		told[a.name] = who
		t.Logf("%s: %s", a.name, line[0])
		good.goesOn(t, ctx, 100)
	}
	book.await(t, ctx, 1, silent.remote(), "timed out")
	book.await(t, ctx, 1, mute.remote(), "hello")
	told["silence"], told["silence instead of hello"] = silent.remote(), mute.remote()
	for attack, who := range told {
		var lines []string
		for _, line := range book.with(who) {
			if !strings.Contains(line, "link up") {
				lines = append(lines, line)
			}
		}
		if len(lines) != 1 {
			t.Errorf("%s: %d lines in the log:\n%s", attack, len(lines), strings.Join(lines, "\n"))
		}
	}
	good.goesOn(t, ctx, 1000)
	if grown := heapInUse() - before; grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if grown := heapSys() - sysBefore; grown > 64<<20 {
		t.Errorf("the heap has taken %d bytes more from the system", grown)
	}
	up := victim.Stats().Links
	if !slices.ContainsFunc(up, func(l LinkStats) bool { return l.Peer == "good" && l.Up && l.Connections == 1 }) {
		t.Errorf("the good peer's link did not stay up: %+v", up)
	}
}

// A thousand connections that never finish their handshake: those that are
// connected go on, others get in, and each of the thousand is one line.
func TestHalfOpenConnections(t *testing.T) {
	const count = 1000
	ctx := testContext(t)
	dir, book := directory.NewRegistry(), newLogBook()
	victim := openWith(t, Config{Name: "victim", Directory: dir, Logger: book.logger()})
	good := startTraffic(t, openWith(t, Config{Name: "good", Directory: dir}), victim, "traffic")
	good.goesOn(t, ctx, 100)

	before := heapInUse()
	conns := make([]*stranger, count)
	for i := range conns {
		conns[i] = newStranger(t, victim)
		if i%2 == 0 {
			conns[i].send(zmtpGreeting[:i%64])
		}
	}
	good.goesOn(t, ctx, 1000)
	// A newcomer has to be let in: the victim consumes, so it dials; and the
	// newcomer consumes, so that it dials the victim.
	newcomer := openWith(t, Config{Name: "newcomer", Directory: dir})
	startTraffic(t, victim, newcomer, "back").goesOn(t, ctx, 100)
	if grown := heapInUse() - before; grown > 16<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	for _, c := range conns {
		c.Close()
	}
	book.await(t, ctx, count, "handshake failed")
	lines := book.with("handshake failed")
	if len(lines) != count {
		t.Errorf("%d lines", len(lines))
	}
	for _, c := range conns {
		if n := len(book.with("remote=" + c.remote() + " ")); n != 1 {
			t.Errorf("%d lines tell of %s", n, c.remote())
		}
	}
	good.goesOn(t, ctx, 1000)
}

// Connections that finish the ZMTP handshake and then say nothing are bounded
// too, and cost one line each.
func TestPeersThatSayNoHello(t *testing.T) {
	const count = 2 * maxGreeting
	ctx := testContext(t)
	dir, book := directory.NewRegistry(), newLogBook()
	victim := openWith(t, Config{Name: "victim", Directory: dir, Logger: book.logger()})
	good := startTraffic(t, openWith(t, Config{Name: "good", Directory: dir}), victim, "traffic")
	good.goesOn(t, ctx, 100)
	conns := make([]*intruder, count)
	for i := range conns {
		conns[i] = newIntruder(t, victim, "mute")
	}
	book.await(t, ctx, count-maxGreeting, "connection refused")
	victim.mu.Lock()
	if n := len(victim.greeting); n > maxGreeting {
		t.Errorf("%d connections are kept that have said no hello", n)
	}
	victim.mu.Unlock()
	startTraffic(t, victim, openWith(t, Config{Name: "newcomer", Directory: dir}), "back").goesOn(t, ctx, 100)
	for _, c := range conns {
		c.Close()
	}
	book.await(t, ctx, count, "connection refused")
	for _, c := range conns {
		if n := len(book.with("remote=" + c.remote() + " ")); n != 1 {
			t.Errorf("%d lines tell of %s", n, c.remote())
		}
	}
	good.goesOn(t, ctx, 1000)
}

// A node does not remember every name under which somebody has said hello.
func TestPeersOfManyNames(t *testing.T) {
	const extra = 100
	victim := openWith(t, Config{Name: "victim"})
	for i := range maxStrangers + extra {
		e := newIntruder(t, victim, fmt.Sprintf("evil-%d", i))
		e.greet(1)
		e.Close()
	}
	await(t, testContext(t), "peers to be forgotten", func() bool {
		victim.mu.Lock()
		defer victim.mu.Unlock()
		return len(victim.peers) <= maxStrangers+1
	})
}

// A peer that answers with an older life is refused by the dialler, and dialled
// again at a decent pace.
func TestDialledPeerOfAnOlderIncarnation(t *testing.T) {
	ctx := testContext(t)
	dir, book := directory.NewRegistry(), newLogBook()
	ln, err := transport.Listen("tcp://127.0.0.1:0", transport.Config{SocketType: transport.Dealer, Identity: "old"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	incarnation, err := dir.Join(ctx, directory.NodeInfo{Name: "old", Endpoint: ln.Addr()})
	if err == nil {
		err = dir.Add(ctx, incarnation, directory.Member{Channel: "x", Role: directory.Producer, Node: "old"})
	}
	if err != nil {
		t.Fatal(err)
	}
	victim := openWith(t, Config{Name: "victim", Directory: dir, Logger: book.logger()})
	newConsumer(t, victim, "x", ConsumerConfig{})
	second, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for dials := 0; ; dials++ {
		conn, err := ln.Accept(second)
		if err != nil {
			if dials < 2 || dials > 40 {
				t.Errorf("%d dials in a second", dials)
			}
			break
		}
		e := &intruder{t, "old", conn}
		e.SetReadDeadline(time.Now().Add(5 * time.Second))
		if rec := e.read(); rec.Kind != wire.KindHello {
			t.Fatalf("%s instead of a hello", rec.Kind)
		}
		life := incarnation
		if dials > 0 {
			life--
		}
		e.send(wire.AppendHello(nil, &wire.Hello{Version: wire.Version, Node: "old", Incarnation: life, MaxMessage: 100, Connection: uint64(dials) + 1}))
		if dials == 0 {
			book.await(t, ctx, 1, "link up")
		}
		conn.Close()
	}
	if lines := book.with("WARN", "old"); len(lines) > 3 {
		t.Errorf("%d lines in the log:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}
