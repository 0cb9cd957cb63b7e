package compose

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// A cluster is a compose file of clusters that is up.
type cluster struct {
	t       *testing.T
	ctx     context.Context
	compose []string
	project string
	ids     map[string]string // containers by service, once asked for: they stay when they are killed and started
}

// image is what the clusters' files run.
const image = "zfab"

// up brings a cluster up, and takes it down with the test. Flags are further ones of
// `compose up`.
func up(t *testing.T, file string, flags ...string) *cluster {
	t.Helper()
	ctx, compose := needDocker(t)
	command(t, ctx, "docker", "build", "--quiet", "--tag", image, "--file", "Dockerfile", "../../bin")
	c := &cluster{t: t, ctx: ctx, project: "zfab-test-" + file, ids: make(map[string]string)}
	c.compose = append(slices.Clone(compose), "--project-name", c.project, "--file", "clusters/"+file+".yaml")
	c.down() // what a test left behind that was killed
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", c.said("logs", "--no-color", "--tail", "40"))
		}
		c.down()
	})
	c.do(append([]string{"up", "--detach"}, flags...)...)
	return c
}

func (c *cluster) down() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	arguments := append(slices.Clone(c.compose[1:]), "down", "--volumes", "--timeout", "2")
	exec.CommandContext(ctx, c.compose[0], arguments...).Run()
}

// do runs a compose command that must succeed, and returns its standard output.
func (c *cluster) do(arguments ...string) string {
	c.t.Helper()
	return command(c.t, c.ctx, c.compose[0], append(slices.Clone(c.compose[1:]), arguments...)...)
}

// said is do for what may fail.
func (c *cluster) said(arguments ...string) []byte {
	said, _ := exec.Command(c.compose[0], append(slices.Clone(c.compose[1:]), arguments...)...).CombinedOutput()
	return said
}

// id is the container of a service.
func (c *cluster) id(service string) string {
	c.t.Helper()
	if c.ids[service] == "" {
		c.ids[service] = strings.TrimSpace(c.do("ps", "--quiet", service))
	}
	if c.ids[service] == "" {
		c.t.Fatalf("service %s has no container", service)
	}
	return c.ids[service]
}

// inspect is what Docker knows of a service's container, by a template.
func (c *cluster) inspect(service, template string) string {
	c.t.Helper()
	return strings.TrimSpace(command(c.t, c.ctx, "docker", "inspect", "--format", template, c.id(service)))
}

// await waits until is says true. What it asks for makes no sound, so it is asked
// again and again.
func (c *cluster) await(what string, is func() bool) {
	c.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			c.t.Fatalf("waiting for %s: %v", what, c.ctx.Err())
		}
	}
}

func (c *cluster) healthy(services ...string) {
	c.t.Helper()
	for _, s := range services {
		c.await(s+" to be healthy", func() bool { return c.inspect(s, "{{.State.Health.Status}}") == "healthy" })
	}
}

// A running is a run of a topology in a cluster.
type running struct {
	c      *cluster
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr *bufio.Scanner
}

// run begins a run, and returns when messages come.
func (c *cluster) run(topology string) *running {
	c.t.Helper()
	r := &running{c: c}
	arguments := append(slices.Clone(c.compose[1:]), "run", "--rm", "--use-aliases", "-T", "-e", "ZFAB_TOPOLOGY="+topology,
		"run", "run", "--runner", "remote", "--control", "run:7380", "--env", "ZFAB_TOPOLOGY", "--timeout", "3m", "--format", "json")
	r.cmd = exec.CommandContext(c.ctx, c.compose[0], arguments...)
	r.cmd.Stdout = &r.stdout
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	r.stderr = bufio.NewScanner(stderr)
	for r.stderr.Scan() {
		if strings.Contains(r.stderr.Text(), "zfab: received ") {
			return r
		}
	}
	c.t.Fatalf("the run has ended before a message came: %v\n%s", r.cmd.Wait(), &r.stdout)
	return nil
}

type report struct {
	Passed   bool
	Messages struct{ Sent, Received, Lost, Duplicated, Reordered, Corrupted int }
	Errors   int
}

// end waits for the run's report, which must have passed.
func (r *running) end() (told report) {
	r.c.t.Helper()
	var said []string
	for r.stderr.Scan() {
		said = append(said, r.stderr.Text())
	}
	err := r.cmd.Wait()
	if jsonErr := json.Unmarshal(r.stdout.Bytes(), &told); err != nil || jsonErr != nil || !told.Passed {
		r.c.t.Fatalf("%v, %v\n%s\n%s", err, jsonErr, strings.Join(said, "\n"), &r.stdout)
	}
	return told
}

// connections counts the connections between the containers of services, as the
// kernel has them: pairs of services, and how many each has.
func (c *cluster) connections(services []string) map[string]int {
	c.t.Helper()
	name := make(map[string]string) // service by address, as the kernel's table has it
	for _, s := range services {
		name[c.inspect(s, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")] = s
	}
	all := make(map[string]int)
	for _, s := range services {
		table, err := os.ReadFile("/proc/" + c.inspect(s, "{{.State.Pid}}") + "/net/tcp")
		if err != nil {
			c.t.Skipf("the kernel's connections cannot be read: %v", err)
		}
		for _, line := range strings.Split(string(table), "\n") {
			fields := strings.Fields(line)
			const established = "01"
			if len(fields) < 4 || fields[3] != established {
				continue
			}
			if peer, ours := name[address(fields[2])]; ours && s < peer { // each is in two tables
				all[s+"-"+peer]++
			}
		}
	}
	return all
}

// address is the host of an address in the kernel's table, 0100007F:1F90: the
// bytes of its four, the last one first.
func address(field string) string {
	b, err := hex.DecodeString(field[:8])
	if err != nil || len(b) != 4 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d.%d", b[3], b[2], b[1], b[0])
}

const busy = `zfab: v1
name: cluster
nodes: {count: 12}
channels:
  scores: {pattern: exchange, producers: 1, consumers: 1}
load: {channel: scores, duration: 60s, size: 64B, rate: 500}
expect:
  - lost == 0
  - duplicated == 0
  - reordered == 0
  - corrupted == 0
  - errors == 0
`

// Twelve workers on four hosts exchange messages while the nodes of two hosts are
// killed, the directory is restarted, and a host is off its network for a while.
// Nothing is lost, and what goes from host to host goes over six links.
func TestExchangeCluster(t *testing.T) {
	c := up(t, "exchange")
	hosts := []string{"h1", "h2", "h3", "h4"}
	c.healthy(hosts...)
	r := c.run(busy)
	sixLinks := func() bool {
		links := c.connections(hosts)
		for pair, n := range links {
			if n != 1 {
				t.Logf("%s has %d connections", pair, n)
				return false
			}
		}
		return len(links) == 6
	}
	c.await("six links", sixLinks)

	for _, h := range []string{"h2", "h4"} {
		t.Logf("the node of %s is killed", h)
		id := c.id(h)
		command(t, c.ctx, "docker", "kill", id)
		command(t, c.ctx, "docker", "start", id)
		c.await("six links", sixLinks)
	}

	t.Log("the directory is killed")
	id := c.id("directory")
	command(t, c.ctx, "docker", "kill", id)
	command(t, c.ctx, "docker", "start", id)

	id = c.id("h3")
	network := c.project + "_fabric"
	ip := c.inspect("h3", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
	t.Log("h3 is off its network")
	command(t, c.ctx, "docker", "network", "disconnect", network, id)
	c.await("the others to go on without it", func() bool { return len(c.connections([]string{"h1", "h2", "h4"})) == 3 })
	t.Log("and on it again")
	command(t, c.ctx, "docker", "network", "connect", "--ip", ip, "--alias", "h3", network, id)
	c.await("six links", sixLinks)
	t.Log("and has its links")

	told := r.end()
	if m := told.Messages; m.Sent != m.Received || m.Sent < 12*10*500 {
		t.Errorf("%+v", told)
	}
	t.Logf("%d messages, links %v", told.Messages.Received, slices.Sorted(maps.Keys(c.connections(hosts))))
}
