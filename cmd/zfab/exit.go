package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/zfab/zfab/cmd/zfab/internal/compose"
	"github.com/zfab/zfab/cmd/zfab/internal/lines"
	"github.com/zfab/zfab/cmd/zfab/internal/runner"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric/directory"
)

// Exit codes. Those from 64 are sysexits.h's, 130 and 141 are the shell's for SIGINT and SIGPIPE.
const (
	exitPassed       = 0
	exitFailed       = 1 // an expectation failed, or the work did
	exitInconclusive = 2 // too little was measured to say
	exitUsage        = 64
	exitBadFile      = 65 // a topology or input file is wrong or cannot be read
	exitUnreachable  = 69 // the directory or a peer is not there, or an address cannot be served at
	exitInterrupted  = 130
	exitUnwanted     = 141 // who read the answers has gone
)

// errFailed and errInconclusive end a command whose report says why already.
var (
	errFailed       = errors.New("an expectation failed")
	errInconclusive = errors.New("inconclusive")
)

// A usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// A fileError is an input that is wrong or cannot be read.
type fileError struct{ error }

func (e fileError) Unwrap() error { return e.error }

// exit tells err, unless the report on stdout has told it, and turns it into
// the exit code.
func (c *command) exit(ctx context.Context, err error) int {
	var usage usageError
	var file fileError
	var line *lines.LineError
	var listening listenError
	var control *runner.ControlError
	var containers *compose.UnavailableError
	var bad *topology.Error
	switch {
	case err == nil:
		return exitPassed
	case ctx.Err() != nil:
		fmt.Fprintln(c.stderr, "zfab: interrupted")
		return exitInterrupted
	case c.stdout.unwanted.Load():
		return exitUnwanted
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.Is(err, errInconclusive):
		return exitInconclusive
	case errors.As(err, &usage):
		fmt.Fprintf(c.stderr, "zfab: %v\n", err)
		return exitUsage
	case errors.As(err, &bad):
		fmt.Fprintln(c.stderr, err) // each problem begins with its file and line
		return exitBadFile
	}
	fmt.Fprintf(c.stderr, "zfab: %v\n", err)
	switch {
	case errors.As(err, &file), errors.As(err, &line):
		return exitBadFile
	case errors.Is(err, directory.ErrUnavailable), errors.As(err, &listening), errors.As(err, &control), errors.As(err, &containers):
		return exitUnreachable
	case errors.Is(err, directory.ErrWarming):
		return exitInconclusive
	}
	return exitFailed
}
