package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// A libzmq REQ and a libzmq DEALER ask the directory what its page says can be
// asked.
func TestLibzmqAsksTheDirectory(t *testing.T) {
	ctx := testContext(t)
	registry := directory.NewRegistry()
	incarnation, err := registry.Join(ctx, directory.NodeInfo{Name: "n1", Endpoint: "tcp://10.0.0.1:4000"})
	if err != nil {
		t.Fatal(err)
	}
	members := []directory.Member{
		{Channel: "scores", Role: directory.Producer, Node: "n1", Index: 0},
		{Channel: "scores", Role: directory.Consumer, Node: "n1", Index: 2},
	}
	if err := registry.Add(ctx, incarnation, members...); err != nil {
		t.Fatal(err)
	}
	plain := start(t, "directory", serve(t, registry), "scores")
	for word, want := range map[string]string{
		"nodes":    fmt.Sprintf(`{"id":0,"nodes":[["n1",%d,"tcp://10.0.0.1:4000",`, incarnation), // and what else it may say of itself
		"channels": `{"channels":["scores"],"id":0}`,
		"members":  `{"id":0,"members":[["scores",1,"n1",0],["scores",2,"n1",2]]}`,
	} {
		if _, got := plain.Await(t, word, time.Time{}, patience); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
	}
	if _, got := plain.Await(t, "node", time.Time{}, patience); !contains(got, `"error":"unknown_node"`, `"node":"nobody"`) {
		t.Errorf("node that is not there: %s", got)
	}
	if _, got := plain.Await(t, "ping", time.Time{}, patience); !contains(got, `"epoch":`) {
		t.Errorf("ping: %s", got)
	}
	plain.Await(t, "dealer", time.Time{}, patience)

	until(t, "the watch's snapshot", func() bool { return len(plain.All("event")) == 3 })
	if err := registry.Remove(ctx, incarnation, members[1]); err != nil {
		t.Fatal(err)
	}
	until(t, "the watch's change", func() bool { return len(plain.All("event")) == 4 })
	events := plain.All("event")
	for i, want := range []string{`{"event":[1,`, `{"event":[1,`, `{"event":[3,`, `{"event":[2,`} {
		if !contains(events[i], want) {
			t.Errorf("event %d is %s, want %s...", i, events[i], want)
		}
	}
}

func contains(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}
