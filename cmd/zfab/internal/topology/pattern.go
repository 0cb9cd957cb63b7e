package topology

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/token"
)

// A Pattern is how a channel's producers and consumers meet. Unless it says otherwise,
// who takes part is fixed, and each consumer ends when all producers have finished.
type Pattern string

const (
	// Exchange is all to all: every producer has a stream to every consumer.
	Exchange Pattern = "exchange"
	// OpenExchange is all to all where nodes may go and come back: producers send
	// to whatever consumers there are.
	OpenExchange Pattern = "open-exchange"
	// PubSub is every producer publishing to all consumers, which are reliable
	// subscribers: one copy goes to each node.
	PubSub Pattern = "pubsub"
	// Pipeline is every producer giving jobs to the consumers, each job to one that
	// has room, at least once: a consumer acknowledges a job as it takes the next
	// one. The high-water mark bounds what of a producer's jobs is not settled,
	// and InFlight the jobs that a consumer has of each producer.
	Pipeline Pattern = "pipeline"
	// Request is every producer calling the consumers, which are servers, each call to
	// the one with the least to do. A consumer answers with what it was asked. InFlight
	// is how many calls a producer has under way, and the high-water mark bounds the
	// requests that wait at a consumer.
	Request Pattern = "request"
	// Survey is every producer asking all consumers, each of which answers with what it
	// was asked. InFlight is how many surveys a producer has under way, and the
	// high-water mark bounds the questions that wait at a consumer.
	Survey Pattern = "survey"
	// Events is every producer publishing events of its own keys, each key in turn, to
	// the consumers, which are a group: one of them has a key's events at a time, in
	// order, at least once, and acknowledges one as it takes the next. Keys is how many
	// keys each producer has. The high-water mark bounds what of a producer's partition
	// is not acknowledged, and InFlight the events of it that a consumer has.
	Events Pattern = "events"
	// Broadcast is every producer sending to all consumers: one copy goes to each node,
	// which keeps it until the last of its consumers has it. The high-water mark bounds
	// each stream, and what a node keeps.
	Broadcast Pattern = "broadcast"
	// Gather is every producer sending to one consumer: there is one in all, at the first
	// node. The high-water mark bounds each stream, which several producers of a node
	// may share; by default it is 64 KiB and 1,024 messages.
	Gather Pattern = "gather"
	// Rounds is all to all in rounds: each producer sends to each consumer in turn, Round
	// messages in a round, and OpenRounds of them may be open. The high-water mark bounds
	// each stream of each open round.
	Rounds Pattern = "rounds"
)

// Patterns are those that are known.
var Patterns = []Pattern{Exchange, OpenExchange, PubSub, Pipeline, Request, Survey, Events, Broadcast, Gather, Rounds}

// A traits says what fields mean in a pattern.
type traits struct {
	spreads     []Spread // that a load may have; the first one is that of a load which names none
	whySpread   string   // there are no others
	inFlight    int      // the most that the field in_flight may say; 0: there is none
	patience    bool     // it has the field patience
	rounds      bool     // it has the fields round and open_rounds
	keys        int      // the most that the field keys may say; 0: there is none
	redelivers  bool     // messages may come again, marked so
	answers     bool     // consumers answer what producers ask
	single      bool     // there is one consumer in all, at the first node
	copyPerNode bool     // one copy goes to each node, whatever consumers it has
	mark        int      // the most that the field high_water_mark_messages may say; 0: 1<<30
	unordered   bool     // what one producer sends to one consumer has no order
	consumers   int      // the most that there may be on all nodes together; 0: MaxWorkers of each node
	beside      []string // further channels that it uses: what their names have behind the channel's
}

var traitsOf = map[Pattern]traits{
	Exchange: {
		spreads: []Spread{Addressed, Keyed, All}, whySpread: "in an exchange a message has its consumer, is for the owner of its key, or for all",
	},
	OpenExchange: {
		spreads: []Spread{Addressed}, whySpread: "in an open-exchange, where consumers come and go, each gets its own",
	},
	PubSub: {
		spreads: []Spread{All}, whySpread: "what is published with pubsub goes to all", copyPerNode: true,
		mark: 1 << 20, beside: []string{"subs"},
	},
	Pipeline: {
		spreads: []Spread{Any}, whySpread: "a job of a pipeline goes to whichever consumer has room", inFlight: 65536, patience: true, redelivers: true,
		mark: 1_000_000, unordered: true, beside: []string{"acks"},
	},
	Request: {
		spreads: []Spread{Any}, whySpread: "a call goes to whichever consumer has least to do", inFlight: 65536, patience: true, answers: true,
		unordered: true, beside: []string{"replies", "end"},
	},
	Survey: {
		spreads: []Spread{All}, whySpread: "a question of a survey goes to all", inFlight: 64, patience: true, answers: true,
		consumers: 16384, unordered: true, beside: []string{"replies", "end"},
	},
	Events: {
		spreads: []Spread{Keyed}, whySpread: "an event goes to the consumer that has its key", inFlight: 65536, keys: 4096, redelivers: true,
		beside: []string{"upto"},
	},
	Broadcast: {
		spreads: []Spread{All}, whySpread: "what is broadcast goes to all", copyPerNode: true,
	},
	Gather: {
		spreads: []Spread{All}, whySpread: "what is gathered goes to the one consumer, which is all", consumers: 1, single: true,
	},
	Rounds: {
		spreads: []Spread{Addressed}, whySpread: "in rounds each consumer gets its own in turn", rounds: true,
		beside: roundsBeside(),
	},
}

// maxOpenRounds is that of package patterns.
const maxOpenRounds = 16

func roundsBeside() []string {
	all := []string{"ended"}
	for i := range maxOpenRounds {
		all = append(all, fmt.Sprintf("round%d", i))
	}
	return all
}

// Redelivers reports whether messages may come again, marked so.
func (p Pattern) Redelivers() bool { return traitsOf[p].redelivers }

// Answers reports whether consumers answer what producers ask.
func (p Pattern) Answers() bool { return traitsOf[p].answers }

// Ordered reports whether what one producer sends to one consumer has an order.
func (p Pattern) Ordered() bool { return !traitsOf[p].unordered }

// those names the patterns of which is holds.
func those(is func(Pattern) bool) string {
	var names []string
	for _, p := range Patterns {
		if is(p) {
			names = append(names, string(p))
		}
	}
	return strings.Join(names, ", ")
}

// spread reads a load's spread, which has to fit the channel's pattern.
func (b *builder) spread(s scalar, at *token.Token, c Channel) Spread {
	t, known := traitsOf[c.Pattern]
	switch {
	case !s.set() && known:
		return t.spreads[0]
	case !s.set():
		return Addressed
	}
	spread := oneOf(b, s, at, "spread", Spreads)
	if !known || spread == "" || slices.Contains(t.spreads, spread) {
		return spread
	}
	var fit []string
	for _, f := range t.spreads {
		fit = append(fit, string(f))
	}
	b.add(s.at, "spread is %s: %s: write %s, or nothing", spread, t.whySpread, strings.Join(fit, ", "))
	return spread
}

// channelFields are a channel's fields as they were written.
type channelFields struct {
	pattern, producers, consumers, mark, markMessages, inFlight, patience, keys, round, openRounds scalar
}

// ownFields reads the fields that only some patterns have.
func (b *builder) ownFields(w channelFields, c *Channel) {
	if b.has(w.inFlight, "in_flight", c.Pattern, func(t traits) bool { return t.inFlight > 0 }) {
		c.InFlight = b.count(w.inFlight, nil, "in_flight", 1, traitsOf[c.Pattern].inFlight)
	}
	if b.has(w.patience, "patience", c.Pattern, func(t traits) bool { return t.patience }) {
		c.Patience = b.duration(w.patience, nil, "patience", 10*time.Millisecond)
	}
	if b.has(w.keys, "keys", c.Pattern, func(t traits) bool { return t.keys > 0 }) {
		c.Keys = b.count(w.keys, nil, "keys", 1, traitsOf[c.Pattern].keys)
	}
	rounds := func(t traits) bool { return t.rounds }
	if b.has(w.round, "round", c.Pattern, rounds) {
		c.Round = b.count(w.round, nil, "round", 1, 1<<30)
	}
	if b.has(w.openRounds, "open_rounds", c.Pattern, rounds) {
		c.OpenRounds = b.count(w.openRounds, nil, "open_rounds", 1, maxOpenRounds)
	}
	all, most := c.AllConsumers(b.t.Nodes), traitsOf[c.Pattern].consumers
	switch {
	case most == 0 || all <= most:
	case traitsOf[c.Pattern].single:
		b.add(w.consumers.at, "a %s has one consumer in all, at %s: write 1", c.Pattern, NodeName(1))
	default:
		b.add(w.consumers.at, "channel %s would have %d consumers: a %s has at most %d; take fewer, or fewer nodes", c.Name, all, c.Pattern, most)
	}
}

// has reports whether a field is there. One that is there and that patterns with this
// one's traits do not have is a problem.
func (b *builder) has(s scalar, name string, p Pattern, has func(traits) bool) bool {
	t, known := traitsOf[p]
	if s.set() && known && !has(t) {
		b.add(s.at, "a channel of the pattern %s has no %s; those that have are: %s", p, name, those(func(p Pattern) bool { return has(traitsOf[p]) }))
		return false
	}
	return s.set() && known
}

// checkNames finds channels whose names another one uses beside its own, or leave no
// room for such names.
func (b *builder) checkNames(at map[string]*token.Token) {
	for _, c := range b.t.Channels {
		for _, suffix := range traitsOf[c.Pattern].beside {
			name := fmt.Sprintf("%s.%s", c.Name, suffix)
			if _, taken := b.t.Channel(name); taken {
				b.add(at[name], "channel %s: a %s named %s uses that name beside its own; take another one", name, c.Pattern, c.Name)
			}
			if len(name) > maxName && len(c.Name) <= maxName {
				b.add(at[c.Name], "a %s uses its name with .%s behind it, too: take one of at most %d letters", c.Pattern, suffix, maxName-len(suffix)-1)
				break
			}
		}
	}
}
