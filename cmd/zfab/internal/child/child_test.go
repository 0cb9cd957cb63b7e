package child

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The children of these tests are this binary with an argument that says what
// to do. One that is left behind ends with its input.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "child-") {
		os.Exit(act(os.Args[1]))
	}
	goleak.VerifyTestMain(m)
}

func act(part string) int {
	ctx, orders := Orders[string](context.Background(), os.Stdin)
	out := json.NewEncoder(os.Stdout)
	fmt.Fprintln(os.Stderr, "began")
	switch part {
	case "child-echo": // says what it is told, until its input ends
		for {
			order, err := Next(ctx, orders)
			if err != nil {
				out.Encode("end: " + err.Error())
				return 0
			}
			out.Encode(order)
		}
	case "child-busy": // does not look at anything
		select {}
	case "child-babble":
		fmt.Println("{babble")
		<-ctx.Done()
	case "child-fail":
		return 3
	}
	return 0
}

func begin(t *testing.T, part string) (p *Process, stderr *bytes.Buffer) {
	t.Helper()
	stderr = new(bytes.Buffer)
	p, err := Start("test", []string{os.Args[0], "child-" + part}, stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, stderr
}

// patience bounds what a test waits for.
const patience = 20 * time.Second

func TestOrdersAndAnswers(t *testing.T) {
	p, stderr := begin(t, "echo")
	if p.Name() != "test" || p.PID() <= 0 || p.PID() == os.Getpid() {
		t.Errorf("%s has the number %d", p.Name(), p.PID())
	}
	for i := range 100 { // more than may wait unread
		want := fmt.Sprint("order ", i)
		if err := p.Tell(want); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := p.Hear(&got); err != nil || got != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	heard := make(chan error, 1)
	go func() {
		var last string
		if err := p.Hear(&last); err != nil || last != "end: context canceled" {
			heard <- fmt.Errorf("%q, %w", last, err)
			return
		}
		heard <- p.Hear(&last)
	}()
	if err := p.Close(); err != nil {
		t.Errorf("a child that ends by itself: %v", err)
	}
	var ended *EndedError
	if err := <-heard; !errors.As(err, &ended) || ended.State != "exit status 0" {
		t.Errorf("%v behind the last answer", err)
	}
	if err := p.Tell("late"); err == nil || !strings.HasPrefix(err.Error(), "test: ") {
		t.Errorf("an order to one that is gone: %v", err)
	}
	if stderr.String() != "began\n" {
		t.Errorf("stderr has %q", stderr)
	}
}

func TestTheEndOfAProcessIsTold(t *testing.T) {
	p, _ := begin(t, "fail")
	var ended *EndedError
	if err := p.Hear(new(string)); !errors.As(err, &ended) || err.Error() != "the process of test ended early: exit status 3" {
		t.Errorf("%v", err)
	}
	if _, err := p.Pause(); err == nil {
		t.Error("a process that has ended was paused")
	}
}

func TestBabbleIsNoEnd(t *testing.T) {
	p, _ := begin(t, "babble")
	var syntax *json.SyntaxError
	if err := p.Hear(new(string)); !errors.As(err, &syntax) {
		t.Errorf("%v", err)
	}
}

// A child ends with its input, also if it does not look at it: within closeGrace.
func TestNoChildOutlivesItsInput(t *testing.T) {
	p, _ := begin(t, "busy")
	start := time.Now()
	err := p.Close()
	if took := time.Since(start); err == nil || err.Error() != "exit status 1" || took < closeGrace || took > patience {
		t.Errorf("%v after %s", err, took)
	}
}

func TestKill(t *testing.T) {
	p, _ := begin(t, "busy")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	var ended *EndedError
	if err := p.Hear(new(string)); !errors.As(err, &ended) || ended.State != "signal: killed" {
		t.Errorf("%v", err)
	}
}

// A paused child answers when the last of its pauses has ended, and not before.
func TestPausesAddUp(t *testing.T) {
	p, _ := begin(t, "echo")
	one, err := p.Pause()
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.Pause()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Tell("hello"); err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() { heard <- p.Hear(new(string)) }()
	one()
	one() // again: nothing
	select {
	case err := <-heard:
		t.Fatalf("it answered in a pause: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	two()
	select {
	case err := <-heard:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it did not go on")
	}
}

func TestStartWithoutACommand(t *testing.T) {
	if _, err := Start("n1", nil, nil); err == nil || !strings.Contains(err.Error(), "n1") {
		t.Errorf("%v", err)
	}
	if _, err := Start("n1", []string{"/no/such/program"}, nil); err == nil || !strings.Contains(err.Error(), "starting the process of n1") {
		t.Errorf("%v", err)
	}
}

// The orders end with the context that the child gave, too.
func TestNextEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if order, err := Next(ctx, make(chan string)); err != context.Canceled || order != "" {
		t.Errorf("%q, %v", order, err)
	}
}
