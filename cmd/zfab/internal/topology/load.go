package topology

import (
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// MaxRate and MinRate bound the rates that can be asked for, in messages per second:
// pacing counts in nanoseconds, of which an int64 holds 292 years.
const (
	MaxRate = 1e9
	MinRate = 1e-6
)

// buildLoads reads load: one mapping, or a list of them.
func (b *builder) buildLoads(n ast.Node) {
	if n == nil {
		return
	}
	items := []ast.Node{n}
	if _, list := n.(*ast.SequenceNode); list {
		items = b.sequence(n, "load")
	}
	for _, item := range items {
		b.buildLoad(item)
	}
}

func (b *builder) buildLoad(n ast.Node) {
	var channel, messages, size, rate, duration, spread scalar
	b.mapping(n, "a load",
		b.scalarField("channel", &channel), b.scalarField("messages", &messages), b.scalarField("size", &size),
		b.scalarField("rate", &rate), b.scalarField("duration", &duration), b.scalarField("spread", &spread))
	if !isMapping(n) {
		return
	}
	at := start(n)
	l := Load{
		Channel: b.loadChannel(channel, at),
		Size:    b.size(size, at, "size", MinMessage, MaxMessage),
	}
	switch {
	case messages.set() && duration.set():
		b.add(duration.at, "a load has messages or duration, not both: leave one out")
	case messages.set():
		l.Messages = b.count(messages, at, "messages", 1, 1<<40)
	case duration.set():
		l.Duration = b.duration(duration, at, "duration", time.Millisecond)
	default:
		b.add(at, "a load has neither messages nor duration: say how many messages each producer sends, or for how long")
	}
	if rate.set() {
		l.Rate = b.rate(rate)
	}
	c, _ := b.t.Channel(l.Channel)
	l.Spread = b.spread(spread, at, c)
	b.t.Loads = append(b.t.Loads, l)
}

// loadChannel is a channel that exists and has no load yet.
func (b *builder) loadChannel(s scalar, at *token.Token) string {
	if !s.set() {
		b.add(at, "no field channel: say which channel the load is for: %s", b.channelNames())
		return ""
	}
	if s.told || !b.knownChannel(s.text, s.at) {
		return ""
	}
	if _, twice := b.t.Load(s.text); twice {
		b.add(s.at, "channel %s has a load already: a channel has at most one", s.text)
	}
	return s.text
}

func (b *builder) knownChannel(name string, at *token.Token) bool {
	if _, ok := b.t.Channel(name); ok {
		return true
	}
	b.add(at, "unknown channel %q; the file's channels are: %s", name, b.channelNames())
	return false
}

func (b *builder) channelNames() string {
	var names []string
	for _, c := range b.t.Channels {
		names = append(names, c.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (b *builder) rate(s scalar) float64 {
	v, err := strconv.ParseFloat(strings.ReplaceAll(s.text, "_", ""), 64)
	if s.told {
		return 0
	}
	if err != nil || !(v >= MinRate && v <= MaxRate) {
		b.add(s.at, "rate is %q: give the messages per second of each producer, a number from %.6f to %.0f", s.text, MinRate, MaxRate)
		return 0
	}
	return v
}
