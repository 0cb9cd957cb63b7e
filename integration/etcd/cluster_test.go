package etcd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// program is a process that can be killed, and started anew with the same
// arguments.
type program struct {
	name    string
	command func() *exec.Cmd
	ready   string // how the line begins that it says once it is ready

	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer // of all its lives; read when none runs
	ended  chan struct{}
}

// start starts it, and waits until it is ready. It ends with the test, whatever
// becomes of that.
func (p *program) start() error {
	p.cmd = p.command()
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	p.stdin, p.ended = stdin, make(chan struct{})
	said := make(chan string, 1)
	go func(cmd *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		line := make([]byte, 200)
		n, _ := stdout.Read(line)
		said <- string(line[:n])
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait() // it was killed
	}(p.cmd, p.ended)
	select {
	case line := <-said:
		if !strings.HasPrefix(line, p.ready) {
			p.kill()
			return fmt.Errorf("%s said %q, and wrote:\n%s", p.name, line, p.stderr.String())
		}
		return nil
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s is not ready in %v, and wrote:\n%s", p.name, patience, p.stderr.String())
	}
}

// kill ends it as a power cut would.
func (p *program) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	p.stdin.Close()
	p.cmd = nil
}

// mustStart starts programs, all at once, as some are ready only together.
func mustStart(t testing.TB, programs ...*program) {
	t.Helper()
	started := make(chan error, len(programs))
	for _, p := range programs {
		go func() { started <- p.start() }()
	}
	for range programs {
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// killAtEnd has a program killed with the test.
func killAtEnd(t testing.TB, p *program) {
	t.Cleanup(func() {
		p.kill()
		if strings.Contains(p.stderr.String(), "DATA RACE") { // with GOFLAGS=-race
			t.Errorf("%s has a data race", p.name)
		}
		if t.Failed() {
			wrote := p.stderr.String()
			t.Logf("%s wrote, in the end:\n%s", p.name, wrote[max(0, len(wrote)-4096):])
		}
	})
}

// free is an address on loopback that nobody listens at now.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// cluster is three members.
type cluster struct {
	endpoints []string // host:port
	prefix    string   // of what the directories put there; "": the default
	members   []*program
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{}
	var peers, all []string
	for i := range 3 {
		c.endpoints = append(c.endpoints, free(t))
		peers = append(peers, "http://"+free(t))
		all = append(all, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range 3 {
		dir, name := t.TempDir(), fmt.Sprintf("m%d", i)
		c.members = append(c.members, &program{name: name, ready: "ready", command: func() *exec.Cmd {
			cmd := exec.Command(os.Args[0], name, dir, "http://"+c.endpoints[i], peers[i], strings.Join(all, ","))
			cmd.Env = append(os.Environ(), memberVariable+"=1")
			return cmd
		}})
		killAtEnd(t, c.members[i])
	}
	mustStart(t, c.members...)
	return c
}

// store is the cluster as `zfab directory` is told of it.
func (c *cluster) store() string { return "etcd://" + strings.Join(c.endpoints, ",") + c.prefix }

// leader waits until all members that are up agree on a leader, and returns its
// place.
func (c *cluster) leader(t testing.TB) int {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		leaders, ids := map[uint64]bool{}, make([]uint64, len(c.members))
		for i, m := range c.members {
			if m.cmd == nil {
				continue
			}
			id, leader, err := status(t.Context(), c.endpoints[i])
			if err != nil {
				leader = 0
			}
			ids[i], leaders[leader] = id, true
		}
		for leader := range leaders {
			if i := slices.Index(ids, leader); len(leaders) == 1 && leader != 0 && i >= 0 {
				return i
			}
		}
	}
	t.Fatalf("no leader in %v", patience)
	return 0
}

func status(ctx context.Context, endpoint string) (id, leader uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	r, err := client.Status(ctx, endpoint)
	if err != nil {
		return 0, 0, err
	}
	return r.Header.MemberId, r.Leader, nil
}

// directory runs a directory that shares the cluster's store, at a tcp address.
func (c *cluster) directory(t testing.TB, flags ...string) (p *program, address string) {
	t.Helper()
	binary := zfab(t)
	address = "tcp://" + free(t)
	p = &program{name: "directory at " + address, ready: address, command: func() *exec.Cmd {
		args := append([]string{"directory", "--listen", address, "--store", c.store()}, flags...)
		return exec.Command(binary, args...)
	}}
	killAtEnd(t, p)
	mustStart(t, p)
	return p, address
}
