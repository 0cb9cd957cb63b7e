package wire_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// run codes messages as the Body of a data record.
func run(messages ...string) []byte {
	var b []byte
	for _, m := range messages {
		b = wire.AppendMessage(b, []byte(m))
	}
	return b
}

// messagesOf takes a data record's messages apart.
func messagesOf(body []byte) (messages [][]byte) {
	for len(body) > 0 {
		var m []byte
		m, body = wire.NextMessage(body)
		messages = append(messages, m)
	}
	return messages
}

func dataRecord(stream, producer uint32, seq uint64, messages ...string) wire.Record {
	r := wire.Record{
		Kind: wire.KindData, Stream: stream, Producer: producer, Seq: seq,
		Count: len(messages), Body: run(messages...),
	}
	for _, m := range messages {
		r.Bytes += len(m)
	}
	return r
}

func stateRecord(s wire.State) wire.Record {
	return wire.Record{Kind: wire.KindState, Stream: s.Stream, State: s}
}

func backlogRecord(g wire.Backlog) wire.Record {
	return wire.Record{Kind: wire.KindBacklog, Stream: g.Stream, Backlog: g}
}

func helloRecord(node string, incarnation, connection uint64) wire.Record {
	return wire.Record{Kind: wire.KindHello, Hello: wire.HelloView{
		Version: wire.Version, Node: []byte(node), Incarnation: incarnation, MaxMessage: 64 << 20, Connection: connection,
	}}
}

// appendRecord writes any record with this package's Append functions.
func appendRecord(b []byte, r *wire.Record) []byte {
	switch r.Kind {
	case wire.KindHello:
		return wire.AppendHello(b, &wire.Hello{
			Version: r.Hello.Version, Node: string(r.Hello.Node),
			Incarnation: r.Hello.Incarnation, MaxMessage: r.Hello.MaxMessage, Connection: r.Hello.Connection,
		})
	case wire.KindOpen:
		return wire.AppendOpen(b, r.Stream, string(r.Text), r.Index, r.Instance)
	case wire.KindData:
		b = wire.AppendDataHeader(b, r.Stream, r.Producer, r.Seq, r.Count)
		for _, m := range messagesOf(r.Body) {
			b = wire.AppendMessage(b, m)
		}
		return b
	case wire.KindFragment:
		b = wire.AppendFragmentHeader(b, r.Stream, r.Producer, r.Seq, r.Total, r.Offset, len(r.Body))
		return append(b, r.Body...)
	case wire.KindEnd:
		return wire.AppendEnd(b, r.Stream, r.Producer, r.Seq)
	case wire.KindState:
		return wire.AppendState(b, &r.State)
	case wire.KindBacklog:
		return wire.AppendBacklog(b, &r.Backlog)
	case wire.KindCancel:
		return wire.AppendCancel(b, r.Stream, r.Code, string(r.Text))
	case wire.KindReset:
		return wire.AppendReset(b, r.Stream, r.Code, string(r.Text))
	case wire.KindPing:
		return wire.AppendPing(b, r.Nonce)
	case wire.KindPong:
		return wire.AppendPong(b, r.Nonce)
	case wire.KindBye:
		return wire.AppendBye(b, r.Code, string(r.Text))
	case wire.KindCircuit:
		return wire.AppendCircuit(b, r.Stream, string(r.From), string(r.Text), string(r.Via), r.Limit)
	case wire.KindAccept:
		return wire.AppendAccept(b, r.Stream, r.Limit)
	case wire.KindPacket:
		return append(wire.AppendPacketHeader(b, r.Stream, len(r.Body)), r.Body...)
	case wire.KindCredit:
		return wire.AppendCredit(b, r.Stream, r.Limit)
	case wire.KindClose:
		return wire.AppendClose(b, r.Stream, r.Code, string(r.Text))
	}
	panic(fmt.Sprintf("no such record: %s", r.Kind))
}

// differ says in which respect two records mean something different, or "".
// How the messages of a data record are coded does not count.
func differ(got, want *wire.Record) string {
	if got.Kind != want.Kind {
		return fmt.Sprintf("kind %s, want %s", got.Kind, want.Kind)
	}
	g, w := meaning(got), meaning(want)
	if len(g) != len(w) {
		return fmt.Sprintf("%s with %d values, want %d", got.Kind, len(g), len(w))
	}
	for i := range g {
		gb, isBytes := g[i].([]byte)
		wb, _ := w[i].([]byte)
		if isBytes && bytes.Equal(gb, wb) || !isBytes && g[i] == w[i] {
			continue
		}
		return fmt.Sprintf("%s: element %d is %v, want %v", got.Kind, i+1, g[i], w[i])
	}
	return ""
}

// meaning lists the values that a record of r's kind carries, in the order of
// the specification's table.
func meaning(r *wire.Record) []any {
	switch r.Kind {
	case wire.KindHello:
		h := &r.Hello
		return []any{h.Version, h.Node, h.Incarnation, h.MaxMessage, h.Connection}
	case wire.KindOpen:
		return []any{r.Stream, r.Text, r.Index, r.Instance}
	case wire.KindData:
		v := []any{r.Stream, r.Producer, r.Seq, r.Count, r.Bytes}
		for _, m := range messagesOf(r.Body) {
			v = append(v, m)
		}
		return v
	case wire.KindFragment:
		return []any{r.Stream, r.Producer, r.Seq, r.Total, r.Offset, r.Body}
	case wire.KindEnd:
		return []any{r.Stream, r.Producer, r.Seq}
	case wire.KindState:
		return []any{r.Stream, r.State}
	case wire.KindBacklog:
		return []any{r.Stream, r.Backlog}
	case wire.KindCancel, wire.KindReset, wire.KindClose:
		return []any{r.Stream, r.Code, r.Text}
	case wire.KindPing, wire.KindPong:
		return []any{r.Nonce}
	case wire.KindBye:
		return []any{r.Code, r.Text}
	case wire.KindCircuit:
		return []any{r.Stream, r.From, r.Text, r.Via, r.Limit}
	case wire.KindAccept, wire.KindCredit:
		return []any{r.Stream, r.Limit}
	case wire.KindPacket:
		return []any{r.Stream, r.Body}
	}
	panic(fmt.Sprintf("no such record: %s", r.Kind))
}

// samples has every kind of record, at the ends of its elements' ranges too.
func samples() []wire.Record {
	const maxPosition = math.MaxInt64
	body := bytes.Repeat([]byte{0xc4}, wire.MaxFragment)
	name := bytes.Repeat([]byte{'n'}, wire.MaxText)
	return []wire.Record{
		helloRecord("a", 1, 0),
		{Kind: wire.KindHello, Hello: wire.HelloView{
			Version: math.MaxInt8, Node: name, Incarnation: math.MaxUint64, MaxMessage: math.MaxUint32, Connection: math.MaxUint64}},
		{Kind: wire.KindOpen, Stream: 1, Text: []byte("scores"), Index: 2, Instance: 1},
		{Kind: wire.KindOpen, Stream: math.MaxUint32, Text: name[:32], Index: math.MaxUint32, Instance: math.MaxUint64},
		dataRecord(1, 0, 0, ""),
		dataRecord(7, 1, 42, "hello", "world"),
		dataRecord(math.MaxUint32, math.MaxUint32, maxPosition, string(body)),
		dataRecord(7, 1, 42, string(body[:255]), string(body[:256]), "", string(body[:65_000])),
		dataRecord(7, 1, 42, make([]string, wire.MaxRun)...),
		{Kind: wire.KindFragment, Stream: 7, Producer: 1, Seq: 44, Total: 100_000, Offset: 65_536, Body: body[:34_464]},
		{Kind: wire.KindFragment, Stream: 7, Seq: maxPosition, Total: math.MaxUint32, Offset: math.MaxUint32 - wire.MaxFragment, Body: body},
		{Kind: wire.KindEnd, Stream: 7, Producer: 1, Seq: 45},
		stateRecord(wire.State{Stream: 7}),
		stateRecord(wire.State{
			Stream: math.MaxUint32, Epoch: math.MaxUint32, Next: maxPosition, Offset: math.MaxUint32,
			ConsumedMessages: maxPosition, ConsumedBytes: maxPosition, LimitMessages: maxPosition, LimitBytes: maxPosition,
		}),
		backlogRecord(wire.Backlog{Stream: 7, Flags: wire.BacklogRelease}),
		backlogRecord(wire.Backlog{
			Stream: math.MaxUint32, Epoch: math.MaxUint32, EndMessages: maxPosition, EndBytes: maxPosition,
			NextSize: math.MaxUint32, Flags: math.MaxInt8,
		}),
		{Kind: wire.KindCancel, Stream: 7, Code: wire.CodeDone},
		{Kind: wire.KindReset, Stream: 7, Code: wire.CodeLost, Text: name},
		{Kind: wire.KindPing, Nonce: 1},
		{Kind: wire.KindPong, Nonce: math.MaxUint64},
		{Kind: wire.KindBye, Code: wire.CodeDuplicate, Text: []byte("node b dialed first")},
		{Kind: wire.KindCircuit, Stream: 2, From: []byte("w1"), Text: []byte("w2"), Via: []byte("h2"), Limit: 1 << 20},
		{Kind: wire.KindCircuit, Stream: math.MaxUint32, From: name, Text: name, Via: name, Limit: maxPosition},
		{Kind: wire.KindAccept, Stream: 2, Limit: 1 << 20},
		{Kind: wire.KindPacket, Stream: 2, Body: []byte{0x92, 0x09, 0x01}},
		{Kind: wire.KindPacket, Stream: math.MaxUint32, Body: bytes.Repeat([]byte{1}, wire.MaxCarried)},
		{Kind: wire.KindCredit, Stream: 2, Limit: maxPosition},
		{Kind: wire.KindClose, Stream: 2, Code: wire.CodeGone, Text: []byte("w2 has ended")},
	}
}

func TestEveryRecordDecodesToWhatWasWritten(t *testing.T) {
	seen := map[wire.Kind]bool{}
	var packet []byte
	for _, want := range samples() {
		seen[want.Kind] = true
		packet = appendRecord(packet, &want)
	}
	for k := range wire.LastKind + 1 {
		if !seen[k] {
			t.Errorf("no sample of a %s record", k)
		}
	}
	rest := packet
	var r wire.Record // one for all, as a reader would: nothing may be left over from before
	for _, want := range samples() {
		var err error
		if rest, err = wire.Next(rest, len(packet)-len(rest), &r); err != nil {
			t.Fatal(err)
		}
		if d := differ(&r, &want); d != "" {
			t.Error(d)
		}
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes left over", len(rest))
	}
}

func TestSizesOfHeadersAreTheBytesWritten(t *testing.T) {
	for _, c := range []struct {
		name      string
		size, got int
	}{
		{"data", wire.DataHeaderSize, len(wire.AppendDataHeader(nil, 1, 2, 3, 4))},
		{"fragment", wire.FragmentHeaderSize, len(wire.AppendFragmentHeader(nil, 1, 2, 3, 4, 5, 6))},
		{"end", wire.EndSize, len(wire.AppendEnd(nil, 1, 2, 3))},
		{"state", wire.StateSize, len(wire.AppendState(nil, &wire.State{}))},
		{"backlog", wire.BacklogSize, len(wire.AppendBacklog(nil, &wire.Backlog{}))},
		{"packet", wire.PacketHeaderSize, len(wire.AppendPacketHeader(nil, 1, wire.MaxCarried))},
		{"credit", wire.CreditSize, len(wire.AppendCredit(nil, 1, 2))},
		{"message of 255", wire.MessageHeaderSize(255), len(wire.AppendMessageHeader(nil, 255))},
		{"message of 256", wire.MessageHeaderSize(256), len(wire.AppendMessageHeader(nil, 256))},
		{"message of 65535", wire.MessageHeaderSize(65535), len(wire.AppendMessageHeader(nil, 65535))},
		{"message of 65536", wire.MessageHeaderSize(65536), len(wire.AppendMessageHeader(nil, 65536))},
		{"largest message", wire.MessageHeaderMax, len(wire.AppendMessageHeader(nil, math.MaxInt32))},
	} {
		if c.got != c.size {
			t.Errorf("%s: %d bytes written, %d promised", c.name, c.got, c.size)
		}
	}
}

func TestTextIsCutBetweenCharactersAndAlwaysUTF8(t *testing.T) {
	long := string(bytes.Repeat([]byte{'x'}, wire.MaxText-1))
	for _, c := range []struct{ name, in, want string }{
		{"longest", long + "y", long + "y"},
		{"one more", long + "yz", long + "y"},
		{"character across the end", long + "é", long},
		{"not UTF-8", "a\xffb", "a?b"},
	} {
		var r wire.Record
		if _, err := wire.Next(wire.AppendBye(nil, wire.CodeDone, c.in), 0, &r); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if string(r.Text) != c.want {
			t.Errorf("%s: %q, want %q", c.name, r.Text, c.want)
		}
	}
}

func TestKindsHaveNames(t *testing.T) {
	names := map[string]bool{}
	for k := range wire.LastKind + 1 {
		names[k.String()] = true
	}
	if len(names) != int(wire.LastKind)+1 {
		t.Errorf("%d names for %d kinds: %v", len(names), wire.LastKind+1, names)
	}
	if got := (wire.LastKind + 1).String(); got != "kind(17)" {
		t.Errorf("unknown kind is called %q", got)
	}
}

// FragmentHead must say of a cut-off fragment what Next says of the whole one.
func TestFragmentHeadAgreesWithNext(t *testing.T) {
	body := make([]byte, 20000)
	p := append(wire.AppendFragmentHeader(nil, 7, 3, 1<<40, 1<<20, 4096, len(body)), body...)
	var whole, head wire.Record
	if _, err := wire.Next(p, 0, &whole); err != nil {
		t.Fatal(err)
	}
	skip, ok := wire.FragmentHead(p[:64], len(p), &head)
	if !ok || skip != len(p)-len(body) {
		t.Fatalf("skip %d, %v", skip, ok)
	}
	if head.Stream != whole.Stream || head.Producer != whole.Producer || head.Seq != whole.Seq ||
		head.Total != whole.Total || head.Offset != whole.Offset || head.Bytes != len(whole.Body) {
		t.Fatalf("head %+v, whole %+v", head, whole)
	}
	for _, bad := range []struct {
		p    []byte
		size int
	}{
		{p[:64], len(p) + 1}, {p[:64], len(p) - 1}, {p[:20], len(p)}, {nil, len(p)},
		{wire.AppendDataHeader(nil, 1, 1, 1, 1), 30},
		{wire.AppendFragmentHeader(nil, 7, 3, 1, 100, 90, 20), wire.FragmentHeaderSize + 20},
		{wire.AppendFragmentHeader(nil, 7, 3, 1, 1<<20, 0, wire.MaxFragment+1), wire.FragmentHeaderSize + wire.MaxFragment + 1},
	} {
		if _, ok := wire.FragmentHead(bad.p, bad.size, &head); ok {
			t.Errorf("accepted % x as the head of %d bytes", bad.p, bad.size)
		}
	}
}
