package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// endless is a run that nothing but a signal ends.
const endless = `zfab: v1
name: endless
nodes: {count: 3}
channels:
  scores: {pattern: exchange, producers: 1, consumers: 1}
load: {channel: scores, duration: 1h, size: 64B, rate: 10}
expect:
  - lost == 0
`

// startEndless starts it with a process per node and returns when all of those
// are linked.
func startEndless(t *testing.T) (parent *exec.Cmd, children []int, output *bytes.Buffer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "endless.yaml")
	if err := os.WriteFile(file, []byte(endless), 0o644); err != nil {
		t.Fatal(err)
	}
	output = new(bytes.Buffer)
	parent = exec.Command("zfab", "run", "--timeout", "2h", "--runner", "process", file)
	parent.Stdout, parent.Stderr = output, output
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Process.Kill(); parent.Wait() })
	await(t, "three children", func() bool {
		children = childrenOf(t, parent.Process.Pid)
		return len(children) == 3
	})
	for _, pid := range children {
		// A listener, a connection to the directory, a link to each other node.
		await(t, "links", func() bool { return sockets(t, pid) >= 4 })
	}
	return parent, children, output
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended meanwhile
		for _, field := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err != nil {
				t.Fatal(err)
			}
			all = append(all, child)
		}
	}
	return all
}

func sockets(t *testing.T, pid int) int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		if target, _ := os.Readlink(file); strings.HasPrefix(target, "socket:") {
			count++
		}
	}
	return count
}

// alive is false for a process that is gone, or only waits to be reaped.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(text, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func awaitGone(t *testing.T, children []int) {
	t.Helper()
	for _, pid := range children {
		await(t, fmt.Sprintf("the end of child %d", pid), func() bool { return !alive(pid) })
	}
}

func TestInterruptEndsTheRunAndItsChildren(t *testing.T) {
	parent, children, output := startEndless(t)
	if err := parent.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := parent.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("%v, want exit code %d", err, exitInterrupted)
	}
	if !strings.Contains(output.String(), "zfab: interrupted") {
		t.Errorf("it does not say so:\n%s", output)
	}
	for _, pid := range children {
		if alive(pid) {
			t.Errorf("child %d is there after its parent", pid)
		}
	}
}

func TestChildrenDoNotOutliveAParentThatIsKilled(t *testing.T) {
	parent, children, _ := startEndless(t)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait()
	awaitGone(t, children)
}

// A node whose process is killed is told, and does not hang the run.
func TestKilledNodeFailsTheRun(t *testing.T) {
	parent, children, output := startEndless(t)
	if err := syscall.Kill(children[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := parent.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("%v, want exit code %d\n%s", err, exitFailed, output)
	}
	if !strings.Contains(output.String(), "ended early: signal: killed") {
		t.Errorf("it does not say why:\n%s", output)
	}
	awaitGone(t, children)
}
