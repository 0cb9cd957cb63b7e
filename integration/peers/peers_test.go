package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be its own children, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func goPeer(t *testing.T, name string) peer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := findPeer(t.Context(), name, self, t.TempDir(), options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryGoPeerMovesMessagesBetweenProcesses(t *testing.T) {
	for name, roles := range goPeers {
		t.Run(name, func(t *testing.T) {
			p := goPeer(t, name)
			for _, size := range []int{64, 64 << 10} {
				got, err := p.throughput(t.Context(), size, 20*time.Millisecond)
				if roles.Produce == nil && err == errNotMeasured {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got.messagesPerSecond <= 0 {
					t.Errorf("%d bytes: %g messages/s", size, got.messagesPerSecond)
				}
			}
			got, err := p.roundTrip(t.Context(), anywhere, 20*time.Millisecond)
			if roles.Ping == nil {
				if err != errNotMeasured {
					t.Errorf("round trip: %v, want errNotMeasured", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.p50 <= 0 || got.p99 < got.p50 || got.max < got.p99 {
				t.Errorf("round trip %+v is not a distribution", got)
			}
		})
	}
}

// script writes a shell script that stands for a peer or for zfab.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAPeerThatNeverAnswersIsEndedWithItsContext(t *testing.T) {
	for name, body := range map[string]string{
		"silent":            "exec sleep 600\n",
		"silent when ready": "echo ready here\nexec sleep 600\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := &pair{label: name, command: []string{script(t, body)}}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if got, err := p.throughput(ctx, 64, time.Millisecond); err == nil {
				t.Errorf("measured %+v", got)
			}
		})
	}
}

func TestAProducerThatFailsEndsTheMeasurementAndIsQuoted(t *testing.T) {
	p := &pair{label: "broken", command: []string{script(t, `
case $1 in
consumer) echo ready here; exec sleep 600;;
producer) echo no luck with $2 >&2; exit 1;;
esac
`)}}
	_, err := p.throughput(t.Context(), 64, time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no luck with here") {
		t.Errorf("error %v, want what the producer said", err)
	}
}

func TestZfabBenchIsReadFromItsJSON(t *testing.T) {
	z := &zfab{path: script(t, `
case "$*" in
"bench --size 64 --procs "*" --format json") ;;
*) exit 1;;
esac
echo '{"size":64,"seconds":1,"messages":5,"messages_per_second":1e7,"round_trip":{"p50_us":20.5,"p99_us":40,"max_us":900}}'
`)}
	if got, err := z.throughput(t.Context(), 64, time.Second); err != nil || got.messagesPerSecond != 1e7 {
		t.Errorf("throughput %+v, %v", got, err)
	}
	want := roundTrip{p50: 20500 * time.Nanosecond, p99: 40 * time.Microsecond, max: 900 * time.Microsecond}
	if got, err := z.roundTrip(t.Context(), anywhere, time.Second); err != nil || got != want {
		t.Errorf("round trip %+v, %v; want %+v", got, err, want)
	}
	if got, err := z.throughput(t.Context(), 65, time.Second); err == nil {
		t.Errorf("a failed bench gives %+v", got)
	}
	other := &zfab{path: script(t, `echo '{"size":64,"messages_per_second":1}'`)}
	if got, err := other.throughput(t.Context(), 1024, time.Second); err == nil {
		t.Errorf("a report about another size gives %+v", got)
	}
}

func TestRatioIsTheMedianOfTheRoundsRatios(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		a, b series
		want float64
	}{
		{series{10, 20, 5}, series{1, 2, 0.5}, 10}, // the machine drifts, the ratio does not
		{series{3, 8, 10}, series{1, 2, 2}, 4},
		{series{3, 8}, series{1, 2}, 3.5},
		{series{nan, 8, 6}, series{1, nan, 2}, 3},
		{series{nan, 8}, series{1, nan}, nan},
		{nil, series{1}, nan},
	} {
		got := ratio(tt.a, tt.b)
		if got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
			t.Errorf("%v / %v: %g, want %g", tt.a, tt.b, got, tt.want)
		}
	}
}

// fixed is a peer whose figures are known.
type fixed struct {
	label     string
	perSecond float64
	p50       time.Duration
	err       error
}

func (f fixed) name() string { return f.label }

func (f fixed) throughput(context.Context, int, time.Duration) (throughput, error) {
	return throughput{f.perSecond}, f.err
}

func (f fixed) roundTrip(context.Context, placement, time.Duration) (roundTrip, error) {
	return roundTrip{f.p50, 2 * f.p50, 3 * f.p50}, f.err
}

func TestBarsAreJudgedByTheMeasurements(t *testing.T) {
	opt := options{rounds: 3, sizes: []int{64, 1 << 10, 64 << 10}, peers: peerNames, duration: time.Second}
	found := []peer{
		fixed{label: "zfab", perSecond: 9, p50: 16 * time.Microsecond},
		fixed{label: "raw", perSecond: 10, p50: 10 * time.Microsecond},
		fixed{label: "libzmq", perSecond: 2, p50: 90 * time.Microsecond},
		fixed{label: "yamux", err: fmt.Errorf("out of order")},
		fixed{label: calls, perSecond: 1, p50: 19 * time.Microsecond},
	}
	m, err := measureAll(t.Context(), found, opt, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := m.report(opt, []skip{{"nats", "not here"}})
	of := func(on placement, state string) string {
		if slices.Contains(placements(), on) {
			return state
		}
		return "unmeasured"
	}
	want := []string{
		"64 B: at least 5 x libzmq: missed",
		"64 B: at least 0.5 x yamux: unmeasured",
		"1 KiB: at least 4 x libzmq: met",
		"64 KiB: at least 0.85 x raw: met",
		"1 MiB: at least 0.85 x raw: unmeasured",
		"round trip p50, one CPU: at most 1.6 x raw: " + of(together, "met"), // exactly at it
		"round trip p50, two CPUs: at most 1.6 x raw: " + of(apart, "met"),
		"round trip of zfab-calls p50, one CPU: at most 1.8 x raw: " + of(together, "missed"),
		"round trip of zfab-calls p50, two CPUs: at most 1.8 x raw: " + of(apart, "missed"),
	}
	if len(r.Bars) != len(want) {
		t.Fatalf("%d bars, want %d", len(r.Bars), len(want))
	}
	for i, b := range r.Bars {
		if got := b.Bar + ": " + b.State; got != want[i] {
			t.Errorf("bar %q, want %q", got, want[i])
		}
	}
	if want := 3 * (3 + len(placements())); len(r.Failed) != want { // yamux, in three rounds, at three sizes and the round trips
		t.Errorf("%d failures are noted, want %d: %+v", len(r.Failed), want, r.Failed)
	}

	var text, raw strings.Builder
	if err := r.writeText(&text); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"skipped nats: not here", "failed yamux, 64 B, round 1: out of order"} {
		if !strings.Contains(text.String(), s) {
			t.Errorf("the table does not say %q:\n%s", s, text.String())
		}
	}
	if err := r.writeJSON(&raw); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal([]byte(raw.String()), &back); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(back.Throughput, func(row throughputRow) bool { return row.Peer == "raw" })
	if got := *back.Throughput[at].Ratio; got != 0.9 {
		t.Errorf("JSON says zfab is %g of raw, want 0.9", got)
	}
}

func TestMissingPeersAreSkippedWithTheReason(t *testing.T) {
	t.Setenv("CC", filepath.Join(t.TempDir(), "no-such-compiler"))
	opt := options{peers: []string{"zfab", "libzmq", "raw"}, zfabPath: filepath.Join(t.TempDir(), "zfab")}
	found, skipped, cleanup, err := findPeers(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	if len(found) != 1 || found[0].name() != "raw" {
		t.Errorf("found %d peers, want raw alone", len(found))
	}
	if len(skipped) != 2 || !strings.Contains(skipped[0].Reason, "no such file") || !strings.Contains(skipped[1].Reason, "no-such-compiler") {
		t.Errorf("skipped %+v, want zfab and libzmq with what is missing", skipped)
	}
}

func TestTheReasonForASkipIsTheCompilersComplaint(t *testing.T) {
	for _, tt := range []struct{ output, want string }{
		{"libzmq.c: In function 'main':\nlibzmq.c:10:10: fatal error: zmq.h: No such file or directory\n   10 | #include <zmq.h>\n", "libzmq.c:10:10: fatal error: zmq.h: No such file or directory"},
		{"# github.com/pebbe/zmq4\n# [pkg-config --cflags  -- libzmq]\nPackage libzmq was not found in the pkg-config search path.\nPerhaps\n", "Package libzmq was not found in the pkg-config search path."},
		{"", ""},
	} {
		if got := firstComplaint(tt.output); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.output, got, tt.want)
		}
	}
}

func TestOptionsAreRefusedByName(t *testing.T) {
	for _, args := range [][]string{
		{"extra"}, {"-seconds", "0"}, {"-rounds", "0"}, {"-format", "xml"}, {"-sizes", "64,big"}, {"-sizes", "1048577"}, {"-peers", "raw,kafka"},
	} {
		_, err := parseOptions(args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(args[0], "-")) {
			t.Errorf("%q: error %v, want one that names it", args, err)
		}
	}
	opt, err := parseOptions([]string{"-peers", "libzmq,zfab", "-seconds", "0.5"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(opt.peers, " ") != "zfab libzmq" || opt.duration != 500*time.Millisecond || len(opt.sizes) != 4 {
		t.Errorf("options %+v", opt)
	}
}
