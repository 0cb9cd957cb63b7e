package topology

import (
	"bytes"
	"cmp"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/zfab/zfab/cmd/zfab/internal/expect"
	"github.com/zfab/zfab/cmd/zfab/internal/report"
	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// ReadFile reads and checks a file. What is wrong in it is an *Error; a file
// that cannot be read is the operating system's error.
func ReadFile(name string) (*Topology, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	return Parse(name, text)
}

// Parse reads and checks text. name stands for the file in errors.
func Parse(name string, text []byte) (*Topology, error) {
	b := &builder{problems: problems{lines: strings.Split(string(text), "\n")}}
	b.t.file = name
	if len(text) > MaxFile {
		b.add(nil, "the file is larger than %s", units.Size(MaxFile))
		return nil, b.err(name)
	}
	root := b.root(text)
	if root == nil {
		return nil, b.err(name)
	}
	b.build(root)
	if err := b.err(name); err != nil {
		return nil, err
	}
	return &b.t, nil
}

// A builder turns a file's fields into a Topology.
type builder struct {
	problems
	t Topology
}

// root is the file's one document.
func (b *builder) root(text []byte) ast.Node {
	file, err := parser.ParseBytes(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), 0)
	if err != nil {
		b.addSyntax(err)
		return nil
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 1:
		return bodies[0]
	case 0:
		b.add(nil, "the file is empty: begin it with `zfab: %s`", Version)
	default:
		b.add(start(bodies[1]), "a second document begins here: a topology file holds one")
	}
	return nil
}

// build reads the sections first and then builds them in the order in which
// they depend on each other, whatever their order in the file.
func (b *builder) build(root ast.Node) {
	var version, name, sideBySide, seed scalar
	var nodes, channels, load, faults, expectations ast.Node
	section := func(name string, n *ast.Node) field { return field{name, func(v ast.Node) { *n = v }} }
	b.mapping(root, "a topology",
		b.scalarField("zfab", &version), b.scalarField("name", &name),
		section("nodes", &nodes), section("channels", &channels), section("load", &load),
		section("faults", &faults), section("expect", &expectations), b.scalarField("side_by_side", &sideBySide),
		b.scalarField("seed", &seed))

	top := start(root)
	if !version.set() {
		b.add(top, "no field zfab: begin the file with `zfab: %s`", Version)
	} else if !version.told && version.text != Version {
		b.add(version.at, "unknown version %q of the topology file; known is: %s", version.text, Version)
	}
	b.t.Name = b.name(name, top, "the topology")
	b.t.SideBySide = b.bool(sideBySide, "side_by_side")
	b.t.Seed = defaultSeed
	if seed.set() {
		b.t.Seed = uint64(b.count(seed, top, "seed", 0, math.MaxInt))
	}
	b.buildNodes(nodes, top)
	b.buildChannels(channels, top)
	b.buildLoads(load)
	b.buildFaults(faults)
	b.buildExpectations(expectations)
}

// defaultSeed is that of a file without one: it makes the same choices each time, too.
const defaultSeed = 1

func (b *builder) buildNodes(n ast.Node, top *token.Token) {
	if n == nil {
		b.add(top, "no field nodes: say how many, like `nodes: {count: 8}`")
		return
	}
	var count, interval, timeout scalar
	b.mapping(n, "nodes", b.scalarField("count", &count),
		b.scalarField("heartbeat_interval", &interval), b.scalarField("heartbeat_timeout", &timeout))
	if !isMapping(n) {
		return
	}
	b.t.Nodes = b.count(count, start(n), "count", 1, MaxNodes)
	b.buildHeartbeat(interval, timeout)
}

// buildHeartbeat reads both of its fields or none: a timeout has to fit its interval.
func (b *builder) buildHeartbeat(interval, timeout scalar) {
	switch {
	case !interval.set() && !timeout.set():
		return
	case !interval.set():
		b.add(timeout.at, "heartbeat_timeout without heartbeat_interval: give both")
		return
	case !timeout.set():
		b.add(interval.at, "heartbeat_interval without heartbeat_timeout: give both")
		return
	}
	h := Heartbeat{
		Interval: b.duration(interval, nil, "heartbeat_interval", 10*time.Millisecond),
		Timeout:  b.duration(timeout, nil, "heartbeat_timeout", 30*time.Millisecond),
	}
	if h.Timeout > 0 && h.Timeout < 3*h.Interval {
		b.add(timeout.at, "heartbeat_timeout is %s: give at least three heartbeat_intervals, %s", h.Timeout, 3*h.Interval)
	}
	b.t.Heartbeat = h
}

func (b *builder) buildChannels(n ast.Node, top *token.Token) {
	if n == nil {
		b.add(top, "no field channels: name one, like `channels: {scores: {pattern: exchange, producers: 4, consumers: 4}}`")
		return
	}
	at := make(map[string]*token.Token)
	for _, pair := range b.pairs(n, "channels") {
		at[pair.key.text] = pair.key.at
		b.t.Channels = append(b.t.Channels, b.channel(pair.key, pair.value))
	}
	b.checkNames(at)
	if len(b.t.Channels) == 0 && len(b.found) == 0 {
		b.add(n.GetToken(), "channels is empty: name at least one")
	}
}

// channel reads one channel. One with problems is known by its name all the
// same, so that what refers to it is not a problem too.
func (b *builder) channel(key scalar, n ast.Node) Channel {
	var w channelFields
	b.mapping(n, "channel "+key.text,
		b.scalarField("pattern", &w.pattern), b.scalarField("producers", &w.producers), b.scalarField("consumers", &w.consumers),
		b.scalarField("high_water_mark", &w.mark), b.scalarField("high_water_mark_messages", &w.markMessages),
		b.scalarField("in_flight", &w.inFlight), b.scalarField("patience", &w.patience),
		b.scalarField("keys", &w.keys), b.scalarField("round", &w.round), b.scalarField("open_rounds", &w.openRounds))
	if !isMapping(n) {
		return Channel{Name: key.text}
	}
	at := start(n)
	c := Channel{
		Name:      b.name(key, at, "a channel"),
		Pattern:   oneOf(b, w.pattern, at, "pattern", Patterns),
		Producers: b.count(w.producers, at, "producers", 1, MaxWorkers),
		Consumers: b.count(w.consumers, at, "consumers", 1, MaxWorkers),
	}
	if c.Pattern == OpenExchange && c.Producers > 1 {
		b.add(w.producers.at, "an %s has one producer per node: what is in doubt when a consumer is lost is told for all of a node's producers together", OpenExchange)
	}
	if w.mark.set() {
		c.HighWaterMark = b.size(w.mark, at, "high_water_mark", 1, 1<<40)
	}
	if w.markMessages.set() {
		c.HighWaterMarkMessages = int64(b.count(w.markMessages, at, "high_water_mark_messages", 1, cmp.Or(traitsOf[c.Pattern].mark, 1<<30)))
	}
	b.ownFields(w, &c)
	if streams := c.pairs(b.t.Nodes); streams > MaxStreams {
		b.add(at, "channel %s would have %d streams: more than %d; take fewer nodes, producers or consumers", c.Name, streams, MaxStreams)
	}
	return c
}

func (b *builder) buildExpectations(n ast.Node) {
	if n == nil {
		return
	}
	for _, item := range b.sequence(n, "expect") {
		s := b.scalar(item, "an expectation")
		if s.told {
			continue
		}
		e, err := expect.Parse(s.text)
		if err != nil {
			b.add(s.at, "%v", err)
			continue
		}
		if why := b.unmeasurable(e.Metric); why != "" {
			b.add(s.at, "%s is not measured in this run: %s", e.Metric.Name, why)
			continue
		}
		b.t.Expect = append(b.t.Expect, e)
	}
}

// unmeasurable says what a metric lacks to be measured in this run.
func (b *builder) unmeasurable(m report.Metric) string {
	there := true
	switch m.Needs {
	case report.OfStalls:
		there = b.t.Has(func(k FaultKind) bool { return k == Stall })
	case report.OfFaults:
		there = b.t.Has(func(k FaultKind) bool { return k != Stall })
	case report.OfBlackholes:
		there = b.t.Has(func(k FaultKind) bool { return k == Blackhole })
	case report.OfTurns:
		there = b.t.faultsTakeTurns()
	case report.OfOrder:
		return b.needsChannel(Pattern.Ordered)
	case report.OfRedeliveries:
		return b.needsChannel(Pattern.Redelivers)
	case report.OfAnswers:
		return b.needsChannel(Pattern.Answers)
	}
	switch {
	case !there:
		return "add a " + string(m.Needs)
	case m.SideBySide && !b.t.SideBySide:
		return "add `side_by_side: true` to run the same without the fault beside it"
	}
	return ""
}

// needsChannel is empty if a channel's pattern is one of those of which is holds.
func (b *builder) needsChannel(is func(Pattern) bool) string {
	if slices.ContainsFunc(b.t.Channels, func(c Channel) bool { return is(c.Pattern) }) {
		return ""
	}
	return "it is about channels of the pattern " + those(is)
}

// name reads what names a topology or a channel.
func (b *builder) name(s scalar, at *token.Token, of string) string {
	if !s.set() {
		b.add(at, "%s has no name: add one, like `name: exchange`", of)
		return ""
	}
	if s.told {
		return ""
	}
	bad := strings.IndexFunc(s.text, func(r rune) bool { return !strings.ContainsRune(nameLetters, r) })
	if s.text == "" || len(s.text) > maxName || bad >= 0 {
		b.add(s.at, "%q cannot name %s: use 1 to %d letters, digits, dots, dashes and underscores", s.text, of, maxName)
	}
	return s.text
}

const maxName = 255

const nameLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// count reads a whole number within [low, high]; at is where to complain when
// there is none.
func (b *builder) count(s scalar, at *token.Token, what string, low, high int) int {
	if !s.set() {
		b.add(at, "no field %s: give a whole number from %d to %d", what, low, high)
		return 0
	}
	if s.told {
		return 0
	}
	v, err := strconv.Atoi(strings.ReplaceAll(s.text, "_", ""))
	if err != nil || v < low || v > high {
		b.add(s.at, "%s is %q: give a whole number from %d to %d", what, s.text, low, high)
		return 0
	}
	return v
}

func (b *builder) size(s scalar, at *token.Token, what string, low, high units.Size) units.Size {
	if !s.set() {
		b.add(at, "no field %s: give a size, like 64B or 1MiB", what)
		return 0
	}
	if s.told {
		return 0
	}
	v, err := units.ParseSize(s.text)
	if err != nil {
		b.add(s.at, "%s: %v", what, err)
		return 0
	}
	if v < low || v > high {
		b.add(s.at, "%s is %s: give a size from %s to %s", what, s.text, low, high)
		return 0
	}
	return v
}

func (b *builder) duration(s scalar, at *token.Token, what string, low time.Duration) time.Duration {
	if !s.set() {
		b.add(at, "no field %s: give a duration, like 500ms or 2s", what)
		return 0
	}
	if s.told {
		return 0
	}
	v, err := time.ParseDuration(s.text)
	if err != nil {
		b.add(s.at, "%s is %q: give a duration with its unit, like 500ms or 2s", what, s.text)
		return 0
	}
	if v < low || v > 24*time.Hour {
		b.add(s.at, "%s is %s: give a duration from %s to 24h", what, s.text, low)
		return 0
	}
	return v
}

func (b *builder) bool(s scalar, what string) bool {
	if s.set() && !s.told && s.text != "true" && s.text != "false" {
		b.add(s.at, "%s is %q: write true or false", what, s.text)
	}
	return s.text == "true"
}

// oneOf reads one of the known words.
func oneOf[T ~string](b *builder, s scalar, at *token.Token, what string, known []T) T {
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	if !s.set() {
		b.add(at, "no field %s; known are: %s", what, strings.Join(words, ", "))
		return ""
	}
	if s.told {
		return ""
	}
	if !slices.Contains(words, s.text) {
		b.add(s.at, "unknown %s %q; known are: %s", what, s.text, strings.Join(words, ", "))
		return ""
	}
	return T(s.text)
}
