package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zfab/zfab/cmd/zfab/internal/runner"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// program is a process of a test.
type program struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	errs  bytes.Buffer
}

func startProgram(t *testing.T, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, name: strings.Join(append([]string{name}, args...), " "), cmd: exec.Command(name, args...)}
	p.cmd.Stderr = &p.errs
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

// says waits until the process says what is wanted.
func (p *program) says(want string) error {
	if !p.lines.Scan() {
		return fmt.Errorf("%s ended: %v\n%s", p.name, errors.Join(p.lines.Err(), p.cmd.Wait()), &p.errs)
	}
	if !strings.Contains(p.lines.Text(), want) {
		return fmt.Errorf("%s says %q, want %q", p.name, p.lines.Text(), want)
	}
	return nil
}

// kill is kill -9.
func (p *program) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// hosts are the nodes of a topology, each a process.
type hosts struct {
	t         *testing.T
	directory string
	dir       string
	nodes     []*program
}

func startHosts(t *testing.T, count int) *hosts {
	t.Helper()
	registry := directory.NewRegistry()
	server, err := directory.Serve(t.Context(), registry, "tcp://127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "zfab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		registry.Close()
		os.RemoveAll(dir)
	})
	h := &hosts{t: t, directory: server.Addr(), dir: dir}
	for i := range count {
		h.nodes = append(h.nodes, nil)
		h.start(i)
	}
	return h
}

func (h *hosts) name(i int) string   { return fmt.Sprintf("h%d", i+1) }
func (h *hosts) socket(i int) string { return "ipc://" + filepath.Join(h.dir, h.name(i)+".sock") }

// start starts a node, and waits until it is ready.
func (h *hosts) start(i int) {
	h.t.Helper()
	h.nodes[i] = startProgram(h.t, "zfab", "node", "--name", h.name(i), "--directory", h.directory, "--attach", h.socket(i))
	if err := h.nodes[i].says(h.name(i) + " at tcp://127.0.0.1:"); err != nil {
		h.t.Fatal(err)
	}
}

// links counts the connections between the nodes, as the system sees them.
func (h *hosts) links() int {
	var pids []int
	for _, n := range h.nodes {
		pids = append(pids, n.cmd.Process.Pid)
	}
	count, ok := runner.ConnectionsBetween(pids)
	if !ok {
		h.t.Fatal("the system does not tell connections")
	}
	return count
}

// 64 processes on four hosts share six connections; a host's node is killed in
// mid-run, and started again: nothing is lost.
func TestManyProcessesShareTheLinksOfTheirNodes(t *testing.T) {
	file := filepath.Join("..", "..", "testdata", "topologies", "many-processes.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	shape, err := topology.Parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	channel := shape.Channels[0]
	messages := int(shape.Loads[0].Messages) / (shape.Nodes * channel.Consumers)
	if raceEnabled {
		channel.Producers, channel.Consumers = 2, 2 // each process takes ten times the memory
	}
	h := startHosts(t, shape.Nodes)
	var producers, consumers []*program
	for i := range shape.Nodes {
		for role, each := range map[string]int{"producer": channel.Producers, "consumer": channel.Consumers} {
			for k := range each {
				o := order{
					Role: role, Name: fmt.Sprintf("%s-%s%d", h.name(i), role, k), Attach: h.socket(i), Channel: channel.Name,
					Others: shape.Nodes * channel.Consumers, Messages: messages,
				}
				if role == "consumer" {
					o.Others = shape.Nodes * channel.Producers
				}
				text, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				p := startProgram(t, "zfab-worker", string(text))
				if role == "producer" {
					producers = append(producers, p)
				} else {
					consumers = append(consumers, p)
				}
			}
		}
	}
	var g errgroup.Group
	for _, p := range producers {
		g.Go(func() error { return p.says("half") })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	pairs := shape.Nodes * (shape.Nodes - 1) / 2
	if n := h.links(); n != pairs {
		t.Errorf("%d connections between hosts, want %d", n, pairs)
	}
	for _, p := range append(producers, consumers...) {
		// Its connection to the node and that to the directory, by way of the node.
		if n := sockets(t, p.cmd.Process.Pid); n != 2 {
			t.Errorf("%s has %d sockets", p.name, n)
		}
	}
	for _, p := range producers {
		if _, err := io.WriteString(p.in, "go on\n"); err != nil {
			t.Fatal(err)
		}
	}
	h.nodes[1].kill()
	h.start(1)
	await := func(list []*program, what string) {
		var g errgroup.Group
		for _, p := range list {
			g.Go(func() error {
				if err := p.says(what); err != nil {
					t.Error(err)
				}
				return nil
			})
		}
		g.Wait()
	}
	await(consumers, "all")
	await(producers, "done")
	for _, p := range consumers {
		io.WriteString(p.in, "end\n") // one that failed has said so
	}
	await(consumers, "done")
	if n := h.links(); n != pairs {
		t.Errorf("%d connections between hosts after the restart, want %d", n, pairs)
	}
}

// A worker is stopped: only its own streams wait, and go on when it does. It is
// killed: it is out of the directory at once, and its node stays.
func TestWorkerProcessIsStoppedAndKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h := startHosts(t, 2)
	text, err := json.Marshal(order{Role: "consumer", Name: "victim", Attach: h.socket(1), Channel: "x", Others: 2})
	if err != nil {
		t.Fatal(err)
	}
	victim := startProgram(t, "zfab-worker", string(text))
	quiet := slog.New(slog.DiscardHandler)
	sender, err := fabric.Attach(ctx, h.socket(0), fabric.AttachConfig{Name: "sender", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	neighbour, err := fabric.Attach(ctx, h.socket(1), fabric.AttachConfig{Name: "neighbour", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer neighbour.Close()
	producer, err := sender.Producer(ctx, "x", fabric.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := neighbour.Consumer(ctx, "x", fabric.ConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := producer.WaitConsumers(ctx, 2); err != nil {
		t.Fatal(err)
	}
	toVictim, err := producer.To(fabric.Address{Node: "victim"})
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 16<<10)
	if err := errors.Join(toVictim.Send(ctx, []byte("sender>victim#"+fmt.Sprintf("%-40d", 0))), producer.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := victim.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	blocked := 0
	for toVictim.TrySend(body) == nil {
		blocked++
	}
	if blocked == 0 || blocked > 1000 {
		t.Errorf("%d messages were taken for a worker that is stopped", blocked)
	}
	const many = 2_000
	for range many {
		if err := producer.Send(ctx, consumer.Address(), body[:1000]); err != nil {
			t.Fatal(err)
		}
		if _, err := consumer.Receive(ctx); err != nil {
			t.Fatal(err)
		}
	}
	victim.kill()
	for !errors.As(err, new(*fabric.PeerLostError)) {
		if err = toVictim.Send(ctx, body); errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("nobody tells that the worker is dead")
		}
	}
	dir := sender.Directory()
	for !errors.Is(err, directory.ErrUnknownNode) {
		if _, err = dir.Node(ctx, "victim"); ctx.Err() != nil {
			t.Fatal("the worker is still in the directory")
		}
	}
	for _, n := range []string{"h1", "h2", "neighbour"} {
		if _, err := dir.Node(ctx, n); err != nil {
			t.Error(err)
		}
	}
}

func TestNodeSaysWhatIsWrong(t *testing.T) {
	h := startHosts(t, 1)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"another node's socket": {[]string{"--name", "h2", "--attach", h.socket(0)}, exitUnreachable, "a live listener answers"},
		"another node's name":   {[]string{"--name", "h1", "--attach", h.socket(2)}, exitFailed, `name "h1" is taken by the live node`},
		"a directory too far":   {[]string{"--name", "h3", "--attach", "ipc:///nowhere/at/all/h3.sock"}, exitUnreachable, "no such file or directory"},
		"not a socket":          {[]string{"--name", "h3", "--attach", "tcp://127.0.0.1:0"}, exitUsage, "Workers.Listen"},
		"not a mode":            {[]string{"--name", "h3", "--attach", h.socket(2), "--attach-mode", "rw"}, exitUsage, "give permissions"},
		"no name":               {[]string{"--attach", h.socket(2)}, exitUsage, "give --name"},
	} {
		var stderr bytes.Buffer
		args := append([]string{"zfab", "node", "--directory", h.directory}, c.args...)
		if code := run(t.Context(), args, nil, io.Discard, &stderr); code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%s: exit code %d, want %d; says %q, want %q", name, code, c.code, stderr.String(), c.says)
		}
	}
}
