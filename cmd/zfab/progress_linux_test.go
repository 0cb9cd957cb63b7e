package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where there is no terminal, progress is a line now and then.
func TestProgressInLines(t *testing.T) {
	var stderr bytes.Buffer
	c := &command{stderr: &stderr}
	p := c.newProgress("received", 200)
	p.set(1) // too early
	p.lastLog = time.Now().Add(-logInterval)
	p.set(50)
	p.set(60) // too early
	p.end()
	if got := stderr.String(); got != "zfab: received 50 of 200\n" {
		t.Errorf("told %q", got)
	}
}

// On a terminal it is a bar, which is gone at the end.
func TestProgressOnATerminal(t *testing.T) {
	master, terminal := openTerminal(t)
	c := &command{stderr: terminal}
	p := c.newProgress("received", 200)
	p.set(50)
	p.end()
	terminal.Close()
	shown := make([]byte, 1<<16)
	n, err := master.Read(shown)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(shown[:n]); !strings.Contains(got, "received") || !strings.Contains(got, "\r") || strings.Contains(got, "zfab: ") {
		t.Errorf("shown %q", got)
	}
}

// openTerminal is a terminal and its other end.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminal can be made: ", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skip("no terminal can be made: ", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminal can be made: ", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
