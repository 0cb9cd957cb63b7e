package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// buildTime bounds the compilation of one peer.
const buildTime = 3 * time.Minute

//go:embed c/libzmq.c
var libzmqSource []byte

// skip is a peer that cannot run here.
type skip struct {
	Peer   string `json:"peer"`
	Reason string `json:"reason"`
}

// findPeers makes ready those that were asked for. What it compiles is in a temporary directory until cleanup.
func findPeers(ctx context.Context, opt options) (found []peer, skipped []skip, cleanup func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, nil, err
	}
	dir, err := os.MkdirTemp("", "zfab-peers-")
	if err != nil {
		return nil, nil, nil, err
	}
	cleanup = func() { os.RemoveAll(dir) }
	for _, name := range opt.peers {
		p, err := findPeer(ctx, name, self, dir, opt)
		if ctx.Err() != nil {
			cleanup()
			return nil, nil, nil, ctx.Err()
		}
		if err != nil {
			skipped = append(skipped, skip{name, err.Error()})
			continue
		}
		found = append(found, p)
	}
	return found, skipped, cleanup, nil
}

func findPeer(ctx context.Context, name, self, dir string, opt options) (peer, error) {
	switch name {
	case "zfab":
		if _, err := os.Stat(opt.zfabPath); err != nil {
			return nil, fmt.Errorf("%w; build it in the repository's root or name it with -zfab", err)
		}
		return &zfab{path: opt.zfabPath}, nil
	case "libzmq":
		program, err := buildLibzmq(ctx, dir)
		if err != nil {
			return nil, err
		}
		return &pair{label: name, command: []string{program}, pings: true}, nil
	case "pebbe":
		program := filepath.Join(dir, name)
		err := build(ctx, "go", "build", "-tags", "libzmq", "-o", program, "github.com/zfab/zfab/integration/peers/pebbe")
		if err != nil {
			return nil, err
		}
		return &pair{label: name, command: []string{program}}, nil
	}
	roles := goPeers[name]
	return &pair{
		label:   name,
		command: []string{self, childCommand, name},
		server:  roles.Serve != nil,
		pings:   roles.Ping != nil,
		single:  roles.Produce == nil,
	}, nil
}

// buildLibzmq compiles the C peer with CC, else cc, where pkg-config says that libzmq is, else where it usually is.
func buildLibzmq(ctx context.Context, dir string) (string, error) {
	source := filepath.Join(dir, "libzmq.c")
	if err := os.WriteFile(source, libzmqSource, 0o600); err != nil {
		return "", err
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	where := []string{"-lzmq"}
	if out, err := exec.CommandContext(ctx, "pkg-config", "--cflags", "--libs", "libzmq").Output(); err == nil {
		where = strings.Fields(string(out))
	}
	program := filepath.Join(dir, "libzmq")
	args := append([]string{"-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", program, source}, where...)
	return program, build(ctx, cc, args...)
}

// build runs a compiler; the error is the line in which it says what is wrong.
func build(ctx context.Context, compiler string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, compiler, args...)
	cmd.WaitDelay = killAfter
	out, err := cmd.CombinedOutput()
	switch complaint := firstComplaint(string(out)); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", compiler, context.Cause(ctx))
	case complaint == "":
		return fmt.Errorf("%s: %w", compiler, err)
	default:
		return fmt.Errorf("%s: %s", compiler, complaint)
	}
}

// firstComplaint is the first line with a C compiler's error; if there is none, the first that is not a heading of go
// build.
func firstComplaint(output string) string {
	first := ""
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "error: ") {
			return line
		}
		if first == "" && !strings.HasPrefix(line, "#") {
			first = line
		}
	}
	return first
}
