// Command zfab runs, checks and measures exchanges over the fabric.
//
//	zfab run FILE          runs a topology and judges its expectations
//	zfab validate FILE...  checks topology files
//	zfab bench             measures throughput and round trips between two processes
//	zfab wordcount PATH... counts the words of real files over the fabric
//	zfab directory         runs a directory, where nodes find each other
//	zfab dir ls|get|...    asks one
//	zfab pub, zfab sub     publish lines, and write what is published
//	zfab survey            asks all respondents, lines too, and says who has not answered
//
// Answers go to the standard output and everything else to the standard error.
// exit.go lists the exit codes.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the work in order; with the default handling back,
	// a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	// With SIGPIPE caught a write to a pipe that nobody reads any more is an error, and
	// does not end the process before its node has left. What --exec runs has it as ever.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit code. The end of ctx is
// an interrupt.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && completesAfterTerminator(args) {
		return exitPassed
	}
	c := &command{args: args, stdin: stdin, stdout: &outlet{w: stdout}, stderr: stderr}
	err := c.app().RunContext(ctx, args)
	return c.exit(ctx, err)
}
