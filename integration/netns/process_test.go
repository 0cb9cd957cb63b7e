package netns

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// process is a member of the fabric that runs in a namespace. It tells what
// happens in lines, and does what it is told in lines.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer // read when the process has ended

	mu    sync.Mutex
	lines []line
	grown chan struct{} // closed when a line more is there, or none will come
	ended bool
}

type line struct {
	at   time.Time
	text string
}

// start runs this test's program once more as a member (member_test.go).
func (n *network) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, grown: make(chan struct{})}
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", n.namespace(name), self}, args...)...)
	p.cmd.Env = append(os.Environ(), memberVariable+"=1")
	p.cmd.Stderr = &p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { p.read(stdout) })
	t.Cleanup(func() {
		p.stdin.Close()
		timer := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
		reading.Wait()
		err := p.cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s ended with %v, and wrote:\n%s", name, err, p.stderr.String())
		}
	})
	return p
}

func (p *process) read(stdout io.Reader) {
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

// await waits for a line that begins with word and comes after a moment, and
// returns when it came and the rest of it.
func (p *process) await(t *testing.T, word string, after time.Time, patience time.Duration) (at time.Time, rest string) {
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
				t.Fatalf("%s: %s", p.name, rest)
			case first == word && !l.at.Before(after):
				return l.at, rest
			}
		}
		if ended {
			t.Fatalf("%s has ended without saying %q", p.name, word)
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("%s has not said %q in %v", p.name, word, patience)
		}
	}
}

func (p *process) tell(t *testing.T, word string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, word+"\n"); err != nil {
		t.Fatal(err)
	}
}

// all is what all lines that begin with word say.
func (p *process) all(word string) (rest []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if first, more, _ := strings.Cut(l.text, " "); first == word {
			rest = append(rest, more)
		}
	}
	return rest
}
