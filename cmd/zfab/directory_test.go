package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/zfab/zfab/fabric/directory"
)

const patience = 20 * time.Second

// registered are the clients of all scripts, by script and node.
var registered sync.Map

// register joins a node to the directory at ZFAB_DIRECTORY, for as long as the script runs:
//
//	register n1 zone=eu host=h1 weight=3 load=7 scores/consumer/0 ...
func register(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: register node [zone=z] [host=h] [weight=n] [load=n] [channel/role/index...]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info := directory.NodeInfo{Name: args[0], Endpoint: "tcp://" + args[0] + ":1"}
	var load uint64
	var members []directory.Member
	for _, a := range args[1:] {
		var err error
		key, value, _ := strings.Cut(a, "=")
		var number uint64
		switch key {
		case "zone":
			info.Zone = value
		case "host":
			info.Host = value
		case "weight":
			number, err = strconv.ParseUint(value, 10, 32)
			info.Weight = uint32(number)
		case "load":
			load, err = strconv.ParseUint(value, 10, 32)
		default:
			parts := strings.Split(a, "/")
			m := directory.Member{Channel: parts[0], Role: directory.Consumer, Node: info.Name}
			if parts[1] == "producer" {
				m.Role = directory.Producer
			}
			m.Index, err = strconv.Atoi(parts[2])
			members = append(members, m)
		}
		ts.Check(err)
	}
	c, err := directory.Dial(ctx, ts.Getenv("ZFAB_DIRECTORY"), directory.Options{
		Heartbeat: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	ts.Check(err)
	ts.Defer(func() { c.Close() })
	registered.Store(ts.Getenv("WORK")+" "+info.Name, c)
	incarnation, err := c.Join(ctx, info)
	ts.Check(err)
	ts.Check(c.Add(ctx, incarnation, members...))
	ts.Check(c.Report(ctx, info.Name, incarnation, uint32(load)))
}

// abandon ends the connection of a registered node, as if its process had been killed.
func abandon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: abandon node")
	}
	c, there := registered.LoadAndDelete(ts.Getenv("WORK") + " " + args[0])
	if !there {
		ts.Fatalf("node %s is not registered by this script", args[0])
	}
	c.(*directory.Client).Close()
}

// eventually repeats a command until it ends with an exit code and its output matches:
//
//	eventually 0 'n1.*orphan' zfab dir ls
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: eventually code pattern command [argument...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for began := time.Now(); ; {
		got := 0
		if err := ts.Exec(args[2], args[3:]...); err != nil {
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				ts.Fatalf("%s: %v", args[2], err)
			}
			got = exit.ExitCode()
		}
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if got == want && pattern.MatchString(out) {
			return
		}
		if time.Since(began) > patience {
			ts.Fatalf("exit code %d, want %d; output, to match %s:\n%s", got, want, pattern, out)
		}
	}
}

// truncate cuts a file: truncate file bytes.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: truncate file bytes")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// A watch tells what changes as it changes, and its end by an interrupt is no failure.
func TestDirWatchTellsChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	registry := directory.NewRegistry()
	defer registry.Close()
	server, err := directory.Serve(ctx, registry, "tcp://127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	incarnation, err := registry.Join(ctx, directory.NodeInfo{Name: "n1", Endpoint: "tcp://h:1"})
	if err != nil {
		t.Fatal(err)
	}
	watching, interrupt := context.WithCancel(ctx)
	defer interrupt()
	lines, stdout := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(watching, []string{"zfab", "dir", "watch", "--directory", server.Addr(), "scores"}, nil, stdout, os.Stderr)
		stdout.Close()
	}()
	told := bufio.NewScanner(lines)
	expect := func(want string) {
		t.Helper()
		if !told.Scan() || told.Text() != want {
			t.Fatalf("told %q, want %q", told.Text(), want)
		}
	}
	expect("synced")
	member := directory.Member{Channel: "scores", Role: directory.Consumer, Node: "n1", Index: 2}
	if err := registry.Add(ctx, incarnation, member); err != nil {
		t.Fatal(err)
	}
	expect("added consumer scores/n1/2 tcp://h:1")
	if err := registry.Leave(ctx, "n1", incarnation); err != nil {
		t.Fatal(err)
	}
	expect("removed consumer scores/n1/2 tcp://h:1")
	interrupt()
	if told.Scan() {
		t.Errorf("told %q at the end", told.Text())
	}
	if code := <-ended; code != exitPassed {
		t.Errorf("exit code %d", code)
	}
}

// The directory's end by an interrupt is no failure either, and it says its address once it is ready.
func TestDirectorySaysWhereItIs(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	lines, stdout := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"zfab", "directory", "--listen", "tcp://127.0.0.1:0"}, nil, stdout, os.Stderr)
		stdout.Close()
	}()
	told := bufio.NewScanner(lines)
	if !told.Scan() {
		t.Fatal("nothing was said")
	}
	c, err := directory.Dial(ctx, told.Text(), directory.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("at %q: %v", told.Text(), err)
	}
	c.Close()
	interrupt()
	if told.Scan() {
		t.Errorf("said %q at the end", told.Text())
	}
	if code := <-ended; code != exitPassed {
		t.Errorf("exit code %d", code)
	}
}
