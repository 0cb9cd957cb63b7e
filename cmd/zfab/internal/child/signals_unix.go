//go:build unix

package child

import (
	"os"
	"os/exec"
	"syscall"
)

// detach keeps the signals that a terminal sends to its foreground from the
// child.
func detach(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func stop(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func proceed(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
