package wire_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// malformed are records that must be refused, and why.
var malformed = []struct {
	name, reason string
	kind         wire.Kind
	p            []byte
}{
	{"nothing", "cut off", wire.NoKind, nil},
	{"no array", "not an array", wire.NoKind, []byte{0x05}},
	{"a map", "not an array", wire.NoKind, []byte{0x82, 0x09, 0x01}},
	{"empty array", "cut off", wire.NoKind, []byte{0x90}},
	{"cut in the array's length", "cut off", wire.NoKind, []byte{0xdc, 0x00}},
	{"kind is nil", "not an unsigned integer", wire.NoKind, []byte{0x92, 0xc0, 0x01}},
	{"kind is negative", "not an unsigned integer", wire.NoKind, []byte{0x92, 0xff, 0x01}},
	{"kind is out of range", "number out of range", wire.NoKind, []byte{0x92, 0xcd, 0x01, 0x00}},
	{"kind 17", "unknown kind of record", 17, []byte{0x92, 0x11, 0x01}},
	{"kind 255", "unknown kind of record", 255, []byte{0x92, 0xcc, 0xff, 0x01}},
	{"ping of three", "wrong number of elements", wire.KindPing, []byte{0x93, 0x09, 0x01, 0x01}},
	{"ping of one", "wrong number of elements", wire.KindPing, []byte{0x91, 0x09}},
	{"record of 4 billion elements", "wrong number of elements", wire.KindPing, []byte{0xdd, 0xff, 0xff, 0xff, 0xff, 0x09, 0x01}},

	{"nonce cut off", "cut off", wire.KindPing, []byte{0x92, 0x09, 0xcf, 0, 0, 0}},
	{"nonce is a float", "not an unsigned integer", wire.KindPing, []byte{0x92, 0x09, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0}},
	{"nonce is an int8 below zero", "negative number", wire.KindPing, []byte{0x92, 0x09, 0xd0, 0x80}},
	{"nonce is an int16 below zero", "negative number", wire.KindPing, []byte{0x92, 0x09, 0xd1, 0xff, 0xff}},
	{"nonce is an int32 below zero", "negative number", wire.KindPing, []byte{0x92, 0x09, 0xd2, 0x80, 0, 0, 0}},
	{"nonce is an int64 below zero", "negative number", wire.KindPing, []byte{0x92, 0x09, 0xd3, 0xff, 0, 0, 0, 0, 0, 0, 0}},
	{"stream beyond 32 bits", "number out of range", wire.KindEnd, []byte{0x94, 0x04, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}},
	{"position beyond 63 bits", "number out of range", wire.KindEnd, []byte{0x94, 0x04, 1, 1, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0}},
	{"version beyond 7 bits", "number out of range", wire.KindHello, []byte{0x96, 0x00, 0xcc, 0x80, 0xa1, 'a', 1, 1, 0}},
	{"code beyond 7 bits", "number out of range", wire.KindBye, []byte{0x93, 0x0b, 0xcc, 0x80, 0xa0}},
	{"flags beyond 7 bits", "number out of range", wire.KindBacklog, []byte{0x97, 0x06, 1, 1, 1, 1, 1, 0xcc, 0x80}},

	{"text is a bin", "not a string", wire.KindBye, []byte{0x93, 0x0b, 0, 0xc4, 0}},
	{"text cut off", "reaches beyond the packet", wire.KindBye, []byte{0x93, 0x0b, 0, 0xa3, 'a', 'b'}},
	{"text of 256", "string too long", wire.KindBye, append([]byte{0x93, 0x0b, 0, 0xda, 1, 0}, make([]byte, 256)...)},
	{"text claims 4 GiB", "string too long", wire.KindBye, []byte{0x93, 0x0b, 0, 0xdb, 0xff, 0xff, 0xff, 0xff}},

	{"messages are no array", "not an array", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0xc4, 0}},
	{"no messages", "data record must hold 1 to 65535 messages", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0x90}},
	{"65,536 messages", "data record must hold 1 to 65535 messages", wire.KindData,
		append([]byte{0x95, 0x02, 1, 1, 0, 0xdd, 0, 1, 0, 0}, make([]byte, 1<<17)...)},
	{"claims 4 billion messages", "data record must hold 1 to 65535 messages", wire.KindData,
		[]byte{0x95, 0x02, 1, 1, 0, 0xdd, 0xff, 0xff, 0xff, 0xff}},
	{"message is a string", "message is not a bin, or cut off", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0x91, 0xa1, 'a'}},
	{"second message missing", "message is not a bin, or cut off", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0x92, 0xc4, 0}},
	{"bin 8 cut in its length", "message is not a bin, or cut off", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0x91, 0xc4}},
	{"bin 16 cut in its length", "message is not a bin, or cut off", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0x91, 0xc5, 0}},
	{"bin 32 cut in its length", "message is not a bin, or cut off", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0x91, 0xc6, 0, 0, 0}},
	{"message cut off", "message reaches beyond the packet", wire.KindData, []byte{0x95, 0x02, 1, 1, 0, 0x91, 0xc4, 2, 'a'}},
	{"message claims 4 GiB", "message reaches beyond the packet", wire.KindData,
		[]byte{0x95, 0x02, 1, 1, 0, 0x91, 0xc6, 0xff, 0xff, 0xff, 0xff, 'a'}},
	{"one message over 64 KiB", "data record too large", wire.KindData,
		append([]byte{0x95, 0x02, 1, 1, 0, 0x91, 0xc6, 0, 1, 0, 1}, make([]byte, wire.MaxFragment+1)...)},
	{"two messages over 64 KiB together", "data record too large", wire.KindData,
		append([]byte{0x95, 0x02, 1, 1, 0, 0x92, 0xc4, 1, 'a', 0xc6, 0, 1, 0, 0}, make([]byte, wire.MaxFragment)...)},

	{"fragment is a string", "not a bin", wire.KindFragment, []byte{0x97, 0x03, 1, 1, 0, 9, 0, 0xa1, 'a'}},
	{"fragment cut off", "reaches beyond the packet", wire.KindFragment, []byte{0x97, 0x03, 1, 1, 0, 9, 0, 0xc4, 2, 'a'}},
	{"fragment without bytes", "fragment without bytes", wire.KindFragment, []byte{0x97, 0x03, 1, 1, 0, 9, 0, 0xc4, 0}},
	{"fragment beyond its message", "fragment reaches beyond its message", wire.KindFragment,
		[]byte{0x97, 0x03, 1, 1, 0, 9, 9, 0xc4, 1, 'a'}},
	{"fragment beyond 32 bits", "fragment reaches beyond its message", wire.KindFragment,
		[]byte{0x97, 0x03, 1, 1, 0, 9, 0xce, 0xff, 0xff, 0xff, 0xff, 0xc4, 1, 'a'}},
	{"fragment over 64 KiB", "fragment too large", wire.KindFragment,
		append([]byte{0x97, 0x03, 1, 1, 0, 0xce, 0, 2, 0, 0, 0, 0xc6, 0, 1, 0, 1}, make([]byte, wire.MaxFragment+1)...)},

	{"packet without bytes", "packet without bytes", wire.KindPacket, []byte{0x93, 0x0e, 1, 0xc4, 0}},
	{"packet is a string", "not a bin", wire.KindPacket, []byte{0x93, 0x0e, 1, 0xa1, 'a'}},
	{"packet claims 4 GiB", "reaches beyond the packet", wire.KindPacket, []byte{0x93, 0x0e, 1, 0xc6, 0xff, 0xff, 0xff, 0xff, 1}},
	{"packet over what fits", "packet too large", wire.KindPacket,
		append([]byte{0x93, 0x0e, 1, 0xc6, 0, 1, 0xff, 0xf5}, make([]byte, wire.MaxCarried+1)...)},
	{"credit beyond 63 bits", "number out of range", wire.KindCredit, []byte{0x93, 0x0f, 1, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0}},
	{"circuit to nobody", "cut off", wire.KindCircuit, []byte{0x96, 0x0c, 1, 0xa1, 'a'}},
	{"close of three", "wrong number of elements", wire.KindClose, []byte{0x93, 0x10, 1, 0}},
}

func TestMalformedRecordsAreRefusedWithTheirReason(t *testing.T) {
	const base = 1000
	for _, c := range malformed {
		t.Run(c.name, func(t *testing.T) {
			var r wire.Record
			rest, err := wire.Next(c.p, base, &r)
			var fe *wire.FormatError
			if !errors.As(err, &fe) {
				t.Fatalf("error is %v, want a *FormatError", err)
			}
			if rest != nil {
				t.Errorf("%d bytes left over of a record that is wrong", len(rest))
			}
			if fe.Reason != c.reason || fe.Kind != c.kind {
				t.Errorf("%s record: %s; want %s record: %s", fe.Kind, fe.Reason, c.kind, c.reason)
			}
			if fe.Offset < base || fe.Offset > base+len(c.p) {
				t.Errorf("offset %d is not in the record", fe.Offset)
			}
			if !strings.Contains(err.Error(), c.reason) || strings.Contains(err.Error(), c.kind.String()) != (c.kind != wire.NoKind) {
				t.Errorf("the error's text is %q", err)
			}
		})
	}
}

// A reason that the decoder can give and the table above does not reach is a
// check that nobody has tried.
func TestEveryReasonIsReached(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "decode.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || sel.Sel.Name != "fail" {
			return true
		}
		lit, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			t.Fatal("a reason that is not a literal")
		}
		reason, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		reasons[reason] = true
		return true
	})
	if len(reasons) < 10 {
		t.Fatalf("only %d reasons found in decode.go", len(reasons))
	}
	for _, c := range malformed {
		delete(reasons, c.reason)
	}
	for reason := range reasons {
		t.Errorf("nothing malformed reaches %q", reason)
	}
}

func TestNoRecordDecodesWhenItsEndIsMissing(t *testing.T) {
	for _, s := range samples() {
		p := appendRecord(nil, &s)
		step := max(1, len(p)/500) // all places of short records, some of long ones
		for n := 0; n < len(p); n += step {
			var r wire.Record
			if _, err := wire.Next(p[:n:n], 0, &r); err == nil {
				t.Fatalf("%s record of %d bytes decodes from %d", s.Kind, len(p), n)
			}
		}
	}
}

// What Next returns must be the packet's own memory, and cut so that an append
// to it cannot overwrite what follows.
func TestDecodedBytesArePartsOfThePacket(t *testing.T) {
	for _, s := range samples() {
		p := append(appendRecord(nil, &s), 0x92, 0x09, 0x01)
		var r wire.Record
		rest, err := wire.Next(p, 0, &r)
		if err != nil {
			t.Fatal(err)
		}
		if len(rest) != 3 {
			t.Errorf("%s record: %d bytes left over, want 3", s.Kind, len(rest))
		}
		checkInside(t, p, &r)
	}
}

// checkInside fails if a slice of r that its kind fills is not a part of p, or
// has capacity beyond its end.
func checkInside(t *testing.T, p []byte, r *wire.Record) {
	t.Helper()
	check := func(what string, b []byte) {
		if len(b) == 0 {
			return
		}
		start, from := uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(unsafe.SliceData(p)))
		if start < from || start+uintptr(len(b)) > from+uintptr(len(p)) {
			t.Errorf("%s record: %s is not a part of the packet", r.Kind, what)
		}
		if cap(b) != len(b) {
			t.Errorf("%s record: %s has room for %d bytes beyond its end", r.Kind, what, cap(b)-len(b))
		}
	}
	switch r.Kind {
	case wire.KindHello:
		check("node", r.Hello.Node)
	case wire.KindOpen, wire.KindCancel, wire.KindReset, wire.KindBye, wire.KindClose:
		check("text", r.Text)
	case wire.KindCircuit:
		check("from", r.From)
		check("to", r.Text)
		check("via", r.Via)
	case wire.KindFragment, wire.KindPacket:
		check("body", r.Body)
	case wire.KindData:
		check("body", r.Body)
		for _, m := range messagesOf(r.Body) {
			check("message", m)
		}
	}
}

func TestDecodingDoesNotAllocate(t *testing.T) {
	for _, s := range samples() {
		p := appendRecord(nil, &s)
		var r wire.Record
		if n := testing.AllocsPerRun(20, func() {
			if _, err := wire.Next(p, 0, &r); err != nil {
				t.Fatal(err)
			}
			if r.Kind == wire.KindData {
				for body := r.Body; len(body) > 0; {
					_, body = wire.NextMessage(body)
				}
			}
		}); n != 0 {
			t.Errorf("%s record: %v allocations", s.Kind, n)
		}
	}
}

// Refusing costs one error, however much the record claims.
func TestRefusingAllocatesOnlyTheError(t *testing.T) {
	for _, c := range malformed {
		var r wire.Record
		if n := testing.AllocsPerRun(20, func() {
			if _, err := wire.Next(c.p, 0, &r); err == nil {
				t.Fatal("decodes")
			}
		}); n > 1 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func TestWritingDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, wire.MaxPacket)
	body := make([]byte, 64)
	hello := wire.Hello{Version: wire.Version, Node: "n3", Incarnation: 1, MaxMessage: math.MaxUint32}
	for _, c := range []struct {
		name  string
		write func(b []byte) []byte
	}{
		{"hello", func(b []byte) []byte { return wire.AppendHello(b, &hello) }},
		{"open", func(b []byte) []byte { return wire.AppendOpen(b, 1, "scores", 2, 3) }},
		{"data", func(b []byte) []byte { return wire.AppendMessage(wire.AppendDataHeader(b, 1, 2, 3, 1), body) }},
		{"fragment", func(b []byte) []byte { return append(wire.AppendFragmentHeader(b, 1, 2, 3, 128, 64, 64), body...) }},
		{"end", func(b []byte) []byte { return wire.AppendEnd(b, 1, 2, 3) }},
		{"state", func(b []byte) []byte { return wire.AppendState(b, &wire.State{Stream: 1}) }},
		{"backlog", func(b []byte) []byte { return wire.AppendBacklog(b, &wire.Backlog{Stream: 1}) }},
		{"cancel", func(b []byte) []byte { return wire.AppendCancel(b, 1, wire.CodeDone, "done") }},
		{"reset", func(b []byte) []byte { return wire.AppendReset(b, 1, wire.CodeLost, "gone") }},
		{"ping", func(b []byte) []byte { return wire.AppendPing(b, 1) }},
		{"pong", func(b []byte) []byte { return wire.AppendPong(b, 1) }},
		{"bye", func(b []byte) []byte { return wire.AppendBye(b, wire.CodeDone, "") }},
	} {
		if n := testing.AllocsPerRun(100, func() { buf = c.write(buf[:0]) }); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}
