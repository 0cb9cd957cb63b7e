package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// killAfter is how long an interrupted process may take to end before it is killed.
const killAfter = 2 * time.Second

// process is a child whose standard output is read as lines. It is interrupted when its context ends, then killed; both
// go to this very process. Whoever starts one stops it, and stop returns when it is gone.
type process struct {
	argv   []string
	cancel context.CancelFunc
	lines  chan string   // what it wrote; closed when it has ended
	done   chan struct{} // closed when it has ended
	stderr tail
	err    error // how it ended; valid after done
}

// startProcess starts argv, on one CPU if cpu has one.
func startProcess(ctx context.Context, argv []string, cpu ...int) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{
		argv:   argv,
		cancel: cancel,
		lines:  make(chan string, 16), // a child writes two
		done:   make(chan struct{}),
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", procs))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = killAfter
	cmd.Stdout = &lineWriter{lines: p.lines}
	cmd.Stderr = &p.stderr
	start := cmd.Start
	if len(cpu) > 0 {
		start = func() error { return startOn(cmd, cpu[0]) }
	}
	if err := start(); err != nil {
		cancel()
		return nil, err
	}
	go p.wait(cmd)
	return p, nil
}

func (p *process) wait(cmd *exec.Cmd) {
	p.err = cmd.Wait()
	close(p.lines)
	close(p.done)
}

// line returns what follows prefix on the next line, or why there is none.
func (p *process) line(ctx context.Context, prefix string) (string, error) {
	select {
	case line, ok := <-p.lines:
		if !ok {
			return "", p.failure(fmt.Errorf("ended without %q: %v", prefix, p.err))
		}
		if !strings.HasPrefix(line, prefix) {
			return "", p.failure(fmt.Errorf("wrote %q, want a line that begins with %q", line, prefix))
		}
		return line, nil
	case <-ctx.Done():
		return "", p.failure(fmt.Errorf("waiting for %q: %w", prefix, context.Cause(ctx)))
	}
}

// failure adds to err which process it was and what that said.
func (p *process) failure(err error) error {
	if said := p.stderr.String(); said != "" {
		return fmt.Errorf("%s: %w; it said: %s", strings.Join(p.argv[1:], " "), err, said)
	}
	return fmt.Errorf("%s: %w", strings.Join(p.argv[1:], " "), err)
}

func (p *process) stop() {
	p.cancel()
	<-p.done
}

// lineWriter sends each whole line; a child that writes more lines than anybody reads loses them.
type lineWriter struct {
	lines   chan<- string
	partial []byte // at most maxLine bytes
}

const maxLine = 4 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		select {
		case w.lines <- string(append(w.partial, p[:i]...)):
		default:
		}
		w.partial, p = w.partial[:0], p[i+1:]
	}
	w.partial = append(w.partial, p[:min(len(p), maxLine-len(w.partial))]...)
	return n, nil
}

// tail keeps the last bytes written to it.
type tail struct {
	mu   sync.Mutex
	last []byte // at most maxTail bytes
}

const maxTail = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p[max(0, len(p)-maxTail):]...)
	t.last = t.last[max(0, len(t.last)-maxTail):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.last))
}
