package wire_test

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zfab/zfab/fabric/internal/wire"
)

var update = flag.Bool("update", false, "rewrite testdata/wire/*.golden from what the package writes now")

const goldenDir = "../../../testdata/wire"

// packet is a packet of a golden file: what it shows, and its records.
type packet struct {
	title   string
	records []wire.Record
}

// goldens are the golden files. Another implementation may be held against
// them: everything behind a '#' is comment, an empty line ends a packet.
var goldens = map[string][]packet{
	"hello": {{"a node that was linked before dials: its connection 4 with this peer was the last", []wire.Record{helloRecord("n3", 17, 4)}}},
	"open": {{"consumer 2 of the speaker's node asks for channel scores as stream 7", []wire.Record{
		{Kind: wire.KindOpen, Stream: 7, Text: []byte("scores"), Index: 2, Instance: 5}}}},
	"data": {
		{"two messages of producer 1, the 42nd and 43rd of stream 7, counted from 0", []wire.Record{dataRecord(7, 1, 42, "hello", "world")}},
		{"an empty message, and one of 256 bytes", []wire.Record{dataRecord(7, 0, 44, "", strings.Repeat("ab", 128))}},
	},
	"fragment": {{"the last 8 bytes of a message of 65,544", []wire.Record{
		{Kind: wire.KindFragment, Stream: 7, Producer: 1, Seq: 46, Total: 65544, Offset: 65536, Body: []byte("the rest")}}}},
	"end": {{"producer 1 has finished; its end takes position 47", []wire.Record{
		{Kind: wire.KindEnd, Stream: 7, Producer: 1, Seq: 47}}}},
	"state": {{"messages before 46 and 65,536 bytes of the one at 46 are stored, 44 messages are handled", []wire.Record{
		stateRecord(wire.State{
			Stream: 7, Epoch: 1, Next: 46, Offset: 65536, ConsumedMessages: 44, ConsumedBytes: 266,
			LimitMessages: 65580, LimitBytes: 131338,
		})}}},
	"backlog": {{"a message of 300 bytes waits and the limit does not admit it", []wire.Record{
		backlogRecord(wire.Backlog{Stream: 7, Epoch: 1, EndMessages: 45, EndBytes: 566, NextSize: 300, Flags: wire.BacklogBlocked})}}},
	"cancel": {{"the consumer has left", []wire.Record{
		{Kind: wire.KindCancel, Stream: 7, Code: wire.CodeDone}}}},
	"reset": {{"the position asked for is no longer held", []wire.Record{
		{Kind: wire.KindReset, Stream: 7, Code: wire.CodeLost, Text: []byte("position 40 is gone")}}}},
	"ping": {{"are you there", []wire.Record{{Kind: wire.KindPing, Nonce: 0x0102030405060708}}}},
	"pong": {{"I am", []wire.Record{{Kind: wire.KindPong, Nonce: 0x0102030405060708}}}},
	"bye": {{"the peer broke the protocol", []wire.Record{
		{Kind: wire.KindBye, Code: wire.CodeProtocol, Text: []byte("data record: 12 messages beyond the limit")}}}},
	"circuit": {
		{"w1, whose labels are odd, calls w2, which is attached to the node h2", []wire.Record{
			{Kind: wire.KindCircuit, Stream: 1, From: []byte("w1"), Text: []byte("w2"), Via: []byte("h2"), Limit: 524288}}},
		{"w2 has accepted", []wire.Record{{Kind: wire.KindAccept, Stream: 1, Limit: 524288}}},
		{"a packet for w2: a ping", []wire.Record{
			{Kind: wire.KindPacket, Stream: 1, Body: []byte{0x92, 0x09, 0xcf, 0, 0, 0, 0, 0, 0, 0, 1}}}},
		{"it has been passed on: its 11 bytes and the 64 of a packet may come again", []wire.Record{
			{Kind: wire.KindCredit, Stream: 1, Limit: 524363}}},
		{"w2 was killed", []wire.Record{{Kind: wire.KindClose, Stream: 1, Code: wire.CodeGone, Text: []byte("w2 has ended")}}},
		{"the label is free", []wire.Record{{Kind: wire.KindClose, Stream: 1, Code: wire.CodeDone}}},
	},
	"conversation": {
		{"1. consumer's node c1 dials, and speaks first", []wire.Record{helloRecord("c1", 5, 0)}},
		{"2. producer's node p1 answers", []wire.Record{helloRecord("p1", 9, 1)}},
		{"3. c1: consumer 0 of channel scores opens stream 1; nothing stored yet, no credit", []wire.Record{
			{Kind: wire.KindOpen, Stream: 1, Text: []byte("scores"), Index: 0, Instance: 1},
			stateRecord(wire.State{Stream: 1}),
		}},
		{"4. p1: two messages wait, 5 bytes in all, the first has 2", []wire.Record{
			backlogRecord(wire.Backlog{Stream: 1, EndMessages: 2, EndBytes: 5, NextSize: 2, Flags: wire.BacklogBlocked})}},
		{"5. c1 lends room for 65,536 messages and 65,536 bytes", []wire.Record{
			stateRecord(wire.State{Stream: 1, LimitMessages: 65536, LimitBytes: 65536})}},
		{"6. p1 sends both, and the end of its producer 0", []wire.Record{
			dataRecord(1, 0, 0, "hi", "you"),
			{Kind: wire.KindEnd, Stream: 1, Producer: 0, Seq: 2},
		}},
		{"7. c1 has stored all of it and handled the first message", []wire.Record{
			stateRecord(wire.State{Stream: 1, Next: 3, ConsumedMessages: 1, ConsumedBytes: 2, LimitMessages: 65537, LimitBytes: 65538})}},
		{"8. p1 is idle and hands the unused credit back", []wire.Record{
			backlogRecord(wire.Backlog{Stream: 1, Epoch: 1, EndMessages: 3, EndBytes: 5, Flags: wire.BacklogRelease})}},
		{"9. c1 has handled everything; its consumer closes", []wire.Record{
			stateRecord(wire.State{Stream: 1, Epoch: 1, Next: 3, ConsumedMessages: 3, ConsumedBytes: 5, LimitMessages: 3, LimitBytes: 5}),
			{Kind: wire.KindCancel, Stream: 1, Code: wire.CodeDone},
		}},
		{"10. p1 sends nothing more on stream 1: the label is free", []wire.Record{
			{Kind: wire.KindReset, Stream: 1, Code: wire.CodeDone}}},
		{"11. c1 closes", []wire.Record{{Kind: wire.KindBye, Code: wire.CodeDone}}},
	},
}

func TestGoldenBytes(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".golden")
		if _, ok := goldens[name]; !ok {
			t.Errorf("%s belongs to no test", f)
		}
	}
	for name, packets := range goldens {
		t.Run(name, func(t *testing.T) {
			text := goldenText(packets)
			path := filepath.Join(goldenDir, name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(file) != text {
				t.Errorf("%s: other bytes are written now (see SPEC.md on versions before you rewrite it with -update):\n%s", path, text)
			}
			// The file's own bytes, not what was just written, must decode.
			read := parseGolden(t, string(file))
			if len(read) != len(packets) {
				t.Fatalf("%d packets, want %d", len(read), len(packets))
			}
			for i, p := range read {
				rest := p
				for _, want := range packets[i].records {
					var r wire.Record
					if rest, err = wire.Next(rest, len(p)-len(rest), &r); err != nil {
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
		})
	}
}

// The specification's worked example is the golden conversation itself.
func TestSpecificationShowsTheGoldenConversation(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	conversation, err := os.ReadFile(filepath.Join(goldenDir, "conversation.golden"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(spec), "\n```\n"+string(conversation)+"```\n") {
		t.Error("SPEC.md does not hold testdata/wire/conversation.golden: copy the file into the worked example")
	}
}

// parseGolden returns a golden file's packets.
func parseGolden(t testing.TB, text string) (packets [][]byte) {
	t.Helper()
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var p []byte
		for line := range strings.Lines(block) {
			code, _, _ := strings.Cut(line, "#")
			b, err := hex.DecodeString(strings.Join(strings.Fields(code), ""))
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			p = append(p, b...)
		}
		packets = append(packets, p)
	}
	return packets
}

func goldenText(packets []packet) string {
	var s strings.Builder
	for i, p := range packets {
		if i > 0 {
			s.WriteByte('\n')
		}
		fmt.Fprintf(&s, "# %s\n", p.title)
		for _, r := range p.records {
			a := annotator{out: &s, p: appendRecord(nil, &r), names: elementNames[r.Kind]}
			a.record(r.Kind)
		}
	}
	return s.String()
}

// elementNames are the elements behind the kind, as SPEC.md names them.
var elementNames = [...][]string{
	wire.KindHello:    {"version", "node", "incarnation", "max message", "connection"},
	wire.KindOpen:     {"stream", "channel", "consumer", "instance"},
	wire.KindData:     {"stream", "producer", "position", "messages"},
	wire.KindFragment: {"stream", "producer", "position", "total", "offset", "bytes"},
	wire.KindEnd:      {"stream", "producer", "position"},
	wire.KindState: {"stream", "epoch", "next", "offset", "consumed messages", "consumed bytes",
		"limit messages", "limit bytes"},
	wire.KindBacklog: {"stream", "epoch", "end messages", "end bytes", "next size", "flags"},
	wire.KindCancel:  {"stream", "code", "text"},
	wire.KindReset:   {"stream", "code", "text"},
	wire.KindPing:    {"nonce"},
	wire.KindPong:    {"nonce"},
	wire.KindBye:     {"code", "text"},
	wire.KindCircuit: {"label", "from", "to", "via", "limit"},
	wire.KindAccept:  {"label", "limit"},
	wire.KindPacket:  {"label", "bytes"},
	wire.KindCredit:  {"label", "limit"},
	wire.KindClose:   {"label", "code", "text"},
}

// annotator writes a record's bytes, one MessagePack value a line, with what
// they mean. It knows just the widths that the package writes, so another
// width shows up as a failure and not as a comment that explains it away.
type annotator struct {
	out   *strings.Builder
	p     []byte
	names []string
}

func (a *annotator) record(k wire.Kind) {
	a.line(1, "array of %d", a.p[0]&0x0f)
	a.line(1, "%s", k)
	for _, name := range a.names {
		a.value(name)
	}
	if len(a.p) != 0 {
		panic(fmt.Sprintf("%s: %d bytes without a meaning", k, len(a.p)))
	}
}

func (a *annotator) value(name string) {
	switch c := a.p[0]; {
	case c < 0x80:
		a.line(1, "%s: %d", name, c)
	case c == 0xce:
		a.line(5, "%s: %d", name, binary.BigEndian.Uint32(a.p[1:]))
	case c == 0xcf:
		a.line(9, "%s: %d", name, binary.BigEndian.Uint64(a.p[1:]))
	case c&0xe0 == 0xa0:
		n := 1 + int(c&0x1f)
		a.line(n, "%s: %q", name, a.p[1:n])
	case c == 0xd9:
		n := 2 + int(a.p[1])
		a.line(n, "%s: %q", name, a.p[2:n])
	case c == 0xdc:
		n := int(binary.BigEndian.Uint16(a.p[1:]))
		a.line(3, "%s: array of %d", name, n)
		for range n {
			a.value("message")
		}
	case c == 0xc4:
		a.bin(name, 2, int(a.p[1]))
	case c == 0xc5:
		a.bin(name, 3, int(binary.BigEndian.Uint16(a.p[1:])))
	case c == 0xc6:
		a.bin(name, 5, int(binary.BigEndian.Uint32(a.p[1:])))
	default:
		panic(fmt.Sprintf("%s: unexpected lead byte %#x", name, c))
	}
}

func (a *annotator) bin(name string, header, n int) {
	a.line(header, "%s: bin of %d", name, n)
	for n > 0 {
		m := min(n, 16)
		a.line(m, "  %q", a.p[:m])
		n -= m
	}
}

func (a *annotator) line(n int, format string, args ...any) {
	fmt.Fprintf(a.out, "%-48s# %s\n", fmt.Sprintf("% x", a.p[:n]), fmt.Sprintf(format, args...))
	a.p = a.p[n:]
}
