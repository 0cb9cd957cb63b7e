package topology

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

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
	got.Expect = nil
	want := &Topology{
		Name: "exchange", Nodes: 8,
		Channels: []Channel{{Name: "scores", Pattern: Exchange, Producers: 4, Consumers: 4, HighWaterMark: units.MiB}},
		Loads:    []Load{{Channel: "scores", Messages: 50000, Size: 64, Spread: Addressed}},
		Faults:   []Fault{{Kind: Stall, At: 500 * time.Millisecond, For: 2 * time.Second, Consumer: Consumer{"scores", 3, 1}}},
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
		"unknown field":           {"name: exchange", "name: exchange\nnode: 1", "3:1", `unknown field "node" in a topology; known are: zfab, name, nodes`},
		"unknown field of nodes":  {"{count: 8}", "{count: 8, cuont: 8}", "3:19", `unknown field "cuont" in nodes; known are: count`},
		"unknown field of a load": {"size: 64B}", "size: 64B, siez: 64B}", "6:53", `unknown field "siez" in a load; known are: channel, messages, size`},
		"no version":              {"zfab: v1\n", "", "1:1", "begin the file with `zfab: v1`"},
		"wrong version":           {"zfab: v1", "zfab: v2", "1:7", `unknown version "v2" of the topology file; known is: v1`},
		"no name":                 {"name: exchange\n", "", "1:1", "the topology has no name"},
		"bad name":                {"name: exchange", "name: ex change", "2:7", `"ex change" cannot name the topology: use 1 to 255 letters`},
		"bad channel name":        {"load:", "  sco/res: {pattern: exchange, producers: 1, consumers: 1}\nload:", "6:3", `"sco/res" cannot name a channel`},
		"no nodes":                {"nodes: {count: 8}\n", "", "1:1", "say how many, like `nodes: {count: 8}`"},
		"nodes no mapping":        {"nodes: {count: 8}", "nodes: 8", "3:8", "nodes must be fields"},
		"count no number":         {"count: 8", "count: many", "3:16", `count is "many": give a whole number from 1 to 1000`},
		"count too small":         {"count: 8", "count: 0", "3:16", `count is "0": give a whole number from 1`},
		"count too large":         {"count: 8", "count: 1001", "3:16", "from 1 to 1000"},
		"unknown pattern":         {"pattern: exchange", "pattern: gather", "5:21", `unknown pattern "gather"; known are: exchange`},
		"no pattern":              {"pattern: exchange, ", "", "5:11", "no field pattern; known are: exchange"},
		"no consumers":            {", consumers: 4", "", "5:11", "no field consumers: give a whole number from 1 to 1024"},
		"too many streams":        {"count: 8", "count: 1000", "5:11", "more than 4194304; take fewer"},
		"bad size":                {"64B", "64Q", "6:48", `"64Q" is not a size: write a number with B, KiB, MiB or GiB`},
		"size too small":          {"64B", "8B", "6:48", "give a size from 32B to 64MiB"},
		"size too large":          {"64B", "65MiB", "6:48", "give a size from 32B to 64MiB"},
		"bad mark":                {"mark: 1MiB", "mark: 0B", "5:76", "high_water_mark is 0B"},
		"channel of the load":     {"channel: scores", "channel: score", "6:17", `unknown channel "score"; the file's channels are: scores`},
		"no amount":               {"messages: 50000, ", "", "6:7", "neither messages nor duration"},
		"two amounts":             {"messages: 50000", "messages: 50000, duration: 2s", "6:52", "not both: leave one out"},
		"bad rate":                {"size: 64B", "size: 64B, rate: 0", "6:59", "a number above 0"},
		"bad spread":              {"size: 64B", "size: 64B, spread: random", "6:61", `unknown spread "random"; known are: addressed, keyed, all`},
		"two loads":               {"load: {channel: scores, messages: 50000, size: 64B}", "load:\n - {channel: scores, messages: 5, size: 64B}\n - {channel: scores, messages: 5, size: 64B}", "8:14", "has a load already"},
		"unknown fault":           {"stall: scores/n3/1", "melt: scores/n3/1", "8:26", `unknown field "melt" in a fault; known are: at, for, stall`},
		"fault of no kind":        {", stall: scores/n3/1", "", "8:5", "a fault of no kind; known are: stall"},
		"no at":                   {"at: 500ms, ", "", "8:5", "no field at: give a duration"},
		"bad duration":            {"500ms", "500", "8:10", `at is "500": give a duration with its unit`},
		"channel of the fault":    {"stall: scores/", "stall: score/", "8:33", `unknown channel "score"`},
		"node of the fault":       {"scores/n3/1", "scores/n9/1", "8:33", `no node "n9": the nodes are n1 to n8`},
		"consumer of the fault":   {"scores/n3/1", "scores/n3/4", "8:33", "counted from 0 to 3"},
		"target of the fault":     {"scores/n3/1", "scores", "8:33", "write channel/node/index"},
		"stalls that overlap":     {"expect:", "  - {at: 2s, for: 2s, stall: scores/n3/1}\nexpect:", "9:30", "is stalled already from 500ms to 2.5s"},
		"unknown metric":          {"links <= 28", "link <= 28", "11:5", `unknown metric "link"; known are: lost, duplicated`},
		"bad expectation":         {"links <= 28", "links", "11:5", "write `metric op value`"},
		"metric without twin":     {"links <= 28", "stall.throughput_ratio > 0.9", "11:5", "add `side_by_side: true`"},
		"empty value":             {"name: exchange", "name:", "2:6", "name is empty"},
		"anchor":                  {"name: exchange", "name: &a exchange", "2:7", "anchors, aliases and tags are not used"},
		"field twice":             {"name: exchange", "name: exchange\nname: again", "3:1", `mapping key "name" already defined`},
		"second document":         {"expect:", "---\nexpect:", "10:1", "a second document"},
		"syntax":                  {"{count: 8}", "{count: 8", "4:1", "',' or '}' must be specified"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			if text == good {
				t.Fatalf("%q is not in the good file", c.old)
			}
			_, err := Parse("bad.yaml", []byte(text))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v, want an *Error", err)
			}
			if len(e.Problems) != 1 {
				t.Errorf("%d problems, want one", len(e.Problems))
			}
			if want := "bad.yaml:" + c.where + ": "; !strings.Contains(err.Error(), want) {
				t.Errorf("not at %s", want)
			}
			if !strings.Contains(err.Error(), c.message) {
				t.Errorf("does not say %q", c.message)
			}
			if t.Failed() {
				t.Log(err)
			}
		})
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

// The files that the project ships are good.
func TestShippedTopologies(t *testing.T) {
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
	}
	if _, err := ReadFile("no-such.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
