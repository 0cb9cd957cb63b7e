//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// killWithChildren has the end of a command's context end also what the command has
// started: they are a process group of their own. A terminal's interrupt does not
// reach that; its command decides then.
func killWithChildren(x *exec.Cmd) {
	x.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	x.Cancel = func() error {
		err := syscall.Kill(-x.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
}
