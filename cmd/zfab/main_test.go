package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric/directory"
)

func TestExitCodes(t *testing.T) {
	interrupted, interrupt := context.WithCancel(context.Background())
	interrupt()
	_, bad := topology.Parse("bad.yaml", nil)
	for name, c := range map[string]struct {
		ctx  context.Context
		err  error
		code int
		says string
	}{
		"passed":         {context.Background(), nil, 0, ""},
		"failed":         {context.Background(), errFailed, 1, ""},
		"inconclusive":   {context.Background(), errInconclusive, 2, ""},
		"usage":          {context.Background(), usagef("what"), 64, "zfab: what\n"},
		"bad topology":   {context.Background(), fileError{bad}, 65, "bad.yaml: the file is empty"},
		"no such file":   {context.Background(), fileError{fmt.Errorf("no such file")}, 65, "zfab: no such file\n"},
		"unreachable":    {context.Background(), fmt.Errorf("join: %w", directory.ErrUnavailable), 69, "zfab: join: "},
		"interrupted":    {interrupted, context.Canceled, 130, "zfab: interrupted\n"},
		"any other":      {context.Background(), fmt.Errorf("broken"), 1, "zfab: broken\n"},
		"ended unharmed": {interrupted, nil, 0, ""},
	} {
		var stderr bytes.Buffer
		command := &command{stdout: &outlet{}, stderr: &stderr}
		if code := command.exit(c.ctx, c.err); code != c.code {
			t.Errorf("%s: exit code %d, want %d", name, code, c.code)
		}
		if got := stderr.String(); !strings.Contains(got, c.says) || (c.says == "") != (got == "") {
			t.Errorf("%s: says %q, want %q", name, got, c.says)
		}
	}
}

// The end of the context is the interrupt of a run in this process, too.
func TestInterruptInProcess(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	interrupt()
	var stdout, stderr bytes.Buffer
	file := filepath.Join("..", "..", "testdata", "topologies", "exchange.yaml")
	if code := run(ctx, []string{"zfab", "run", file}, strings.NewReader(""), &stdout, &stderr); code != exitInterrupted {
		t.Errorf("exit code %d, want %d\n%s", code, exitInterrupted, &stderr)
	}
	if stdout.Len() > 0 {
		t.Errorf("there is an answer:\n%s", &stdout)
	}
}
