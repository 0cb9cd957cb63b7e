package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zfab/zfab/fabric/directory"
)

// command runs zfab and returns its exit code and what it said.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), zfab(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return code, out.String(), errs.String()
}

// client asks the members, of which some may be dead.
func (c *cluster) client(t *testing.T) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// variable is what differs between two directories that know the same.
var variable = regexp.MustCompile(`("?(incarnation|revision|epoch|lease_seconds|address|warming_seconds)"?: ?)[^,\n}]+|tcp://127[^ ,"]*|\b[0-9]{13}\b|[0-9.]+s\b`)

// `zfab dir` cannot tell one kind of directory from the other.
func TestCommands(t *testing.T) {
	c := newCluster(t)
	_, shared := c.directory(t, "--lease", "1m")
	_, other := c.directory(t)
	memory := "tcp://" + free(t)
	p := &program{name: "directory in memory", ready: memory, command: func() *exec.Cmd {
		return exec.Command(zfab(t), "directory", "--listen", memory, "--lease", "1m")
	}}
	killAtEnd(t, p)
	mustStart(t, p)
	for _, address := range []string{shared, memory} {
		d := dial(t, []string{address}, 0)
		for _, n := range []directory.NodeInfo{
			{Name: "n1", Endpoint: "tcp://h1:1", Zone: "eu", Host: "h1", Weight: 3}, {Name: "n2", Endpoint: "tcp://h2:1"},
		} {
			incarnation, err := d.Join(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Add(t.Context(), incarnation,
				directory.Member{Channel: "scores", Role: directory.Producer, Node: n.Name},
				directory.Member{Channel: "scores", Role: directory.Consumer, Node: n.Name, Index: 7}); err != nil {
				t.Fatal(err)
			}
		}
		gone := dial(t, []string{address}, 0)
		if _, err := gone.Join(t.Context(), directory.NodeInfo{Name: "gone", Endpoint: "tcp://h3:1"}); err != nil {
			t.Fatal(err)
		}
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		until(t, "an orphan", func() bool {
			e, err := d.Lookup(t.Context(), "gone")
			return err == nil && e.Orphan
		})
	}
	for _, format := range []string{"table", "json"} {
		for _, line := range []string{
			"check", "ls", "ls scores", "ls --channels", "ls nobody-knows", "get n1", "get nobody", "get --channel scores --role consumer",
			"get --channel scores --policy key --key k", "get --channel scores --role consumer --policy nearest --zone eu", "get --channel other",
			"watch --once", "watch --once scores", "rm n1", "rm nobody", "rm --incarnation 5 gone", "rm gone", "get gone", "ls",
		} {
			ask := func(address string) string {
				words := strings.Fields(line)
				args := append([]string{"dir", words[0], "--directory", address, "--format", format}, words[1:]...)
				code, stdout, stderr := command(t, args...)
				return variable.ReplaceAllString(fmt.Sprintf("%d\n%s\n%s", code, stdout, stderr), "$1*")
			}
			got, want := ask(shared), ask(memory)
			if squeeze(got) != squeeze(want) {
				t.Errorf("dir %s, %s: over etcd\n%s\nin memory\n%s", line, format, got, want)
			}
		}
	}
	if code, _, stderr := command(t, "directory", "--listen", "tcp://127.0.0.1:0", "--store", c.store(), "--lease", "1h"); code != 64 ||
		!strings.Contains(stderr, "share "+c.store()+" have one of 1m0s, all of them") {
		t.Errorf("another lease: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := command(t, "directory", "--listen", shared, "--store", c.store()); code != 69 ||
		!strings.Contains(stderr, "does another directory run there?") {
		t.Errorf("a second directory on the port: exit code %d, %s", code, stderr)
	}
	second := dial(t, []string{other}, 0)
	if _, err := second.Join(t.Context(), directory.NodeInfo{Name: "n1", Endpoint: "tcp://h9:1"}); !errors.Is(err, directory.ErrNameTaken) ||
		!strings.Contains(err.Error(), `name "n1" is taken by the live node at "tcp://h1:1"`) {
		t.Errorf("a name in use at another directory: %v", err)
	}
}

// squeeze makes columns of different width equal.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// What is no directory's in the store ends the directories, and is told.
func TestForeignEntries(t *testing.T) {
	c := newCluster(t)
	p, address := c.directory(t)
	client := c.client(t)
	if _, err := client.Put(t.Context(), "/zfabulous", "x"); err != nil {
		t.Fatal(err)
	}
	if err := answers(t.Context(), address); err != nil {
		t.Errorf("beside somebody else's keys: %v", err)
	}
	if _, err := client.Put(t.Context(), "/zfab/config", "x"); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	want := `zfab: directory: store: entry "config": unknown kind`
	if got := p.stderr.String(); !strings.Contains(got, want) || p.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v and said %s, want %s", p.cmd.ProcessState, got, want)
	}
	if code, _, stderr := command(t, "directory", "--listen", "tcp://127.0.0.1:0", "--store", c.store()); code != 1 || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if _, err := client.Delete(t.Context(), "/zfab/config"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), "/zfab/fabric", "\x93\x02\x01\xcd\x3a\x98"); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "directory", "--listen", "tcp://127.0.0.1:0", "--store", c.store()); code != 1 ||
		!strings.Contains(stderr, "is of version 2, and this directory reads and writes version 1") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	elsewhere := *c
	elsewhere.prefix = "/elsewhere"
	if _, address := elsewhere.directory(t); answers(t.Context(), address) != nil {
		t.Error("another fabric in the same cluster does not answer")
	}
}

// The cluster loses its majority: look-ups are answered from memory, marked so, all
// else fails at once and typed, and links go on. When it is back so is all.
func TestNoMajority(t *testing.T) {
	c := newCluster(t)
	var addresses []string
	for range 2 {
		_, address := c.directory(t)
		addresses = append(addresses, address)
	}
	x := startExchange(t, addresses)
	d := dial(t, addresses, 0)
	w, err := d.WatchNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if e, err := d.Lookup(t.Context(), "n1"); err != nil || e.Stale {
		t.Fatalf("%+v, %v", e, err)
	}
	c.members[0].kill()
	c.members[1].kill()
	until(t, "an answer from memory", func() bool {
		e, err := d.Lookup(t.Context(), "n1")
		return err == nil && e.Stale && e.Age > 0
	})
	began := time.Now()
	for range 20 {
		if _, err := d.Node(t.Context(), "n1"); !errors.Is(err, directory.ErrUnavailable) || !strings.Contains(err.Error(), c.store()) {
			t.Fatalf("the directory's word: %v", err)
		}
		if e, err := d.Lookup(t.Context(), "n1"); err != nil || !e.Stale {
			t.Fatalf("from memory: %+v, %v", e, err)
		}
	}
	t.Logf("20 refusals and 20 answers from memory took %v", time.Since(began))
	if code, stdout, stderr := command(t, "dir", "check", "--directory", strings.Join(addresses, ",")); code != 69 || stdout != "" ||
		!strings.Contains(stderr, "is unavailable") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	received := x.received.Load()
	until(t, "messages", func() bool { return x.received.Load() > received+500 })
	mustStart(t, c.members[0], c.members[1])
	until(t, "the directory's word", func() bool {
		e, err := d.Lookup(t.Context(), "n1")
		return err == nil && !e.Stale && !e.Orphan
	})
	x.finish(t)
}

// A member that hangs, its connections open, is passed by.
func TestMembersHang(t *testing.T) {
	c := newCluster(t)
	_, address := c.directory(t, "--verbose")
	d := dial(t, []string{address}, 0)
	incarnation, err := d.Join(t.Context(), directory.NodeInfo{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Watch(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	expect(t, w, "synced")
	stop := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	defer close(stop)
	for i := range 4 { // it is asked all the time
		asker := dial(t, []string{address}, i)
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = asker.Node(t.Context(), "n") // it may not know meanwhile
				}
			}
		})
	}
	for i, m := range c.members {
		if err := m.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		until(t, "a change", func() bool {
			return d.Add(t.Context(), incarnation, directory.Member{Channel: "c", Role: directory.Consumer, Node: "n", Index: i}) == nil
		})
		for told := ""; told != fmt.Sprintf("added c/n/%d", i); { // an attempt before may have been told, and taken back
			e, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			told = e.Kind.String() + " " + e.Member.String()
		}
		until(t, "the directory's word", func() bool {
			_, err := d.Node(t.Context(), "n")
			return err == nil
		})
		t.Logf("%s hangs: changed and told after %v", m.name, time.Since(began).Round(time.Millisecond))
		if err := m.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		c.leader(t)
	}
}

// A directory stands still while the cluster changes, is started anew and forgets
// what led to its state. It tells those who watch the difference, and no more.
func TestCompaction(t *testing.T) {
	c := newCluster(t)
	p, late := c.directory(t)
	_, address := c.directory(t)
	d, watching := dial(t, []string{address}, 0), dial(t, []string{late}, 0)
	incarnation, err := d.Join(t.Context(), directory.NodeInfo{Name: "n", Endpoint: "tcp://h:1"})
	if err != nil {
		t.Fatal(err)
	}
	member := func(i int) directory.Member {
		return directory.Member{Channel: "c", Role: directory.Consumer, Node: "n", Index: i}
	}
	if err := d.Add(t.Context(), incarnation, member(0), member(1)); err != nil {
		t.Fatal(err)
	}
	w, err := watching.Watch(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	expect(t, w, "added c/n/0", "added c/n/1", "synced")

	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members {
		m.kill()
	}
	mustStart(t, c.members...)
	until(t, "a change", func() bool { return d.Remove(t.Context(), incarnation, member(0)) == nil })
	for range 50 {
		until(t, "a change", func() bool { return d.Add(t.Context(), incarnation, member(2)) == nil })
		until(t, "a change", func() bool { return d.Remove(t.Context(), incarnation, member(2)) == nil })
	}
	if err := d.Add(t.Context(), incarnation, member(3)); err != nil {
		t.Fatal(err)
	}
	client := c.client(t)
	r, err := client.Get(t.Context(), "/zfab/fabric")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "removed c/n/0", "added c/n/3")
	if err := d.Add(t.Context(), incarnation, member(4)); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "added c/n/4")
	p.kill()
	if want := "the store has forgotten what this directory has not heard"; !strings.Contains(p.stderr.String(), want) {
		t.Errorf("it said %s, want %s", p.stderr.String(), want)
	}
}

func expect(t *testing.T, w directory.Watcher, want ...string) {
	t.Helper()
	for _, text := range want {
		e, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		told := e.Kind.String()
		if e.Kind != directory.Synced {
			told += " " + e.Member.String()
		}
		if told != text {
			t.Fatalf("told %s, want %s", told, text)
		}
	}
}
