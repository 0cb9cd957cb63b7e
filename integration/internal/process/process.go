// Package process runs a program for a test and talks with it in lines: what
// happens, on its standard output, and what it is to do, on its standard input. A
// line that begins with "fault" fails the test. The program must end when its
// input does.
package process

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// killAfter is how long a program may go on after its input has ended.
const killAfter = 5 * time.Second

// Process is a program that runs. It ends with the test.
type Process struct {
	Name string

	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer // read when the program has ended

	mu    sync.Mutex
	lines []line
	grown chan struct{} // closed when one more line is there, or none will come
	ended bool
}

type line struct {
	at   time.Time
	text string
}

// Start starts a program. If the test fails, its log has what the program wrote
// to its standard error.
func Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Name: name, cmd: cmd, grown: make(chan struct{})}
	cmd.Stderr = &p.stderr
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { p.read(stdout) })
	t.Cleanup(func() {
		p.stdin.Close()
		timer := time.AfterFunc(killAfter, func() { cmd.Process.Kill() })
		reading.Wait()
		err := cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s ended with %v, and wrote:\n%s", name, err, p.stderr.String())
		}
	})
	return p
}

func (p *Process) read(stdout io.Reader) {
	for in := bufio.NewScanner(stdout); in.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, line{time.Now(), in.Text()})
		close(p.grown)
		p.grown = make(chan struct{})
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.ended = true
	close(p.grown)
	p.mu.Unlock()
}

// Await waits for a line that begins with word and does not come before after,
// and returns when it came and the rest of it.
func (p *Process) Await(t testing.TB, word string, after time.Time, patience time.Duration) (at time.Time, rest string) {
	t.Helper()
	timeout := time.After(patience)
	for n := 0; ; {
		p.mu.Lock()
		lines, grown, ended := p.lines[n:], p.grown, p.ended
		p.mu.Unlock()
		n += len(lines)
		for _, l := range lines {
			first, rest, _ := strings.Cut(l.text, " ")
			switch {
			case first == "fault":
				t.Fatalf("%s: %s", p.Name, rest)
			case first == word && !l.at.Before(after):
				return l.at, rest
			}
		}
		if ended {
			t.Fatalf("%s has ended without saying %q", p.Name, word)
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("%s has not said %q in %v", p.Name, word, patience)
		}
	}
}

// All is what follows word on all lines so far that begin with it.
func (p *Process) All(word string) (rest []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if first, more, _ := strings.Cut(l.text, " "); first == word {
			rest = append(rest, more)
		}
	}
	return rest
}

// Tell writes a line to the program.
func (p *Process) Tell(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, text+"\n"); err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
}
