package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// decodeMsgpack decodes one value with the reference library and returns how
// many bytes it took. Integers come as uint64, whatever their width.
func decodeMsgpack(t *testing.T, p []byte) (value any, size int) {
	t.Helper()
	in := bytes.NewReader(p)
	d := msgpack.NewDecoder(in)
	v, err := d.DecodeInterface()
	if err != nil {
		t.Fatalf("msgpack: %v in % x", err, p[:min(len(p), 64)])
	}
	return unsigned(v), len(p) - in.Len()
}

// unsigned drops the width of integers. A negative one becomes huge, and equals
// nothing that a record can hold but a nonce: Next refuses those before.
func unsigned(v any) any {
	switch v := v.(type) {
	case int8:
		return uint64(v)
	case int16:
		return uint64(v)
	case int32:
		return uint64(v)
	case int64:
		return uint64(v)
	case uint8:
		return uint64(v)
	case uint16:
		return uint64(v)
	case uint32:
		return uint64(v)
	case []any:
		for i := range v {
			v[i] = unsigned(v[i])
		}
	}
	return v
}

// elements is a record as any MessagePack library sees it.
func elements(r *wire.Record) []any {
	n := func(v uint64) any { return v }
	e := []any{n(uint64(r.Kind))}
	switch r.Kind {
	case wire.KindHello:
		h := &r.Hello
		return append(e, n(uint64(h.Version)), string(h.Node), h.Incarnation, n(uint64(h.MaxMessage)), h.Connection)
	case wire.KindOpen:
		return append(e, n(uint64(r.Stream)), string(r.Text), n(uint64(r.Index)), r.Instance)
	case wire.KindData:
		var messages []any
		for _, m := range messagesOf(r.Body) {
			messages = append(messages, m)
		}
		return append(e, n(uint64(r.Stream)), n(uint64(r.Producer)), r.Seq, messages)
	case wire.KindFragment:
		return append(e, n(uint64(r.Stream)), n(uint64(r.Producer)), r.Seq, n(uint64(r.Total)), n(uint64(r.Offset)), r.Body)
	case wire.KindEnd:
		return append(e, n(uint64(r.Stream)), n(uint64(r.Producer)), r.Seq)
	case wire.KindState:
		s := &r.State
		return append(e, n(uint64(s.Stream)), n(uint64(s.Epoch)), s.Next, n(uint64(s.Offset)),
			s.ConsumedMessages, s.ConsumedBytes, s.LimitMessages, s.LimitBytes)
	case wire.KindBacklog:
		g := &r.Backlog
		return append(e, n(uint64(g.Stream)), n(uint64(g.Epoch)), g.EndMessages, g.EndBytes, n(uint64(g.NextSize)), n(uint64(g.Flags)))
	case wire.KindCancel, wire.KindReset, wire.KindClose:
		return append(e, n(uint64(r.Stream)), n(uint64(r.Code)), string(r.Text))
	case wire.KindPing, wire.KindPong:
		return append(e, r.Nonce)
	case wire.KindBye:
		return append(e, n(uint64(r.Code)), string(r.Text))
	case wire.KindCircuit:
		return append(e, n(uint64(r.Stream)), string(r.From), string(r.Text), string(r.Via), r.Limit)
	case wire.KindAccept, wire.KindCredit:
		return append(e, n(uint64(r.Stream)), r.Limit)
	case wire.KindPacket:
		return append(e, n(uint64(r.Stream)), r.Body)
	}
	panic("no such record")
}

// sameValue compares two values of decodeMsgpack and elements.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameValue(a[i], b[i]) {
				return false
			}
		}
		return true
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	default:
		return a == b
	}
}

func short(v any) string {
	s := fmt.Sprint(v)
	return s[:min(len(s), 200)]
}

func TestMsgpackReadsWhatIsWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	records := samples()
	for range 2000 {
		records = append(records, randomRecord(rng))
	}
	for _, r := range records {
		p := appendRecord(nil, &r)
		got, size := decodeMsgpack(t, p)
		if want := any(elements(&r)); !sameValue(got, want) {
			t.Fatalf("msgpack reads %s, want %s", short(got), short(want))
		}
		if size != len(p) {
			t.Fatalf("%s record: msgpack takes %d bytes of %d", r.Kind, size, len(p))
		}
	}
}

// Any of MessagePack's codings of a value must be read alike: libraries choose
// by the value, by its type, or always the widest.
func TestEverythingMsgpackWritesIsRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	records := samples()
	for range 5000 {
		records = append(records, randomRecord(rng))
	}
	for i, want := range records {
		var r wire.Record
		e := newEncoder(t, rng)
		e.value(elements(&want))
		p := e.buf.Bytes()
		rest, err := wire.Next(p, 0, &r)
		if err != nil {
			t.Fatalf("record %d: %v: % x", i, err, p[:min(len(p), 100)])
		}
		if len(rest) != 0 {
			t.Fatalf("record %d: %d bytes left over", i, len(rest))
		}
		if d := differ(&r, &want); d != "" {
			t.Fatal(d)
		}
	}
}

// Each width of an integer, by the reference library's own encoder.
func TestEveryIntegerWidthIsRead(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 65536, math.MaxInt32, 1 << 31, math.MaxUint32, 1 << 32, math.MaxInt64, 1 << 63, math.MaxUint64} {
		for name, write := range integerWriters(v) {
			var b bytes.Buffer
			enc := msgpack.NewEncoder(&b)
			if err := enc.EncodeArrayLen(2); err != nil {
				t.Fatal(err)
			}
			if err := enc.EncodeUint(uint64(wire.KindPing)); err != nil {
				t.Fatal(err)
			}
			if err := write(enc); err != nil {
				t.Fatal(err)
			}
			var r wire.Record
			if _, err := wire.Next(b.Bytes(), 0, &r); err != nil {
				t.Errorf("%s of %d: %v", name, v, err)
			} else if r.Nonce != v {
				t.Errorf("%s of %d is read as %d", name, v, r.Nonce)
			}
		}
	}
}

// integerWriters are the reference library's ways to write v.
func integerWriters(v uint64) map[string]func(*msgpack.Encoder) error {
	w := map[string]func(*msgpack.Encoder) error{
		"shortest": func(e *msgpack.Encoder) error { return e.EncodeUint(v) },
		"uint64":   func(e *msgpack.Encoder) error { return e.EncodeUint64(v) },
	}
	if v <= math.MaxInt64 {
		w["shortest signed"] = func(e *msgpack.Encoder) error { return e.EncodeInt(int64(v)) }
		w["int64"] = func(e *msgpack.Encoder) error { return e.EncodeInt64(int64(v)) }
	}
	if v <= math.MaxUint32 {
		w["uint32"] = func(e *msgpack.Encoder) error { return e.EncodeUint32(uint32(v)) }
	}
	if v <= math.MaxInt32 {
		w["int32"] = func(e *msgpack.Encoder) error { return e.EncodeInt32(int32(v)) }
	}
	if v <= math.MaxUint16 {
		w["uint16"] = func(e *msgpack.Encoder) error { return e.EncodeUint16(uint16(v)) }
	}
	if v <= math.MaxInt16 {
		w["int16"] = func(e *msgpack.Encoder) error { return e.EncodeInt16(int16(v)) }
	}
	if v <= math.MaxUint8 {
		w["uint8"] = func(e *msgpack.Encoder) error { return e.EncodeUint8(uint8(v)) }
	}
	if v <= math.MaxInt8 {
		w["int8"] = func(e *msgpack.Encoder) error { return e.EncodeInt8(int8(v)) }
	}
	return w
}

// encoder writes values with the reference library, in a coding that chance
// picks. Headers wider than their length needs are legal MessagePack which the
// library reads but never writes: those are put down by hand.
type encoder struct {
	t   *testing.T
	rng *rand.Rand
	buf bytes.Buffer
	enc *msgpack.Encoder
}

func newEncoder(t *testing.T, rng *rand.Rand) *encoder {
	e := &encoder{t: t, rng: rng}
	e.enc = msgpack.NewEncoder(&e.buf)
	return e
}

func (e *encoder) value(v any) {
	var err error
	switch v := v.(type) {
	case uint64:
		writers := integerWriters(v)
		names := make([]string, 0, len(writers))
		for _, n := range []string{"shortest", "shortest signed", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"} {
			if writers[n] != nil {
				names = append(names, n)
			}
		}
		err = writers[names[e.rng.IntN(len(names))]](e.enc)
	case string:
		if !e.wide(len(v), 0xd9, 0xda, 0xdb) {
			err = e.enc.EncodeString(v)
			break
		}
		e.buf.WriteString(v)
	case []byte:
		if !e.wide(len(v), 0xc4, 0xc5, 0xc6) {
			err = e.enc.EncodeBytes(append([]byte{}, v...)) // nil would be written as nil
			break
		}
		e.buf.Write(v)
	case []any:
		if !e.wide(len(v), 0, 0xdc, 0xdd) {
			err = e.enc.EncodeArrayLen(len(v))
		}
		for _, x := range v {
			e.value(x)
		}
	default:
		e.t.Fatalf("no coding for %T", v)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// wide writes a header of 8, 16 or 32 bits of length with the given lead
// bytes, or nothing and returns false.
func (e *encoder) wide(n int, lead8, lead16, lead32 byte) bool {
	switch pick := e.rng.IntN(4); {
	case pick == 1 && lead8 != 0 && n <= math.MaxUint8:
		e.buf.Write([]byte{lead8, byte(n)})
	case pick == 2 && n <= math.MaxUint16:
		e.buf.Write(binary.BigEndian.AppendUint16([]byte{lead16}, uint16(n)))
	case pick == 3:
		e.buf.Write(binary.BigEndian.AppendUint32([]byte{lead32}, uint32(n)))
	default:
		return false
	}
	return true
}

// randomRecord draws a record of any kind; small and large values of every
// element come up alike.
func randomRecord(rng *rand.Rand) wire.Record {
	number := func(bits int) uint64 { return rng.Uint64() >> (64 - bits + rng.IntN(bits)) }
	u32 := func() uint32 { return uint32(number(32)) }
	position := func() uint64 { return number(63) }
	text := func() []byte { return []byte(strings.Repeat("x", rng.IntN(wire.MaxText+1))) }
	body := func(most int) string { return strings.Repeat("\x93", rng.IntN(1+int(number(17))%most)) }
	small := func() uint8 { return uint8(number(7)) }

	r := wire.Record{Kind: wire.Kind(rng.IntN(int(wire.LastKind) + 1))}
	switch r.Kind {
	case wire.KindHello:
		r.Hello = wire.HelloView{Version: small(), Node: text(), Incarnation: number(64), MaxMessage: u32(), Connection: number(64)}
	case wire.KindOpen:
		r.Stream, r.Text, r.Index, r.Instance = u32(), text(), u32(), number(64)
	case wire.KindData:
		messages := make([]string, 1+rng.IntN(30))
		for i := range messages {
			messages[i] = body(wire.MaxFragment / len(messages))
		}
		return dataRecord(u32(), u32(), position(), messages...)
	case wire.KindFragment:
		r.Stream, r.Producer, r.Seq = u32(), u32(), position()
		r.Body = []byte("x" + body(wire.MaxFragment-1))
		r.Total = max(u32(), uint32(len(r.Body)))
		r.Offset = uint32(rng.Uint64N(uint64(r.Total) - uint64(len(r.Body)) + 1))
	case wire.KindEnd:
		r.Stream, r.Producer, r.Seq = u32(), u32(), position()
	case wire.KindState:
		return stateRecord(wire.State{
			Stream: u32(), Epoch: u32(), Next: position(), Offset: u32(), ConsumedMessages: position(),
			ConsumedBytes: position(), LimitMessages: position(), LimitBytes: position(),
		})
	case wire.KindBacklog:
		return backlogRecord(wire.Backlog{
			Stream: u32(), Epoch: u32(), EndMessages: position(), EndBytes: position(), NextSize: u32(), Flags: small(),
		})
	case wire.KindCancel, wire.KindReset, wire.KindClose:
		r.Stream, r.Code, r.Text = u32(), small(), text()
	case wire.KindPing, wire.KindPong:
		r.Nonce = number(64)
	case wire.KindBye:
		r.Code, r.Text = small(), text()
	case wire.KindCircuit:
		r.Stream, r.From, r.Text, r.Via, r.Limit = u32(), text(), text(), text(), position()
	case wire.KindAccept, wire.KindCredit:
		r.Stream, r.Limit = u32(), position()
	case wire.KindPacket:
		r.Stream, r.Body = u32(), []byte("x"+body(wire.MaxCarried-1))
	}
	return r
}
