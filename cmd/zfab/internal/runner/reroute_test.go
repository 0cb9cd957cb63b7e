package runner

import (
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// A node sees its proxied peers at their proxies, by every way to look, and all
// others, itself included, where they are. The directory itself keeps the truth.
func TestReroute(t *testing.T) {
	ctx, registry := t.Context(), directory.NewRegistry()
	defer registry.Close()
	dir := reroute(registry, map[string]string{"n2": "tcp://proxy:2"})
	for _, name := range []string{"n1", "n2", "n3"} {
		incarnation, err := dir.Join(ctx, directory.NodeInfo{Name: name, Endpoint: "tcp://" + name + ":1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.Add(ctx, incarnation, directory.Member{Channel: "a", Role: directory.Producer, Node: name}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"n1": "tcp://n1:1", "n2": "tcp://proxy:2", "n3": "tcp://n3:1"}
	seen := func(how string, info directory.NodeInfo) {
		if info.Endpoint != want[info.Name] {
			t.Errorf("%s: %s is at %s, want %s", how, info.Name, info.Endpoint, want[info.Name])
		}
	}
	for name := range want {
		info, err := dir.Node(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		seen("Node", info)
	}
	all, err := dir.Nodes(ctx)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	for _, info := range all {
		seen("Nodes", info)
	}
	w, err := dir.Watch(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range want {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen("Watch", e.Node)
	}
	if info, err := registry.Node(ctx, "n2"); err != nil || info.Endpoint != "tcp://n2:1" {
		t.Errorf("the directory has n2 at %s, %v", info.Endpoint, err)
	}
	if reroute(registry, nil) != directory.Service(registry) {
		t.Error("without proxies the directory is wrapped all the same")
	}
}
