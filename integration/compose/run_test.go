package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const zfab = "../../bin/zfab"

// patience is how long one test may take: an image is built, containers come and
// go.
const patience = 5 * time.Minute

// needDocker skips the test where no containers can be run.
func needDocker(t *testing.T) (ctx context.Context, compose []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	if _, err := os.Stat(zfab); err != nil {
		t.Fatal("the program is not there: `make build` builds it")
	}
	if said, err := exec.CommandContext(ctx, "docker", "info", "--format", "{{.ServerVersion}}").CombinedOutput(); err != nil {
		t.Skipf("no Docker engine answers: %v %s", err, bytes.TrimSpace(said))
	}
	kinds := [][]string{{"docker", "compose"}, {"docker-compose"}}
	if chosen := strings.Fields(os.Getenv("COMPOSE")); len(chosen) > 0 {
		kinds = [][]string{chosen}
	}
	for _, compose := range kinds {
		if exec.CommandContext(ctx, compose[0], append(compose[1:len(compose):len(compose)], "version")...).Run() == nil {
			return ctx, compose
		}
	}
	t.Skipf("there is none of %q", kinds)
	return nil, nil
}

// needWait skips the test where compose does not know `up --wait`: that came with
// its version 2.
func needWait(t *testing.T) {
	t.Helper()
	ctx, compose := needDocker(t)
	said, _ := exec.CommandContext(ctx, compose[0], append(compose[1:len(compose):len(compose)], "up", "--help")...).Output()
	if !strings.Contains(string(said), "--wait") {
		t.Skipf("%s has no `up --wait`, as it is older than version 2 (`make compose-plugin` builds that)", strings.Join(compose, " "))
	}
}

// command runs a program that must succeed, and returns its standard output.
func command(t *testing.T, ctx context.Context, name string, arguments ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, name, arguments...)
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(arguments, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

const cut = `zfab: v1
name: cut
nodes: {count: 3}
channels:
  scores: {pattern: exchange, producers: 2, consumers: 2}
load: {channel: scores, duration: 2s, size: 64B, rate: 1000}
faults:
  - {at: 500ms, every: 250ms, until: 1700ms, cut: random}
expect:
  - lost == 0
  - duplicated == 0
  - reordered == 0
  - corrupted == 0
  - links == 3
`

func topologyFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cut.yaml")
	if err := os.WriteFile(file, []byte(cut), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// A topology runs in containers, links are cut between them, and nothing of it is
// left.
func TestRunner(t *testing.T) {
	ctx, _ := needDocker(t)
	said := command(t, ctx, zfab, "run", "--runner", "compose", "--format", "json", topologyFile(t))
	var report struct {
		Passed   bool
		Runner   string
		Messages struct{ Sent, Received int }
	}
	if err := json.Unmarshal([]byte(said), &report); err != nil {
		t.Fatal(err)
	}
	if !report.Passed || report.Runner != "compose" || report.Messages.Sent != 12_000 || report.Messages.Received != 12_000 {
		t.Errorf("%s", said)
	}
	for _, list := range [][]string{{"ps", "--all"}, {"network", "ls"}} {
		if left := command(t, ctx, "docker", append(list, "--quiet", "--filter", "name=zfab-run-")...); left != "" {
			t.Errorf("docker %s has something left: %s", list[0], left)
		}
	}
}

// What is exported runs with compose alone.
func TestExport(t *testing.T) {
	ctx, compose := needDocker(t)
	dir, image := t.TempDir(), "zfab:exported"
	text, err := os.ReadFile(zfab)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "compose.yaml")
	for name, content := range map[string]string{
		"zfab":         string(text),
		"compose.yaml": command(t, ctx, zfab, "export", "compose", "--image", image, topologyFile(t)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command(t, ctx, "docker", "build", "--quiet", "--tag", image, "--file", "Dockerfile", dir)
	arguments := append(compose[1:], "--project-name", "zfab-exported", "--file", file)
	t.Cleanup(func() {
		exec.Command(compose[0], append(arguments[:len(arguments):len(arguments)], "down", "--timeout", "2")...).Run()
		exec.Command("docker", "rmi", "--force", image).Run()
	})
	said := command(t, ctx, compose[0], append(arguments[:len(arguments):len(arguments)], "up", "--exit-code-from", "run")...)
	if !strings.Contains(said, "12000 sent, 12000 received") {
		t.Errorf("%s", said)
	}
}
