package fabric

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// The kinds, codes and flags of internal/wire/SPEC.md that a plain peer needs.
// This file speaks the link protocol from the page alone: with a ROUTER socket
// and a MessagePack library, and nothing else of this module.
const (
	specHello, specOpen, specData, specFragment, specEnd, specState = 0, 1, 2, 3, 4, 5
	specBacklog, specCancel, specReset, specPing, specPong, specBye = 6, 7, 8, 9, 10, 11

	specVersion = 2
	specBlocked = 1
	specAsk     = 8
)

// record is a record as the library decodes it: the kind, then the elements.
type record []any

func (r record) kind() int         { return int(number(r[0])) }
func (r record) number(i int) int  { return int(number(r[i])) }
func (r record) text(i int) string { return r[i].(string) }

func number(v any) int64 {
	switch v := v.(type) {
	case int8:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case uint64:
		return int64(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case int64:
		return v
	}
	panic(fmt.Sprintf("%T is no number", v))
}

// plainPeer is a consumer's node with one consumer.
type plainPeer struct {
	t    *testing.T
	conn *transport.Conn
	name string

	connection      int // its number
	label, consumer int
	channel         string
	instance        uint64

	// The stream, as section 4 and 5 say.
	epoch                         int
	next, offset                  int
	consumed, consumedBytes       int
	limit, limitBytes             int
	messages                      [][]byte
	partial                       []byte
	backlogs, fragments, finished int
	queue                         []record
}

// dialPlain connects as a ROUTER and does the handshake of section 3; known is
// the number of the connection before, 0 if there was none.
func dialPlain(t *testing.T, ctx context.Context, endpoint, name string, incarnation uint64, known int) *plainPeer {
	t.Helper()
	conn, err := transport.Dial(ctx, endpoint, transport.Config{SocketType: transport.Router, Identity: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	p := &plainPeer{t: t, conn: conn, name: name}
	p.say(record{specHello, specVersion, name, incarnation, 1 << 20, known})
	hello := p.hear()
	if hello.kind() != specHello || len(hello) != 6 || hello.number(1) != specVersion || hello.text(2) != conn.PeerIdentity() ||
		hello.number(3) == 0 || hello.number(5) <= known {
		t.Fatalf("not a hello: %v", hello)
	}
	p.connection = hello.number(5)
	return p
}

// say sends a packet of these records.
func (p *plainPeer) say(records ...record) {
	p.t.Helper()
	var packet []byte
	for _, r := range records {
		b, err := msgpack.Marshal([]any(r))
		if err != nil {
			p.t.Fatal(err)
		}
		packet = append(packet, b...)
	}
	if err := p.conn.WriteMessage(packet); err != nil {
		p.t.Fatal(err)
	}
}

// hear returns the next record.
func (p *plainPeer) hear() record {
	p.t.Helper()
	for len(p.queue) == 0 {
		packet, _, err := p.conn.ReadPacket()
		if err != nil {
			p.t.Fatalf("%v; the stream is at %d, consumed %d", err, p.next, p.consumed)
		}
		in := bytes.NewReader(packet)
		for d := msgpack.NewDecoder(in); in.Len() > 0; {
			v, err := d.DecodeInterface()
			if err != nil {
				p.t.Fatal(err)
			}
			p.queue = append(p.queue, v.([]any))
		}
	}
	r := p.queue[0]
	p.queue = p.queue[1:]
	return r
}

func (p *plainPeer) open() record {
	return record{specOpen, p.label, p.channel, p.consumer, p.instance}
}

func (p *plainPeer) state() record {
	return record{specState, p.label, p.epoch, p.next, p.offset, p.consumed, p.consumedBytes, p.limit, p.limitBytes}
}

// lend raises the limit to that many messages and bytes behind what is
// consumed.
func (p *plainPeer) lend(messages, bytes int) {
	p.limit, p.limitBytes = max(p.limit, p.consumed+messages), max(p.limitBytes, p.consumedBytes+bytes)
}

// take handles one record, and answers it as a consumer's end must.
func (p *plainPeer) take(r record) {
	p.t.Helper()
	switch r.kind() {
	case specPing:
		p.say(record{specPong, r[1]})
		return
	case specPong:
		return
	case specBye:
		p.t.Fatalf("bye, code %d: %s", r.number(1), r.text(2))
	}
	if r.number(1) != p.label {
		p.t.Fatalf("a record of stream %d: %v", r.number(1), r)
	}
	switch r.kind() {
	case specData:
		p.at(r.number(3))
		for _, m := range r[4].([]any) {
			p.store(m.([]byte))
		}
	case specFragment:
		p.at(r.number(3))
		body := r[6].([]byte)
		if r.number(5) != p.offset || len(body) < 1 || len(body) > 65536 {
			p.t.Fatalf("fragment of %d bytes at %d, expected %d", len(body), r.number(5), p.offset)
		}
		p.fragments++
		p.partial = append(p.partial, body...)
		p.offset = len(p.partial)
		if held := p.held() + p.offset; held > p.limitBytes {
			p.t.Fatalf("byte %d is beyond the limit %d", held, p.limitBytes)
		}
		if total := r.number(4); p.offset == total {
			p.offset = 0
			p.store(p.partial)
			p.partial = nil
		} else if p.limitBytes < p.held()+total { // the rest of a message that has begun must be lent
			p.limitBytes = p.held() + total
			p.say(p.state())
		}
	case specEnd:
		p.at(r.number(3))
		p.finished++
		p.messages = append(p.messages, nil)
		p.next++
	case specBacklog:
		p.backlogs++
		p.epoch = r.number(2)
		if flags := r.number(6); flags&specBlocked != 0 {
			p.lend(2, max(100, r.number(5)))
			p.say(p.state())
		} else if flags&specAsk != 0 {
			p.say(p.state())
		}
	default:
		p.t.Fatalf("unexpected record %v", r)
	}
}

func (p *plainPeer) at(position int) {
	p.t.Helper()
	if position != p.next {
		p.t.Fatalf("position %d, expected %d", position, p.next)
	}
}

// held is the bytes of all messages that came whole.
func (p *plainPeer) held() int {
	n := 0
	for _, m := range p.messages {
		n += len(m)
	}
	return n
}

func (p *plainPeer) store(body []byte) {
	p.t.Helper()
	p.messages = append(p.messages, bytes.Clone(body))
	if p.next++; p.next > p.limit || p.held() > p.limitBytes {
		p.t.Fatalf("message %d, byte %d are beyond the limit of %d and %d", p.next, p.held(), p.limit, p.limitBytes)
	}
}

// settle handles everything that is stored, and says so.
func (p *plainPeer) settle() {
	p.t.Helper()
	p.consumed, p.consumedBytes = p.next, p.held()
	p.say(p.state())
}

// plainBodies are what is sent to the plain peer: among others one larger than
// any window it opens by itself.
func plainBodies() [][]byte {
	bodies := [][]byte{[]byte("hi"), {}, []byte("you"), bytes.Repeat([]byte("f"), 200_000)}
	for i := range 20 {
		bodies = append(bodies, fmt.Appendf(nil, "message %d", i))
	}
	return bodies
}

// A plain ROUTER joins the link of a node, opens a stream, lends credit,
// receives what a Producer sends, acknowledges and settles it, is told that the
// producer has finished, and gives the stream up.
func TestPlainRouterJoinsALink(t *testing.T) {
	ctx := testContext(t)
	dir := directory.NewRegistry()
	n := openWith(t, Config{Name: "p1", Directory: dir})
	// The plain peer is in no directory: opening a stream is enough.
	producer := newProducer(t, n, "scores", ProducerConfig{HighWaterMark: HighWaterMark{Messages: 5}})
	c := dialPlain(t, ctx, n.Endpoint(), "c1", 5, 0)
	c.label, c.channel, c.consumer, c.instance = 7, "scores", 3, 1
	c.say(c.open(), c.state())
	to := waitTarget(t, ctx, producer, Address{"c1", 3})

	bodies := plainBodies()
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			for i, b := range bodies {
				if err := to.Send(ctx, b); err != nil {
					return fmt.Errorf("message %d: %w", i, err)
				}
			}
			return producer.Drain(ctx)
		}()
	}()
	for c.finished == 0 {
		c.take(c.hear())
		if c.next > c.consumed {
			c.settle()
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if len(c.messages) != len(bodies)+1 {
		t.Fatalf("%d messages and an end", len(c.messages)-1)
	}
	for i, b := range bodies {
		if !bytes.Equal(c.messages[i], b) {
			t.Errorf("message %d: %d bytes, want %d", i, len(c.messages[i]), len(b))
		}
	}
	if c.backlogs == 0 || c.fragments < 4 {
		t.Errorf("%d backlog records and %d fragments: it was never blocked, or nothing was large", c.backlogs, c.fragments)
	}

	c.say(record{specCancel, c.label, 0, ""}, record{specPing, 4711})
	reset, pong := false, false
	for !reset || !pong {
		switch r := c.hear(); {
		case r.kind() == specReset && r.number(1) == c.label:
			reset = true
		case r.kind() == specPong && r.number(1) == 4711:
			pong = true
		case r.kind() != specBacklog:
			t.Fatalf("unexpected record %v", r)
		}
	}
	c.say(record{specBye, 0, ""})
	if r := c.hear(); r.kind() != specBye {
		t.Errorf("bye is answered with %v", r)
	}
	if _, _, err := c.conn.ReadPacket(); err == nil {
		t.Error("the node goes on after bye")
	}
}

// The connection breaks in the middle of a large message, and goes on behind
// the byte that the plain peer names on the next one.
func TestPlainRouterResumes(t *testing.T) {
	ctx := testContext(t)
	n := openWith(t, Config{Name: "p1"})
	producer := newProducer(t, n, "scores", ProducerConfig{})
	first := dialPlain(t, ctx, n.Endpoint(), "c1", 5, 0)
	first.channel, first.instance = "scores", 1
	first.say(first.open(), first.state())
	to := waitTarget(t, ctx, producer, Address{"c1", 0})
	bodies := plainBodies()
	for i, b := range bodies {
		if err := to.Send(ctx, b); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	for first.fragments < 2 { // up to there, credit for all that
		first.take(first.hear())
		if first.next > first.consumed {
			first.settle()
		}
	}
	first.conn.Close()

	// Whether the node has noticed or not: who knows the connection's number has
	// lost it. The same stream goes on with another label.
	again := dialPlain(t, ctx, n.Endpoint(), "c1", 5, first.connection)
	conn := again.conn
	*again = *first
	again.conn, again.queue, again.label = conn, nil, 12
	if again.offset == 0 {
		t.Fatal("nothing of the message was kept")
	}
	again.say(again.open(), again.state())
	for again.next < len(bodies) {
		again.take(again.hear())
		if again.next > again.consumed {
			again.settle()
		}
	}
	for i, b := range bodies {
		if !bytes.Equal(again.messages[i], b) {
			t.Errorf("message %d: %d bytes, want %d", i, len(again.messages[i]), len(b))
		}
	}
	if err := producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}
