package topology

import (
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// faultKinds are the faults that a file can ask for. A fault's kind is the
// field that stands beside at and for, and that field's value is its target:
// `{at: 500ms, for: 2s, stall: scores/n3/1}`.
var faultKinds = []struct {
	kind   FaultKind
	target func(b *builder, s scalar, f *Fault)
}{
	{Stall, (*builder).stallTarget},
}

func (b *builder) buildFaults(n ast.Node) {
	if n == nil {
		return
	}
	for _, item := range b.sequence(n, "faults") {
		b.buildFault(item)
	}
}

func (b *builder) buildFault(n ast.Node) {
	var at, length scalar
	targets := make([]scalar, len(faultKinds))
	fields := []field{b.scalarField("at", &at), b.scalarField("for", &length)}
	for i, k := range faultKinds {
		fields = append(fields, b.scalarField(string(k.kind), &targets[i]))
	}
	before := len(b.found)
	b.mapping(n, "a fault", fields...)
	if !isMapping(n) {
		return
	}
	f := Fault{
		At:  b.duration(at, start(n), "at", 0),
		For: b.duration(length, start(n), "for", time.Millisecond),
	}
	b.faultTarget(start(n), targets, &f, len(b.found) > before)
	if len(b.found) == before {
		b.t.Faults = append(b.t.Faults, f)
	}
}

// faultTarget reads the one kind that the fault names. bad tells that its
// fields are wrong already, so that a missing kind is no news.
func (b *builder) faultTarget(at *token.Token, targets []scalar, f *Fault, bad bool) {
	for i, s := range targets {
		switch {
		case !s.set():
		case f.Kind != "":
			b.add(s.at, "a fault is of one kind: %s and %s need an item each", f.Kind, faultKinds[i].kind)
		default:
			f.Kind = faultKinds[i].kind
			faultKinds[i].target(b, s, f)
		}
	}
	if f.Kind == "" && !bad {
		var names []string
		for _, k := range faultKinds {
			names = append(names, string(k.kind))
		}
		b.add(at, "a fault of no kind; known are: %s", strings.Join(names, ", "))
	}
}

// stallTarget is a consumer, and one that no other stall holds at that time.
func (b *builder) stallTarget(s scalar, f *Fault) {
	c, ok := b.consumer(s)
	if !ok {
		return
	}
	f.Consumer = c
	for _, o := range b.t.Faults {
		if o.Kind == Stall && o.Consumer == c && f.At < o.At+o.For && o.At < f.At+f.For {
			b.add(s.at, "%s is stalled already from %s to %s: let one end before the next begins", c, o.At, o.At+o.For)
		}
	}
}

// consumer reads channel/node/index.
func (b *builder) consumer(s scalar) (Consumer, bool) {
	if s.told {
		return Consumer{}, false
	}
	parts := strings.Split(s.text, "/")
	if len(parts) != 3 {
		b.add(s.at, "%q names no consumer: write channel/node/index, like scores/n3/1", s.text)
		return Consumer{}, false
	}
	if !b.knownChannel(parts[0], s.at) {
		return Consumer{}, false
	}
	channel, _ := b.t.Channel(parts[0])
	if b.t.Nodes == 0 || channel.Consumers == 0 {
		return Consumer{}, false // told where they are counted
	}
	digits, named := strings.CutPrefix(parts[1], "n")
	node, err := strconv.Atoi(digits)
	if !named || err != nil || NodeName(node) != parts[1] || node < 1 || node > b.t.Nodes {
		b.add(s.at, "no node %q: the nodes are %s to %s", parts[1], NodeName(1), NodeName(b.t.Nodes))
		return Consumer{}, false
	}
	index, err := strconv.Atoi(parts[2])
	if err != nil || strconv.Itoa(index) != parts[2] || index < 0 || index >= channel.Consumers {
		b.add(s.at, "no consumer %q of %s on %s: they are counted from 0 to %d", parts[2], parts[0], parts[1], channel.Consumers-1)
		return Consumer{}, false
	}
	return Consumer{Channel: parts[0], Node: node, Index: index}, true
}
