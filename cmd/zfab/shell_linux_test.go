package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Of a command that is ended nothing goes on.
func TestACommandEndsWithWhatItHasStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := shell(ctx, `sleep 600 & echo $! > "$FILE.new"; mv "$FILE.new" "$FILE"; wait`, nil, "FILE="+file)
		ended <- err
	}()
	var pid int
	await(t, "the command", func() bool {
		text, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid > 0
	})
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	cancel()
	var failed *shellError
	if err := <-ended; !errors.As(err, &failed) {
		t.Errorf("%v", err)
	}
	await(t, "the end of what it has started", func() bool { return !alive(pid) })
}
