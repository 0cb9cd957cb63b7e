package topology

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

const good = `zfab: v1
name: exchange
nodes: {count: 8}
channels:
  scores: {pattern: exchange, producers: 4, consumers: 4, high_water_mark: 1MiB}   # per node
load: {channel: scores, messages: 50000, size: 64B}        # per producer
faults:
  - {at: 500ms, for: 2s, stall: scores/n3/1}               # that consumer stops reading
expect:
  - lost == 0
  - links <= 28
`

func TestParse(t *testing.T) {
	got, err := Parse("good.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Expect) != 2 || got.Expect[0].String() != "lost == 0" || got.Expect[1].String() != "links <= 28" {
		t.Errorf("expectations %v", got.Expect)
	}
	got.Expect, got.Faults[0].place = nil, Problem{}
	want := &Topology{
		Name: "exchange", Nodes: 8,
		Channels: []Channel{{Name: "scores", Pattern: Exchange, Producers: 4, Consumers: 4, HighWaterMark: units.MiB}},
		Loads:    []Load{{Channel: "scores", Messages: 50000, Size: 64, Spread: Addressed}},
		Faults: []Fault{{
			Kind: Stall, Target: "scores/n3/1", At: 500 * time.Millisecond, For: 2 * time.Second, ForMost: 2 * time.Second,
			Consumer: Consumer{"scores", 3, 1},
		}},
		Seed: 1, file: "good.yaml",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if pairs := got.ProcessPairs(); pairs != 1024 {
		t.Errorf("%d process pairs, want 1024", pairs)
	}
	if name := got.Faults[0].Consumer.String(); name != "scores/n3/1" {
		t.Errorf("the stalled consumer is %q", name)
	}
}

func TestParseEveryField(t *testing.T) {
	got, err := Parse("all.yaml", []byte(`
expect: ["stall.throughput_ratio >= 0.95"]
side_by_side: true
faults:
- at: 1s
  for: 500ms
  stall: a/n1/0
- {at: 1500ms, for: 1s, stall: a/n1/0}
load:
  - channel: a
    duration: 4s
    size: 1KiB
    rate: 2_500.5
  - channel: b.c
    messages: 1_000
    size: 32
    spread: keyed
channels:
  a: {pattern: exchange, producers: 1, consumers: 1, high_water_mark_messages: 100}
  b.c:
    pattern: exchange
    producers: 2
    consumers: 3
nodes:
  count: 2
name: "two"
zfab: v1
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Load{
		{Channel: "a", Duration: 4 * time.Second, Size: 1024, Rate: 2500.5, Spread: Addressed},
		{Channel: "b.c", Messages: 1000, Size: 32, Spread: Keyed},
	}
	if !reflect.DeepEqual(got.Loads, want) {
		t.Errorf("loads %+v, want %+v", got.Loads, want)
	}
	if got.Channels[0].HighWaterMarkMessages != 100 || !got.SideBySide || len(got.Faults) != 2 {
		t.Errorf("%+v", got)
	}
	if pairs := got.ProcessPairs(); pairs != 2*2+4*6 {
		t.Errorf("%d process pairs, want 28", pairs)
	}
}

// Each case changes one thing of the good file. The problem must name its
// place and say what to do.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		where    string // line:column
		message  string
	}{
		"unknown field":             {"name: exchange", "name: exchange\nnode: 1", "3:1", `unknown field "node" in a topology; known are: zfab, name, nodes`},
		"unknown field of nodes":    {"{count: 8}", "{count: 8, cuont: 8}", "3:19", `unknown field "cuont" in nodes; known are: count`},
		"unknown field of a load":   {"size: 64B}", "size: 64B, siez: 64B}", "6:53", `unknown field "siez" in a load; known are: channel, messages, size`},
		"no version":                {"zfab: v1\n", "", "1:1", "begin the file with `zfab: v1`"},
		"wrong version":             {"zfab: v1", "zfab: v2", "1:7", `unknown version "v2" of the topology file; known is: v1`},
		"no name":                   {"name: exchange\n", "", "1:1", "the topology has no name"},
		"bad name":                  {"name: exchange", "name: ex change", "2:7", `"ex change" cannot name the topology: use 1 to 255 letters`},
		"bad channel name":          {"load:", "  sco/res: {pattern: exchange, producers: 1, consumers: 1}\nload:", "6:3", `"sco/res" cannot name a channel`},
		"no nodes":                  {"nodes: {count: 8}\n", "", "1:1", "say how many, like `nodes: {count: 8}`"},
		"nodes no mapping":          {"nodes: {count: 8}", "nodes: 8", "3:8", "nodes must be fields"},
		"count no number":           {"count: 8", "count: many", "3:16", `count is "many": give a whole number from 1 to 1000`},
		"count too small":           {"count: 8", "count: 0", "3:16", `count is "0": give a whole number from 1`},
		"count too large":           {"count: 8", "count: 1001", "3:16", "from 1 to 1000"},
		"unknown pattern":           {"pattern: exchange", "pattern: scatter", "5:21", `unknown pattern "scatter"; known are: exchange`},
		"no pattern":                {"pattern: exchange, ", "", "5:11", "no field pattern; known are: exchange"},
		"no consumers":              {", consumers: 4", "", "5:11", "no field consumers: give a whole number from 1 to 1024"},
		"too many streams":          {"count: 8", "count: 1000", "5:11", "more than 4194304; take fewer"},
		"bad size":                  {"64B", "64Q", "6:48", `"64Q" is not a size: write a number with B, KiB, MiB or GiB`},
		"size too small":            {"64B", "8B", "6:48", "give a size from 32B to 64MiB"},
		"size too large":            {"64B", "65MiB", "6:48", "give a size from 32B to 64MiB"},
		"bad mark":                  {"mark: 1MiB", "mark: 0B", "5:76", "high_water_mark is 0B"},
		"channel of the load":       {"channel: scores", "channel: score", "6:17", `unknown channel "score"; the file's channels are: scores`},
		"no amount":                 {"messages: 50000, ", "", "6:7", "neither messages nor duration"},
		"two amounts":               {"messages: 50000", "messages: 50000, duration: 2s", "6:52", "not both: leave one out"},
		"bad rate":                  {"size: 64B", "size: 64B, rate: 0", "6:59", "a number from 0.000001 to 1000000000"},
		"rate slower than time":     {"size: 64B", "size: 64B, rate: 1e-300", "6:59", "a number from 0.000001"},
		"bad spread":                {"size: 64B", "size: 64B, spread: random", "6:61", `unknown spread "random"; known are: addressed, keyed, all`},
		"two loads":                 {"load: {channel: scores, messages: 50000, size: 64B}", "load:\n - {channel: scores, messages: 5, size: 64B}\n - {channel: scores, messages: 5, size: 64B}", "8:14", "has a load already"},
		"unknown fault":             {"stall: scores/n3/1", "melt: scores/n3/1", "8:26", `unknown field "melt" in a fault; known are: at, for, every, until, times, stall, cut, blackhole`},
		"fault of no kind":          {", stall: scores/n3/1", "", "8:5", "a fault of no kind; known are: stall, cut"},
		"no at":                     {"at: 500ms, ", "", "8:5", "no field at: give a duration"},
		"bad duration":              {"500ms", "500", "8:10", `at is "500": give a duration with its unit`},
		"channel of the fault":      {"stall: scores/", "stall: score/", "8:33", `unknown channel "score"`},
		"node of the fault":         {"scores/n3/1", "scores/n9/1", "8:33", `no node "n9": the nodes are n1 to n8`},
		"consumer of the fault":     {"scores/n3/1", "scores/n3/4", "8:33", "counted from 0 to 3"},
		"target of the fault":       {"scores/n3/1", "scores", "8:33", "write channel/node/index"},
		"stalls that overlap":       {"expect:", "  - {at: 2s, for: 2s, stall: scores/n3/1}\nexpect:", "9:30", "is stalled already from 500ms to 2.5s"},
		"stall that recurs":         {"for: 2s,", "for: 2s, every: 3s,", "8:33", "a stall comes once: leave out every, and write an item for each"},
		"stall of a range":          {"for: 2s", "for: 1s..2s", "8:22", "the length of a stall is one duration"},
		"producers of an open one":  {"pattern: exchange", "pattern: open-exchange", "5:47", "an open-exchange has one producer per node"},
		"spread of an open one":     {"pattern: exchange, producers: 4, consumers: 4, high_water_mark: 1MiB}   # per node\nload: {channel: scores, messages: 50000,", "pattern: open-exchange, producers: 1, consumers: 4}\nload: {channel: scores, messages: 5, spread: all,", "6:46", "in an open-exchange, where consumers come and go, each gets its own: write addressed"},
		"spread of a published one": {"pattern: exchange, producers: 4, consumers: 4, high_water_mark: 1MiB}   # per node\nload: {channel: scores, messages: 50000,", "pattern: pubsub, producers: 4, consumers: 4}\nload: {channel: scores, messages: 5, spread: keyed,", "6:46", "what is published with pubsub goes to all: write all, or nothing"},
		"bad seed":                  {"name: exchange", "name: exchange\nseed: -1", "3:7", `seed is "-1": give a whole number`},
		"heartbeat alone":           {"{count: 8}", "{count: 8, heartbeat_timeout: 3s}", "3:38", "without heartbeat_interval: give both"},
		"interval alone":            {"{count: 8}", "{count: 8, heartbeat_interval: 3s}", "3:39", "without heartbeat_timeout: give both"},
		"timeout too short":         {"{count: 8}", "{count: 8, heartbeat_interval: 1s, heartbeat_timeout: 2s}", "3:62", "give at least three heartbeat_intervals, 3s"},
		"unknown metric":            {"links <= 28", "link <= 28", "11:5", `unknown metric "link"; known are: lost, duplicated`},
		"bad expectation":           {"links <= 28", "links", "11:5", "write `metric op value`"},
		"metric without twin":       {"links <= 28", "stall.throughput_ratio > 0.9", "11:5", "add `side_by_side: true`"},
		"metric without turns":      {"links <= 28", "faults.throughput_ratio > 0.9", "11:5", "add a second fault of a link or a process some time after the first one has ended"},
		"metric without fault":      {"links <= 28", "recovery.max_ms < 1s", "11:5", "add a fault of a link or a process"},
		"metric without hole":       {"links <= 28", "detection.max_ms < 8s", "11:5", "add a blackhole"},
		"empty value":               {"name: exchange", "name:", "2:6", "name is empty"},
		"anchor":                    {"name: exchange", "name: &a exchange", "2:7", "anchors, aliases and tags are not used"},
		"field twice":               {"name: exchange", "name: exchange\nname: again", "3:1", `mapping key "name" already defined`},
		"second document":           {"expect:", "---\nexpect:", "10:1", "a second document"},
		"syntax":                    {"{count: 8}", "{count: 8", "4:1", "',' or '}' must be specified"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			if text == good {
				t.Fatalf("%q is not in the good file", c.old)
			}
			checkProblem(t, text, c.where, c.message)
		})
	}
}

// checkProblem reads a bad file, whose one problem must be at line:column and
// say message.
func checkProblem(t *testing.T, text, where, message string) {
	t.Helper()
	_, err := Parse("bad.yaml", []byte(text))
	var e *Error
	switch {
	case !errors.As(err, &e):
		t.Fatalf("%v, want an *Error that says %q", err, message)
	case len(e.Problems) != 1:
		t.Errorf("%d problems, want one:\n%v", len(e.Problems), err)
	case !strings.Contains(err.Error(), "bad.yaml:"+where+": "):
		t.Errorf("not at %s:\n%v", where, err)
	case !strings.Contains(err.Error(), message):
		t.Errorf("does not say %q:\n%v", message, err)
	}
}

// What goes for the faults of links and processes; each is the only one of a
// good file, at line 8.
func TestFaultProblems(t *testing.T) {
	for name, c := range map[string]struct{ fault, where, message string }{
		"cut of no link":          {"at: 1s, cut: n1", "8:19", `"n1" names no link: write n1-n2, random or all`},
		"cut of a node":           {"at: 1s, cut: n1-n1", "8:19", "a link is between two nodes"},
		"cut of a direction":      {"at: 1s, cut: n1->n2", "8:19", "a cut ends both directions: write n1-n2"},
		"cut of an unknown node":  {"at: 1s, cut: n1-n9", "8:19", `no node "n9": the nodes are n1 to n8`},
		"cut that lasts":          {"at: 1s, for: 1s, cut: n1-n2", "8:19", "a cut does not last: leave out for"},
		"hole that does not last": {"at: 1s, blackhole: n1-n2", "8:5", "no field for"},
		"range backwards":         {"at: 1s, for: 2s..1s, blackhole: n1-n2", "8:19", "the shorter one comes first"},
		"range of nothing":        {"at: 1s, for: 2s.., blackhole: n1-n2", "8:19", "give a duration with its unit"},
		"times without every":     {"at: 1s, times: 3, cut: n1-n2", "8:21", "times without every: say how often"},
		"until without every":     {"at: 1s, until: 3s, cut: n1-n2", "8:21", "until without every"},
		"until and times":         {"at: 1s, every: 1s, until: 3s, times: 3, cut: n1-n2", "8:43", "leave one out"},
		"overlapping itself":      {"at: 1s, every: 1s, for: 500ms..2s, blackhole: n1-n2", "8:21", "has to end before the next begins"},
		"delay without end again": {"at: 1s, every: 1s, delay: n1-n2, amount: 1ms", "8:21", "a delay without for lasts to the end"},
		"delay without amount":    {"at: 1s, delay: n1-n2", "8:5", "no field amount"},
		"delay too long":          {"at: 1s, delay: n1-n2, amount: 11s", "8:36", "give at most 10s"},
		"another's field":         {"at: 1s, cut: n1-n2, amount: 1ms", "8:34", "amount belongs to a delay, and this is a cut"},
		"rate without amount":     {"at: 1s, rate: n1-n2", "8:5", "no field bytes_per_second"},
		"two kinds":               {"at: 1s, cut: n1-n2, kill: n1", "8:32", "a fault is of one kind: cut and kill need an item each"},
		"pause of all":            {"at: 1s, for: 1s, pause: all", "8:30", `no node "all"`},
		"kill in an exchange":     {"at: 1s, restart_after: 1s, kill: n1", "8:39", "give it the pattern open-exchange"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, "{at: 500ms, for: 2s, stall: scores/n3/1}", "{"+c.fault+"}", 1)
			checkProblem(t, text, c.where, c.message)
		})
	}
}

func TestFaultsNeedLinks(t *testing.T) {
	one := strings.NewReplacer("count: 8", "count: 1", "for: 2s, stall: scores/n3/1", "cut: random").Replace(good)
	checkProblem(t, one, "8:22", "a cut needs a link, and one node has none")
	many := strings.NewReplacer("count: 8", "count: 65", "for: 2s, stall: scores/n3/1", "cut: all").Replace(good)
	checkProblem(t, many, "8:22", "all is for at most 64 nodes; name a link")
}

// What goes for the patterns other than the exchange; each is the channel of a good
// file, at line 5, with its load at line 6.
func TestPatternProblems(t *testing.T) {
	for name, c := range map[string]struct{ channel, load, where, message string }{
		"spread of a pipeline":          {"pattern: pipeline, producers: 4, consumers: 4", "spread: all", "6:61", "a job of a pipeline goes to whichever consumer has room: write any, or nothing"},
		"spread of an exchange":         {"pattern: exchange, producers: 4, consumers: 4", "spread: any", "6:61", "in an exchange a message has its consumer, is for the owner of its key, or for all: write addressed, keyed, all, or nothing"},
		"in_flight of a pipeline":       {"pattern: pipeline, producers: 4, consumers: 4, in_flight: 65537", "rate: 1", "5:70", `in_flight is "65537": give a whole number from 1 to 65536`},
		"in_flight of an exchange":      {"pattern: exchange, producers: 4, consumers: 4, in_flight: 7", "rate: 1", "5:70", "a channel of the pattern exchange has no in_flight; those that have are: pipeline, request, survey, events"},
		"patience of a pubsub":          {"pattern: pubsub, producers: 4, consumers: 4, patience: 1s", "rate: 1", "5:67", "a channel of the pattern pubsub has no patience; those that have are: pipeline, request, survey"},
		"too little patience":           {"pattern: request, producers: 4, consumers: 4, patience: 1ms", "rate: 1", "5:68", "patience is 1ms: give a duration from 10ms"},
		"spread of calls":               {"pattern: request, producers: 4, consumers: 4", "spread: keyed", "6:61", "a call goes to whichever consumer has least to do: write any, or nothing"},
		"name of a server's channel":    {"pattern: request, producers: 4, consumers: 4}\n  scores.end: {pattern: exchange, producers: 1, consumers: 1", "rate: 1", "6:3", "channel scores.end: a request named scores uses that name"},
		"spread of events":              {"pattern: events, producers: 4, consumers: 4", "spread: any", "6:61", "an event goes to the consumer that has its key: write keyed, or nothing"},
		"keys of a survey":              {"pattern: survey, producers: 4, consumers: 4, keys: 3", "rate: 1", "5:63", "a channel of the pattern survey has no keys; those that have are: events"},
		"too many keys":                 {"pattern: events, producers: 4, consumers: 4, keys: 4097", "rate: 1", "5:63", "give a whole number from 1 to 4096"},
		"spread of a broadcast":         {"pattern: broadcast, producers: 4, consumers: 4", "spread: addressed", "6:61", "what is broadcast goes to all: write all, or nothing"},
		"spread of a gathering":         {"pattern: gather, producers: 4, consumers: 1", "spread: keyed", "6:61", "what is gathered goes to the one consumer, which is all: write all, or nothing"},
		"consumers of a gathering":      {"pattern: gather, producers: 4, consumers: 4", "rate: 1", "5:54", "a gather has one consumer in all, at n1: write 1"},
		"spread of rounds":              {"pattern: rounds, producers: 4, consumers: 4", "spread: keyed", "6:61", "in rounds each consumer gets its own in turn: write addressed, or nothing"},
		"round of an exchange":          {"pattern: exchange, producers: 4, consumers: 4, round: 9", "rate: 1", "5:66", "a channel of the pattern exchange has no round; those that have are: rounds"},
		"open rounds of a survey":       {"pattern: survey, producers: 4, consumers: 4, open_rounds: 9", "rate: 1", "5:70", "a channel of the pattern survey has no open_rounds; those that have are: rounds"},
		"a round of nothing":            {"pattern: rounds, producers: 4, consumers: 4, round: 0", "rate: 1", "5:64", `round is "0": give a whole number from 1`},
		"too many open rounds":          {"pattern: rounds, producers: 4, consumers: 4, open_rounds: 17", "rate: 1", "5:70", "give a whole number from 1 to 16"},
		"name of a round's channel":     {"pattern: rounds, producers: 4, consumers: 4}\n  scores.round1: {pattern: exchange, producers: 1, consumers: 1", "rate: 1", "6:3", "channel scores.round1: a rounds named scores uses that name"},
		"mark of a pipeline":            {"pattern: pipeline, producers: 4, consumers: 4, high_water_mark_messages: 1_000_001", "rate: 1", "5:85", "give a whole number from 1 to 1000000"},
		"spread of a survey":            {"pattern: survey, producers: 4, consumers: 4", "spread: any", "6:61", "a question of a survey goes to all: write all, or nothing"},
		"in_flight of a survey":         {"pattern: survey, producers: 4, consumers: 4, in_flight: 65", "rate: 1", "5:68", "give a whole number from 1 to 64"},
		"name of a pipeline's channel":  {"pattern: pipeline, producers: 4, consumers: 4}\n  scores.acks: {pattern: exchange, producers: 1, consumers: 1", "rate: 1", "6:3", "channel scores.acks: a pipeline named scores uses that name beside its own; take another one"},
		"name of a publisher's channel": {"pattern: pubsub, producers: 4, consumers: 4}\n  scores.subs: {pattern: exchange, producers: 1, consumers: 1", "rate: 1", "6:3", "channel scores.subs: a pubsub named scores uses that name"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.NewReplacer("pattern: exchange, producers: 4, consumers: 4, high_water_mark: 1MiB", c.channel, "size: 64B", "size: 64B, "+c.load, "scores/n3/1", "scores/n1/0").Replace(good)
			checkProblem(t, text, c.where, c.message)
		})
	}
}

// Names that are used with something behind them leave room for it.
func TestNamesLeaveRoom(t *testing.T) {
	long := strings.NewReplacer("pattern: exchange", "pattern: pipeline", "scores", strings.Repeat("s", 251)).Replace(good)
	checkProblem(t, long, "5:3", "a pipeline uses its name with .acks behind it, too: take one of at most 250 letters")
	if _, err := Parse("good.yaml", []byte(strings.ReplaceAll(long, strings.Repeat("s", 251), strings.Repeat("s", 250)))); err != nil {
		t.Error(err)
	}
}

// Metrics of some patterns are nothing to expect of others.
func TestMetricsOfPatterns(t *testing.T) {
	text := strings.Replace(good, "links <= 28", "redelivered == 0", 1)
	checkProblem(t, text, "11:5", "redelivered is not measured in this run: it is about channels of the pattern pipeline, events")
	text = strings.Replace(good, "links <= 28", "unanswered == 0", 1)
	checkProblem(t, text, "11:5", "unanswered is not measured in this run: it is about channels of the pattern request, survey")
	text = strings.NewReplacer("pattern: exchange", "pattern: request", "links <= 28", "reordered == 0").Replace(good)
	checkProblem(t, text, "11:5", "reordered is not measured in this run: it is about channels of the pattern exchange, open-exchange, pubsub, events")
}

// Every pattern is parsed with the fields that it has, and has the spread that it must.
func TestParsePatterns(t *testing.T) {
	seen := map[Pattern]bool{OpenExchange: true} // which has one producer; see kill.txt
	for pattern, c := range map[Pattern]struct {
		fields  string
		want    Channel
		spread  Spread
		streams int
	}{
		Exchange:  {"high_water_mark: 1KiB", Channel{HighWaterMark: 1024}, Addressed, 64},
		PubSub:    {"high_water_mark_messages: 9", Channel{HighWaterMarkMessages: 9}, All, 16},
		Pipeline:  {"in_flight: 7, high_water_mark_messages: 9", Channel{InFlight: 7, HighWaterMarkMessages: 9}, Any, 64},
		Events:    {"in_flight: 7, keys: 9, high_water_mark: 1KiB", Channel{InFlight: 7, Keys: 9, HighWaterMark: 1024}, Keyed, 64},
		Gather:    {"high_water_mark: 1KiB", Channel{HighWaterMark: 1024}, All, 8},
		Rounds:    {"round: 7, open_rounds: 3", Channel{Round: 7, OpenRounds: 3}, Addressed, 64},
		Broadcast: {"high_water_mark: 1KiB", Channel{HighWaterMark: 1024}, All, 16},
		Survey:    {"in_flight: 7, patience: 2s", Channel{InFlight: 7, Patience: 2 * time.Second}, All, 64},
		Request:   {"in_flight: 7, patience: 2s", Channel{InFlight: 7, Patience: 2 * time.Second}, Any, 64},
	} {
		text := "zfab: v1\nname: a\nnodes: {count: 4}\nchannels: {a: {pattern: " + string(pattern) + ", producers: 2, consumers: 2, " + c.fields + "}}\n" +
			"load: {channel: a, messages: 5, size: 64B}\n"
		if pattern == Gather {
			text = strings.Replace(text, "consumers: 2", "consumers: 1", 1)
		}
		if pattern.Redelivers() {
			text += "expect: [redelivered == 0]\n"
		}
		if pattern.Answers() {
			text += "expect: [unanswered == 0]\n"
		}
		got, err := Parse("good.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		seen[pattern] = true
		want := c.want
		want.Name, want.Pattern, want.Producers, want.Consumers = "a", pattern, 2, 2
		if pattern == Gather {
			want.Consumers = 1
		}
		if !reflect.DeepEqual(got.Channels[0], want) || got.Loads[0].Spread != c.spread || got.Channels[0].Streams(4) != c.streams {
			t.Errorf("%s: %+v, spread %s, %d streams", pattern, got.Channels[0], got.Loads[0].Spread, got.Channels[0].Streams(4))
		}
	}
	for _, p := range Patterns {
		if !seen[p] {
			t.Errorf("%s is not parsed", p)
		}
	}
}

// Producers that were killed never finish, and an exchange has who it began with.
func TestKillInOtherPatterns(t *testing.T) {
	for _, p := range Patterns {
		text := strings.NewReplacer("pattern: exchange", "pattern: "+string(p), "for: 2s, stall: scores/n3/1", "restart_after: 1s, kill: random").Replace(good)
		switch p {
		case OpenExchange:
			continue
		case Gather:
			text = strings.Replace(text, "consumers: 4", "consumers: 1", 1)
		}
		checkProblem(t, text, "8:42", "give it the pattern open-exchange")
	}
}

// The one consumer of a gathering is at the first node.
func TestStallOfAGatherer(t *testing.T) {
	gather := strings.NewReplacer("pattern: exchange, producers: 4, consumers: 4", "pattern: gather, producers: 4, consumers: 1").Replace(good)
	checkProblem(t, gather, "8:33", "scores has no consumer on n3: the one that there is is on n1")
	if got, err := Parse("good.yaml", []byte(strings.Replace(gather, "scores/n3/1", "scores/n1/0", 1))); err != nil || got.ProcessPairs() != 32 {
		t.Errorf("%v, %+v", err, got)
	}
}

// A surveyor asks so many at most.
func TestSurveysAskSoMany(t *testing.T) {
	text := strings.NewReplacer("count: 8", "count: 17", "pattern: exchange, producers: 4, consumers: 4", "pattern: survey, producers: 1, consumers: 1000").Replace(good)
	checkProblem(t, text, "5:54", "channel scores would have 17000 consumers: a survey has at most 16384; take fewer")
}

// A killed producer takes with it how much it had sent.
func TestKillNeedsALoadByTime(t *testing.T) {
	open := strings.NewReplacer("pattern: exchange", "pattern: open-exchange", "for: 2s, stall: scores/n3/1", "restart_after: 1s, kill: random").Replace(good)
	open = strings.Replace(open, "producers: 4", "producers: 1", 1)
	checkProblem(t, open, "8:42", "the load of scores is a number of messages")
	checkProblem(t, strings.Replace(open, "at: 500ms,", "at: 500ms, every: 500ms,", 1), "8:24", "a node is started again 1s after it was killed")
	open = strings.Replace(open, "messages: 50000", "duration: 5s", 1)
	silent := strings.Replace(open, "load:", "  silent: {pattern: open-exchange, producers: 1, consumers: 1}\nload:", 1)
	checkProblem(t, silent, "9:42", "channel silent has no load: with a kill each has one")
	if _, err := Parse("good.yaml", []byte(open)); err != nil {
		t.Error(err)
	}
}

func TestParseFaults(t *testing.T) {
	got, err := Parse("faults.yaml", []byte(strings.Replace(good, "  - {at: 500ms, for: 2s, stall: scores/n3/1} ", `
  - {at: 1s, every: 200ms, times: 50, cut: random}
  - {at: 1s, for: 1s, blackhole: n3->n1}
  - {at: 0s, delay: all, amount: 20ms}
  - {at: 1s, for: 1s, every: 2s, until: 9s, rate: n1-n2, bytes_per_second: 1MiB}
  - {at: 1s, for: 100ms..3s, every: 4s, pause: random}
`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	const s = time.Second
	want := []Fault{
		{Kind: Cut, Target: "random", At: s, Every: s / 5, Times: 50, Link: Link{Any: true}},
		{Kind: Blackhole, Target: "n3->n1", At: s, For: s, ForMost: s, Link: Link{From: 3, To: 1, OneWay: true}},
		{Kind: Delay, Target: "all", Link: Link{All: true}, Amount: 20 * time.Millisecond},
		{Kind: Rate, Target: "n1-n2", At: s, For: s, ForMost: s, Every: 2 * s, Until: 9 * s, Link: Link{From: 1, To: 2}, BytesPerSecond: units.MiB},
		{Kind: Pause, Target: "random", At: s, For: s / 10, ForMost: 3 * s, Every: 4 * s},
	}
	for i := range got.Faults {
		got.Faults[i].place = Problem{}
	}
	if !reflect.DeepEqual(got.Faults, want) {
		t.Errorf("got  %+v\nwant %+v", got.Faults, want)
	}
}

func TestFaultWindow(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		f       Fault
		to      time.Duration
		bounded bool
	}{
		{Fault{Kind: Stall, At: s, For: 2 * s, ForMost: 2 * s}, 3 * s, true},
		{Fault{Kind: Cut, At: s}, s, true},
		{Fault{Kind: Cut, At: s, Every: s, Times: 3}, 4 * s, true},
		{Fault{Kind: Cut, At: s, Every: s, Until: 3 * s}, 3 * s, true},
		{Fault{Kind: Cut, At: s, Every: s}, 0, false},
		{Fault{Kind: Delay, At: s}, 0, false},
		{Fault{Kind: Rate, At: s, For: s, ForMost: 2 * s}, 3 * s, true},
	} {
		if from, to, bounded := c.f.Window(); from != s || to != c.to || bounded != c.bounded {
			t.Errorf("%+v: %s to %s, %v", c.f, from, to, bounded)
		}
	}
}

func TestFaultsTakeTurns(t *testing.T) {
	const s = time.Second
	cuts := func(at, until time.Duration) Fault { return Fault{Kind: Cut, At: at, Every: s, Until: until} }
	stall := Fault{Kind: Stall, At: 9 * s, For: s, ForMost: s}
	for name, c := range map[string]struct {
		faults []Fault
		want   bool
	}{
		"by turns":           {[]Fault{cuts(s, 3*s), cuts(5*s, 7*s)}, true},
		"in another order":   {[]Fault{cuts(5*s, 7*s), cuts(s, 3*s)}, true},
		"the last for ever":  {[]Fault{cuts(s, 3*s), cuts(5*s, 0)}, false},
		"the first for ever": {[]Fault{cuts(s, 0), cuts(5*s, 6*s)}, false},
		"touching":           {[]Fault{cuts(s, 3*s), cuts(3*s, 7*s)}, false},
		"one in the other":   {[]Fault{cuts(s, 7*s), cuts(2*s, 3*s), cuts(6*s, 8*s)}, false},
		"all the time":       {[]Fault{cuts(s, 3*s), {Kind: Rate, At: 0}, cuts(5*s, 7*s)}, true},
		"one and a stall":    {[]Fault{cuts(s, 3*s), stall}, false},
	} {
		if got := (&Topology{Faults: c.faults}).faultsTakeTurns(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A fault that a run cannot have is refused where the file names it.
func TestRefuse(t *testing.T) {
	got, err := Parse("good.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	err = got.Refuse(got.Faults[0], "no %s here", got.Faults[0])
	if want := "good.yaml:8:33: no stall scores/n3/1 here\n     8 |   - {at: 500ms,"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestProblemShowsItsLine(t *testing.T) {
	_, err := Parse("bad.yaml", []byte(strings.Replace(good, "count: 8", "count: x", 1)))
	want := `bad.yaml:3:16: count is "x": give a whole number from 1 to 1000
     3 | nodes: {count: x}
       |                ^`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestAllProblemsAreTold(t *testing.T) {
	text := strings.NewReplacer("count: 8", "count: x", "64B", "64Q", "lost ==", "lots ==").Replace(good)
	_, err := Parse("bad.yaml", []byte(text))
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != 3 {
		t.Errorf("got\n%v\nwant three problems", err)
	}
}

func TestParseRefusesWhatIsNoTopology(t *testing.T) {
	for name, text := range map[string]string{
		"empty":     "",
		"comment":   "# nothing\n",
		"a value":   "exchange",
		"a list":    "- zfab: v1\n",
		"binary":    "\x00\x01\x02\xff",
		"too large": "# " + strings.Repeat("x", MaxFile),
	} {
		if _, err := Parse("bad.yaml", []byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		} else if e := new(Error); !errors.As(err, &e) {
			t.Errorf("%s: %v is no *Error", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("load: [{}]\nfaults: [x, {}]\nexpect: ~\nchannels: {a: 1}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Parse("fuzz.yaml", text)
		if (got == nil) == (err == nil) {
			t.Fatalf("%v, %v: want one of them", got, err)
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without a text")
		}
	})
}

// The files that the project ships are good, and every pattern is in one, with faults.
func TestShippedTopologies(t *testing.T) {
	broken := make(map[Pattern]bool)
	files, err := filepath.Glob("../../../../testdata/topologies/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		got, err := ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if base := strings.TrimSuffix(filepath.Base(file), ".yaml"); got.Name != base {
			t.Errorf("%s is named %s", file, got.Name)
		}
		if len(got.Expect) == 0 {
			t.Errorf("%s expects nothing", file)
		}
		for _, c := range got.Channels {
			broken[c.Pattern] = broken[c.Pattern] || got.Has(func(k FaultKind) bool { return k == Cut || k == Kill })
		}
	}
	for _, p := range Patterns {
		if !broken[p] {
			t.Errorf("no file has the pattern %s, with cuts or kills", p)
		}
	}
	if _, err := ReadFile("no-such.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// A file that is none does not tell the terminal what to do.
func TestProblemsArePrintable(t *testing.T) {
	for _, text := range []string{"\x1b[2J\xff\x00: [\n", "zfab: v1\nname: \x1b]0;x\x07\n", "zfab: v1\n\x1b[31mx\x1b: 1\n", "@\x1b[31m"} {
		_, err := Parse("binary.yaml", []byte(text))
		if err == nil {
			t.Errorf("%q is a topology", text)
			continue
		}
		for _, r := range err.Error() {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
				t.Errorf("%q: %q is told", text, err)
				break
			}
		}
	}
}
