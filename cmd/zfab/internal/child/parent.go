// Package child starts processes of this program and talks to them in lines of
// JSON: orders one way over the child's standard input, answers the other way
// over its standard output. A process that somebody else has started, on another
// host perhaps, dials instead, and speaks the same over that connection.
//
// A child lives as long as its input: when that ends, its context does, and it
// exits whatever it was at. So no child outlives its parent, however that
// ended. It does not get the terminal's signals; its parent ends it.
package child

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"
)

// A Process is a child as its parent sees it: one that it has started, or one that
// somebody else has, and that has dialled (member.go). One goroutine at a time may
// call Hear; any may call the other methods.
type Process struct {
	name    string
	command *exec.Cmd // nil of one that has dialled
	out     *json.Decoder

	mu sync.Mutex // over in
	in io.WriteCloser

	pausing sync.Mutex // over pauses and the signals
	pauses  int

	wait func() error // once; the child has ended then, or its connection

	ended chan struct{} // of one that has dialled: closed by over
	over  func()        // Hear has seen the end
}

// Start starts command as the child name. stderr takes what it writes there.
func Start(name string, command []string, stderr io.Writer) (*Process, error) {
	if len(command) == 0 {
		return nil, fmt.Errorf("no command to start %s with", name)
	}
	p := &Process{name: name, command: exec.Command(command[0], command[1:]...), over: func() {}}
	p.command.Stderr = stderr
	detach(p.command)
	in, err := p.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, json.NewDecoder(bufio.NewReader(out))
	p.wait = sync.OnceValue(p.command.Wait)
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("starting the process of %s: %w", name, err)
	}
	return p, nil
}

// Name is the child's.
func (p *Process) Name() string { return p.name }

// PID is the operating system's number of the process; 0 of one that has dialled.
func (p *Process) PID() int {
	if p.command == nil {
		return 0
	}
	return p.command.Process.Pid
}

// Tell gives the child an order. It waits while the child does not read.
func (p *Process) Tell(order any) error {
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.in.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// Hear waits for the child's next answer. An *EndedError says that there will
// be none, since the process ended.
func (p *Process) Hear(answer any) error {
	err := p.out.Decode(answer)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.over()
	p.wait()
	state := "its connection has ended"
	if p.command != nil {
		state = p.command.ProcessState.String()
	}
	return &EndedError{Name: p.name, State: state}
}

// An EndedError is the end of a process that was to answer.
type EndedError struct{ Name, State string }

func (e *EndedError) Error() string {
	return fmt.Sprintf("the process of %s ended early: %s", e.Name, e.State)
}

// exitGrace is how long a child has to exit after its input ended.
const exitGrace = 5 * time.Second

// Close ends the child's input, which ends the child, and waits for it. One
// that does not go in time is killed by its id, or its connection closed. A Hear
// under way ends; one that has dialled is heard to its end by Hear alone.
func (p *Process) Close() error {
	p.in.Close()
	if p.command == nil {
		kill := time.NewTimer(exitGrace)
		defer kill.Stop()
		select {
		case <-p.ended:
		case <-kill.C:
		}
		return p.wait()
	}
	kill := time.AfterFunc(exitGrace, func() { p.command.Process.Kill() })
	defer kill.Stop()
	return p.wait()
}

// Pause stops the process until resume is called. Pauses of one process add up:
// it goes on with the last resume.
func (p *Process) Pause() (resume func(), err error) {
	if p.command == nil {
		return nil, fmt.Errorf("pausing %s: %w", p.name, errors.ErrUnsupported)
	}
	p.pausing.Lock()
	defer p.pausing.Unlock()
	if p.pauses == 0 {
		if err := stop(p.command.Process); err != nil {
			return nil, fmt.Errorf("pausing %s: %w", p.name, err)
		}
	}
	p.pauses++
	return sync.OnceFunc(p.resume), nil
}

func (p *Process) resume() {
	p.pausing.Lock()
	defer p.pausing.Unlock()
	if p.pauses--; p.pauses == 0 {
		proceed(p.command.Process) // one that is gone needs it no more
	}
}

// Kill ends the process at once, as SIGKILL does.
func (p *Process) Kill() error {
	if p.command == nil {
		return fmt.Errorf("killing %s: %w", p.name, errors.ErrUnsupported)
	}
	return p.command.Process.Kill()
}
